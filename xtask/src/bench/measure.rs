//! Running one case, natively and under vellum in turn.

use super::cases::{Case, Unit};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RAM: &str = "512M";

/// Longest time of one run.
const LIMIT: Duration = Duration::from_secs(120);

/// Where and with what is measured.
pub(super) struct Setting {
    vellum: String,
    dir: PathBuf,
    /// The CPU that all runs share, if they could be pinned.
    pub(super) cpu: Option<usize>,
}

impl Setting {
    /// Pins this process, and so all that it starts, to one CPU, and makes a working directory in
    /// memory if the machine has one, so that no disk is measured.
    pub(super) fn new(vellum: String) -> Result<Self, String> {
        let base = ["/dev/shm"]
            .iter()
            .map(PathBuf::from)
            .find(|dir| dir.is_dir());
        let dir = base
            .unwrap_or_else(std::env::temp_dir)
            .join(format!("vellum-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self {
            vellum,
            dir,
            cpu: pin(),
        })
    }

    /// The command of one run.
    fn command(&self, argv: &[&str], under_vellum: bool) -> Command {
        let mut command = if under_vellum {
            let mut command = Command::new(&self.vellum);
            command
                .args(["run", "--ram", RAM, "--report", "none", "--"])
                .args(argv);
            command
        } else {
            let mut command = Command::new(find(argv[0]).unwrap_or_else(|| argv[0].into()));
            command.args(&argv[1..]);
            command
        };
        command
            .current_dir(&self.dir)
            .env("PATH", path())
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// The directory as each run finds it.
    fn clean(&self) -> Result<(), String> {
        let io = |error: std::io::Error| format!("{}: {error}", self.dir.display());
        fs::remove_dir_all(&self.dir).map_err(io)?;
        fs::create_dir_all(&self.dir).map_err(io)?;
        let inserts = (0..2000).map(|i| format!("INSERT INTO t VALUES ({i});\n"));
        fs::write(self.dir.join("inserts.sql"), inserts.collect::<String>()).map_err(io)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // A failure to remove it does no harm.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Values of all runs, in the case's unit.
pub(super) struct Measured {
    pub(super) native: Vec<f64>,
    pub(super) vellum: Vec<f64>,
}

/// Runs a case. One unmeasured run of each kind comes first, to warm the host's caches.
pub(super) fn case(setting: &Setting, case: &Case, runs: usize) -> Result<Measured, String> {
    let mut measured = Measured {
        native: Vec::new(),
        vellum: Vec::new(),
    };
    for run in 0..=runs {
        for under_vellum in [false, true] {
            setting.clean()?;
            let value = match case.unit {
                Unit::Seconds => seconds(setting, case, under_vellum)?,
                Unit::RequestsPerSecond => requests(setting, case, under_vellum)?,
            };
            if run > 0 {
                let list = if under_vellum {
                    &mut measured.vellum
                } else {
                    &mut measured.native
                };
                list.push(value);
            }
        }
    }
    Ok(measured)
}

fn seconds(setting: &Setting, case: &Case, under_vellum: bool) -> Result<f64, String> {
    let mut command = setting.command(case.argv, under_vellum);
    let start = Instant::now();
    let child = command
        .spawn()
        .map_err(|error| format!("{}: {error}", case.argv[0]))?;
    let success = wait(child)?;
    let elapsed = start.elapsed().as_secs_f64();
    if success {
        Ok(elapsed)
    } else {
        Err(failed(under_vellum))
    }
}

fn failed(under_vellum: bool) -> String {
    format!(
        "{} failed",
        if under_vellum {
            "the run under vellum"
        } else {
            "the native run"
        }
    )
}

/// Waits in the kernel, so that the waiting costs the measured program nothing; a second thread ends
/// what takes too long.
fn wait(mut child: Child) -> Result<bool, String> {
    let pid = child.id().to_string();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // A failure means that it ended in this moment.
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
        }
    });
    let status = child.wait().map_err(|error| error.to_string())?;
    // A failure means that the time was up.
    let _ = done.send(());
    let _ = guard.join();
    Ok(status.success())
}

/// A server natively or under vellum; the benchmark against it always natively.
fn requests(setting: &Setting, case: &Case, under_vellum: bool) -> Result<f64, String> {
    let argv: Vec<&str> = case.argv[..1]
        .iter()
        .copied()
        .chain(["--port", "0", "--unixsocket", "s", "--save", ""])
        .collect();
    let server = setting
        .command(&argv, under_vellum)
        .spawn()
        .map_err(|e| e.to_string())?;
    let answer = benchmark(setting);
    let stopped = client(setting, "redis-cli", &["-s", "s", "shutdown", "nosave"]);
    let success = wait(server)?;
    let value = answer?;
    if success && stopped.is_ok() {
        Ok(value)
    } else {
        Err(failed(under_vellum))
    }
}

fn benchmark(setting: &Setting) -> Result<f64, String> {
    let start = Instant::now();
    while !client(setting, "redis-cli", &["-s", "s", "ping"]).is_ok_and(|out| out.contains("PONG"))
    {
        if start.elapsed() > Duration::from_secs(20) {
            return Err("the server does not answer".to_string());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let words = ["-s", "s", "-t", "set", "-c", "20", "-n", "40000", "--csv"];
    let text = client(setting, "redis-benchmark", &words)?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix("\"SET\",\"")?
                .split('"')
                .next()?
                .parse()
                .ok()
        })
        .ok_or_else(|| format!("redis-benchmark said: {text}"))
}

fn client(setting: &Setting, name: &str, words: &[&str]) -> Result<String, String> {
    let argv: Vec<&str> = std::iter::once(name).chain(words.iter().copied()).collect();
    let output = setting
        .command(&argv, false)
        .stdout(Stdio::piped())
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The system's programs first: a wrapper script in somebody's own folder is not what is measured.
fn path() -> OsString {
    let mut path = OsString::from("/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin");
    if let Some(own) = std::env::var_os("PATH") {
        path.push(":");
        path.push(own);
    }
    path
}

/// The file of a program, if it is installed.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&path())
        .map(|dir| dir.join(name))
        .find(|file| Path::is_file(file))
}

/// Pins this process to the last CPU by `taskset`; `None` if that does not work here.
fn pin() -> Option<usize> {
    let cpu = std::thread::available_parallelism().ok()?.get() - 1;
    let status = Command::new("taskset")
        .args([
            "-a",
            "-p",
            "-c",
            &cpu.to_string(),
            &std::process::id().to_string(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success()).then_some(cpu)
}
