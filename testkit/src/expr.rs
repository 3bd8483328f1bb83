//! Numbers and sums: `16K`, `0x55`, `p+4K-1`.

use std::collections::HashMap;

/// The variables of one process.
pub type Vars = HashMap<String, u64>;

/// A sum of constants and variables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expr {
    terms: Vec<(bool, Term)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Term {
    Number(u64),
    Var(String),
}

impl Expr {
    /// A constant.
    pub fn number(value: u64) -> Self {
        Self {
            terms: vec![(false, Term::Number(value))],
        }
    }

    /// Reads a sum.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        let mut rest = text;
        let mut negative = false;
        loop {
            let end = rest.find(['+', '-']).unwrap_or(rest.len());
            terms.push((negative, Term::parse(&rest[..end])?));
            let Some(sign) = rest[end..].chars().next() else {
                break;
            };
            negative = sign == '-';
            rest = &rest[end + 1..];
        }
        Ok(Self { terms })
    }

    /// Its value.
    ///
    /// # Errors
    /// The variable that is not set.
    pub fn eval(&self, vars: &Vars) -> Result<u64, String> {
        let mut sum = 0u64;
        for (negative, term) in &self.terms {
            let value = match term {
                Term::Number(value) => *value,
                Term::Var(name) => *vars.get(name).ok_or_else(|| format!("{name} is not set"))?,
            };
            sum = if *negative {
                sum.wrapping_sub(value)
            } else {
                sum.wrapping_add(value)
            };
        }
        Ok(sum)
    }
}

impl Term {
    fn parse(text: &str) -> Result<Self, String> {
        let first = text.chars().next().ok_or("a term is missing")?;
        if first.is_ascii_alphabetic() {
            if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Ok(Self::Var(text.to_string()));
            }
            return Err(format!("bad name {text}"));
        }
        parse_number(text).map(Self::Number)
    }
}

fn parse_number(text: &str) -> Result<u64, String> {
    let bad = |_| format!("bad number {text}");
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).map_err(bad);
    }
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        Some(b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let value: u64 = digits.parse().map_err(bad)?;
    value
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        let vars = Vars::from([("p".to_string(), 0x1000), ("q2".to_string(), 5)]);
        for (text, value) in [
            ("0", 0),
            ("16K", 16384),
            ("0x55", 0x55),
            ("p", 0x1000),
            ("p+4K-1", 0x1fff),
            ("p-p-1", u64::MAX),
            ("q2+2M+1", 2 * 1024 * 1024 + 6),
        ] {
            assert_eq!(Expr::parse(text).unwrap().eval(&vars), Ok(value), "{text}");
        }
        for text in ["", "+1", "1+", "4Q", "0xg", "p.q", "99999999999T"] {
            assert!(Expr::parse(text).is_err(), "{text}");
        }
        assert!(Expr::parse("nobody").unwrap().eval(&vars).is_err());
    }
}
