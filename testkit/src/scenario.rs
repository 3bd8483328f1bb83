//! A parsed scenario.

use crate::call::Op;
use crate::expr::Expr;

/// One file of the language.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    /// What the text calls its processes; the first exists from the start.
    pub procs: Vec<String>,
    /// What the text calls its files.
    pub files: Vec<String>,
    /// What happens, in order.
    pub statements: Vec<Statement>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Statement {
    /// From 1.
    pub line: usize,
    /// As written.
    pub text: String,
    /// Index of the process; 0 for operations that no process does.
    pub proc: usize,
    /// What to do.
    pub action: Action,
}

/// What a line does.
#[derive(Clone, Debug)]
pub enum Action {
    /// An operation, and what must come of it.
    Call {
        /// Which.
        op: Op,
        /// Its words, to be evaluated with the process's variables.
        args: [Expr; 6],
        /// The result that the scenario asks for.
        want: Want,
    },
    /// Two sums must be equal.
    Same(Expr, Expr),
    /// A variable gets a value.
    Let(String, Expr),
}

/// What must come of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Want {
    /// Success.
    Done,
    /// Success; the result becomes a variable.
    Bind(String),
    /// Success with this result.
    Value(Expr),
    /// This error number.
    Errno(i32),
    /// This signal, with this `si_code` if given.
    Signal(i32, Option<i32>),
}
