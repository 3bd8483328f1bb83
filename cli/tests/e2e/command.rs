//! What the command itself promises: statuses, reports, traces, and answers to bad input.

use crate::case::{SKIP, Test, check, vellum};
use crate::process::{self, Ran, Spec};
use crate::report;
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The tests.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        check("no_such_program_is_127", no_such_program),
        check("not_executable_is_126", not_executable),
        check("a_bad_size_is_explained", bad_size),
        check("an_unknown_option_is_refused", unknown_option),
        check("too_little_ram_says_how_much_works", too_little_ram),
        check(
            "a_report_that_cannot_be_written_is_said_first",
            unwritable_report,
        ),
        check("the_human_report_is_on_stderr", human_report).needs(&["python3"]),
        check("no_report_is_silent", no_report),
        check("a_trace_is_json_lines", trace),
        check("standard_input_is_the_programs", standard_input),
        check("a_refused_call_is_named", refused_call).needs(&["python3"]),
        check("a_machine_in_a_machine_is_refused", nested),
        check("proc_shows_our_machine", proc_files).needs(&["python3"]),
        check("out_of_memory_kills_one", oom_kills_one).needs(&["python3", "bash"]),
        check("out_of_memory_is_137", oom_status).needs(&["python3"]),
        check("interrupt_reaches_the_program", interrupt).needs(&["bash"]),
        check("a_killed_supervisor_leaves_nothing", killed_supervisor).needs(&["bash"]),
        check("without_root", without_root).needs(&["setpriv", "python3"]),
    ]
}

/// `vellum WORDS…`, in `dir`, with half a minute of time.
fn spec(dir: &Path, words: &[&str]) -> Spec {
    let mut argv: Vec<OsString> = vec![vellum().into()];
    argv.extend(words.iter().map(OsString::from));
    Spec {
        argv,
        dir: dir.to_path_buf(),
        name: "vellum",
        timeout: Duration::from_secs(60),
    }
}

fn run(dir: &Path, words: &[&str]) -> Result<Ran, String> {
    let ran = process::run(&spec(dir, words))?;
    if ran.timed_out {
        return Err(format!(
            "timed out; stdout: {} stderr: {}",
            ran.out_text(),
            ran.err_text()
        ));
    }
    if !ran.left_behind.is_empty() {
        return Err(format!(
            "processes left behind: {}",
            ran.left_behind.join(", ")
        ));
    }
    Ok(ran)
}

fn expect(condition: bool, what: &str, ran: &Ran) -> Result<(), String> {
    if condition {
        return Ok(());
    }
    Err(format!(
        "{what}\n  status {}\n  stdout: {}\n  stderr: {}",
        ran.shell_status(),
        ran.out_text(),
        ran.err_text()
    ))
}

fn expect_status(status: i32, ran: &Ran) -> Result<(), String> {
    expect(
        ran.shell_status() == status,
        &format!("status {status} was expected"),
        ran,
    )
}

/// One line of its own and nothing else.
fn expect_one_line(words: &[&str], ran: &Ran) -> Result<(), String> {
    let text = ran.err_text();
    expect(
        text.lines().count() == 1,
        "one line on stderr was expected",
        ran,
    )?;
    for word in words {
        expect(
            text.contains(word),
            &format!("`{word}` was expected on stderr"),
            ran,
        )?;
    }
    expect(ran.out.is_empty(), "nothing was expected on stdout", ran)
}

fn no_such_program(dir: &Path) -> Result<(), String> {
    for name in ["no-such-program-anywhere", "/no/such/program", "./nothing"] {
        let ran = run(dir, &["run", "--", name])?;
        expect_status(127, &ran)?;
        expect_one_line(&["vellum: ", name], &ran)?;
    }
    Ok(())
}

fn not_executable(dir: &Path) -> Result<(), String> {
    fs::write(dir.join("plain"), "echo never\n").map_err(|error| error.to_string())?;
    for name in ["./plain", "/etc"] {
        let ran = run(dir, &["run", "--", name])?;
        expect_status(126, &ran)?;
        expect_one_line(&["vellum: ", name], &ran)?;
    }
    Ok(())
}

fn bad_size(dir: &Path) -> Result<(), String> {
    for size in ["12Q", "-5M", "lots", "1.5G", "99999999999T"] {
        let ran = run(dir, &["run", &format!("--ram={size}"), "--", "true"])?;
        expect_status(2, &ran)?;
        expect(
            ran.err_text().contains("--ram"),
            "the option was expected on stderr",
            &ran,
        )?;
    }
    Ok(())
}

fn unknown_option(dir: &Path) -> Result<(), String> {
    for words in [
        &["run", "--rom", "1M", "--", "true"][..],
        &["walk"],
        &["run"],
        &[],
    ] {
        expect_status(2, &run(dir, words)?)?;
    }
    let help = run(dir, &["run", "--help"])?;
    expect_status(0, &help)?;
    expect(
        help.out_text().contains("Examples:"),
        "help gives examples",
        &help,
    )
}

/// The message names a size, and that size works.
fn too_little_ram(dir: &Path) -> Result<(), String> {
    for size in ["4K", "64K", "300000"] {
        let ran = run(dir, &["run", "--ram", size, "--", "true"])?;
        expect_status(125, &ran)?;
        expect_one_line(&["at least"], &ran)?;
        let text = ran.err_text();
        let least = text
            .split_once("at least ")
            .and_then(|(_, rest)| rest.split([' ', ',', ';', '\n']).next())
            .unwrap_or_default();
        let ran = run(
            dir,
            &["run", "--ram", least, "--report", "none", "--", "true"],
        )?;
        expect_status(0, &ran)?;
    }
    Ok(())
}

fn unwritable_report(dir: &Path) -> Result<(), String> {
    for option in ["--report-file", "--trace-file"] {
        let words = [
            "run",
            option,
            "/no/such/dir/file",
            "--trace",
            "all",
            "--trace-file",
            "t",
            "--",
            "true",
        ];
        let words: Vec<&str> = if option == "--trace-file" {
            vec![
                "run",
                "--trace",
                "all",
                option,
                "/no/such/dir/file",
                "--",
                "true",
            ]
        } else {
            words.to_vec()
        };
        let ran = run(dir, &words)?;
        expect_status(125, &ran)?;
        expect_one_line(&[option, "/no/such/dir/file"], &ran)?;
    }
    Ok(())
}

fn human_report(dir: &Path) -> Result<(), String> {
    let program = ["python3", "-c", "print(sum(range(10**6)))"];
    let words: Vec<&str> = ["run", "--ram", "128M", "--"]
        .into_iter()
        .chain(program)
        .collect();
    let ran = run(dir, &words)?;
    expect_status(0, &ran)?;
    expect(
        ran.out == b"499999500000\n",
        "the sum was expected on stdout",
        &ran,
    )?;
    for part in [
        "128 MiB of RAM",
        "faults",
        "minor",
        "major",
        "zero page",
        "copied on write",
        "page cache",
        "peak resident",
        "blocks by order",
        "slab",
        "all frames returned",
    ] {
        expect(
            ran.err_text().contains(part),
            &format!("`{part}` was expected"),
            &ran,
        )?;
    }
    Ok(())
}

fn no_report(dir: &Path) -> Result<(), String> {
    let ran = run(
        dir,
        &[
            "run",
            "--report",
            "none",
            "--",
            "sh",
            "-c",
            "echo a; echo b >&2; exit 5",
        ],
    )?;
    expect_status(5, &ran)?;
    expect(
        ran.out == b"a\n" && ran.err == b"b\n",
        "only the program's output was expected",
        &ran,
    )
}

fn trace(dir: &Path) -> Result<(), String> {
    let events = "mm_page_alloc,mm_page_free,page_fault_user,mm_filemap_add_to_page_cache";
    let words = [
        "run",
        "--report",
        "none",
        "--trace",
        events,
        "--trace-file",
        "t.jsonl",
        "--",
        "true",
    ];
    let ran = run(dir, &words)?;
    expect_status(0, &ran)?;
    let text = fs::read_to_string(dir.join("t.jsonl")).map_err(|error| error.to_string())?;
    for name in events.split(',') {
        let found = text
            .lines()
            .any(|line| line.contains(&format!("\"event\":\"{name}\"")));
        expect(found, &format!("no event `{name}`"), &ran)?;
    }
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("{e}: {line}"))?;
        let name = value["event"].as_str().unwrap_or_default();
        if !events.split(',').any(|event| event == name) || !value["ts_ns"].is_u64() {
            return Err(format!("not an event that was asked for: {line}"));
        }
    }
    Ok(())
}

/// Standard input comes from the caller's; here it is empty, and a redirection works.
fn standard_input(dir: &Path) -> Result<(), String> {
    fs::write(dir.join("in"), "a\nb\n").map_err(|error| error.to_string())?;
    let command = format!(
        "{} run --report none -- cat < in; printf 'x\\ny\\n' | {} run --report none -- sort -r",
        vellum(),
        vellum()
    );
    let argv = vec!["sh".into(), "-c".into(), command.into()];
    let timeout = Duration::from_secs(60);
    let ran = process::run(&Spec {
        argv,
        dir: dir.to_path_buf(),
        name: "vellum",
        timeout,
    })?;
    expect_status(0, &ran)?;
    expect(ran.out == b"a\nb\ny\nx\n", "the input was expected", &ran)
}

fn refused_call(dir: &Path) -> Result<(), String> {
    // io_uring_setup: memory shared with the host's kernel behind our back.
    let code = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
                r = libc.syscall(425, 4, 0)\nprint(r, os.strerror(ctypes.get_errno()))";
    let ran = run(dir, &["run", "--", "python3", "-c", code])?;
    expect_status(0, &ran)?;
    expect(
        ran.out == b"-1 Function not implemented\n",
        "ENOSYS was expected",
        &ran,
    )?;
    expect(
        ran.err_text().contains("io_uring_setup"),
        "the report names the call",
        &ran,
    )
}

fn nested(dir: &Path) -> Result<(), String> {
    let words = [
        "run",
        "--report",
        "none",
        "--",
        vellum(),
        "run",
        "--",
        "true",
    ];
    let ran = run(dir, &words)?;
    expect_status(125, &ran)?;
    expect(
        ran.err_text().contains("ptrace"),
        "the reason was expected",
        &ran,
    )
}

fn proc_files(dir: &Path) -> Result<(), String> {
    let code = "\
import mmap, os, resource
total = int([l for l in open('/proc/meminfo') if l.startswith('MemTotal')][0].split()[1])
print('total', 90_000 < total <= 131_072)
exe = os.readlink('/proc/self/exe')
print('exe', os.path.samefile(exe, '/proc/self/exe'), 'python' in exe)
m = mmap.mmap(-1, 64 << 20)
for at in range(0, 16 << 20, 4096): m[at] = 1
maps = open('/proc/self/maps').read()
print('maps', '[heap]' in maps, '[stack]' in maps, 'libc' in maps, exe in maps)
status = dict(l.split(':', 1) for l in open('/proc/self/status') if ':' in l)
rss = int(status['VmRSS'].split()[0]); size = int(status['VmSize'].split()[0])
print('rss', 16 << 10 <= rss < 64 << 10, size >= 64 << 10)
pages = int(open('/proc/self/statm').read().split()[1])
print('statm', abs(pages * 4 - rss) < 4096)
print('smaps', sum(int(l.split()[1]) for l in open('/proc/self/smaps') if l.startswith('Rss:')) >= 16 << 10)
print('cmdline', open('/proc/self/cmdline', 'rb').read().split(b'\\0')[1] == b'-c')
";
    let ran = run(
        dir,
        &[
            "run", "--ram", "128M", "--report", "none", "--", "python3", "-c", code,
        ],
    )?;
    expect_status(0, &ran)?;
    expect(
        !ran.out_text().contains("False"),
        "all answers should be true",
        &ran,
    )
}

/// One eater among others: it dies, its parent and its brother go on.
fn oom_kills_one(dir: &Path) -> Result<(), String> {
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

fn oom_status(dir: &Path) -> Result<(), String> {
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

fn interrupt(dir: &Path) -> Result<(), String> {
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

fn killed_supervisor(dir: &Path) -> Result<(), String> {
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

/// Nobody's machine: no capabilities, and none to be had.
fn without_root(dir: &Path) -> Result<(), String> {
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
