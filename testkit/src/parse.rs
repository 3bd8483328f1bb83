//! From text to [`Scenario`].

use crate::abi;
use crate::call::{COUNT_PATTERN, MAX_FILES, MAX_PROCS, Op, READ_ONLY_FILE};
use crate::expr::Expr;
use crate::scenario::{Action, Scenario, Statement, Want};
use crate::words::Words;

/// A line that is not in the language.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut scenario = Self::default();
        for (index, raw) in text.lines().enumerate() {
            let code = raw.split('#').next().unwrap_or("").trim();
            if code.is_empty() {
                continue;
            }
            let line = index + 1;
            let wrong = |message| ParseError { line, message };
            if let Some((proc, action)) = scenario.line(code).map_err(wrong)? {
                let text = code.to_string();
                scenario.statements.push(Statement {
                    line,
                    text,
                    proc,
                    action,
                });
            }
        }
        Ok(scenario)
    }

    fn line(&mut self, code: &str) -> Result<Option<(usize, Action)>, String> {
        let mut words = Words::new(code);
        let first = words.next("a word")?;
        let action = match first {
            "proc" => {
                if !self.procs.is_empty() {
                    return Err("only the first process is declared; others are forked".into());
                }
                self.procs.push(words.next("a name")?.to_string());
                None
            }
            "file" => Some((0, self.file(&mut words)?)),
            name => {
                let proc = self.proc(name)?;
                let errno = if words.take("!") {
                    Some(words.errno()?)
                } else {
                    None
                };
                let action = self.verb(&mut words)?;
                Some((proc, with_errno(action, errno)?))
            }
        };
        words.end()?;
        Ok(action)
    }

    fn proc(&self, name: &str) -> Result<usize, String> {
        self.procs
            .iter()
            .position(|p| p == name)
            .ok_or_else(|| format!("no process {name}"))
    }

    fn file_number(&self, name: &str) -> Result<u64, String> {
        let index = self.files.iter().position(|f| f == name);
        index
            .map(|i| i as u64)
            .ok_or_else(|| format!("no file {name}"))
    }

    fn file(&mut self, words: &mut Words<'_>) -> Result<Action, String> {
        let verb = words.next("create, truncate or size")?;
        let name = words.next("a file")?;
        if verb == "create" {
            if self.files.len() == MAX_FILES || self.files.iter().any(|f| f == name) {
                return Err(format!("too many files, or {name} twice"));
            }
            self.files.push(name.to_string());
        }
        let file = Expr::number(self.file_number(name)?);
        let size = words.expr()?;
        Ok(match verb {
            "create" => {
                let pattern = match words.next("a pattern")? {
                    "zero" => Expr::number(0),
                    "count" => Expr::number(COUNT_PATTERN),
                    byte => Expr::parse(byte)?,
                };
                call(Op::FileCreate, [file, size, pattern])
            }
            "truncate" => call(Op::FileTruncate, [file, size]),
            "size" => wanting(call(Op::FileSize, [file]), Want::Value(size)),
            _ => return Err(format!("no file operation {verb}")),
        })
    }

    fn verb(&mut self, words: &mut Words<'_>) -> Result<Action, String> {
        let verb = words.next("a verb")?;
        Ok(match verb {
            "map" => self.map(words)?,
            "unmap" => call(Op::Unmap, [words.expr()?, words.expr()?]),
            "protect" => call(Op::Protect, [words.expr()?, words.expr()?, words.prot()?]),
            "remap" => remap(words)?,
            "brk" => {
                let var = words.name()?;
                let addr = if words.more() {
                    words.expr()?
                } else {
                    Expr::number(0)
                };
                wanting(call(Op::Brk, [addr]), Want::Bind(var))
            }
            "advise" => {
                let (addr, len) = (words.expr()?, words.expr()?);
                let name = words.next("an advice")?;
                let advice = abi::lookup(abi::ADVICE, name).map(Expr::number);
                let advice = advice.map_or_else(|| Expr::parse(name), Ok)?;
                call(Op::Advise, [addr, len, advice])
            }
            "sync" => {
                let (addr, len) = (words.expr()?, words.expr()?);
                let flags = words.flags(abi::SYNC_FLAGS)?;
                call(Op::Sync, [addr, len, Expr::number(flags)])
            }
            "lock" => {
                let (addr, len) = (words.expr()?, words.expr()?);
                call(
                    Op::Lock,
                    [addr, len, Expr::number(u64::from(words.take("onfault")))],
                )
            }
            "unlock" => call(Op::Unlock, [words.expr()?, words.expr()?]),
            "lockall" => call(Op::LockAll, [words.expr()?]),
            "unlockall" => call(Op::UnlockAll, []),
            "mincore" => {
                let range = [words.expr()?, words.expr()?];
                let bits = words.bits()?;
                wanting(call(Op::Mincore, range), Want::Value(bits))
            }
            "areas" => {
                let range = [words.expr()?, words.expr()?];
                let count = words.expr()?;
                wanting(call(Op::Areas, range), Want::Value(count))
            }
            "read" => call(Op::Read, [words.expr()?, words.expr_or(1)?]),
            "write" => call(Op::Write, [words.expr()?, words.expr()?, words.expr_or(1)?]),
            "expect" => call(
                Op::Expect,
                [words.expr()?, words.expr()?, words.expr_or(1)?],
            ),
            "exec" => call(Op::Exec, [words.expr()?]),
            "segv" => signal(words, abi::SIGSEGV)?,
            "bus" => signal(words, abi::SIGBUS)?,
            "pread" | "pwrite" => {
                let file = Expr::number(self.file_number(words.next("a file")?)?);
                let args = [file, words.expr()?, words.expr()?, words.expr()?];
                let op = if verb == "pread" {
                    Op::Pread
                } else {
                    Op::Pwrite
                };
                let want = if words.take("=") {
                    words.expr()?
                } else {
                    args[2].clone()
                };
                wanting(call(op, args), Want::Value(want))
            }
            "fexpect" | "fwrite" => {
                let file = Expr::number(self.file_number(words.next("a file")?)?);
                let args = [file, words.expr()?, words.expr()?, words.expr_or(1)?];
                call(
                    if verb == "fexpect" {
                        Op::FileExpect
                    } else {
                        Op::FileWrite
                    },
                    args,
                )
            }
            "fork" => {
                let child = words.name()?;
                if self.procs.len() == MAX_PROCS || self.procs.contains(&child) {
                    return Err(format!("too many processes, or {child} twice"));
                }
                self.procs.push(child);
                call(Op::Fork, [Expr::number(self.procs.len() as u64 - 1)])
            }
            "exit" => call(Op::Exit, []),
            "limit" => {
                let name = words.next("a resource")?;
                let resource = abi::lookup(abi::RESOURCES, name);
                let resource = resource.ok_or_else(|| format!("no resource {name}"))?;
                call(Op::Limit, [Expr::number(resource), words.expr()?])
            }
            "same" => Action::Same(words.expr()?, words.expr()?),
            "let" => Action::Let(words.name()?, words.expr()?),
            _ => return Err(format!("no verb {verb}")),
        })
    }

    fn map(&mut self, words: &mut Words<'_>) -> Result<Action, String> {
        let var = words.name()?;
        let len = words.expr()?;
        let prot = words.prot()?;
        let mut flags = match words.next("private or shared")? {
            "private" => abi::MAP_PRIVATE,
            "shared" => abi::MAP_SHARED,
            "nosharing" => 0,
            other => return Err(format!("{other} is neither private nor shared")),
        };
        let (file, offset) = match words.next("anon or file")? {
            "anon" => {
                flags |= abi::MAP_ANONYMOUS;
                (0, Expr::number(0))
            }
            "file" => {
                let file = self.file_number(words.next("a file")?)? + 1;
                let offset = words.expr()?;
                (
                    file | if words.take("rdonly") {
                        READ_ONLY_FILE
                    } else {
                        0
                    },
                    offset,
                )
            }
            other => return Err(format!("{other} is neither anon nor file")),
        };
        let mut addr = Expr::number(0);
        while words.more() {
            let word = words.next("a flag")?;
            match word {
                "at" => addr = words.expr()?,
                "fixed" => {
                    flags |= abi::MAP_FIXED;
                    addr = words.expr()?;
                }
                "noreplace" => {
                    flags |= abi::MAP_FIXED_NOREPLACE;
                    addr = words.expr()?;
                }
                _ => {
                    let flag = abi::lookup(abi::MAP_FLAGS, word);
                    flags |= flag.ok_or_else(|| format!("no flag {word}"))?;
                }
            }
        }
        let args = [
            addr,
            len,
            prot,
            Expr::number(flags),
            Expr::number(file),
            offset,
        ];
        Ok(wanting(call(Op::Map, args), Want::Bind(var)))
    }
}

fn remap(words: &mut Words<'_>) -> Result<Action, String> {
    let var = words.name()?;
    let (old, old_len, new_len) = (words.expr()?, words.expr()?, words.expr()?);
    let mut flags = 0;
    let mut new = Expr::number(0);
    while words.more() {
        match words.next("a flag")? {
            "maymove" => flags |= abi::MREMAP_MAYMOVE,
            "dontunmap" => flags |= abi::MREMAP_DONTUNMAP | abi::MREMAP_MAYMOVE,
            "fixed" => {
                flags |= abi::MREMAP_FIXED | abi::MREMAP_MAYMOVE;
                new = words.expr()?;
            }
            "fixedonly" => {
                flags |= abi::MREMAP_FIXED;
                new = words.expr()?;
            }
            other => return Err(format!("no flag {other}")),
        }
    }
    let args = [old, old_len, new_len, Expr::number(flags), new];
    Ok(wanting(call(Op::Remap, args), Want::Bind(var)))
}

fn signal(words: &mut Words<'_>, number: i32) -> Result<Action, String> {
    let kind = words.next("read, write or exec")?;
    let addr = words.expr()?;
    let code = match number {
        abi::SIGBUS => Some(abi::BUS_ADRERR),
        _ if words.take("maperr") => Some(abi::SEGV_MAPERR),
        _ if words.take("accerr") => Some(abi::SEGV_ACCERR),
        _ => None,
    };
    let one = Expr::number(1);
    let action = match kind {
        "read" => call(Op::Read, [addr, one]),
        "write" => call(Op::Write, [addr, Expr::number(0), one]),
        "exec" => call(Op::Exec, [addr]),
        _ => return Err(format!("{kind} is no access")),
    };
    Ok(wanting(action, Want::Signal(number, code)))
}

fn call<const N: usize>(op: Op, given: [Expr; N]) -> Action {
    let mut args: [Expr; 6] = Default::default();
    for (slot, arg) in args.iter_mut().zip(given) {
        *slot = arg;
    }
    Action::Call {
        op,
        args,
        want: Want::Done,
    }
}

fn wanting(action: Action, want: Want) -> Action {
    match action {
        Action::Call { op, args, .. } => Action::Call { op, args, want },
        other => other,
    }
}

fn with_errno(action: Action, errno: Option<i32>) -> Result<Action, String> {
    match (errno, action) {
        (None, action) => Ok(action),
        (Some(errno), action @ Action::Call { .. }) => Ok(wanting(action, Want::Errno(errno))),
        (Some(_), _) => Err("this verb makes no system call".into()),
    }
}
