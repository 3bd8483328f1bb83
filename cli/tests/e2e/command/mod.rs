//! What the command itself promises: statuses, reports, traces, and answers to bad input.

mod bad_input;
mod life;
mod reports;

use crate::case::{Test, check, vellum};
use crate::process::{self, Ran, Spec};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// The tests.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        check("no_such_program_is_127", bad_input::no_such_program),
        check("not_executable_is_126", bad_input::not_executable),
        check("a_bad_size_is_explained", bad_input::bad_size),
        check("an_unknown_option_is_refused", bad_input::unknown_option),
        check(
            "too_little_ram_says_how_much_works",
            bad_input::too_little_ram,
        ),
        check(
            "swap_that_cannot_be_used_is_said_first",
            bad_input::bad_swap,
        ),
        check(
            "a_report_that_cannot_be_written_is_said_first",
            bad_input::unwritable_report,
        ),
        check("the_human_report_is_on_stderr", reports::human_report).needs(&["python3"]),
        check("no_report_is_silent", reports::no_report),
        check("a_trace_is_json_lines", reports::trace),
        check("standard_input_is_the_programs", reports::standard_input),
        check("a_refused_call_is_named", bad_input::refused_call).needs(&["python3"]),
        check("a_machine_in_a_machine_is_refused", bad_input::nested),
        check("proc_shows_our_machine", reports::proc_files).needs(&["python3"]),
        check("out_of_memory_kills_one", life::oom_kills_one).needs(&["python3", "bash"]),
        check("out_of_memory_is_137", life::oom_status).needs(&["python3"]),
        check("interrupt_reaches_the_program", life::interrupt).needs(&["bash"]),
        check(
            "a_killed_supervisor_leaves_nothing",
            life::killed_supervisor,
        )
        .needs(&["bash"]),
        check("without_root", life::without_root).needs(&["setpriv", "python3"]),
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
