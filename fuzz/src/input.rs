//! Bytes as choices.

/// The rest of an input.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// True at the end, when all choices are 0.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number less than `n`, from as few bytes as hold it.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        let mut value = u64::from(self.byte());
        let mut held = 256;
        while held < n {
            value = value << 8 | u64::from(self.byte());
            held <<= 8;
        }
        value % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == n - 1
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
