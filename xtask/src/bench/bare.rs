//! `cargo xtask bench bare`: instructions of one operation on the kernel, beside Linux's.
//!
//! The program `machines/bare/programs/vmops.c` runs on the kernel under QEMU's instruction counter,
//! where the time-stamp counter counts instructions. The kernel's string instructions count as one
//! each, not one for each iteration ("net"): otherwise the zeroing of pages would hide the rest. It
//! runs twice, and both runs must give the same figures.

use crate::boot::{Scratch, build_kernel, initramfs::Initramfs, qemu};
use crate::workspace;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What Linux 6.1 needs, net, under the same command: Debian's kernel, and one built lean (no
/// control groups, NUMA, security modules, hardening), both with mitigations off.
struct Row {
    name: &'static str,
    what: &'static str,
    debian: f64,
    lean: f64,
    /// The part of the lean figure that is the goal.
    goal: f64,
}

const fn row(name: &'static str, what: &'static str, debian: f64, lean: f64, goal: f64) -> Row {
    Row {
        name,
        what,
        debian,
        lean,
        goal,
    }
}

const ROWS: [Row; 32] = [
    row("null", "null system call (getppid)", 326.0, 188.0, 0.5),
    row("anon-write", "anonymous write fault", 2791.0, 1473.0, 0.4),
    row(
        "anon-read",
        "anonymous read fault (zero page)",
        1230.0,
        818.0,
        0.4,
    ),
    row("zero-to-own", "zero page → own page", 3168.0, 1738.0, 0.5),
    row("cow-copy", "copy-on-write fault, copy", 3440.0, 1848.0, 0.4),
    row(
        "cow-reuse",
        "copy-on-write fault, reuse",
        1349.0,
        896.0,
        0.4,
    ),
    row("file-single", "file fault, one page", 1946.0, 1269.0, 0.5),
    row(
        "file-around",
        "file fault, per page with 16-page fault-around",
        576.0,
        330.0,
        0.4,
    ),
    row(
        "file-private-write",
        "private file page, write (copy)",
        3309.0,
        1873.0,
        0.5,
    ),
    row("pread", "pread of 4 KiB, cached", 1338.0, 896.0, 0.5),
    row("pwrite", "pwrite of 4 KiB, cached", 1728.0, 1265.0, 0.5),
    row(
        "mmap-munmap",
        "mmap + munmap of a page, untouched",
        10534.0,
        7717.0,
        0.4,
    ),
    row(
        "touch-1",
        "mmap + touch + munmap, 1 page",
        16383.0,
        11009.0,
        0.5,
    ),
    row("touch-16", "… 16 pages", 72_000.0, 40_000.0, 0.5),
    row("touch-512", "… 512 pages", 1_860_000.0, 960_000.0, 0.5),
    row(
        "munmap-page",
        "munmap of touched memory, per page",
        1254.0,
        641.0,
        0.5,
    ),
    row(
        "mprotect-split",
        "mprotect of one page, split + merge (pair)",
        16908.0,
        12395.0,
        0.4,
    ),
    row(
        "mprotect-whole",
        "mprotect of a whole area of one page (pair)",
        5288.0,
        4020.0,
        0.5,
    ),
    row("mremap-1", "mremap, move of 1 page", 15269.0, 11077.0, 0.4),
    row(
        "mremap-16",
        "mremap, move of 16 pages",
        16244.0,
        11570.0,
        0.4,
    ),
    row(
        "mremap-grow",
        "mremap, growth by moving, 16 → 32 pages",
        13253.0,
        9365.0,
        0.5,
    ),
    row(
        "brk",
        "brk, growth + shrinking by a page (pair)",
        13290.0,
        9679.0,
        0.4,
    ),
    row(
        "dontneed-1",
        "MADV_DONTNEED + touch, 1 page",
        5963.0,
        3555.0,
        0.5,
    ),
    row("dontneed-512", "… per page of 512", 3595.0, 1849.0, 0.5),
    row("mincore-512", "mincore of 512 pages", 12389.0, 9070.0, 0.5),
    row(
        "fork-0",
        "fork + exit + wait, nothing resident",
        90_000.0,
        55_000.0,
        0.5,
    ),
    row("fork-1k", "… 1k resident pages", 498_000.0, 316_000.0, 0.5),
    row(
        "fork-16k",
        "… 16k resident pages",
        6_570_000.0,
        4_210_000.0,
        0.4,
    ),
    row(
        "fork-exec",
        "fork + exec of a tiny static program",
        176_000.0,
        107_000.0,
        0.5,
    ),
    row(
        "among-20000",
        "random fault among 20 000 areas",
        4550.0,
        2809.0,
        0.4,
    ),
    row("among-1", "random fault in one area", 2777.0, 1486.0, 0.5),
    row("pipe", "pipe round trip", 10906.0, 6285.0, 0.5),
];

/// Instructions between two readings of the counter with nothing between them; more means that the
/// kernel leaves the cost of its traps out wrongly.
const MOST_EMPTY: f64 = 16.0;

struct Options {
    markdown: bool,
    append: Vec<String>,
    /// Another program that prints what it likes, instead of the table.
    program: Option<PathBuf>,
}

fn read(words: &[&str]) -> Result<Options, String> {
    let mut options = Options {
        markdown: false,
        append: Vec::new(),
        program: None,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match *word {
            "--markdown" => options.markdown = true,
            "--append" => options.append.push((*value()?).to_string()),
            "--program" => options.program = Some(PathBuf::from(*value()?)),
            _ => return Err(format!("bench bare: unknown option {word}")),
        }
    }
    Ok(options)
}

/// The benchmark.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let options = read(words)?;
    qemu::ensure(false)?;
    let kernel = build_kernel()?;
    let scratch = Scratch::new()?;
    let program = match &options.program {
        Some(path) => path.clone(),
        None => compile("vmops.c", "vmops", "musl-gcc", &["-fno-builtin"], &scratch)?,
    };
    let tiny = compile("tiny.c", "tiny", "gcc", &["-nostdlib"], &scratch)?;
    let mut archive = Initramfs::default();
    archive.add_file("vmops", &program)?;
    archive.add_file("tiny", &tiny)?;
    archive.add_strings("boot/arguments", &["/vmops".to_string()]);
    let image = scratch.file("initramfs.cpio");
    std::fs::write(&image, archive.finish())
        .map_err(|error| format!("{}: {error}", image.display()))?;
    let first = boot(&options, &kernel, &image, &scratch)?;
    if options.program.is_some() {
        print!("{first}");
        return Ok(());
    }
    let second = boot(&options, &kernel, &image, &scratch)?;
    print_table(&first, options.markdown)?;
    if first == second {
        println!("\nA second boot gave the same figures, to the last digit.");
        Ok(())
    } else {
        Err(format!("a second boot gave other figures:\n{second}"))
    }
}

fn compile(
    source: &str,
    name: &str,
    compiler: &str,
    extra: &[&str],
    scratch: &Scratch,
) -> Result<PathBuf, String> {
    let source = workspace::root()
        .join("machines/bare/programs")
        .join(source);
    let program = scratch.file(name);
    let status = Command::new(compiler)
        .args(["-O2", "-static"])
        .args(extra)
        .arg("-o")
        .args([&program, &source])
        .status()
        .map_err(|error| {
            format!(
                "{compiler}: {error}\n  apt-get install -y --no-install-recommends musl-tools gcc"
            )
        })?;
    if status.success() {
        Ok(program)
    } else {
        Err(format!("{}: does not compile", source.display()))
    }
}

/// One boot under the command with which Linux was measured; returns what the program printed.
fn boot(
    options: &Options,
    kernel: &Path,
    image: &Path,
    scratch: &Scratch,
) -> Result<String, String> {
    let output = scratch.file("output");
    let line = format!("net nokaslr norandmaps {}", options.append.join(" "));
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "900", "qemu-system-x86_64"]);
    command.args([
        "-accel",
        "tcg,thread=single",
        "-icount",
        "shift=0,sleep=off,align=off",
    ]);
    command.args([
        "-cpu",
        "max",
        "-smp",
        "1",
        "-m",
        "512M",
        "-nographic",
        "-nodefaults",
    ]);
    command
        .arg("-serial")
        .arg(format!("file:{}", output.display()));
    command.args([
        "-no-reboot",
        "-seed",
        "1",
        "-rtc",
        "base=2024-01-01T00:00:00,clock=vm",
    ]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    command.args(["-append", line.trim()]);
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("timeout qemu-system-x86_64: {error}"))?;
    let text = std::fs::read_to_string(&output).unwrap_or_default();
    if status.code() == Some(33) {
        Ok(text)
    } else {
        Err(format!("QEMU ended with {status}:\n{text}"))
    }
}

fn print_table(output: &str, markdown: bool) -> Result<(), String> {
    let figures: Vec<(&str, f64)> = output
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, figure)| Some((name, figure.trim().parse().ok()?)))
        .collect();
    if markdown {
        println!(
            "| operation | vellum | Linux, Debian | Linux, lean | ratio to lean | goal | met |"
        );
        println!("|---|--:|--:|--:|--:|--:|---|");
    }
    // The firmware's last words stand before it on its line.
    let empty = figures.iter().find(|(name, _)| name.ends_with("empty"));
    if empty.is_none_or(|(_, figure)| !(0.0..MOST_EMPTY).contains(figure)) {
        return Err(format!(
            "reading the counter costs {empty:?}: the kernel's WAY in clock.rs is to be set anew"
        ));
    }
    let mut met = 0;
    for row in &ROWS {
        let figure = figures
            .iter()
            .find(|(name, _)| *name == row.name)
            .map(|(_, figure)| *figure)
            .ok_or_else(|| format!("the program printed no {}:\n{output}", row.name))?;
        let ratio = figure / row.lean;
        let good = ratio <= row.goal;
        met += u32::from(good);
        let answer = if good { "yes" } else { "no" };
        if markdown {
            println!(
                "| {} | {figure:.0} | {:.0} | {:.0} | {ratio:.2} | ≤ {:.1} | {answer} |",
                row.what, row.debian, row.lean, row.goal
            );
        } else {
            println!(
                "{:48} {figure:>10.0} {:>10.0} {:>10.0} {ratio:>6.2}  ≤ {:.1} {answer}",
                row.what, row.debian, row.lean, row.goal
            );
        }
    }
    println!("\n{met} of {} rows meet their goal.", ROWS.len());
    Ok(())
}
