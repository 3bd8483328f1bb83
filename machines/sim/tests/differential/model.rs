//! What memory means, without frames, tables or TLBs: a map from pages to values.
//!
//! A page has four cells of eight bytes; nothing else of it is ever written. Memory has no end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

pub(crate) const PAGE: u64 = 4096;
/// Where the cells of a page lie.
pub(crate) const CELLS: [u64; 4] = [0, 1000, 2048, 4088];
pub(crate) const READ: u32 = 1;
pub(crate) const WRITE: u32 = 2;
pub(crate) const EXEC: u32 = 4;

pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const EFAULT: i32 = 14;

pub(crate) type Cells = [u64; 4];

/// A file, or the file behind shared anonymous memory.
#[derive(Debug, Default)]
pub(crate) struct Object {
    pub(crate) pages: Vec<Cells>,
    /// In bytes.
    pub(crate) size: u64,
}

pub(crate) type ObjectRef = Rc<RefCell<Object>>;

impl Object {
    pub(crate) fn with_pages(n: u64) -> ObjectRef {
        let pages = vec![[0; 4]; n as usize];
        Rc::new(RefCell::new(Self {
            pages,
            size: n * PAGE,
        }))
    }

    pub(crate) fn has_page(&self, index: u64) -> bool {
        index * PAGE < self.size
    }

    /// Sets the size; what lies past it is zero from now on.
    pub(crate) fn resize(&mut self, size: u64) {
        self.size = size;
        self.pages.resize(size.div_ceil(PAGE) as usize, [0; 4]);
        if let Some(last) = self.pages.last_mut() {
            let start = (size.div_ceil(PAGE) - 1) * PAGE;
            for (cell, offset) in last.iter_mut().zip(CELLS) {
                if start + offset >= size {
                    *cell = 0;
                }
            }
        }
    }

    /// Does the whole cell lie before the end?
    pub(crate) fn has_cell(&self, index: u64, cell: usize) -> bool {
        index * PAGE + CELLS[cell] + 8 <= self.size
    }
}

/// What a page shows if nobody in the process wrote to it.
#[derive(Clone, Debug)]
pub(crate) enum Backing {
    Anonymous,
    Object(ObjectRef, u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) prot: u32,
    pub(crate) shared: bool,
    pub(crate) backing: Backing,
    /// The process's own copy.
    pub(crate) own: Option<Cells>,
    /// MADV_FREE: the own copy may become zero until it is written.
    pub(crate) may_vanish: bool,
    pub(crate) wipe_on_fork: bool,
    pub(crate) dont_fork: bool,
    pub(crate) locked: bool,
}

impl Page {
    pub(crate) fn new(prot: u32, shared: bool, backing: Backing) -> Self {
        Self {
            prot,
            shared,
            backing,
            own: None,
            may_vanish: false,
            wipe_on_fork: false,
            dont_fork: false,
            locked: false,
        }
    }

    pub(crate) fn is_private_anonymous(&self) -> bool {
        !self.shared && matches!(self.backing, Backing::Anonymous)
    }

    /// The page after this one in the same object.
    pub(crate) fn following(&self, pages: u64) -> Backing {
        match &self.backing {
            Backing::Anonymous => Backing::Anonymous,
            Backing::Object(object, index) => Backing::Object(object.clone(), index + pages),
        }
    }

    /// Could the two lie in one area?
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let same_object = match (&self.backing, &other.backing) {
            (Backing::Anonymous, Backing::Anonymous) => true,
            (Backing::Object(a, _), Backing::Object(b, _)) => Rc::ptr_eq(a, b),
            _ => false,
        };
        same_object
            && (
                self.prot,
                self.shared,
                self.wipe_on_fork,
                self.dont_fork,
                self.locked,
            ) == (
                other.prot,
                other.shared,
                other.wipe_on_fork,
                other.dont_fork,
                other.locked,
            )
    }
}

/// How an access ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Value(u64),
    MapErr,
    AccErr,
    Bus,
}

/// One address space: pages by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    pub(crate) pages: BTreeMap<u64, Page>,
}

impl Space {
    pub(crate) fn is_mapped(&self, range: Range<u64>) -> bool {
        range.clone().all(|n| self.pages.contains_key(&n))
    }

    pub(crate) fn is_free(&self, range: Range<u64>) -> bool {
        self.pages.range(range).next().is_none()
    }

    /// Are these pages mapped, and could they be one area?
    pub(crate) fn is_uniform(&self, range: Range<u64>) -> bool {
        self.is_mapped(range.clone())
            && range
                .clone()
                .skip(1)
                .all(|n| self.pages[&n].is_like(&self.pages[&range.start]))
    }

    pub(crate) fn unmap(&mut self, range: Range<u64>) {
        for n in range {
            self.pages.remove(&n);
        }
    }

    pub(crate) fn load(&self, number: u64, cell: usize) -> Outcome {
        let Some(page) = self.pages.get(&number) else {
            return Outcome::MapErr;
        };
        if page.prot == 0 {
            return Outcome::AccErr;
        }
        self.value(page, cell)
    }

    fn value(&self, page: &Page, cell: usize) -> Outcome {
        match (&page.own, &page.backing) {
            (Some(own), _) => Outcome::Value(own[cell]),
            (None, Backing::Anonymous) => Outcome::Value(0),
            (None, Backing::Object(object, index)) => {
                let object = object.borrow();
                match object.has_page(*index) {
                    true => Outcome::Value(object.pages[*index as usize][cell]),
                    false => Outcome::Bus,
                }
            }
        }
    }

    pub(crate) fn exec(&self, number: u64) -> Outcome {
        match self.pages.get(&number) {
            None => Outcome::MapErr,
            Some(page) if page.prot == 0 => Outcome::AccErr,
            // The page is read in before the fetch is refused.
            Some(page) if page.prot & EXEC == 0 && self.value(page, 0) != Outcome::Bus => {
                Outcome::AccErr
            }
            Some(page) => self.value(page, 0),
        }
    }

    /// Stores, or says why not. Shared stores past the end of a file, in its last page, are not
    /// modelled: the caller asks [`Space::may_store`] first.
    pub(crate) fn store(&mut self, number: u64, cell: usize, value: u64) -> Outcome {
        let before = match self.pages.get(&number) {
            None => return Outcome::MapErr,
            Some(page) if page.prot & WRITE == 0 => return Outcome::AccErr,
            Some(page) => page.clone(),
        };
        if self.value(&before, 0) == Outcome::Bus {
            return Outcome::Bus;
        }
        match &before.backing {
            Backing::Object(object, index) if before.shared => {
                object.borrow_mut().pages[*index as usize][cell] = value;
            }
            _ => {
                let mut cells = [0; 4];
                for (i, slot) in cells.iter_mut().enumerate() {
                    if let Outcome::Value(value) = self.value(&before, i) {
                        *slot = value;
                    }
                }
                cells[cell] = value;
                if let Some(page) = self.pages.get_mut(&number) {
                    page.own = Some(cells);
                }
            }
        }
        Outcome::Value(value)
    }

    pub(crate) fn may_store(&self, number: u64, cell: usize) -> bool {
        match self.pages.get(&number) {
            Some(Page {
                shared: true,
                backing: Backing::Object(object, index),
                ..
            }) => {
                let object = object.borrow();
                !object.has_page(*index) || object.has_cell(*index, cell)
            }
            _ => true,
        }
    }

    pub(crate) fn fork(&self) -> Self {
        let mut child = Self::default();
        for (number, page) in &self.pages {
            if page.dont_fork {
                continue;
            }
            let mut page = page.clone();
            page.locked = false;
            if page.wipe_on_fork {
                page.own = None;
                page.may_vanish = false;
            }
            child.pages.insert(*number, page);
        }
        child
    }

    /// mprotect: what comes before a hole is changed.
    pub(crate) fn protect(&mut self, range: Range<u64>, prot: u32) -> Result<(), i32> {
        for n in range {
            self.pages.get_mut(&n).ok_or(ENOMEM)?.prot = prot;
        }
        Ok(())
    }

    /// madvise: holes are skipped and reported at the end; a page that refuses stops it.
    pub(crate) fn advise(
        &mut self,
        range: Range<u64>,
        mut each: impl FnMut(&mut Page) -> Result<(), i32>,
    ) -> Result<(), i32> {
        let mut result = Ok(());
        for n in range {
            match self.pages.get_mut(&n) {
                Some(page) => each(page)?,
                None => result = Err(ENOMEM),
            }
        }
        result
    }

    /// Moves pages, and adds `grow` more after them.
    pub(crate) fn relocate(&mut self, from: Range<u64>, to: u64, grow: u64, keep: bool) {
        let last = self.pages[&(from.end - 1)].clone();
        let moved: Vec<_> = from.clone().map(|n| self.pages.remove(&n)).collect();
        for (i, page) in moved.into_iter().enumerate() {
            let Some(page) = page else { continue };
            if keep {
                // MREMAP_DONTUNMAP leaves an empty, unlocked page behind.
                let stays = Page {
                    own: None,
                    may_vanish: false,
                    locked: false,
                    ..page.clone()
                };
                self.pages.insert(from.start + i as u64, stays);
            }
            self.pages.insert(to + i as u64, page);
        }
        let end = to + (from.end - from.start);
        for i in 0..grow {
            let page = Page {
                own: None,
                may_vanish: false,
                backing: last.following(i + 1),
                ..last.clone()
            };
            self.pages.insert(end + i, page);
        }
    }

    /// A file was cut: own copies of pages past its end are gone.
    pub(crate) fn cut(&mut self, file: &ObjectRef) {
        for page in self.pages.values_mut() {
            if let Backing::Object(object, index) = &page.backing
                && Rc::ptr_eq(object, file)
                && !object.borrow().has_page(*index)
            {
                page.own = None;
            }
        }
    }
}
