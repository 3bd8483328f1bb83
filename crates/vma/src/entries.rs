//! Fixed-capacity rows of entries, of which a node has several in parallel.
//!
//! A row is full up to a length that the node keeps; what follows is vacant (`None` or a neutral
//! number). All functions keep it so by moving vacant slots instead of overwriting entries.

/// Makes `items[at]` the new `value`; the entries from `at` move up.
pub(crate) fn put<T>(items: &mut [T], len: usize, at: usize, value: T) {
    items[at..=len].rotate_right(1);
    items[at] = value;
}

/// Takes `items[at]` out and leaves `vacant` behind the end; the entries above move down.
pub(crate) fn pull<T>(items: &mut [T], len: usize, at: usize, vacant: T) -> T {
    let value = core::mem::replace(&mut items[at], vacant);
    items[at..len].rotate_left(1);
    value
}

/// Moves the last `count` entries of `left` to the front of `right`.
pub(crate) fn to_right<T>(left: &mut [T], right: &mut [T], lens: (usize, usize), count: usize) {
    right[..lens.1 + count].rotate_right(count);
    left[lens.0 - count..lens.0].swap_with_slice(&mut right[..count]);
}

/// Moves the first `count` entries of `right` to the end of `left`.
pub(crate) fn to_left<T>(left: &mut [T], right: &mut [T], lens: (usize, usize), count: usize) {
    left[lens.0..lens.0 + count].swap_with_slice(&mut right[..count]);
    right[..lens.1].rotate_left(count);
}

/// What splitting and balancing need to know of a node.
pub(crate) trait Entries {
    type Entry;
    const CAPACITY: usize;
    /// The least entries of a node that is not the root. A quarter, so that a tree that alternates
    /// between growing and shrinking does not split and join the same nodes again and again.
    const MIN: usize = Self::CAPACITY / 4;

    fn len(&self) -> usize;
    fn is_full(&self) -> bool {
        self.len() == Self::CAPACITY
    }
    fn put(&mut self, at: usize, entry: Self::Entry);
    fn move_right(&mut self, right: &mut Self, count: usize);
    fn move_left(&mut self, right: &mut Self, count: usize);
}

/// Puts `entry` at `at` of the full node `left`, the upper part of which moves to the empty `right`.
///
/// The cut is where the entry goes, within limits: areas are mostly created next to each other, and
/// the part that will see no more insertions should stay full.
pub(crate) fn split<N: Entries>(left: &mut N, right: &mut N, at: usize, entry: N::Entry) {
    let keep = at.clamp(N::MIN, N::CAPACITY - N::MIN);
    left.move_right(right, left.len() - keep);
    if at <= keep {
        left.put(at, entry);
    } else {
        right.put(at - keep, entry);
    }
}

/// Evens two neighbours out after one became short. True if `right` is empty now.
pub(crate) fn even_out<N: Entries>(left: &mut N, right: &mut N) -> bool {
    let total = left.len() + right.len();
    let target = if total <= N::CAPACITY / 4 * 3 {
        total
    } else {
        total / 2
    };
    if left.len() < target {
        left.move_left(right, target - left.len());
    } else {
        left.move_right(right, left.len() - target);
    }
    right.len() == 0
}
