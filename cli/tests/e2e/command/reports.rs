//! What the command writes, and what programs see of their machine.

use super::{expect, expect_status, run};
use crate::case::vellum;
use crate::process::{self, Spec};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

pub(super) fn human_report(dir: &Path) -> Result<(), String> {
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

pub(super) fn no_report(dir: &Path) -> Result<(), String> {
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

pub(super) fn trace(dir: &Path) -> Result<(), String> {
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

pub(super) fn standard_input(dir: &Path) -> Result<(), String> {
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

pub(super) fn proc_files(dir: &Path) -> Result<(), String> {
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
