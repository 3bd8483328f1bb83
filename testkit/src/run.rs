//! Runs a scenario on an [`Executor`] and compares.

use crate::abi;
use crate::call::{Call, Executor, MAX_PROCS, Op, Reply};
use crate::expr::{Expr, Vars};
use crate::scenario::{Action, Scenario, Statement, Want};

/// Where and how a scenario went another way than its text says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// From 1.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What happened instead.
    pub message: String,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.text, self.message)
    }
}

impl std::error::Error for Mismatch {}

/// How a scenario ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// All lines went as written.
    Complete,
    /// Memory ran out at this line, which was allowed; the rest was not run.
    OutOfMemory {
        /// From 1.
        line: usize,
    },
}

/// May memory run out?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// No: running out is a mismatch.
    Forbidden,
    /// Allocations are made to fail: the scenario ends at the first line that feels it.
    Allowed,
}

/// Runs all lines in order.
///
/// # Errors
/// The first line that goes another way.
pub fn run(
    scenario: &Scenario,
    executor: &mut dyn Executor,
    shortage: Shortage,
) -> Result<Ending, Mismatch> {
    let mut state = Run {
        executor,
        vars: vec![None; MAX_PROCS],
        shortage,
    };
    state.vars[0] = Some(Vars::new());
    for statement in &scenario.statements {
        let wrong = |message| Mismatch {
            line: statement.line,
            text: statement.text.clone(),
            message,
        };
        if state.step(statement).map_err(wrong)? == Step::Short {
            return Ok(Ending::OutOfMemory {
                line: statement.line,
            });
        }
    }
    Ok(Ending::Complete)
}

#[derive(PartialEq, Eq)]
enum Step {
    Next,
    Short,
}

struct Run<'a> {
    executor: &'a mut dyn Executor,
    /// `None` for processes that do not exist (yet, or any more).
    vars: Vec<Option<Vars>>,
    shortage: Shortage,
}

impl Run<'_> {
    fn vars(&mut self, proc: usize) -> Result<&mut Vars, String> {
        self.vars[proc]
            .as_mut()
            .ok_or_else(|| "the process does not exist now".to_string())
    }

    fn step(&mut self, statement: &Statement) -> Result<Step, String> {
        let proc = statement.proc;
        match &statement.action {
            Action::Same(left, right) => {
                let vars = self.vars(proc)?;
                let (left, right) = (left.eval(vars)?, right.eval(vars)?);
                if left != right {
                    return Err(format!("{left:#x} is not {right:#x}"));
                }
            }
            Action::Let(name, value) => {
                let vars = self.vars(proc)?;
                let value = value.eval(vars)?;
                vars.insert(name.clone(), value);
            }
            Action::Call { op, args, want } => return self.call(proc, *op, args, want),
        }
        Ok(Step::Next)
    }

    fn call(&mut self, proc: usize, op: Op, args: &[Expr; 6], want: &Want) -> Result<Step, String> {
        let empty = Vars::new();
        let vars = if op.is_global() {
            &empty
        } else {
            self.vars(proc)?
        };
        let mut words = [0; 6];
        for (word, arg) in words.iter_mut().zip(args) {
            *word = arg.eval(vars)?;
        }
        let want_value = match want {
            Want::Value(expr) => Some(expr.eval(vars)?),
            _ => None,
        };
        let call = Call { op, args: words };
        let reply = self.executor.call(proc, &call)?;
        if self.shortage == Shortage::Allowed && is_shortage(&call, &reply, want, want_value) {
            return Ok(Step::Short);
        }
        match (want, &reply) {
            (Want::Done, Reply::Done(_)) => {}
            (Want::Bind(name), Reply::Done(value)) => {
                self.vars(proc)?.insert(name.clone(), *value);
            }
            (Want::Value(_), Reply::Done(value)) if Some(*value) == want_value => {}
            (Want::Errno(errno), Reply::Errno(got)) if errno == got => {}
            (
                Want::Signal(number, code),
                Reply::Signal {
                    number: n,
                    code: c,
                    addr,
                },
            ) if number == n && code.is_none_or(|code| code == *c) => {
                if *addr != words[0] {
                    return Err(format!(
                        "the signal reports address {addr:#x}, not {:#x}",
                        words[0]
                    ));
                }
            }
            _ => return Err(format!("{}{}", describe(&reply), wanted(want, want_value))),
        }
        match op {
            Op::Fork => self.vars[words[0] as usize] = self.vars[proc].clone(),
            Op::Exit => self.vars[proc] = None,
            _ => {}
        }
        Ok(Step::Next)
    }
}

/// Could this reply come from an allocation that failed? A line that demands an error still may see
/// a shortage first.
fn is_shortage(call: &Call, reply: &Reply, want: &Want, want_value: Option<u64>) -> bool {
    match reply {
        Reply::OutOfMemory => true,
        // mlock and MAP_LOCKED say EAGAIN, a copy into memory that cannot be had EFAULT.
        Reply::Errno(errno) => *want != Want::Errno(*errno) && matches!(errno, 11 | 12 | 14),
        // brk(2) reports failure by the old break; reads and writes are cut short.
        Reply::Done(value) => match call.op {
            Op::Brk => call.args[0] != 0 && *value != call.args[0],
            Op::Pread | Op::Pwrite => want_value.is_some_and(|want| *value < want),
            // MAP_POPULATE and MADV_WILLNEED fail silently.
            Op::Mincore => want_value.is_some_and(|want| value & !want == 0 && *value != want),
            _ => false,
        },
        _ => false,
    }
}

fn describe(reply: &Reply) -> String {
    match reply {
        Reply::Done(value) => format!("gave {value:#x}"),
        Reply::Errno(errno) => format!("failed with {} ({errno})", abi::errno_name(*errno)),
        Reply::Signal { number, code, addr } => {
            let name = match (*number, *code) {
                (abi::SIGSEGV, abi::SEGV_MAPERR) => "SIGSEGV/MAPERR",
                (abi::SIGSEGV, abi::SEGV_ACCERR) => "SIGSEGV/ACCERR",
                (abi::SIGBUS, abi::BUS_ADRERR) => "SIGBUS/ADRERR",
                _ => "a signal",
            };
            format!("{name} (number {number}, code {code}) at {addr:#x}")
        }
        Reply::Differs {
            at,
            found: Some(byte),
        } => format!("found {byte:#04x} at {at:#x}"),
        Reply::Differs { at, found: None } => format!("found the end of the file at {at:#x}"),
        Reply::OutOfMemory => "killed for lack of memory".to_string(),
    }
}

fn wanted(want: &Want, want_value: Option<u64>) -> String {
    match want {
        Want::Value(_) => format!(", not {:#x}", want_value.unwrap_or(0)),
        Want::Errno(errno) => format!(", not {}", abi::errno_name(*errno)),
        Want::Signal(number, _) => format!(", not signal {number}"),
        _ => String::new(),
    }
}
