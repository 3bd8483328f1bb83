//! Walking a radix tree in order.

use crate::RadixTree;
use core::iter::FusedIterator;
use core::ops::RangeInclusive;

/// The values of a [`RadixTree`] in a range of indices; see [`RadixTree::range`].
#[derive(Debug)]
pub struct Range<'t, 'm, V> {
    tree: &'t RadixTree<'m, V>,
    /// Where the search goes on; `None` at the end.
    from: Option<u64>,
    last: u64,
}

impl<'t, 'm, V> Range<'t, 'm, V> {
    pub(crate) fn new(tree: &'t RadixTree<'m, V>, range: RangeInclusive<u64>) -> Self {
        let from = (!range.is_empty()).then_some(*range.start());
        Self {
            tree,
            from,
            last: *range.end(),
        }
    }
}

impl<'t, V> Iterator for Range<'t, '_, V> {
    type Item = (u64, &'t V);

    fn next(&mut self) -> Option<Self::Item> {
        let found = self
            .tree
            .next(self.from?)
            .filter(|(index, _)| *index <= self.last);
        self.from = match found {
            Some((index, _)) if index < self.last => Some(index + 1),
            _ => None,
        };
        found
    }
}

impl<V> FusedIterator for Range<'_, '_, V> {}
