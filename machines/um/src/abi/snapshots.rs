//! The memory files in which programs see snapshots of `/proc`.

use super::fd::{self, Stat};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Snapshots that are kept open for programs on their way to opening them.
const KEPT_OPEN: usize = 64;
/// Snapshots that are remembered as such.
const KEPT_IN_MIND: usize = 4096;

/// Memory files that stand for files of `/proc`.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    open: VecDeque<OwnedFd>,
    /// By inode; whose pagemap, if it is one. The host alone reads them.
    known: HashMap<(u64, u64), Option<i32>>,
    order: VecDeque<(u64, u64)>,
}

impl Snapshots {
    /// Keeps a new one open for a while. Its number is the supervisor's.
    pub(super) fn add(&mut self, file: OwnedFd, pagemap: Option<i32>) -> Option<RawFd> {
        let stat = fd::stat(&file).ok()?;
        let number = file.as_raw_fd();
        if self.open.len() == KEPT_OPEN {
            self.open.pop_front();
        }
        self.open.push_back(file);
        if self.order.len() == KEPT_IN_MIND
            && let Some(old) = self.order.pop_front()
        {
            self.known.remove(&old);
        }
        self.order.push_back((stat.dev, stat.ino));
        self.known.insert((stat.dev, stat.ino), pagemap);
        Some(number)
    }

    /// True for a file made here.
    pub(super) fn contains(&self, stat: &Stat) -> bool {
        self.known.contains_key(&(stat.dev, stat.ino))
    }

    /// Whose pagemap it is, if it is one.
    pub(super) fn pagemap(&self, stat: &Stat) -> Option<i32> {
        self.known.get(&(stat.dev, stat.ino)).copied().flatten()
    }
}
