//! Running QEMU, and how it ended.

use super::{Options, Scratch, symbols};
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
/// What installs it.
const INSTALL: &str = "apt-get install -y --no-install-recommends qemu-system-x86";
/// isa-debug-exit's answer to an orderly end, and to a panic.
const DONE: i32 = 33;
const PANIC: i32 = 127;
/// How much of the output is kept to look for a backtrace.
const TAIL: usize = 1 << 16;

/// How a run ended.
#[derive(Debug)]
pub(crate) struct End {
    /// For our own exit.
    pub(crate) status: u8,
    /// What else should be said.
    pub(crate) note: Option<String>,
}

/// True if QEMU is there.
pub(crate) fn is_there() -> bool {
    Command::new(QEMU)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Makes sure that QEMU is there.
pub(crate) fn ensure(install: bool) -> Result<(), String> {
    if is_there() {
        return Ok(());
    }
    let missing =
        format!("{QEMU} is not installed; this installs it on Debian, as root:\n  {INSTALL}");
    if !install {
        return Err(missing);
    }
    let mut words = INSTALL.split(' ');
    let status = Command::new(words.next().unwrap_or_default())
        .args(words)
        .status()
        .map_err(|error| format!("apt-get: {error}\n{missing}"))?;
    if status.success() && is_there() {
        Ok(())
    } else {
        Err(missing)
    }
}

fn command(
    options: &Options,
    kernel: &Path,
    archive: Option<&Path>,
    report: &Path,
) -> Result<Command, String> {
    let mut command = Command::new(QEMU);
    if options.icount {
        command.args(["-accel", "tcg,thread=single"]);
        command.args(["-icount", "shift=0,sleep=off,align=off"]);
        command.args(["-rtc", "base=2024-01-01T00:00:00,clock=vm", "-seed", "1"]);
    } else {
        command.args(["-accel", "tcg"]);
    }
    command.args([
        "-cpu",
        "max",
        "-machine",
        &options.machine,
        "-m",
        &options.ram,
    ]);
    command.args(["-smp", &options.cpus.to_string()]);
    if options.nodes > 1 {
        nodes(options, &mut command)?;
    }
    command.arg("-kernel").arg(kernel);
    if let Some(archive) = archive {
        command.arg("-initrd").arg(archive);
    }
    let words = options.words_of_kernel()?;
    if !words.is_empty() {
        command.args(["-append", &words.join(" ")]);
    }
    if options.gdb {
        command.args(["-s", "-S"]);
    }
    command.args([
        "-display",
        "none",
        "-nodefaults",
        "-no-reboot",
        "-serial",
        "stdio",
    ]);
    command
        .arg("-serial")
        .arg(format!("file:{}", report.display()));
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    Ok(command)
}

/// Memory and CPUs in equal parts.
fn nodes(options: &Options, command: &mut Command) -> Result<(), String> {
    let part = (options.ram_bytes()? / u64::from(options.nodes)) >> 20;
    if part == 0 || part << 20 != options.ram_bytes()? / u64::from(options.nodes) {
        return Err(format!(
            "--ram {} in {} nodes: no whole MiB each",
            options.ram, options.nodes
        ));
    }
    for node in 0..options.nodes {
        command.args([
            "-object",
            &format!("memory-backend-ram,id=m{node},size={part}M"),
        ]);
        let mut text = format!("node,nodeid={node},memdev=m{node}");
        for cpu in (0..options.cpus).filter(|cpu| cpu % options.nodes == node) {
            text.push_str(&format!(",cpus={cpu}"));
        }
        command.args(["-numa", &text]);
    }
    Ok(())
}

/// Runs QEMU to its end or the end of its time. The program's output is our own.
pub(crate) fn run(
    options: &Options,
    kernel: &Path,
    archive: Option<&Path>,
    scratch: &Scratch,
) -> Result<End, String> {
    let report = scratch.file("report");
    let mut command = command(options, kernel, archive, &report)?;
    let terminal = std::io::stdin().is_terminal();
    command.stdin(if terminal {
        Stdio::inherit()
    } else {
        Stdio::piped()
    });
    command.stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| format!("{QEMU}: {error}"))?;
    if let Some(into) = child.stdin.take() {
        std::thread::spawn(move || feed(into));
    }
    let tail = Arc::new(Mutex::new(Vec::new()));
    let copier = child.stdout.take().map(|from| {
        let tail = Arc::clone(&tail);
        std::thread::spawn(move || copy_out(from, &tail))
    });
    let code = wait(&mut child, options.timeout)?;
    if let Some(copier) = copier {
        // It ended with QEMU's output.
        let _ = copier.join();
    }
    let Some(code) = code else {
        let note = format!("timeout: ended after {} s", options.timeout);
        return Ok(End {
            status: 124,
            note: Some(note),
        });
    };
    let told = std::fs::read_to_string(&report).unwrap_or_default();
    Ok(judge(code, told.trim(), || {
        symbols::explain(
            kernel,
            &tail.lock().map_or_else(|_| Vec::new(), |t| t.clone()),
        )
    }))
}

fn judge(code: i32, told: &str, explain: impl FnOnce() -> Option<String>) -> End {
    let exit = told
        .strip_prefix("exit ")
        .and_then(|status| status.parse().ok());
    match (code, exit) {
        (DONE, Some(status)) => End { status, note: None },
        (PANIC, _) => End {
            status: 101,
            note: explain(),
        },
        _ => End {
            status: 101,
            note: Some(format!(
                "QEMU ended with status {code}; the kernel said {told:?}"
            )),
        },
    }
}

/// Our input is the program's; its end is ^D.
fn feed(mut into: impl Write) {
    let mut chunk = [0; 4096];
    let mut from = std::io::stdin();
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        if into
            .write_all(&chunk[..n])
            .and_then(|()| into.flush())
            .is_err()
        {
            return;
        }
    }
    if into.write_all(&[4]).and_then(|()| into.flush()).is_ok() {
        // An end of QEMU's input would end the serial line.
        loop {
            std::thread::park();
        }
    }
}

fn copy_out(mut from: impl Read, tail: &Mutex<Vec<u8>>) {
    let mut chunk = [0; 4096];
    let mut out = std::io::stdout();
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        // Nobody to read it is no reason to stop the program.
        let _ = out.write_all(&chunk[..n]).and_then(|()| out.flush());
        if let Ok(mut tail) = tail.lock() {
            tail.extend_from_slice(&chunk[..n]);
            let surplus = tail.len().saturating_sub(TAIL);
            tail.drain(..surplus);
        }
    }
}

/// The exit code, or `None` if the time was over first.
fn wait(child: &mut Child, seconds: u64) -> Result<Option<i32>, String> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status.code().unwrap_or(-1))),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                child
                    .kill()
                    .and_then(|()| child.wait())
                    .map_err(|error| format!("{QEMU}: {error}"))?;
                return Ok(None);
            }
            Err(error) => return Err(format!("{QEMU}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(judge(DONE, "exit 42", || None).status, 42);
        assert_eq!(judge(PANIC, "panic", || None).status, 101);
        let torn = judge(0, "", || None);
        assert_eq!(torn.status, 101);
        assert!(torn.note.unwrap().contains("status 0"));
    }
}
