//! Tables keyed by small numbers that the host gave: task ids, space ids.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Spreads a number over a word by one multiplication (Fibonacci hashing). Nobody hostile chooses
/// the keys, so nothing dearer is needed twice at each stop.
#[derive(Default, Debug)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u32(&mut self, id: u32) {
        self.write_u64(u64::from(id));
    }
    fn write_i32(&mut self, id: i32) {
        self.write_u64(id as u64);
    }
    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0.rotate_left(5) ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A table by id.
pub(crate) type ById<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;
