//! An error that is told once to everybody who asks. Linux: `lib/errseq.c`.

use crate::IoError;
use core::sync::atomic::{AtomicU32, Ordering};

const ERRNO: u32 = 0xfff;
/// Somebody looked at it since it was set: the next one must look different.
const SEEN: u32 = 1 << 12;
const STEP: u32 = 1 << 13;

/// What one opener of a file knows of its write errors: `f_wb_err`. Taken at open
/// ([`Mapping::sample_error`](crate::Mapping::sample_error)), brought up to date by each fsync(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ErrSeq(u32);

/// `errseq_t`: the latest errno in bits 0 to 11, SEEN, and a number that tells errors apart.
#[derive(Debug)]
pub(crate) struct ErrorSequence(AtomicU32);

impl ErrorSequence {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub(crate) fn set(&self, error: IoError) {
        let next = |old: u32| {
            let new = old & !(ERRNO | SEEN) | error.errno.unsigned_abs() & ERRNO;
            // Nobody saw the latest one: this may be the same one to them.
            Some(if old & SEEN != 0 {
                new.wrapping_add(STEP)
            } else {
                new
            })
        };
        // Relaxed: the value stands for itself.
        let _ = self
            .0
            .try_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// An error that nobody was told of yet is told to who opens now, too.
    pub(crate) fn sample(&self) -> ErrSeq {
        let now = self.0.load(Ordering::Relaxed);
        ErrSeq(if now & SEEN == 0 { 0 } else { now })
    }

    pub(crate) fn check_since(&self, since: &mut ErrSeq) -> Result<(), IoError> {
        let now = self.0.load(Ordering::Relaxed);
        if now == since.0 {
            return Ok(());
        }
        // If a newer error comes between, that one is for the next time.
        let _ = self
            .0
            .compare_exchange(now, now | SEEN, Ordering::Relaxed, Ordering::Relaxed);
        since.0 = now | SEEN;
        let errno = (now & ERRNO) as i32;
        if errno == 0 {
            Ok(())
        } else {
            Err(IoError { errno })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_opener_is_told_each_error_once() {
        let errors = ErrorSequence::new();
        let (mut a, mut b) = (errors.sample(), errors.sample());
        assert_eq!(errors.check_since(&mut a), Ok(()));
        errors.set(IoError { errno: 5 });
        // One who opens before anybody was told is told, too.
        let mut late = errors.sample();
        for opener in [&mut a, &mut b, &mut late] {
            assert_eq!(errors.check_since(opener), Err(IoError { errno: 5 }));
            assert_eq!(errors.check_since(opener), Ok(()));
        }
        let mut new = errors.sample();
        assert_eq!(errors.check_since(&mut new), Ok(()), "it is old news");
        // The same error again is another one.
        errors.set(IoError { errno: 5 });
        errors.set(IoError { errno: 28 });
        for opener in [&mut new, &mut a] {
            assert_eq!(errors.check_since(opener), Err(IoError { errno: 28 }));
            assert_eq!(errors.check_since(opener), Ok(()));
        }
    }
}
