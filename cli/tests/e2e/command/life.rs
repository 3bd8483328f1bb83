//! Out of memory, interrupts, a killed supervisor, and life without root.

use super::{expect, expect_status, run, spec};
use crate::case::{SKIP, vellum};
use crate::process::{self, Spec};
use crate::report;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) fn oom_kills_one(dir: &Path) -> Result<(), String> {
    let script = "\
sh -c 'i=0; while [ ! -e done ]; do sleep 0.1; i=$((i+1)); [ $i -gt 500 ] && exit 1; done; echo brother goes on' &
python3 -c 'x = [bytearray(1 << 20) for _ in range(1000)]; print(\"never\")' 2> /dev/null
echo status $?; : > done; wait; python3 -c 'print(len(bytearray(8 << 20)))'";
    let words = [
        "run",
        "--ram",
        "64M",
        "--report-file",
        "r",
        "--report",
        "json",
    ];
    let words: Vec<&str> = words
        .into_iter()
        .chain(["--", "bash", "-c", script])
        .collect();
    let ran = run(dir, &words)?;
    expect_status(0, &ran)?;
    let expected = b"status 137\nbrother goes on\n8388608\n";
    expect(ran.out == expected, "the others should go on", &ran)?;
    let report = report::read(&dir.join("r"))?;
    expect(report["frames_leaked"] == 0, "a frame was leaked", &ran)?;
    let kills = report["vmstat"]["oom_kill"].as_u64();
    expect(kills == Some(1), &format!("oom_kill {kills:?}"), &ran)?;
    let line = ran.err_text();
    let line = line
        .lines()
        .find(|line| line.to_lowercase().contains("out of memory"));
    expect(
        line.is_some_and(|line| line.contains("python3")),
        "a line names the victim",
        &ran,
    )
}

pub(super) fn oom_status(dir: &Path) -> Result<(), String> {
    let code = "x = [bytearray(1 << 20) for _ in range(1000)]";
    let words = [
        "run",
        "--ram",
        "32M",
        "--report-file",
        "r",
        "--report",
        "json",
        "--",
        "python3",
    ];
    let words: Vec<&str> = words.into_iter().chain(["-c", code]).collect();
    let ran = run(dir, &words)?;
    expect_status(137, &ran)?;
    let report = report::read(&dir.join("r"))?;
    expect(
        report["exit"]["signal"] == 9,
        "signal 9 in the report",
        &ran,
    )?;
    expect(report["frames_leaked"] == 0, "a frame was leaked", &ran)
}

const WAITER: &str = "trap 'echo interrupted; exit 3' INT; sleep 100 & echo ready; \
                      while :; do sleep 0.05; done";

pub(super) fn interrupt(dir: &Path) -> Result<(), String> {
    let mut running = process::start(&spec(
        dir,
        &["run", "--report", "none", "--", "bash", "-c", WAITER],
    ))?;
    if !running.wait_for_output("ready") {
        let ran = running.finish()?;
        return expect(false, "the program did not start", &ran);
    }
    running.signal_group(libc::SIGINT);
    let ran = running.finish()?;
    expect(!ran.timed_out, "the program did not end", &ran)?;
    expect(
        ran.out_text().contains("interrupted"),
        "the program's own handler runs",
        &ran,
    )?;
    expect_status(3, &ran)?;
    // Without a handler the signal ends the program.
    let mut running = process::start(&spec(
        dir,
        &["run", "--", "sh", "-c", "echo ready; exec sleep 100"],
    ))?;
    running.wait_for_output("ready");
    std::thread::sleep(Duration::from_millis(300));
    running.signal_group(libc::SIGINT);
    let ran = running.finish()?;
    expect_status(130, &ran)?;
    expect(
        ran.left_behind.is_empty(),
        "a process was left behind",
        &ran,
    )?;
    expect(
        ran.err_text().contains("all frames returned"),
        "the report still comes",
        &ran,
    )
}

pub(super) fn killed_supervisor(dir: &Path) -> Result<(), String> {
    let mut running = process::start(&spec(dir, &["run", "--", "bash", "-c", WAITER]))?;
    if !running.wait_for_output("ready") {
        let ran = running.finish()?;
        return expect(false, "the program did not start", &ran);
    }
    let before = running.session().len();
    running.signal(libc::SIGKILL);
    let ran = running.finish()?;
    expect(before >= 3, &format!("only {before} processes ran"), &ran)?;
    expect(
        ran.left_behind.is_empty(),
        &format!("left behind: {}", ran.left_behind.join(", ")),
        &ran,
    )
}

pub(super) fn without_root(dir: &Path) -> Result<(), String> {
    // SAFETY: geteuid only reads a number of this process.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        return Err(format!("{SKIP}all other tests run without root already"));
    }
    let copy: PathBuf = dir.join("vellum-copy");
    fs::copy(vellum(), &copy).map_err(|error| error.to_string())?;
    for (path, mode) in [(copy.as_path(), 0o755), (dir, 0o777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|error| error.to_string())?;
    }
    let mut argv: Vec<OsString> = vec!["setpriv".into()];
    argv.extend(
        [
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--bounding-set=-all",
            "--no-new-privs",
        ]
        .map(OsString::from),
    );
    argv.push(copy.into_os_string());
    let code = "import os, subprocess\nprint(os.getuid(), subprocess.call(['sh', '-c', 'exit 4']))";
    argv.extend(["run", "--", "python3", "-c", code].map(OsString::from));
    let timeout = Duration::from_secs(60);
    let ran = process::run(&Spec {
        argv,
        dir: dir.to_path_buf(),
        name: "vellum",
        timeout,
    })?;
    expect_status(0, &ran)?;
    expect(
        ran.out == b"65534 4\n",
        "the user and the child's status were expected",
        &ran,
    )?;
    expect(
        ran.err_text().contains("all frames returned"),
        "a report was expected",
        &ran,
    )
}
