//! The words of one line, read one by one.

use crate::abi;
use crate::expr::Expr;

/// What is left of a line.
pub(crate) struct Words<'a> {
    rest: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    pub(crate) fn new(line: &'a str) -> Self {
        Self {
            rest: line.split_whitespace().collect(),
            at: 0,
        }
    }
    pub(crate) fn more(&self) -> bool {
        self.at < self.rest.len()
    }
    pub(crate) fn next(&mut self, what: &str) -> Result<&'a str, String> {
        let word = self
            .rest
            .get(self.at)
            .ok_or_else(|| format!("{what} is missing"))?;
        self.at += 1;
        Ok(word)
    }
    pub(crate) fn take(&mut self, word: &str) -> bool {
        let found = self.rest.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }
    pub(crate) fn end(&self) -> Result<(), String> {
        match self.rest.get(self.at) {
            None => Ok(()),
            Some(word) => Err(format!("{word} is too much")),
        }
    }
    pub(crate) fn expr(&mut self) -> Result<Expr, String> {
        Expr::parse(self.next("a number")?)
    }
    pub(crate) fn expr_or(&mut self, default: u64) -> Result<Expr, String> {
        if self.more() {
            self.expr()
        } else {
            Ok(Expr::number(default))
        }
    }
    pub(crate) fn name(&mut self) -> Result<String, String> {
        let word = self.next("a name")?;
        let good = word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if good {
            Ok(word.to_string())
        } else {
            Err(format!("bad name {word}"))
        }
    }
    pub(crate) fn errno(&mut self) -> Result<i32, String> {
        let word = self.next("an error")?;
        abi::lookup(abi::ERRNOS, word).ok_or_else(|| format!("no error {word}"))
    }
    pub(crate) fn prot(&mut self) -> Result<Expr, String> {
        let word = self.next("a protection")?;
        if word == "none" {
            return Ok(Expr::number(0));
        }
        let mut prot = 0;
        for letter in word.chars() {
            prot |= match letter {
                'r' => 1,
                'w' => 2,
                'x' => 4,
                _ => return Err(format!("bad protection {word}")),
            };
        }
        Ok(Expr::number(prot))
    }
    pub(crate) fn flags(&mut self, table: &[(&str, u64)]) -> Result<u64, String> {
        let mut flags = 0;
        while self.more() {
            let word = self.next("a flag")?;
            flags |= abi::lookup(table, word).ok_or_else(|| format!("no flag {word}"))?;
        }
        Ok(flags)
    }
    pub(crate) fn bits(&mut self) -> Result<Expr, String> {
        let word = self.next("bits")?;
        if word.len() > 64 || word.chars().any(|c| c != '0' && c != '1') {
            return Err(format!("bad bits {word}"));
        }
        let bits = word
            .chars()
            .rev()
            .fold(0, |sum, c| sum << 1 | u64::from(c == '1'));
        Ok(Expr::number(bits))
    }
}
