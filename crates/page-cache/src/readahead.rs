//! How much to read on a miss. Linux: `mm/readahead.c` and `do_sync_mmap_readahead`.

/// The longest window, in pages: 2 MiB.
pub(crate) const MAX_WINDOW: u64 = 512;
/// The first window of a stream and the window around a lone fault, in pages: 128 KiB, Linux's
/// `VM_READAHEAD_PAGES`.
pub(crate) const INITIAL_WINDOW: u64 = 32;
/// A file of up to so many pages is read whole: 256 KiB.
pub(crate) const WHOLE_FILE: u64 = 64;

/// Cached pages before a miss that are counted; more say no more.
pub(crate) const HISTORY: u64 = MAX_WINDOW / 2;
/// Lone faults, less pages found cached, after which reading around them is a waste: Linux's
/// `MMAP_LOTSAMISS`.
const LOTS_OF_MISSES: u32 = 100;

/// What the reader said about its ways: `MADV_NORMAL`, `MADV_RANDOM`, `MADV_SEQUENTIAL`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Readahead {
    /// Nothing: streams are detected.
    #[default]
    Normal,
    /// It jumps: `VM_RAND_READ`. Only what is asked for is read.
    Random,
    /// It streams: `VM_SEQ_READ`. Windows grow twice as fast and begin at the page asked for.
    Sequential,
}

/// A page that was not there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Miss {
    /// The page.
    pub(crate) index: u64,
    /// Pages from `index` that the caller is sure to want; at least 1.
    pub(crate) want: u64,
    /// Pages in the file; more than `index`.
    pub(crate) file_pages: u64,
    /// Pages that memory allows; at least 1.
    pub(crate) limit: u64,
    /// The reader's advice.
    pub(crate) hint: Readahead,
    /// Pages cached without a gap before `index`, up to [`HISTORY`].
    pub(crate) history: u64,
}

/// Pages to read: `start..end`, with the missed page inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Window {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// `struct file_ra_state`, one for each mapping.
#[derive(Debug, Default)]
pub(crate) struct ReadaheadState {
    /// Pages of the latest window; 0 before the first.
    size: u64,
    /// The page after the latest window: a miss here is a stream.
    next: u64,
    /// Lone misses, less pages found cached: `mmap_miss`.
    misses: u32,
}

impl ReadaheadState {
    pub(crate) const fn new() -> Self {
        Self {
            size: 0,
            next: 0,
            misses: 0,
        }
    }

    /// `pages` were asked for and found.
    pub(crate) fn hits(&mut self, pages: u32) {
        self.misses = self.misses.saturating_sub(pages);
    }

    /// True where `index` is the next page of the latest stream, and nothing need be counted.
    pub(crate) fn continues(&self, index: u64) -> bool {
        self.size != 0 && index == self.next
    }

    /// Decides the window for `miss` and remembers it.
    pub(crate) fn window(&mut self, miss: &Miss) -> Window {
        let (start, len) = self.wish(miss);
        let len = len.max(miss.want).min(MAX_WINDOW).min(miss.limit).max(1);
        // What memory allows may end before the page that is needed: begin there, then.
        let start = if miss.index < start + len {
            start
        } else {
            miss.index
        };
        let end = (start + len).min(miss.file_pages);
        if miss.hint != Readahead::Random {
            self.size = len;
            self.next = end;
        }
        Window { start, end }
    }

    /// Start and length before any bound is applied.
    fn wish(&mut self, miss: &Miss) -> (u64, u64) {
        let streams = self.continues(miss.index);
        match miss.hint {
            Readahead::Random => (miss.index, miss.want),
            _ if miss.file_pages <= WHOLE_FILE => (0, miss.file_pages),
            Readahead::Sequential if streams => (miss.index, self.size * 4),
            Readahead::Sequential => (miss.index, INITIAL_WINDOW * 2),
            Readahead::Normal if streams => (miss.index, self.size * 2),
            // Another stream than the latest one: several readers of one file. What it left in the
            // cache says how far it has come. Linux's `try_context_readahead`.
            Readahead::Normal if miss.history > miss.want => {
                (miss.index, (miss.history * 2).max(INITIAL_WINDOW * 2))
            }
            // A long read, or a lone fault: read around it.
            Readahead::Normal if miss.want > INITIAL_WINDOW => (miss.index, miss.want),
            Readahead::Normal if self.misses >= LOTS_OF_MISSES => (miss.index, miss.want),
            Readahead::Normal => {
                self.misses += 1;
                (miss.index & !(INITIAL_WINDOW - 1), INITIAL_WINDOW)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miss(index: u64) -> Miss {
        Miss {
            index,
            want: 1,
            file_pages: 1 << 20,
            limit: 1 << 20,
            hint: Readahead::Normal,
            history: 0,
        }
    }

    fn window(start: u64, end: u64) -> Window {
        Window { start, end }
    }

    #[test]
    fn a_stream_doubles_up_to_the_maximum() {
        let mut ra = ReadaheadState::new();
        let mut index = 0;
        for len in [32, 64, 128, 256, 512, 512] {
            assert_eq!(ra.window(&miss(index)), window(index, index + len));
            index += len;
        }
    }

    #[test]
    fn a_lone_fault_reads_around_itself() {
        let mut ra = ReadaheadState::new();
        assert_eq!(ra.window(&miss(1000)), window(992, 1024));
        assert_eq!(ra.window(&miss(70)), window(64, 96));
    }

    #[test]
    fn hints_change_the_window() {
        let mut ra = ReadaheadState::new();
        let random = |index| Miss {
            hint: Readahead::Random,
            ..miss(index)
        };
        assert_eq!(ra.window(&random(77)), window(77, 78));
        let sequential = |index| Miss {
            hint: Readahead::Sequential,
            ..miss(index)
        };
        assert_eq!(ra.window(&sequential(77)), window(77, 141));
        assert_eq!(ra.window(&sequential(141)), window(141, 397));
    }

    #[test]
    fn interleaved_streams_grow_like_one() {
        let mut ra = ReadaheadState::new();
        let (mut a, mut b) = (0, 1 << 16);
        for len in [32, 64, 192, 512, 512] {
            for (at, start) in [(&mut a, 0), (&mut b, 1 << 16)] {
                let window = ra.window(&Miss {
                    history: (*at - start).min(HISTORY),
                    ..miss(*at)
                });
                assert_eq!(window.start, *at);
                assert_eq!(window.end - window.start, len);
                *at = window.end;
            }
        }
    }

    #[test]
    fn reading_around_stops_where_it_never_helps_and_begins_again_where_it_does() {
        let mut ra = ReadaheadState::new();
        for i in 0..u64::from(LOTS_OF_MISSES) {
            let index = 10_000 + i * 1000;
            assert_eq!(ra.window(&miss(index)).end % INITIAL_WINDOW, 0);
        }
        assert_eq!(ra.window(&miss(777)), window(777, 778));
        // A neighbour of two cached pages is no lone fault.
        let near = Miss {
            history: 2,
            ..miss(5_000)
        };
        assert_eq!(ra.window(&near), window(5_000, 5_064));
        ra.hits(1);
        assert_eq!(ra.window(&miss(999)), window(992, 1024));
    }

    #[test]
    fn random_readers_leave_the_stream_of_others_alone() {
        let mut ra = ReadaheadState::new();
        assert_eq!(ra.window(&miss(0)), window(0, 32));
        let random = Miss {
            hint: Readahead::Random,
            ..miss(5_000)
        };
        assert_eq!(ra.window(&random), window(5_000, 5_001));
        assert_eq!(ra.window(&miss(32)), window(32, 96));
    }

    #[test]
    fn small_files_are_read_whole_and_the_end_is_respected() {
        let mut ra = ReadaheadState::new();
        assert_eq!(
            ra.window(&Miss {
                file_pages: 40,
                ..miss(39)
            }),
            window(0, 40)
        );
        assert_eq!(
            ra.window(&Miss {
                file_pages: 70,
                ..miss(66)
            }),
            window(64, 70)
        );
    }

    #[test]
    fn memory_bounds_the_window_but_not_the_page() {
        let mut ra = ReadaheadState::new();
        assert_eq!(
            ra.window(&Miss {
                limit: 4,
                ..miss(31)
            }),
            window(31, 35)
        );
        assert_eq!(
            ra.window(&Miss {
                limit: 1,
                ..miss(500)
            }),
            window(500, 501)
        );
        assert_eq!(
            ra.window(&Miss {
                want: 5000,
                ..miss(3)
            }),
            window(3, 515)
        );
    }
}
