//! From an operation and its result back to a line of the language.

use crate::abi;
use crate::call::{COUNT_PATTERN, Call, Op, READ_ONLY_FILE, Reply};

/// The name that [`record`] gives a process.
pub fn proc_name(number: usize) -> String {
    format!("p{number}")
}

/// A line that demands `reply` of `call`, or several lines; `None` if the language cannot say it.
/// Files are called `f0` and so on.
pub fn record(proc: usize, call: &Call, reply: &Reply) -> Option<String> {
    let name = proc_name(proc);
    let words = verb(call, reply)?;
    if call.op.is_global() {
        return Some(words);
    }
    match reply {
        Reply::Errno(errno) => Some(format!("{name} ! {} {words}", known_errno(*errno)?)),
        Reply::Signal { number, code, addr } => {
            let kind = match call.op {
                Op::Write => "write",
                Op::Exec => "exec",
                _ => "read",
            };
            let signal = match (*number, *code) {
                (abi::SIGSEGV, abi::SEGV_MAPERR) => format!("{name} segv {kind} {addr:#x} maperr"),
                (abi::SIGSEGV, abi::SEGV_ACCERR) => format!("{name} segv {kind} {addr:#x} accerr"),
                (abi::SIGBUS, _) => format!("{name} bus {kind} {addr:#x}"),
                _ => return None,
            };
            // What was stored before the fault stays stored.
            let before = addr.checked_sub(call.args[0]).filter(|len| *len > 0);
            match (call.op, before) {
                (Op::Write, Some(len)) => {
                    let [addr, byte, ..] = call.args;
                    Some(format!("{name} write {addr:#x} {byte} {len}\n{signal}"))
                }
                _ => Some(signal),
            }
        }
        Reply::OutOfMemory => None,
        Reply::Done(_) | Reply::Differs { .. } => Some(format!("{name} {words}")),
    }
}

fn known_errno(errno: i32) -> Option<&'static str> {
    Some(abi::errno_name(errno)).filter(|name| *name != "?")
}

fn verb(call: &Call, reply: &Reply) -> Option<String> {
    let [a, b, c, d, e, f] = call.args;
    let value = match reply {
        Reply::Done(value) => *value,
        _ => 0,
    };
    Some(match call.op {
        Op::Map => {
            let sharing = match c_type(d) {
                1 => "shared",
                2 => "private",
                _ => return None,
            };
            let source = match e {
                0 => "anon".to_string(),
                file => {
                    let mode = if file & READ_ONLY_FILE != 0 {
                        " rdonly"
                    } else {
                        ""
                    };
                    format!("file f{} {f}{mode}", (file & 0xffff) - 1)
                }
            };
            let place = match d & (abi::MAP_FIXED | abi::MAP_FIXED_NOREPLACE) {
                abi::MAP_FIXED => "fixed",
                abi::MAP_FIXED_NOREPLACE => "noreplace",
                _ => "at",
            };
            let flags = words_of(d & !0xf & !abi::MAP_ANONYMOUS & !PLACES, abi::MAP_FLAGS)?;
            format!(
                "map v {b} {} {sharing} {source} {place} {a:#x}{flags}",
                prot(c)
            )
        }
        Op::Unmap => format!("unmap {a:#x} {b}"),
        Op::Protect => format!("protect {a:#x} {b} {}", prot(c)),
        Op::Remap => {
            let flags = match d {
                0 => String::new(),
                1 => " maymove".to_string(),
                2 => format!(" fixedonly {e:#x}"),
                3 => format!(" fixed {e:#x}"),
                7 => format!(" fixed {e:#x} dontunmap"),
                _ => return None,
            };
            format!("remap v {a:#x} {b} {c}{flags}")
        }
        Op::Brk => return None,
        Op::Advise => format!("advise {a:#x} {b} {c}"),
        Op::Sync => format!("sync {a:#x} {b}{}", words_of(c, abi::SYNC_FLAGS)?),
        Op::Lock if c <= 1 => format!("lock {a:#x} {b}{}", if c == 1 { " onfault" } else { "" }),
        Op::Lock => return None,
        Op::Unlock => format!("unlock {a:#x} {b}"),
        Op::LockAll => format!("lockall {a}"),
        Op::UnlockAll => "unlockall".to_string(),
        Op::Mincore => {
            let bits = (0..b.div_ceil(4096)).map(|i| if value >> i & 1 == 1 { '1' } else { '0' });
            format!("mincore {a:#x} {b} {}", bits.collect::<String>())
        }
        Op::Read => format!("read {a:#x} {b}"),
        Op::Write => format!("write {a:#x} {b} {c}"),
        Op::Expect => match reply {
            Reply::Differs {
                at,
                found: Some(byte),
            } => format!("expect {at:#x} {byte} 1"),
            _ => format!("expect {a:#x} {b} {c}"),
        },
        Op::Exec => format!("exec {a:#x}"),
        Op::Pread => format!("pread f{a} {b} {c} {d:#x}{}", count(reply)),
        Op::Pwrite => format!("pwrite f{a} {b} {c} {d:#x}{}", count(reply)),
        Op::FileExpect => match reply {
            Reply::Differs {
                at,
                found: Some(byte),
            } => format!("fexpect f{a} {at} {byte} 1"),
            Reply::Differs { found: None, .. } => return None,
            _ => format!("fexpect f{a} {b} {c} {d}"),
        },
        Op::FileWrite => format!("fwrite f{a} {b} {c} {d}"),
        Op::FileCreate if c == COUNT_PATTERN => format!("file create f{a} {b} count"),
        Op::FileCreate => format!("file create f{a} {b} {c}"),
        Op::FileTruncate => format!("file truncate f{a} {b}"),
        Op::FileSize => format!("file size f{a} {value}"),
        Op::Fork => format!("fork {}", proc_name(a as usize)),
        Op::Exit => "exit".to_string(),
        Op::Limit => {
            let (name, _) = abi::RESOURCES.iter().find(|(_, number)| *number == a)?;
            format!("limit {name} {b}")
        }
        Op::Areas => format!("areas {a:#x} {b} {value}"),
    })
}

const PLACES: u64 = abi::MAP_FIXED | abi::MAP_FIXED_NOREPLACE;

const fn c_type(flags: u64) -> u64 {
    flags & 0xf
}

fn prot(bits: u64) -> String {
    let letters = [(1, 'r'), (2, 'w'), (4, 'x')];
    let word: String = letters
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, c)| c)
        .collect();
    if word.is_empty() {
        "none".to_string()
    } else {
        word
    }
}

fn count(reply: &Reply) -> String {
    match reply {
        Reply::Done(value) => format!(" = {value}"),
        _ => String::new(),
    }
}

/// The words of a table that make up `flags`; `None` if something is left.
fn words_of(flags: u64, table: &[(&str, u64)]) -> Option<String> {
    let mut left = flags;
    let mut words = String::new();
    for (word, bit) in table {
        if left & bit != 0 {
            words.push(' ');
            words.push_str(word);
            left &= !bit;
        }
    }
    (left == 0).then_some(words)
}
