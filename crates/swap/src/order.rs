//! Which area is asked first.

use vellum_types::SwapEntry;

const AREAS: usize = SwapEntry::AREAS as usize;

/// The active areas, highest priority first.
pub(crate) struct Order {
    /// Priority and number.
    list: [(i16, u8); AREAS],
    len: usize,
    /// Clusters begun so far: areas of equal priority take turns by it.
    turn: u32,
    /// The priority of the next area that does not name one.
    auto: i16,
}

impl Order {
    pub(crate) const fn new() -> Self {
        Self {
            list: [(0, 0); AREAS],
            len: 0,
            turn: 0,
            auto: -2,
        }
    }

    /// A priority below all that were chosen so before.
    pub(crate) fn auto_priority(&mut self) -> i16 {
        let priority = self.auto;
        self.auto = self.auto.saturating_sub(1);
        priority
    }

    pub(crate) fn insert(&mut self, priority: i16, area: u8) {
        let at = self.list[..self.len].partition_point(|(p, _)| *p >= priority);
        self.list.copy_within(at..self.len, at + 1);
        self.list[at] = (priority, area);
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, area: u8) {
        if let Some(at) = self.list[..self.len].iter().position(|(_, a)| *a == area) {
            self.list.copy_within(at + 1..self.len, at);
            self.len -= 1;
        }
    }

    /// The area to try after `tried` others.
    #[inline]
    pub(crate) fn candidate(&self, tried: usize) -> Option<u8> {
        let list = &self.list[..self.len];
        let &(priority, only) = list.get(tried)?;
        if list.len() == 1 {
            return Some(only);
        }
        let start = list.partition_point(|(p, _)| *p > priority);
        let end = list.partition_point(|(p, _)| *p >= priority);
        let turn = (self.turn as usize + (tried - start)) % (end - start);
        Some(list[start + turn].1)
    }

    /// A cluster was begun.
    pub(crate) fn next_turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn all(order: &Order) -> Vec<u8> {
        (0..).map_while(|tried| order.candidate(tried)).collect()
    }

    #[test]
    fn higher_priorities_first_and_equal_ones_in_turn() {
        let mut order = Order::new();
        assert_eq!(order.candidate(0), None);
        order.insert(5, 0);
        order.insert(9, 1);
        order.insert(5, 2);
        order.insert(-2, 3);
        order.insert(5, 4);
        assert_eq!(all(&order), [1, 0, 2, 4, 3]);
        order.next_turn();
        assert_eq!(all(&order), [1, 2, 4, 0, 3]);
        order.next_turn();
        assert_eq!(all(&order), [1, 4, 0, 2, 3]);
        order.remove(1);
        order.remove(4);
        order.remove(7);
        assert_eq!(all(&order), [0, 2, 3]);
    }

    #[test]
    fn areas_without_a_wish_come_last_in_order_of_arrival() {
        let mut order = Order::new();
        for area in 0..3 {
            let priority = order.auto_priority();
            order.insert(priority, area);
        }
        assert_eq!(all(&order), [0, 1, 2]);
    }
}
