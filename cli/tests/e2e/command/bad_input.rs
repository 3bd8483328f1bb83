//! What bad input gets.

use super::{expect, expect_one_line, expect_status, run};
use crate::case::vellum;
use std::fs;
use std::path::Path;

pub(super) fn no_such_program(dir: &Path) -> Result<(), String> {
    for name in ["no-such-program-anywhere", "/no/such/program", "./nothing"] {
        let ran = run(dir, &["run", "--", name])?;
        expect_status(127, &ran)?;
        expect_one_line(&["vellum: ", name], &ran)?;
    }
    Ok(())
}

pub(super) fn not_executable(dir: &Path) -> Result<(), String> {
    fs::write(dir.join("plain"), "echo never\n").map_err(|error| error.to_string())?;
    for name in ["./plain", "/etc"] {
        let ran = run(dir, &["run", "--", name])?;
        expect_status(126, &ran)?;
        expect_one_line(&["vellum: ", name], &ran)?;
    }
    Ok(())
}

pub(super) fn bad_size(dir: &Path) -> Result<(), String> {
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

pub(super) fn unknown_option(dir: &Path) -> Result<(), String> {
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

pub(super) fn too_little_ram(dir: &Path) -> Result<(), String> {
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

pub(super) fn unwritable_report(dir: &Path) -> Result<(), String> {
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

pub(super) fn nested(dir: &Path) -> Result<(), String> {
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

pub(super) fn refused_call(dir: &Path) -> Result<(), String> {
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

/// Each is refused in one line before the program starts.
pub(super) fn bad_swap(dir: &Path) -> Result<(), String> {
    fs::write(dir.join("empty"), "").map_err(|error| error.to_string())?;
    fs::write(dir.join("zeroes"), vec![0; 1 << 20]).map_err(|error| error.to_string())?;
    for (area, why) in [
        ("file:nowhere", "no such file"),
        ("file:empty", "too small"),
        ("file:zeroes", "no swap signature"),
        ("file:fresh:8K", "too small"),
        ("file:/proc/version", "swap /proc/version: "),
    ] {
        let ran = run(dir, &["run", "--swap", area, "--", "echo", "never"])?;
        expect_status(125, &ran)?;
        expect_one_line(&["vellum: swap ", why], &ran)?;
        expect(ran.out_text().is_empty(), "the program did not start", &ran)?;
    }
    expect_status(2, &run(dir, &["run", "--swap", "tape:1G", "--", "true"])?)?;
    Ok(())
}
