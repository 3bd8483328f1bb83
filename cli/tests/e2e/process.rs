//! Running a process in a session of its own, with a time limit, and looking for what it leaves.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long the processes of an ended program may take to go.
const GRACE: Duration = Duration::from_secs(3);

/// What to run.
pub(crate) struct Spec {
    pub(crate) argv: Vec<OsString>,
    pub(crate) dir: PathBuf,
    /// Where standard output and error are kept, as `NAME.out` and `NAME.err`.
    pub(crate) name: &'static str,
    pub(crate) timeout: Duration,
}

/// What a process did.
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    pub(crate) elapsed: Duration,
    /// Processes of its session that were still there after a while, as `pid command state`.
    pub(crate) left_behind: Vec<String>,
    pub(crate) timed_out: bool,
}

impl Ran {
    /// The status as a shell shows it.
    pub(crate) fn shell_status(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    pub(crate) fn err_text(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }

    pub(crate) fn out_text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

/// A process that runs.
pub(crate) struct Running {
    child: Child,
    start: Instant,
    out: PathBuf,
    err: PathBuf,
    timeout: Duration,
}

/// Starts a process as the leader of a new session, with an environment that is the same
/// everywhere.
pub(crate) fn start(spec: &Spec) -> Result<Running, String> {
    let (out, err) = (kept(spec, "out"), kept(spec, "err"));
    let create = |path: &Path| File::create(path).map_err(|e| format!("{}: {e}", path.display()));
    let mut command = Command::new(&spec.argv[0]);
    command
        .args(&spec.argv[1..])
        .current_dir(&spec.dir)
        .env_clear()
        .envs(environment(&spec.dir))
        .stdin(Stdio::null())
        .stdout(create(&out)?)
        .stderr(create(&err)?);
    // SAFETY: the closure makes one call that is async-signal-safe and takes no memory.
    unsafe { command.pre_exec(new_session) };
    let start = Instant::now();
    let child = command
        .spawn()
        .map_err(|error| format!("{}: {error}", spec.argv[0].display()))?;
    Ok(Running {
        child,
        start,
        out,
        err,
        timeout: spec.timeout,
    })
}

fn new_session() -> std::io::Result<()> {
    // SAFETY: setsid touches no memory of this process. It fails only for a process group's leader,
    // which a child that was just forked is not.
    unsafe { libc::setsid() };
    Ok(())
}

/// Runs a process to its end, or to the end of its time.
pub(crate) fn run(spec: &Spec) -> Result<Ran, String> {
    start(spec)?.finish()
}

/// Next to the directory of the program, so that the program does not see it.
fn kept(spec: &Spec, extension: &str) -> PathBuf {
    spec.dir
        .with_file_name(format!("{}.{extension}", spec.name))
}

/// What programs see: the same on every machine, as far as it can be.
fn environment(dir: &Path) -> HashMap<&'static str, OsString> {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let home = std::env::var_os("HOME").unwrap_or_default();
    let rust = |name: &str, folder: &str| {
        std::env::var_os(name).unwrap_or_else(|| Path::new(&home).join(folder).into_os_string())
    };
    HashMap::from([
        ("PATH", path()),
        ("HOME", dir.as_os_str().to_owned()),
        ("PROGRAMS", programs.into_os_string()),
        ("CARGO_HOME", rust("CARGO_HOME", ".cargo")),
        ("RUSTUP_HOME", rust("RUSTUP_HOME", ".rustup")),
        ("LANG", "C.UTF-8".into()),
        ("TZ", "UTC".into()),
        ("TERM", "dumb".into()),
        ("PYTHONHASHSEED", "0".into()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
        ("GIT_CONFIG_NOSYSTEM", "1".into()),
    ])
}

/// The system's programs first: a wrapper script in a person's own folder is not what is tested.
pub(crate) fn path() -> OsString {
    let mut path = OsString::from("/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin");
    if let Some(own) = std::env::var_os("PATH") {
        path.push(":");
        path.push(own);
    }
    path
}

/// The file of a program, if it is installed.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&path())
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

impl Running {
    /// The process, which is also the number of its session and of its first process group.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// True when standard output holds `text`; waits for it as long as the process may run.
    pub(crate) fn wait_for_output(&mut self, text: &str) -> bool {
        while self.start.elapsed() < self.timeout {
            if fs::read_to_string(&self.out).is_ok_and(|out| out.contains(text)) {
                return true;
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                return fs::read_to_string(&self.out).is_ok_and(|out| out.contains(text));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Sends a signal to the process group, as a terminal does.
    pub(crate) fn signal_group(&self, signal: i32) {
        send(-self.pid(), signal);
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: i32) {
        send(self.pid(), signal);
    }

    /// The processes of the session that are alive.
    pub(crate) fn session(&self) -> Vec<(i32, String)> {
        session_members(self.pid())
    }

    /// Waits for the end and clears up.
    pub(crate) fn finish(mut self) -> Result<Ran, String> {
        let session = self.pid();
        let mut timed_out = false;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if self.start.elapsed() < self.timeout => {
                    std::thread::sleep(Duration::from_millis(3));
                }
                Ok(None) => {
                    timed_out = true;
                    kill_session(session);
                    break self.child.wait().map_err(|error| error.to_string())?;
                }
                Err(error) => return Err(error.to_string()),
            }
        };
        let elapsed = self.start.elapsed();
        let left_behind = wait_until_gone(session);
        kill_session(session);
        let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
        Ok(Ran {
            status,
            out: read(&self.out)?,
            err: read(&self.err)?,
            elapsed,
            left_behind,
            timed_out,
        })
    }
}

fn wait_until_gone(session: i32) -> Vec<String> {
    let start = Instant::now();
    loop {
        let members = session_members(session);
        if members.is_empty() {
            return Vec::new();
        }
        if start.elapsed() > GRACE {
            return members
                .into_iter()
                .map(|(pid, what)| format!("{pid} {what}"))
                .collect();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Kills what is left of a session that this test made, process by process.
fn kill_session(session: i32) {
    for (pid, _) in session_members(session) {
        send(pid, libc::SIGKILL);
    }
}

/// Living processes of a session, from `/proc/PID/stat`: `pid (comm) state ppid pgrp session …`.
fn session_members(session: i32) -> Vec<(i32, String)> {
    let mut members = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return members;
    };
    for entry in entries.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((head, tail)) = stat.rsplit_once(") ") else {
            continue;
        };
        let fields: Vec<&str> = tail.split(' ').collect();
        let (state, of) = (
            fields.first(),
            fields.get(3).and_then(|field| field.parse().ok()),
        );
        if of == Some(session) && !matches!(state, Some(&"Z" | &"X")) {
            let comm = head.split_once('(').map_or("?", |(_, comm)| comm);
            members.push((pid, format!("{comm} {}", state.unwrap_or(&"?"))));
        }
    }
    members
}

fn send(pid: i32, signal: i32) {
    // SAFETY: kill only sends a signal; the number is a process or group that this test started.
    unsafe { libc::kill(pid, signal) };
}
