//! The programs of the daily run.

use crate::case::{Test, bash, same, same_argv};
use std::ffi::OsString;
use std::path::Path;

/// The folder of the scripts.
pub(crate) fn script(name: &str) -> OsString {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/programs")
        .join(name)
        .into_os_string()
}

/// `program FILE ARGS…`, with FILE from the folder of the scripts; `args` is split at blanks.
pub(crate) fn scripted(name: &'static str, program: &str, file: &str, args: &str) -> Test {
    let mut argv: Vec<OsString> = program.split(' ').map(OsString::from).collect();
    argv.push(script(file));
    argv.extend(
        args.split(' ')
            .filter(|arg| !arg.is_empty())
            .map(OsString::from),
    );
    same_argv(name, argv)
}

fn python(name: &'static str, file: &str) -> Test {
    scripted(name, "python3", file, "").needs(&["python3"])
}

/// A module of Python's own tests; what each test said, without times.
pub(crate) fn suite(name: &'static str, module: &str) -> Test {
    scripted(name, "python3", "suite.py", module)
        .needs(&["python3"])
        .any_stderr()
        .ram("1G")
        .seconds(900)
}

/// One program for each way of using memory that the project promises to get right.
pub(crate) fn programs() -> Vec<Test> {
    vec![
        // The slow ones first, so that all workers end at about the same time.
        suite("python_test_subprocess", "test_subprocess"),
        suite("python_test_threading", "test_threading"),
        same("true", "true"),
        same("false", "false"),
        same("echo", "echo hello world"),
        same_argv(
            "exit_status",
            ["sh", "-c", "exit 7"].map(OsString::from).to_vec(),
        ),
        same_argv(
            "killed_by_itself",
            ["sh", "-c", "kill -KILL $$"].map(OsString::from).to_vec(),
        ),
        same_argv(
            "terminated",
            ["sh", "-c", "kill -TERM $$"].map(OsString::from).to_vec(),
        ),
        same("list_directories", "ls -lR /etc"),
        same("find_files", "find /usr/lib -xdev -name lib*.so*").ram("128M"),
        same("static_program", "./static")
            .prepare(
                "printf 'int puts(const char*);int main(){puts(\"static\");return 3;}' > s.c; \
             gcc -static -o static s.c",
            )
            .needs(&["gcc"]),
        scripted("dash", "dash", "posix.sh", "").needs(&["dash"]),
        scripted("bash_pipelines", "bash", "pipeline.sh", "").needs(&["bash"]),
        // The shell announces jobs on standard error with their process numbers.
        scripted("bash_job_control", "bash", "jobs.sh", "")
            .needs(&["bash"])
            .any_stderr(),
        scripted("bash_substitution", "bash", "substitution.sh", "").needs(&["bash"]),
        scripted("perl_forks", "perl", "forks.pl", "").needs(&["perl"]),
        same_argv(
            "python_sum",
            ["python3", "-c", "print(sum(range(10**6)))"]
                .map(OsString::from)
                .to_vec(),
        )
        .ram("128M")
        .needs(&["python3"]),
        python("python_json", "json_text.py"),
        python("python_ssl", "ssl_memory.py"),
        python("python_asyncio", "asyncio_mix.py"),
        python("python_threads", "threads.py"),
        python("python_subprocess", "subprocesses.py"),
        python("python_pool", "pool.py"),
        python("python_mmap", "mappings.py"),
        python("python_crash_in_child", "crash.py"),
        same("signals_of_bad_accesses", "./bad")
            .prepare("gcc -w -O1 -o bad \"$PROGRAMS/sigsegv.c\"")
            .needs(&["gcc"]),
        same("memory_calls", "./calls")
            .prepare("gcc -w -O1 -o calls \"$PROGRAMS/memory_calls.c\"")
            .needs(&["gcc"]),
        bash(
            "sqlite_rollback",
            "sqlite3 test.db < \"$PROGRAMS/rollback.sql\"",
        )
        .needs(&["sqlite3"]),
        scripted("sqlite_wal", "bash", "wal.sh", "").needs(&["sqlite3", "bash"]),
        scripted("redis", "bash", "redis.sh", "")
            .needs(&["redis-server", "redis-benchmark", "redis-cli"])
            .seconds(120),
        scripted("gcc", "bash", "compile.sh", "").needs(&["gcc"]),
        scripted("xz_two_threads", "bash", "xz.sh", "")
            .needs(&["xz"])
            .ram("512M"),
        scripted("sort_megabytes", "bash", "sort.sh", "150000").needs(&["sort", "awk"]),
        scripted("git", "bash", "git.sh", "")
            .needs(&["git"])
            .seconds(120),
        scripted("node", "node", "node.js", "")
            .needs(&["node"])
            .ram("1G")
            .seconds(120),
        scripted("cargo_build", "bash", "cargo.sh", "")
            .needs(&["cargo", "cc"])
            .ram("1G")
            .seconds(300),
        suite("python_test_mmap", "test_mmap"),
    ]
}
