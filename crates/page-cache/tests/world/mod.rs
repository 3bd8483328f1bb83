//! Random operations on files, and the plain vectors that they must equal.

#![allow(unreachable_pub, reason = "a module of a test binary")]

use super::common::{PAGE, Rig, Rng, pattern};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use vellum_machine::VmItem;
use vellum_page::{PageFlags, PageSource};
use vellum_page_cache::{CacheError, IoError, MappingRef, Readahead};
use vellum_types::{FileId, PAGE_SIZE, Pfn};

const MAX_PAGES: u64 = 110;

/// One file: what programs must see, and the table entries of a pretended address space.
struct File {
    id: FileId,
    mapping: MappingRef<'static>,
    bytes: Vec<u8>,
    entries: BTreeMap<u64, Pfn>,
}

/// The world of one run.
pub struct World {
    pub rig: Rig,
    pub rng: Rng,
    files: Vec<File>,
    /// Allocations fail at times: errors are fine, wrong bytes are not.
    short: bool,
    oom: u64,
}

fn zap(rig: &Rig, entries: &mut BTreeMap<u64, Pfn>, first: u64, last: u64) {
    let inside: Vec<_> = entries.range(first..=last).map(|(i, p)| (*i, *p)).collect();
    for (index, pfn) in inside {
        rig.frames.memmap().page(pfn).unmap();
        rig.cache.put_page(pfn);
        entries.remove(&index);
    }
}

impl World {
    pub fn new(seed: u64, ram: u32, short: bool) -> Self {
        let rig = Rig::new(ram);
        let mut files = Vec::new();
        for (id, pages) in [(FileId(3), 100), (FileId(1 << 40), 20)] {
            let bytes = pattern(pages * PAGE + 123);
            rig.store.set(id, bytes.clone());
            let mapping = rig.cache.mapping(id).unwrap();
            files.push(File {
                id,
                mapping,
                bytes,
                entries: BTreeMap::new(),
            });
        }
        Self {
            rig,
            rng: Rng(seed),
            files,
            short,
            oom: 0,
        }
    }

    /// Memory ran out: an answer that is right only if it did.
    fn expect_oom(&mut self, error: CacheError) {
        assert_eq!(error, CacheError::OutOfMemory);
        self.oom += 1;
        let freed = self.rig.cache.shrink(8);
        if !self.short && freed == 0 {
            self.relieve();
        }
    }

    /// Writes everything back and unmaps it, so that the next shrink finds something.
    fn relieve(&mut self) {
        let Self { rig, files, .. } = self;
        for file in files {
            zap(rig, &mut file.entries, 0, u64::MAX);
            file.mapping
                .writeback(&rig.cache, 0, u64::MAX, &mut |_, _| {})
                .unwrap();
        }
        rig.cache.shrink(64);
    }

    fn range(&mut self, f: usize, max: u64) -> (u64, u64) {
        let size = self.files[f].bytes.len() as u64;
        let offset = self.rng.below(size + 1 + PAGE_SIZE);
        (offset, self.rng.below(max) + 1)
    }

    fn read(&mut self, f: usize) {
        let (offset, len) = self.range(f, 3 * PAGE_SIZE);
        let Self { rig, files, .. } = self;
        let file = &files[f];
        let want = file.bytes.get(offset as usize..).unwrap_or(&[]);
        let want = &want[..want.len().min(len as usize)];
        let mut got = Vec::new();
        let result = file.mapping.read(&rig.cache, offset, len, &mut |phys, n| {
            got.extend(rig.bytes(phys, n));
            true
        });
        match result {
            Ok(n) => {
                assert_eq!(n as usize, got.len());
                assert_eq!(got, want[..got.len()]);
                // Short only at the end of the file, or where memory ran out.
                assert!(
                    got.len() == want.len() || !got.is_empty(),
                    "empty read inside the file"
                );
                if got.len() != want.len() {
                    self.expect_oom(CacheError::OutOfMemory);
                }
            }
            Err(error) => self.expect_oom(error),
        }
    }

    /// Before a write past the end: the file grows to where it starts.
    fn grow_to(&mut self, f: usize, offset: u64) {
        let Self { rig, files, .. } = self;
        let file = &mut files[f];
        if offset > file.bytes.len() as u64 {
            file.bytes.resize(offset as usize, 0);
            rig.store
                .with(file.id, |bytes| bytes.resize(offset as usize, 0));
            file.mapping.truncate(&rig.cache, offset, &mut |_, _| {});
        }
    }

    fn write(&mut self, f: usize) {
        let (offset, len) = self.range(f, 2 * PAGE_SIZE);
        let end = (offset + len).min(MAX_PAGES * PAGE_SIZE);
        self.grow_to(f, offset.min(end));
        let mut at = offset;
        while at < end {
            let (index, start) = (at / PAGE_SIZE, at % PAGE_SIZE);
            let n = (end - at).min(PAGE_SIZE - start);
            let fill = self.rng.next() as u8;
            let Self { rig, files, .. } = self;
            let file = &mut files[f];
            let pfn = match file
                .mapping
                .get_for_write(&rig.cache, index, n == PAGE_SIZE)
            {
                Ok(pfn) => pfn,
                Err(error) => return self.expect_oom(error),
            };
            rig.ram
                .write_bytes(pfn.addr() + start, &vec![fill; n as usize]);
            assert!(file.mapping.mark_dirty(&rig.cache, index));
            rig.cache.put_page(pfn);
            at += n;
            file.mapping.extend_size(at);
            let (from, to) = ((at - n) as usize, at as usize);
            file.bytes.resize(file.bytes.len().max(to), 0);
            file.bytes[from..to].fill(fill);
        }
    }

    fn write_through(&mut self, f: usize) {
        let (offset, len) = self.range(f, 2 * PAGE_SIZE);
        let end = (offset + len).min(MAX_PAGES * PAGE_SIZE);
        if offset >= end {
            return;
        }
        self.grow_to(f, offset);
        let fill = self.rng.next() as u8;
        let Self { rig, files, .. } = self;
        let file = &mut files[f];
        let write = |bytes: &mut Vec<u8>| {
            bytes.resize(bytes.len().max(end as usize), 0);
            bytes[offset as usize..end as usize].fill(fill);
        };
        write(&mut file.bytes);
        rig.store.with(file.id, write);
        file.mapping
            .store_bytes(&rig.cache, offset, end - offset, &mut |_, phys, n| {
                rig.ram.write_bytes(phys, &vec![fill; n as usize]);
            });
        file.mapping.extend_size(end);
    }

    fn truncate(&mut self, f: usize) {
        let pages = if self.rng.below(4) == 0 {
            MAX_PAGES
        } else {
            12
        };
        let size = self.rng.below(pages * PAGE_SIZE);
        let Self { rig, files, .. } = self;
        let File {
            id,
            mapping,
            bytes,
            entries,
        } = &mut files[f];
        bytes.resize(size as usize, 0);
        rig.store.with(*id, |bytes| bytes.resize(size as usize, 0));
        mapping.truncate(&rig.cache, size, &mut |first, last| {
            zap(rig, entries, first, last)
        });
        assert!(!mapping.any_mapped_in(size.div_ceil(PAGE_SIZE), u64::MAX));
    }

    fn punch(&mut self, f: usize) {
        let (offset, len) = self.range(f, 4 * PAGE_SIZE);
        let Self { rig, files, .. } = self;
        let File {
            id,
            mapping,
            bytes,
            entries,
        } = &mut files[f];
        mapping
            .writeback(&rig.cache, 0, u64::MAX, &mut |_, _| {})
            .unwrap();
        let clear = |bytes: &mut Vec<u8>| {
            let end = bytes.len().min((offset + len) as usize);
            if let Some(hole) = bytes.get_mut(offset as usize..end) {
                hole.fill(0);
            }
        };
        clear(bytes);
        rig.store.with(*id, clear);
        mapping.punch(&rig.cache, offset, len, &mut |first, last| {
            zap(rig, entries, first, last)
        });
    }

    fn map(&mut self, f: usize) {
        let index = self.rng.below(MAX_PAGES);
        let hint = match self.rng.below(4) {
            0 => Readahead::Random,
            1 => Readahead::Sequential,
            _ => Readahead::Normal,
        };
        let Self { rig, files, .. } = self;
        let file = &mut files[f];
        let inside = index * PAGE_SIZE < file.bytes.len() as u64;
        match file.mapping.read_page(&rig.cache, index, hint) {
            Ok((pfn, _)) if file.entries.contains_key(&index) => {
                assert_eq!(file.entries[&index], pfn);
                rig.cache.put_page(pfn);
            }
            Ok((pfn, _)) => {
                assert!(inside);
                rig.frames.memmap().page(pfn).map();
                file.entries.insert(index, pfn);
            }
            Err(CacheError::BeyondEof) => assert!(!inside),
            Err(error) => self.expect_oom(error),
        }
    }

    /// A program stores through a mapping, perhaps past the end of the file.
    fn store_mapped(&mut self, f: usize) {
        let skip = self.rng.below(MAX_PAGES);
        let start = self.rng.below(PAGE_SIZE) as usize;
        let fill = self.rng.next() as u8;
        let Self { rig, files, .. } = self;
        let file = &mut files[f];
        let Some((&index, &pfn)) = file.entries.range(skip..).next() else {
            return;
        };
        let len = (PAGE - start).min(200);
        assert!(file.mapping.mark_dirty(&rig.cache, index));
        rig.ram
            .write_bytes(pfn.addr() + start as u64, &vec![fill; len]);
        let from = index as usize * PAGE + start;
        let to = (from + len).min(file.bytes.len());
        if from < to {
            file.bytes[from..to].fill(fill);
        }
    }

    fn unmap(&mut self, f: usize) {
        let first = self.rng.below(MAX_PAGES);
        let Self { rig, files, .. } = self;
        zap(rig, &mut files[f].entries, first, first + 5);
    }

    fn writeback(&mut self, f: usize) {
        let fails = self.rng.below(4) == 0;
        let first = self.rng.below(MAX_PAGES);
        let (first, last) = if self.rng.below(2) == 0 {
            (0, u64::MAX)
        } else {
            (first, first + 9)
        };
        let Self { rig, files, .. } = self;
        let file = &files[f];
        rig.store
            .fail_writes
            .store(i64::from(fails), Ordering::Relaxed);
        let result = file
            .mapping
            .writeback(&rig.cache, first, last, &mut |start, run| {
                for (index, &pfn) in (start..).zip(run) {
                    assert_eq!(rig.frames.memmap().page(pfn).index(), index);
                    assert!((first..=last).contains(&index));
                }
            });
        let failed = fails && rig.store.fail_writes.swap(0, Ordering::Relaxed) == 0;
        assert_eq!(result.err(), failed.then_some(IoError { errno: 28 }));
        assert_eq!(file.mapping.check_error(), Ok(()), "reported once");
        if !failed && last == u64::MAX {
            assert_eq!(file.mapping.nr_dirty(), 0);
            let store = rig.store.get(file.id);
            assert_eq!(store[..], file.bytes[..store.len()]);
            assert!(file.bytes[store.len()..].iter().all(|b| *b == 0));
        }
    }

    /// The file changes behind our back.
    fn invalidate(&mut self, f: usize) {
        let fill = self.rng.next() as u8;
        let size = self.rng.below(MAX_PAGES * PAGE_SIZE);
        let offset = self.rng.below(MAX_PAGES * PAGE_SIZE) as usize;
        let changes = self.rng.below(2) == 0;
        let Self { rig, files, .. } = self;
        let File {
            id,
            mapping,
            bytes,
            entries,
        } = &mut files[f];
        if changes && mapping.nr_dirty() == 0 {
            let change = |bytes: &mut Vec<u8>| {
                bytes.resize(size as usize, fill);
                let end = bytes.len().min(offset + 3000);
                if let Some(part) = bytes.get_mut(offset..end) {
                    part.fill(fill);
                }
            };
            rig.store.with(*id, change);
            *bytes = rig.store.get(*id);
        }
        mapping
            .invalidate(&rig.cache, &mut |first, last| {
                zap(rig, entries, first, last)
            })
            .unwrap();
        assert_eq!(mapping.nr_pages(), {
            let mut left = mapping.nr_dirty();
            for &pfn in entries.values() {
                let flags = rig.frames.memmap().page(pfn).flags();
                left += u64::from(!flags.contains(vellum_page::PageFlags::DIRTY));
            }
            left
        });
    }

    /// A read that meets a failing store.
    fn read_error(&mut self, f: usize) {
        let index = self.rng.below(MAX_PAGES);
        let Self { rig, files, .. } = self;
        let file = &files[f];
        rig.store.fail_reads.store(2, Ordering::Relaxed);
        let result = file.mapping.read_page(&rig.cache, index, Readahead::Normal);
        rig.store.fail_reads.store(0, Ordering::Relaxed);
        match result {
            Ok((pfn, _)) => rig.cache.put_page(pfn),
            Err(CacheError::Io(errno)) => assert_eq!(errno, 5),
            Err(CacheError::BeyondEof) => assert!(index * PAGE_SIZE >= file.bytes.len() as u64),
            Err(error) => self.expect_oom(error),
        }
    }

    /// Reclaim looks at a page: writes it with its neighbours, and takes it if nobody needs it.
    fn reclaim(&mut self, f: usize) {
        let from = self.rng.below(MAX_PAGES);
        let fails = self.rng.below(8) == 0;
        let Self { rig, files, .. } = self;
        let file = &files[f];
        let Some((index, pfn)) =
            (from..MAX_PAGES).find_map(|i| Some((i, file.mapping.find_get(i)?)))
        else {
            return;
        };
        let page = rig.frames.memmap().page(pfn);
        assert!(page.try_lock());
        let shadow = index as u32 * 4 + 1 + f as u32 * 2;
        let takes = |dirty: bool| page.mapcount() == 0 && page.refcount() == 2 && !dirty;
        let dirty = page.flags().contains(PageFlags::DIRTY);
        let expected = takes(dirty);
        let mut gone = file
            .mapping
            .remove_for_reclaim(&rig.cache, pfn, Some(shadow));
        assert_eq!(gone, expected);
        if dirty {
            rig.store
                .fail_writes
                .store(i64::from(fails), Ordering::Relaxed);
            let inside = index * PAGE_SIZE < file.bytes.len() as u64;
            let written = file
                .mapping
                .writeback_around(&rig.cache, pfn, &mut |first, run| {
                    assert!((first..first + run.len() as u64).contains(&index));
                });
            rig.store.fail_writes.store(0, Ordering::Relaxed);
            match written {
                Ok(n) => assert_eq!(n > 0, inside && !fails),
                Err(error) => assert!(fails && error == IoError { errno: 28 }),
            }
            let _ = file.mapping.check_error();
            let expected = takes(page.flags().contains(PageFlags::DIRTY));
            gone = file
                .mapping
                .remove_for_reclaim(&rig.cache, pfn, Some(shadow));
            assert_eq!(gone, expected);
        }
        page.unlock();
        if gone {
            rig.frames.free_pages(pfn);
        } else {
            rig.cache.put_page(pfn);
        }
    }

    /// Background write-back, with a store that may fail.
    fn flush(&mut self) {
        let target = self.rng.below(100);
        let fails = self.rng.below(4) == 0;
        let Self { rig, files, .. } = self;
        rig.store
            .fail_writes
            .store(i64::from(fails), Ordering::Relaxed);
        let before = rig.vmstat.item(VmItem::NrDirty);
        let written = rig.cache.flush_some(target, &mut |_, _, _| {});
        let failed = fails && rig.store.fail_writes.swap(0, Ordering::Relaxed) == 0;
        for file in files {
            let _ = file.mapping.check_error();
        }
        if !failed {
            assert!(
                written >= target.min(before),
                "{written} of {target}, {before} dirty"
            );
        }
        assert_eq!(rig.vmstat.item(VmItem::NrDirty), before - written);
    }

    pub fn step(&mut self) {
        let f = self.rng.below(self.files.len() as u64) as usize;
        match self.rng.below(100) {
            0..30 => self.read(f),
            30..48 => self.write(f),
            48..55 => self.write_through(f),
            55..68 => self.map(f),
            68..80 => self.store_mapped(f),
            80..88 => self.unmap(f),
            88..90 => self.writeback(f),
            90 if self.rng.below(2) == 0 => self.flush(),
            90 => {
                for _ in 0..10 {
                    self.reclaim(f);
                }
                if self.rng.below(10) == 0 {
                    self.rig.cache.shrink_shadows(1);
                }
            }
            91 => self.truncate(f),
            92..94 => self.punch(f),
            94 => self.invalidate(f),
            95..97 => self.read_error(f),
            97..99 => {
                let n = self.rng.below(20);
                assert!(self.rig.cache.shrink(n) <= n);
            }
            _ => {
                self.rig.cache.validate().unwrap();
                // Mapped pages show the file.
                for file in &self.files {
                    for (&index, &pfn) in &file.entries {
                        let bytes = &file.bytes[index as usize * PAGE..];
                        let n = bytes.len().min(PAGE);
                        assert_eq!(self.rig.bytes(pfn.addr(), n as u64), bytes[..n]);
                    }
                }
            }
        }
    }

    pub fn finish(mut self) -> u64 {
        self.rig.frames.fail_every(0);
        self.rig.nodes.fail_after(i64::MAX);
        self.relieve();
        for file in &self.files {
            assert_eq!(file.mapping.size(), file.bytes.len() as u64);
            assert_eq!(file.mapping.nr_dirty(), 0);
            let mut store = self.rig.store.get(file.id);
            assert!(store.len() <= file.bytes.len());
            store.resize(file.bytes.len(), 0);
            assert!(store == file.bytes, "the store differs at the end");
        }
        self.files.clear();
        self.rig.finish();
        self.oom
    }
}
