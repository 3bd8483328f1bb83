//! Page references: where they are read from.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufRead};

/// One use of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Which page, numbered from 0 in the order of first use.
    pub page: u32,
    /// It was written.
    pub write: bool,
}

/// A program's pages in the order of their use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    /// The uses. No page follows itself.
    pub references: Vec<Reference>,
    /// How many different pages there are.
    pub pages: u32,
    /// The pages of files, which are used by read() and write(). All others are anonymous memory in
    /// page tables.
    pub files: BTreeSet<u32>,
}

/// A line that is no reference.
#[derive(Debug)]
pub enum TraceError {
    /// The file could not be read.
    Io(io::Error),
    /// The line with this number, counted from 1, is of no known form.
    Line(usize, String),
    /// There is not a single reference in it.
    Empty,
    /// A packed trace ends in the middle or is none.
    Packed,
}

impl std::fmt::Display for TraceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Line(at, text) => write!(f, "line {at} is not a reference: {text}"),
            Self::Empty => f.write_str("no references"),
            Self::Packed => f.write_str("the packed trace is damaged"),
        }
    }
}

impl std::error::Error for TraceError {}

impl From<io::Error> for TraceError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Collects references, numbers their pages and leaves out what no replay can see.
#[derive(Debug, Default)]
pub struct Recorder {
    trace: Trace,
    numbers: HashMap<u64, u32>,
    /// The latest pages, latest first: uses of these are left out, as long as not too many others came.
    recent: Vec<u32>,
    depth: usize,
    /// How many uses were not of recent pages, and at which of them each page was recorded last.
    misses: u64,
    recorded: Vec<(u64, usize)>,
    refresh: u64,
}

impl Recorder {
    /// Leaves out uses of the page that was used just before.
    pub fn new() -> Self {
        Self::filtered(1, u64::MAX)
    }

    /// Leaves out uses of the `depth` latest pages, which are hits in any larger memory. But a page that
    /// goes on being used is recorded again after `refresh` uses of pages that were not among the latest,
    /// so that its accessed bit is set again before a policy looks for it, and its recency is right up to
    /// so many pages. The faults of memories of several times `depth` pages change by less than a
    /// hundredth; without the refreshing they would by more than a tenth. A write that is left out is
    /// added to the page's latest use that is recorded.
    pub fn filtered(depth: usize, refresh: u64) -> Self {
        Self {
            depth: depth.max(1),
            refresh: refresh.max(1),
            ..Self::default()
        }
    }

    /// A use of the page that holds byte `address`, in address space `space`.
    pub fn touch(&mut self, space: u32, address: u64, write: bool) {
        let key = u64::from(space) << 52 | address >> 12;
        let next = self.numbers.len() as u32;
        let page = *self.numbers.entry(key).or_insert(next);
        self.touch_page(page, write);
    }

    /// A use by read() or write() of the page that holds byte `offset` of file `file`.
    pub fn touch_file(&mut self, file: u32, offset: u64, write: bool) {
        let key = 1 << 63 | u64::from(file) << 40 | offset >> 12;
        let next = self.numbers.len() as u32;
        let page = *self.numbers.entry(key).or_insert(next);
        self.trace.files.insert(page);
        self.touch_page(page, write);
    }

    fn touch_page(&mut self, page: u32, write: bool) {
        let number = page as usize;
        if number >= self.recorded.len() {
            self.recorded.resize(number + 1, (0, 0));
        }
        let (since, latest) = self.recorded[number];
        if let Some(at) = self.recent.iter().position(|recent| *recent == page) {
            self.recent[..=at].rotate_right(1);
            if self.misses - since < self.refresh || at == 0 {
                self.trace.references[latest].write |= write;
                return;
            }
        } else {
            self.misses += 1;
            self.recent.truncate(self.depth - 1);
            self.recent.insert(0, page);
        }
        self.recorded[number] = (self.misses, self.trace.references.len());
        self.trace.references.push(Reference { page, write });
    }

    /// The trace.
    ///
    /// # Errors
    /// If there was no reference.
    pub fn finish(mut self) -> Result<Trace, TraceError> {
        if self.trace.references.is_empty() {
            return Err(TraceError::Empty);
        }
        self.trace.pages = self.numbers.len() as u32;
        Ok(self.trace)
    }
}

impl Trace {
    /// Reads text: `valgrind --tool=lackey --trace-mem=yes` (lines `==…` and others are skipped as
    /// lackey prints the program's output in between), `R|W address` in hexadecimal, or JSON lines of
    /// `vellum run --trace page_fault_user`.
    ///
    /// # Errors
    /// See [`TraceError`].
    pub fn read(input: impl BufRead, recorder: Recorder) -> Result<Self, TraceError> {
        let mut recorder = recorder;
        for (at, line) in input.split(b'\n').enumerate() {
            let line = line?;
            let text = String::from_utf8_lossy(&line);
            let known = lackey(&text, &mut recorder)
                || plain(&text, &mut recorder)
                || json(&text, &mut recorder)
                || text.trim().is_empty()
                || text.starts_with("==")
                || text.starts_with('#');
            if !known {
                return Err(TraceError::Line(at + 1, text.chars().take(60).collect()));
            }
        }
        recorder.finish()
    }

    /// The trace without what a [`Recorder::filtered`] leaves out.
    pub fn filtered(&self, depth: usize, refresh: u64) -> Self {
        let mut recorder = Recorder::filtered(depth, refresh);
        for reference in &self.references {
            recorder.touch_page(reference.page, reference.write);
        }
        Self {
            references: recorder.trace.references,
            ..self.clone()
        }
    }

    /// Its first `most` uses.
    pub fn first(mut self, most: usize) -> Self {
        self.references.truncate(most);
        let pages = self.references.iter().map(|r| r.page + 1);
        self.pages = pages.max().unwrap_or(0);
        self.files.split_off(&self.pages);
        self
    }

    /// A trace of pages, for generators.
    pub(crate) fn from_pages(pages: impl IntoIterator<Item = (u64, bool)>) -> Self {
        let mut recorder = Recorder::new();
        for (page, write) in pages {
            recorder.touch(0, page << 12, write);
        }
        recorder.finish().unwrap_or_default()
    }

    /// A trace of uses of files as well: the last word says so.
    pub(crate) fn from_uses(uses: impl IntoIterator<Item = (u64, bool, bool)>) -> Self {
        let mut recorder = Recorder::new();
        for (page, write, file) in uses {
            if file {
                recorder.touch_file(0, page << 12, write);
            } else {
                recorder.touch(0, page << 12, write);
            }
        }
        recorder.finish().unwrap_or_default()
    }

    const MAGIC: &'static [u8] = b"vpt1";
    /// With a bit for pages of files.
    const MAGIC_FILES: &'static [u8] = b"vpt2";

    /// A short form: for each use the distance to the page before, in as few bytes as it needs.
    pub fn pack(&self) -> Vec<u8> {
        let files = !self.files.is_empty();
        let magic = if files {
            Self::MAGIC_FILES
        } else {
            Self::MAGIC
        };
        let mut out = magic.to_vec();
        let mut before = 0_i64;
        for reference in &self.references {
            let delta = i64::from(reference.page) - before;
            before = i64::from(reference.page);
            let zigzag = (delta << 1 ^ delta >> 63) as u64;
            let mut word = zigzag << 1 | u64::from(reference.write);
            if files {
                word = word << 1 | u64::from(self.files.contains(&reference.page));
            }
            while word >= 128 {
                out.push(word as u8 | 128);
                word >>= 7;
            }
            out.push(word as u8);
        }
        out
    }

    /// True if these bytes begin like a packed trace.
    pub fn is_packed(bytes: &[u8]) -> bool {
        bytes.starts_with(Self::MAGIC) || bytes.starts_with(Self::MAGIC_FILES)
    }

    /// Undoes [`Trace::pack`].
    ///
    /// # Errors
    /// If the bytes are not a packed trace.
    pub fn unpack(bytes: &[u8]) -> Result<Self, TraceError> {
        let files = bytes.starts_with(Self::MAGIC_FILES);
        let magic = if files {
            Self::MAGIC_FILES
        } else {
            Self::MAGIC
        };
        let body = bytes.strip_prefix(magic).ok_or(TraceError::Packed)?;
        let mut trace = Self::default();
        let (mut before, mut word, mut shift) = (0_i64, 0_u64, 0);
        for byte in body {
            word |= u64::from(byte & 127) << shift;
            shift += 7;
            if byte & 128 != 0 {
                if shift > 42 {
                    return Err(TraceError::Packed);
                }
                continue;
            }
            let file = files && word & 1 == 1;
            word >>= u8::from(files);
            let (zigzag, write) = (word >> 1, word & 1 == 1);
            before += (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            let page = u32::try_from(before).map_err(|_| TraceError::Packed)?;
            // Pages are numbered as they appear.
            if page > trace.pages {
                return Err(TraceError::Packed);
            }
            trace.pages = trace.pages.max(page + 1);
            if file {
                trace.files.insert(page);
            }
            trace.references.push(Reference { page, write });
            (word, shift) = (0, 0);
        }
        if shift != 0 {
            return Err(TraceError::Packed);
        }
        if trace.references.is_empty() {
            return Err(TraceError::Empty);
        }
        Ok(trace)
    }
}

/// `I  04000d2b,3`, ` L 1ffeffe7e,8`, ` S …`, ` M …`.
fn lackey(line: &str, out: &mut Recorder) -> bool {
    let Some((kind, rest)) = line.split_at_checked(3) else {
        return false;
    };
    let write = match kind {
        "I  " | " L " => false,
        " S " | " M " => true,
        _ => return false,
    };
    let Some((address, size)) = rest.split_once(',') else {
        return false;
    };
    let (Ok(address), Ok(size)) = (u64::from_str_radix(address, 16), size.trim().parse::<u64>())
    else {
        return false;
    };
    out.touch(0, address, write);
    let last = address.saturating_add(size.saturating_sub(1));
    if last >> 12 != address >> 12 {
        out.touch(0, last, write);
    }
    true
}

/// `R 7f001000` or `W 0x7f001000`; `FR` and `FW` with an offset for read() and write() of a file.
fn plain(line: &str, out: &mut Recorder) -> bool {
    let mut words = line.split_whitespace();
    let (write, file) = match words.next() {
        Some("R" | "r") => (false, false),
        Some("W" | "w") => (true, false),
        Some("FR") => (false, true),
        Some("FW") => (true, true),
        _ => return false,
    };
    let Some(address) = words.next() else {
        return false;
    };
    let address = address.strip_prefix("0x").unwrap_or(address);
    let Ok(address) = u64::from_str_radix(address, 16) else {
        return false;
    };
    if file {
        out.touch_file(0, address, write);
    } else {
        out.touch(0, address, write);
    }
    true
}

/// A line of our own trace files; events other than faults are skipped.
fn json(line: &str, out: &mut Recorder) -> bool {
    if !line.starts_with('{') {
        return false;
    }
    let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else {
        return false;
    };
    if value["event"] == "page_fault_user" {
        let (Some(space), Some(address)) = (value["space"].as_u64(), value["address"].as_u64())
        else {
            return false;
        };
        out.touch(space as u32, address, value["access"] == "write");
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Trace, TraceError> {
        Trace::read(text.as_bytes(), Recorder::new())
    }

    fn uses(trace: &Trace) -> Vec<(u32, bool)> {
        let each = trace.references.iter();
        each.map(|r| (r.page, r.write)).collect()
    }

    #[test]
    fn three_formats_are_read() {
        let lackey = "==1== Lackey\nI  04000d2b,3\n L 1ffeffe7e0,8\n S 04001ffe,8\n M 04002000,4\n";
        assert_eq!(
            uses(&read(lackey).unwrap()),
            [(0, false), (1, false), (2, true), (3, true)]
        );
        let plain = "# two pages\nR 1000\nW 0x2008\nR 2000\nR 1fff\n";
        assert_eq!(
            uses(&read(plain).unwrap()),
            [(0, false), (1, true), (0, false)]
        );
        let files = read("R 1000\nFR 1000\nFW 1008\nR 1000\n").unwrap();
        assert_eq!(uses(&files), [(0, false), (1, true), (0, false)]);
        assert_eq!(files.files, [1].into());
        let json = concat!(
            r#"{"event":"page_fault_user","space":1,"address":4096,"access":"write"}"#,
            "\n",
            r#"{"event":"tlb_flush","space":1,"start":0,"end":4096}"#,
            "\n",
            r#"{"event":"page_fault_user","space":2,"address":4096,"access":"read"}"#,
        );
        assert_eq!(uses(&read(json).unwrap()), [(0, true), (1, false)]);
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        for (text, line) in [
            ("R 1000\nhello\n", 2),
            ("R xyz\n", 1),
            ("W\n", 1),
            ("{]\n", 1),
        ] {
            assert!(
                matches!(read(text), Err(TraceError::Line(at, _)) if at == line),
                "{text}"
            );
        }
        assert!(matches!(read("\n"), Err(TraceError::Empty)));
    }

    #[test]
    fn packing_keeps_everything() {
        for trace in [crate::generate::mixed(3), crate::generate::file_scan(3)] {
            let packed = trace.pack();
            assert_eq!(Trace::unpack(&packed).unwrap(), trace);
            assert!(packed.len() < trace.references.len() * 4);
        }
        let packed = crate::generate::mixed(3).pack();
        for cut in [0, 3, 4] {
            assert!(Trace::unpack(&packed[..cut]).is_err());
        }
        assert!(Trace::unpack(b"vpt1\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
        assert!(Trace::unpack(b"vpt1\x80").is_err());
    }

    #[test]
    fn a_filter_hardly_changes_the_faults_of_larger_memories() {
        for trace in [crate::generate::zipf(7), crate::generate::scan_hot(7)] {
            let filtered = trace.filtered(64, 8);
            assert!(filtered.references.len() < trace.references.len());
            let (all, some) = (crate::lru_faults(&trace), crate::lru_faults(&filtered));
            for ram in 256..all.len() {
                let change = all[ram].abs_diff(some[ram]);
                assert!(
                    change * 50 <= all[ram],
                    "{ram} pages: {change} of {}",
                    all[ram]
                );
            }
        }
    }

    /// A page in use while others stream by keeps being recorded, though it is always among the latest.
    #[test]
    fn a_filter_keeps_what_accessed_bits_need() {
        let pages = (0..4000).flat_map(|at| [(0, false), (1 + at % 500, false)]);
        let filtered = Trace::from_pages(pages).filtered(64, 16);
        let hot = filtered.references.iter().filter(|r| r.page == 0).count();
        assert!((4000 / 17..=4000 / 16 + 1).contains(&hot), "{hot}");
    }
}
