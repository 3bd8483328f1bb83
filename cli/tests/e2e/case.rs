//! A test, and the comparison of two runs.

use crate::process::{self, Ran, Spec};
use crate::report;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// One test of the list.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    /// Programs that must be installed.
    pub(crate) needs: &'static [&'static str],
    /// Only with `--all`, or by name.
    pub(crate) long: bool,
    pub(crate) kind: Kind,
}

/// What a test does.
pub(crate) enum Kind {
    /// The program behaves the same natively and under vellum.
    Same(Program),
    /// Anything else: the function gets a directory of its own.
    Check(fn(&Path) -> Result<(), String>),
}

/// A program to be run twice.
pub(crate) struct Program {
    pub(crate) argv: Vec<OsString>,
    pub(crate) ram: &'static str,
    /// More options of `vellum run`, split at blanks.
    pub(crate) options: &'static str,
    pub(crate) timeout: Duration,
    /// Standard error may differ: some programs print times or addresses there.
    pub(crate) any_stderr: bool,
    /// Run natively by the shell before each run, in the directory of the run.
    pub(crate) prepare: Option<&'static str>,
}

/// How a test ended.
pub(crate) enum Outcome {
    Passed(String),
    Skipped(String),
    Failed(String),
}

impl Outcome {
    /// The end of the line that begins with `test NAME ... `.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Passed(note) if note.is_empty() => "ok".to_string(),
            Self::Passed(note) => format!("ok ({note})"),
            Self::Skipped(why) => format!("ignored, {why}"),
            Self::Failed(_) => "FAILED".to_string(),
        }
    }

    pub(crate) fn failed(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => Some(why),
            _ => None,
        }
    }
}

/// A test that compares; `argv` is split at blanks.
pub(crate) fn same(name: &'static str, argv: &str) -> Test {
    same_argv(name, argv.split(' ').map(OsString::from).collect())
}

/// A test that compares a shell script of one string.
pub(crate) fn bash(name: &'static str, script: &str) -> Test {
    same_argv(name, ["bash", "-c", script].map(OsString::from).to_vec()).needs(&["bash"])
}

/// A test that compares.
pub(crate) fn same_argv(name: &'static str, argv: Vec<OsString>) -> Test {
    let timeout = Duration::from_secs(60);
    let program = Program {
        argv,
        ram: "256M",
        options: "",
        timeout,
        any_stderr: false,
        prepare: None,
    };
    Test {
        name,
        needs: &[],
        long: false,
        kind: Kind::Same(program),
    }
}

/// A test that is a function.
pub(crate) fn check(name: &'static str, function: fn(&Path) -> Result<(), String>) -> Test {
    Test {
        name,
        needs: &[],
        long: false,
        kind: Kind::Check(function),
    }
}

impl Test {
    pub(crate) fn needs(mut self, programs: &'static [&'static str]) -> Self {
        self.needs = programs;
        self
    }

    pub(crate) fn long(mut self) -> Self {
        self.long = true;
        self
    }

    pub(crate) fn ram(self, ram: &'static str) -> Self {
        self.with(|program| program.ram = ram)
    }

    pub(crate) fn options(self, options: &'static str) -> Self {
        self.with(|program| program.options = options)
    }

    pub(crate) fn seconds(self, seconds: u64) -> Self {
        self.with(|program| program.timeout = Duration::from_secs(seconds))
    }

    pub(crate) fn any_stderr(self) -> Self {
        self.with(|program| program.any_stderr = true)
    }

    /// A shell command that makes what the program works on.
    pub(crate) fn prepare(self, script: &'static str) -> Self {
        self.with(|program| program.prepare = Some(script))
    }

    fn with(mut self, change: impl FnOnce(&mut Program)) -> Self {
        if let Kind::Same(program) = &mut self.kind {
            change(program);
        }
        self
    }

    /// Runs the test.
    pub(crate) fn run(&self, scratch: &Scratch) -> Outcome {
        if let Some(missing) = self
            .needs
            .iter()
            .find(|n| process::find_program(n).is_none())
        {
            return Outcome::Skipped(format!("{missing} is not installed"));
        }
        let home = scratch.path().join(self.name);
        let result = match &self.kind {
            Kind::Same(program) => compare(program, &home),
            Kind::Check(function) => fresh(&home.join("dir"))
                .and_then(|dir| function(&dir))
                .map(|()| String::new()),
        };
        match result {
            Ok(note) => {
                // What is left of it is of no use any more; a failure to remove it does no harm.
                let _ = fs::remove_dir_all(&home);
                Outcome::Passed(note)
            }
            Err(why) => match why.strip_prefix(SKIP) {
                Some(reason) => Outcome::Skipped(reason.to_string()),
                None => Outcome::Failed(why),
            },
        }
    }
}

/// Begins the message of a check that cannot be made on this machine.
pub(crate) const SKIP: &str = "skip: ";

/// The command under test: the one built with the tests, or the one that `VELLUM_BIN` names.
pub(crate) fn vellum() -> &'static str {
    static CHOSEN: OnceLock<String> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        std::env::var("VELLUM_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_vellum").to_string())
    })
}

/// Runs the program natively and under vellum, in directories under `home`; the answer says how long each took.
pub(crate) fn compare(program: &Program, home: &Path) -> Result<String, String> {
    let native = run_natively(program, home)?;
    if native.timed_out {
        return Err(format!(
            "natively, it did not end within {:?}",
            program.timeout
        ));
    }
    let report_file = home.join("report.json");
    let options = ["--ram", program.ram, "--report", "json", "--report-file"];
    let mut argv: Vec<OsString> = vec![vellum().into(), "run".into()];
    argv.extend(options.map(OsString::from));
    argv.push(report_file.clone().into());
    argv.extend(program.options.split_whitespace().map(OsString::from));
    argv.push("--".into());
    argv.extend(program.argv.iter().cloned());
    let dir = prepared(program, home)?;
    let ours = process::run(&Spec {
        argv,
        dir,
        name: "vellum",
        timeout: program.timeout,
    })?;
    let mut wrong = differences(program, &native, &ours);
    if !wrong.is_empty() {
        // Perhaps the program says something else each time.
        let again = run_natively(program, home)?;
        if !differences(program, &native, &again).is_empty() {
            wrong.insert(
                0,
                "natively, two runs differ already: the test is at fault".to_string(),
            );
        }
    }
    wrong.extend(report::problems(&report_file, ours.shell_status()));
    if wrong.is_empty() {
        let (n, v) = (native.elapsed.as_secs_f64(), ours.elapsed.as_secs_f64());
        Ok(format!("native {n:.2} s, vellum {v:.2} s"))
    } else {
        Err(wrong.join("\n"))
    }
}

fn run_natively(program: &Program, home: &Path) -> Result<Ran, String> {
    let dir = prepared(program, home)?;
    let argv = program.argv.clone();
    process::run(&Spec {
        argv,
        dir,
        name: "native",
        timeout: program.timeout,
    })
}

/// A directory as the program expects it.
fn prepared(program: &Program, home: &Path) -> Result<PathBuf, String> {
    let dir = fresh(&home.join("dir"))?;
    let Some(script) = program.prepare else {
        return Ok(dir);
    };
    let argv = ["sh", "-c", script].map(OsString::from).to_vec();
    let timeout = Duration::from_secs(60);
    let ran = process::run(&Spec {
        argv,
        dir: dir.clone(),
        name: "prepare",
        timeout,
    })?;
    if ran.status.success() {
        Ok(dir)
    } else {
        Err(format!("the preparation failed: {}", ran.err_text()))
    }
}

fn differences(program: &Program, native: &Ran, ours: &Ran) -> Vec<String> {
    let mut wrong = Vec::new();
    if ours.timed_out {
        wrong.push(format!(
            "did not end within {:?}; natively {:.2} s",
            program.timeout,
            native.elapsed.as_secs_f64()
        ));
    } else if native.shell_status() != ours.shell_status() {
        let (n, v) = (native.shell_status(), ours.shell_status());
        wrong.push(format!("exit status: native {n}, vellum {v}"));
    }
    if native.out != ours.out {
        wrong.push(format!(
            "stdout: {}",
            first_difference(&native.out, &ours.out)
        ));
    }
    if native.err != ours.err && (!program.any_stderr || !wrong.is_empty()) {
        wrong.push(format!(
            "stderr: {}",
            first_difference(&native.err, &ours.err)
        ));
    }
    if !ours.left_behind.is_empty() {
        wrong.push(format!(
            "processes left behind: {}",
            ours.left_behind.join(", ")
        ));
    }
    wrong
}

/// The first line that differs, with a few lines after it on each side.
fn first_difference(native: &[u8], ours: &[u8]) -> String {
    const SHOWN: usize = 12;
    let (native, ours) = (
        String::from_utf8_lossy(native),
        String::from_utf8_lossy(ours),
    );
    let (a, b): (Vec<_>, Vec<_>) = (native.lines().collect(), ours.lines().collect());
    let at = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str]| -> String {
        let shown = lines.iter().skip(at).take(SHOWN);
        let text: Vec<String> = shown
            .map(|line| line.chars().take(200).collect::<String>())
            .collect();
        if text.is_empty() {
            "    (end)".to_string()
        } else {
            format!("    {}", text.join("\n    "))
        }
    };
    format!(
        "{} and {} bytes differ from line {}\n  native:\n{}\n  vellum:\n{}",
        native.len(),
        ours.len(),
        at + 1,
        part(&a),
        part(&b)
    )
}

/// An empty directory.
pub(crate) fn fresh(dir: &Path) -> Result<PathBuf, String> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir.to_path_buf())
}

/// Where the tests work: one directory for the whole run.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("vellum-e2e-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory can be written");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn remove(self) {
        // A failure to remove it does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}
