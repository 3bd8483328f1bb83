//! What descriptors of programs were found to refer to, so that it is not asked for each call.
//!
//! A number means the same open file until it is closed, and every way to close one is seen before
//! it happens: `close`, `close_range`, `dup2`, `dup3`, exec, the end of the process. Between that
//! moment and the moment when the host has closed it, another thread could look it up once more; so
//! it is not remembered again before the closing task is back.

use super::fd::{Inode, Stat};
use crate::ids::ById;
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Duplicates kept at a time; beyond that all are let go.
const MAX_KNOWN: usize = 1024;

/// What a number refers to.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// A regular file whose content the core caches; its flags if they are sure to stay.
    Regular(Rc<OwnedFd>, Inode, Option<i32>),
    /// A pipe or a socket: never the core's business.
    Stream,
    /// A directory: what is open, and its mode and flags, which stay.
    Directory(Rc<OwnedFd>, Stat, i32),
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct KnownFiles {
    known: ById<(i32, i32), Known>,
    /// Being closed: process, number, and the task that does it.
    closing: Vec<(i32, i32, i32)>,
    /// Processes whose threads do not share one table.
    split: HashSet<i32>,
    /// Some processes share a table.
    sharing: bool,
}

impl KnownFiles {
    pub(super) fn get(&self, tgid: i32, number: i32) -> Option<Known> {
        self.known.get(&(tgid, number)).cloned()
    }

    pub(super) fn remember(&mut self, tgid: i32, number: i32, known: Known) {
        let closing = |(_, n, _): &(i32, i32, i32)| *n == number;
        if self.split.contains(&tgid) || self.closing.iter().any(closing) {
            return;
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert((tgid, number), known);
    }

    /// The task makes another call: what it was closing is closed.
    pub(super) fn arrived(&mut self, tid: i32) {
        if !self.closing.is_empty() {
            self.closing.retain(|(_, _, by)| *by != tid);
        }
    }

    /// Task `tid` is about to close `number`.
    pub(super) fn closes(&mut self, tgid: i32, tid: i32, number: i32) {
        if self.sharing {
            self.known.retain(|(_, n), _| *n != number);
        } else {
            self.known.remove(&(tgid, number));
        }
        self.closing.push((tgid, number, tid));
    }

    /// Task `tid` is about to close all numbers from `first` to `last`.
    pub(super) fn closes_range(&mut self, tgid: i32, tid: i32, first: u32, last: u32) {
        let numbers: Vec<i32> = self
            .known
            .keys()
            .map(|(_, number)| *number)
            .filter(|number| (first..=last).contains(&(*number as u32)))
            .collect();
        for number in numbers {
            self.closes(tgid, tid, number);
        }
    }

    /// Somebody sets O_APPEND somewhere; the file may be open under other numbers too.
    pub(super) fn appends(&mut self) {
        self.known
            .retain(|_, known| !matches!(known, Known::Regular(..)));
    }

    /// A process shares its table with another one.
    pub(super) fn note_sharing(&mut self) {
        self.sharing = true;
    }

    /// A thread of the process has a table of its own from now on.
    pub(super) fn splits(&mut self, tgid: i32) {
        self.split.insert(tgid);
        self.forget(tgid);
    }

    /// The process runs a new image, or is gone.
    pub(super) fn forget(&mut self, tgid: i32) {
        self.known.retain(|(of, _), _| *of != tgid);
        self.closing
            .retain(|(of, _, by)| *of != tgid && *by != tgid);
    }

    /// The process is gone, and its number may come again.
    pub(super) fn ended(&mut self, tgid: i32) {
        self.forget(tgid);
        self.split.remove(&tgid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(files: &KnownFiles, tgid: i32, number: i32) -> bool {
        files.get(tgid, number).is_some()
    }

    #[test]
    fn a_closed_number_is_unknown_until_its_closer_is_back() {
        let mut files = KnownFiles::default();
        files.remember(1, 3, Known::Stream);
        files.closes(1, 11, 3);
        assert!(!knows(&files, 1, 3));
        files.remember(1, 3, Known::Stream);
        assert!(!knows(&files, 1, 3), "another thread came in between");
        files.arrived(12);
        files.remember(1, 3, Known::Stream);
        assert!(!knows(&files, 1, 3), "that was somebody else");
        files.arrived(11);
        files.remember(1, 3, Known::Stream);
        assert!(knows(&files, 1, 3));
    }

    #[test]
    fn tables_of_processes_are_apart_unless_shared() {
        let mut files = KnownFiles::default();
        files.remember(1, 3, Known::Stream);
        files.remember(2, 3, Known::Stream);
        files.closes(1, 1, 3);
        assert!(!knows(&files, 1, 3) && knows(&files, 2, 3));
        files.note_sharing();
        files.arrived(1);
        files.remember(1, 3, Known::Stream);
        files.closes(2, 2, 3);
        assert!(!knows(&files, 1, 3) && !knows(&files, 2, 3));
    }

    #[test]
    fn ranges_exec_and_split_tables() {
        let mut files = KnownFiles::default();
        for number in 0..8 {
            files.remember(1, number, Known::Stream);
        }
        files.closes_range(1, 1, 3, u32::MAX);
        assert!(knows(&files, 1, 2) && !knows(&files, 1, 3) && !knows(&files, 1, 7));
        files.forget(1);
        assert!(!knows(&files, 1, 2));
        files.splits(1);
        files.remember(1, 2, Known::Stream);
        assert!(!knows(&files, 1, 2));
        files.ended(1);
        files.remember(1, 2, Known::Stream);
        assert!(knows(&files, 1, 2));
    }
}
