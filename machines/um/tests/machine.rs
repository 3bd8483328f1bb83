//! Whole runs of ordinary programs.

use std::path::PathBuf;
use vellum_um::{Exit, RunConfig, RunError, RunOutcome, run};

fn config(ram_mib: u64, tlb_capacity: usize, words: &[&str]) -> RunConfig<'static> {
    RunConfig {
        ram_bytes: ram_mib << 20,
        tlb_capacity,
        args: words[1..].iter().map(Into::into).collect(),
        ..RunConfig::new(words[0])
    }
}

fn shell(script: &str) -> RunOutcome {
    run_clean(&config(64, RunConfig::TLB_CAPACITY, &["sh", "-c", script]))
}

fn run_clean(config: &RunConfig<'_>) -> RunOutcome {
    let outcome = run(config).expect("the host allows a run");
    assert_eq!(outcome.leaks.frames, 0, "{:?}", outcome.leaks);
    assert_eq!(outcome.leaks.objects, 0, "{:?}", outcome.leaks);
    outcome
}

fn code(code: i32) -> Exit {
    Exit {
        code: Some(code),
        signal: None,
    }
}

/// Says so too: a test of a program that is not installed cannot be made.
fn is_missing(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let missing = !std::env::split_paths(&paths).any(|folder| folder.join(program).is_file());
    if missing {
        println!("skipped: {program} is not installed");
    }
    missing
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("vellum-um-{}-{name}", std::process::id()))
}

#[test]
fn exit_status_is_the_programs_own() {
    assert_eq!(shell("exit 0").exit, code(0));
    assert_eq!(shell("exit 42").exit, code(42));
}

#[test]
fn death_by_signal_is_seen() {
    assert_eq!(
        shell("kill -TERM $$").exit,
        Exit {
            code: None,
            signal: Some(libc::SIGTERM)
        }
    );
}

#[test]
fn children_pipes_and_wait_work() {
    let script = "test \"$(echo a b c | tr ' ' '\\n' | wc -l)\" -eq 3 && (exit 7); exit $?";
    assert_eq!(shell(script).exit, code(7));
}

#[test]
fn output_reaches_the_hosts_files() {
    let path = temporary("output");
    let script = format!("for i in 1 2 3; do echo line $i; done > {}", path.display());
    assert_eq!(shell(&script).exit, code(0));
    let text = std::fs::read_to_string(&path).expect("written");
    std::fs::remove_file(&path).expect("ours");
    assert_eq!(text, "line 1\nline 2\nline 3\n");
}

#[test]
fn a_tiny_tlb_changes_nothing_but_the_pace() {
    let words = ["sh", "-c", "echo x | cat > /dev/null; exit 5"];
    assert_eq!(run_clean(&config(64, 16, &words)).exit, code(5));
}

#[test]
fn bash_runs_in_a_tlb_of_sixteen_pages() {
    if is_missing("bash") {
        return;
    }
    let script = "for i in {1..20}; do x=$(echo $i | tr 0-9 a-j); y+=$x; done; \
                  [ $y = bcdefghijbabbbcbdbebfbgbhbibjca ]";
    let words = ["bash", "-c", script];
    assert_eq!(run_clean(&config(64, 16, &words)).exit, code(0));
}

#[test]
fn eight_threads_share_a_small_tlb() {
    if is_missing("python3") {
        return;
    }
    let script = "\
import threading, zlib
sums = [0] * 8
def work(n):
    for turn in range(30):
        data = bytearray((n * 31 + turn + i) & 255 for i in range(20000))
        sums[n] = zlib.crc32(data, sums[n])
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
threaded, sums = sums, [0] * 8
[work(n) for n in range(8)]
assert threaded == sums
";
    let words = ["python3", "-c", script];
    assert_eq!(run_clean(&config(256, 400, &words)).exit, code(0));
}

#[test]
fn faults_are_served_by_the_core() {
    let outcome = shell("exit 0");
    let faults = outcome
        .report
        .vmstat_value("pgfault")
        .expect("a counter of Linux");
    assert!(faults > 10, "{faults} faults");
}

#[test]
fn what_cannot_run_is_said() {
    let missing = run(&config(64, 1000, &["/nonexistent/program"]));
    assert!(
        matches!(missing, Err(RunError::NoSuchProgram)),
        "{missing:?}"
    );
    let plain = run(&config(64, 1000, &["/etc/passwd"]));
    assert!(matches!(plain, Err(RunError::NotExecutable)), "{plain:?}");
    let small = run(&config(1, 1000, &["true"]));
    assert!(
        matches!(small, Err(RunError::RamTooSmall { .. })),
        "{small:?}"
    );
}

#[test]
fn too_much_memory_ends_the_program_not_the_machine() {
    // A string that doubles until the machine has no frame left, in a child of the shell.
    let script = "(x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done); test $? -eq 137";
    let outcome = run_clean(&config(16, 1000, &["sh", "-c", script]));
    assert_eq!(outcome.exit, code(0));
}
