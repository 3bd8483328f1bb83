//! The kernel in QEMU, as a user of `cargo xtask boot` sees it. Without QEMU or a compiler for static
//! programs, a test says so and passes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

/// True if tests can run here; says why not.
fn ready(needs: &[&str]) -> bool {
    for program in needs.iter().chain(&["qemu-system-x86_64"]) {
        if !has(program) {
            eprintln!("skipped: {program} is not installed");
            return false;
        }
    }
    true
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("vellum-bare-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Compiles a static program.
    fn compile(&self, name: &str, source: &str) -> String {
        let source = self.write(&format!("{name}.c"), source);
        let program = self.0.join(name);
        let status = Command::new("musl-gcc")
            .args(["-O2", "-static", "-pthread", "-o"])
            .args([&program, &source])
            .status()
            .unwrap();
        assert!(status.success(), "{name} does not compile");
        program.to_str().unwrap().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn boot(words: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["boot", "--timeout", "240"])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../machines/bare/tests/programs")
}

/// Compiles a program of the test folder and runs it; it ends with 0 if all is well.
fn passes(name: &str, words: &[&str]) {
    if !ready(&["musl-gcc"]) {
        return;
    }
    let folder = Folder::new();
    let source = std::fs::read_to_string(programs().join(format!("{name}.c"))).unwrap();
    let program = folder.compile(name, &source);
    let mut all = vec!["--append", "check", "--append", "verbose"];
    let (options, arguments) = match words.iter().position(|word| *word == "--") {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, &[][..]),
    };
    all.extend(options);
    all.extend(["--", &program]);
    all.extend(arguments);
    let (status, out, err) = boot(&all);
    assert_eq!(status, 0, "{name} {words:?}:\n{out}\n{err}");
}

#[test]
fn the_kernel_tests_itself() {
    if ready(&[]) {
        let (status, out, err) = boot(&["--append", "selftest"]);
        assert_eq!(status, 0, "{out}{err}");
        assert!(out.contains("selftest spaces: ok"), "{out}");
        assert!(out.contains("MemTotal:"), "{out}");
    }
}

#[test]
fn the_exit_status_is_the_programs() {
    if ready(&["musl-gcc"]) {
        let folder = Folder::new();
        let source = "#include <stdio.h>\nint main(int n, char **v) { printf(\"%s %.2f\\n\", v[n-1], 1.5); return 42; }";
        let program = folder.compile("status", source);
        let (status, out, err) = boot(&["--", &program, "a b"]);
        assert_eq!((status, out.as_str()), (42, "a b 1.50\n"), "{err}");
    }
}

#[test]
fn a_panic_is_101_with_the_log_and_names() {
    if ready(&[]) {
        let (status, out, err) = boot(&["--append", "selftest=panic"]);
        assert_eq!(status, 101);
        assert!(
            out.contains("kernel panic: a panic was asked for") && out.contains("MemFree:"),
            "{out}"
        );
        assert!(err.contains("self_test"), "{err}");
    }
}

#[test]
fn a_stack_overflow_is_named() {
    if ready(&[]) {
        let (status, out, _) = boot(&["--append", "selftest=overflow"]);
        assert_eq!(status, 101);
        assert!(out.contains("kernel stack overflow"), "{out}");
    }
}

#[test]
fn code_cannot_be_written() {
    if ready(&[]) {
        let (status, out, _) = boot(&["--append", "selftest=text"]);
        assert_eq!(status, 101);
        assert!(out.contains("page fault in the kernel"), "{out}");
    }
}

#[test]
fn a_hang_is_124() {
    if ready(&[]) {
        let (status, _, err) = boot(&["--timeout", "4", "--append", "selftest=hang"]);
        assert_eq!(status, 124);
        assert!(err.contains("timeout"), "{err}");
    }
}

#[test]
fn what_cannot_run_says_why_in_a_line() {
    if !ready(&["musl-gcc"]) {
        return;
    }
    let folder = Folder::new();
    let (status, out, _) = boot(&["--", "/bin/ls"]);
    assert_eq!(status, 127);
    assert!(out.contains("dynamically linked: it needs /lib"), "{out}");
    let torn = folder.write("torn", "\x7fELF\x02\x01");
    let torn = torn.to_str().unwrap();
    Command::new("chmod").args(["+x", torn]).status().unwrap();
    let (status, out, _) = boot(&["--", torn]);
    assert_eq!((status, out.lines().count()), (127, 1), "{out}");
    let program = folder.compile("nothing", "int main(void) { return 0; }");
    let (status, out, _) = boot(&["--ram", "4M", "--", &program]);
    assert_eq!((status, out.lines().count()), (127, 1), "{out}");
    let (status, out, _) = boot(&["--", "/not/there"]);
    assert_eq!(status, 127);
    assert!(out.contains("no such file"), "{out}");
}

/// On one CPU, on two, and on four in two nodes.
fn passes_everywhere(name: &str) {
    passes(name, &[]);
    passes(name, &["--smp", "2"]);
    passes(name, &["--smp", "4", "--nodes", "2"]);
}

#[test]
fn memory_calls_and_signals_are_linuxs() {
    passes_everywhere("memory");
}

#[test]
fn processes_and_pipes() {
    passes_everywhere("processes");
}

#[test]
fn bad_pointers_are_efault() {
    passes_everywhere("pointers");
}

#[test]
fn threads_share_memory() {
    passes_everywhere("threads");
}

#[test]
fn no_frame_is_used_again_before_all_cpus_have_flushed() {
    passes("stale", &["--smp", "2"]);
    passes("stale", &["--smp", "4"]);
}

#[test]
fn the_shell_runs_scripts() {
    if !ready(&["busybox"]) {
        return;
    }
    let folder = Folder::new();
    let script = folder.write(
        "script.sh",
        "set -e\ncd /tmp\necho one > a; echo two >> a\n[ \"$(wc -l < a)\" = 2 ]\n\
         for n in 1 2 3; do echo $n; done | sort -r | head -1\nmkdir -p d/e; cp a d/e/b; cmp a d/e/b\n\
         ls d/e; rm -r d; grep MemTotal /proc/meminfo > /dev/null\n(exit 3) || echo status $?\n\
         dd if=/dev/zero of=z bs=4k count=64 2>/dev/null; md5sum z | cut -c1-8\nexit 7\n",
    );
    let busybox = String::from_utf8(
        Command::new("sh")
            .args(["-c", "command -v busybox"])
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    let add = format!("/script.sh={}", script.display());
    let busybox = format!("/bin/sh={}", busybox.trim());
    let words = [
        "--initrd-add",
        &add,
        "--initrd-add",
        &busybox,
        "--append",
        "check",
        "--",
        "/bin/sh",
        "/script.sh",
    ];
    let (status, out, err) = boot(&words);
    assert_eq!(status, 7, "{out}{err}");
    assert_eq!(out, "3\nb\nstatus 3\nec87a838\n", "{err}");
}

#[test]
fn two_boots_count_the_same_instructions() {
    if !ready(&["musl-gcc"]) {
        return;
    }
    let folder = Folder::new();
    let source = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
        int main(void) { unsigned a, d; memset(malloc(9 << 20), 1, 9 << 20);\n\
        __asm__ volatile(\"rdtsc\" : \"=a\"(a), \"=d\"(d)); printf(\"%u %u\\n\", d, a); return 0; }";
    let program = folder.compile("count", source);
    let first = boot(&["--icount", "--", &program]);
    assert_eq!(first.0, 0, "{first:?}");
    assert_eq!(first, boot(&["--icount", "--", &program]));
}

#[test]
fn when_memory_ends_one_process_is_killed_and_the_rest_goes_on() {
    passes("victim", &["--ram", "64M"]);
    passes("victim", &["--ram", "64M", "--smp", "2"]);
}

/// Boots with memory to swap to.
const ZRAM: [&str; 4] = ["--ram", "40M", "--swap", "zram:256M"];

#[test]
fn four_times_ram_is_right_with_swap() {
    let four_times = ["--", "160"];
    passes("swapped", &[&ZRAM[..], &four_times].concat());
    passes(
        "swapped",
        &[&ZRAM[..], &["--smp", "2"], &four_times].concat(),
    );
    let nodes = ["--smp", "2", "--nodes", "2"];
    passes("swapped", &[&ZRAM[..], &nodes, &four_times].concat());
}

#[test]
fn every_policy_swaps() {
    for policy in ["linux24", "mglru", "lru"] {
        let words = ["--policy", policy, "--", "80"];
        passes("swapped", &[&ZRAM[..], &words].concat());
    }
}

#[test]
fn an_area_or_a_policy_that_is_not_there_is_refused() {
    if !ready(&[]) {
        return;
    }
    for words in [["--policy", "best"], ["--append", "swap=disk"]] {
        let (status, out, _) = boot(&[&words[..], &["--", "/not/there"]].concat());
        assert_eq!((status, out.lines().count()), (127, 1), "{out}");
        assert!(
            out.contains("policy=") || out.contains("zram:BYTES"),
            "{out}"
        );
    }
}

#[test]
fn each_node_has_its_zones() {
    if !ready(&["musl-gcc"]) {
        return;
    }
    let folder = Folder::new();
    let source = "#include <stdio.h>\nint main(int n, char **v) { int c; FILE *f = fopen(v[1], \"r\");\n\
        if (!f) return 1; while ((c = getc(f)) != EOF) putchar(c); return 0; }";
    let program = folder.compile("show", source);
    let words = ["--ram", "128M", "--smp", "2", "--nodes", "2", "--"];
    let (status, out, err) = boot(&[&words[..], &[&program, "/proc/zoneinfo"]].concat());
    assert_eq!(status, 0, "{out}{err}");
    let mut managed = [0; 2];
    let mut node = None;
    for line in out.lines() {
        if let Some(rest) = line.strip_prefix("Node ") {
            let number = rest.split(',').next().unwrap();
            node = Some(number.parse::<usize>().unwrap());
        } else if let Some(pages) = line.trim_start().strip_prefix("managed ") {
            managed[node.unwrap()] += pages.trim().parse::<u64>().unwrap();
        }
    }
    // Half of 32768 pages each, less what the kernel and the page structures take.
    assert!(
        managed
            .iter()
            .all(|pages| (14_000..=16_384).contains(pages)),
        "{out}"
    );
    let (_, memory, _) = boot(&[&words[..], &[&program, "/proc/meminfo"]].concat());
    let total = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|text| text.trim().strip_suffix(" kB"));
    let total: u64 = total.unwrap().parse().unwrap();
    assert_eq!(total, 4 * (managed[0] + managed[1]), "{memory}");
}

/// The program that runs scenarios by real system calls, without a dynamic linker.
fn scenario_run() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = "x86_64-unknown-linux-gnu";
    let words = [
        "rustc",
        "--quiet",
        "-p",
        "vellum-testkit",
        "--bin",
        "scenario-run",
        "--target",
        target,
    ];
    let output = Command::new(env!("CARGO"))
        .current_dir(&root)
        .args(words)
        .args([
            "--message-format",
            "json",
            "--",
            "-C",
            "target-feature=+crt-static",
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text
        .lines()
        .rev()
        .find(|line| line.contains("\"executable\":\""))
        .unwrap();
    let path = line.split("\"executable\":\"").nth(1).unwrap();
    PathBuf::from(path.split('"').next().unwrap())
}

#[test]
fn the_scenarios_go_as_written() {
    if !ready(&[]) {
        return;
    }
    let program = scenario_run();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            format!(
                "/scenarios/{}",
                entry.unwrap().file_name().into_string().unwrap()
            )
        })
        .filter(|name| name.ends_with(".scn"))
        .collect();
    names.sort();
    assert!(names.len() >= 30);
    let add = format!("/scenarios={}", folder.display());
    for machine in [
        &["--smp", "1"][..],
        &["--smp", "2"],
        &["--smp", "4", "--nodes", "2"],
    ] {
        let mut words = machine.to_vec();
        words.extend([
            "--append",
            "check",
            "--initrd-add",
            &add,
            "--",
            program.to_str().unwrap(),
        ]);
        words.extend(names.iter().map(String::as_str));
        let (status, out, err) = boot(&words);
        assert_eq!(status, 0, "{machine:?}\n{out}\n{err}");
    }
}
