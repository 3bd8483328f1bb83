//! What is behind an area: nothing, a file, or frames of somebody else.

use vellum_object::KArc;
use vellum_page_cache::{Mapping, MappingRef};
use vellum_rmap::{AnonLinkRef, Registration};
use vellum_types::{FileId, Order};
use vellum_vma::Backing;

/// The object that an area shows.
#[derive(Clone, Debug)]
pub enum Object<'m> {
    /// Zero-filled private memory.
    Anonymous,
    /// Pages of a file, or of shared memory.
    File(MappingRef<'m>),
    /// Frames that the machine maps by itself, under this name.
    Special(&'static str),
}

/// How the last faults of an area that took frames ran, to choose the size of the next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultStream {
    /// First page of the last block.
    first: u64,
    /// One past its last page; zero before the first fault.
    end: u64,
    order: Order,
}

impl FaultStream {
    /// The order to try for a fault at `page`. It starts two below the machine's largest, goes up
    /// by one while faults run on from the last block in either direction, and falls back to the
    /// start when they jump: allocators write a header ahead and come back, so a jump says little.
    pub(crate) fn next_order(&self, page: u64, max: Order) -> Order {
        let base = Order::new(max.as_u8().saturating_sub(2)).unwrap_or(Order::ZERO);
        let runs_on = self.end != 0 && (page == self.end || page + 1 == self.first);
        if runs_on {
            self.order.up().map_or(max, |up| up.min(max)).max(base)
        } else {
            base
        }
    }

    /// The order to try for private copies of a file's pages around `page`: three below the machine's
    /// largest, and twice as many each time the copies run on, as they do when a program is relocated.
    pub(crate) fn next_copy_order(&self, page: u64, max: Order) -> Order {
        let base = Order::new(max.as_u8().saturating_sub(3)).unwrap_or(Order::ZERO);
        let runs_on = self.end != 0 && (page == self.end || page + 1 == self.first);
        if runs_on {
            self.order.up().map_or(max, |up| up.min(max)).max(base)
        } else {
            base
        }
    }

    /// Records that a block of `order` was filled at `first`.
    pub(crate) fn filled(&mut self, first: u64, pages: u64, order: Order) {
        *self = Self {
            first,
            end: first + pages,
            order,
        };
    }
}

/// An area's place among those who map a file, shared by what it was split into.
pub(crate) type FileMapRef<'m> = KArc<'m, Registration<'m, Mapping<'m>>>;

/// Backing of a [`Vma`](vellum_vma::Vma).
#[derive(Clone, Debug)]
pub struct VmBacking<'m> {
    /// What it shows.
    pub object: Object<'m>,
    /// In which `anon_vma`s it stands for its private pages; `None` before the first.
    pub anon: Option<AnonLinkRef<'m>>,
    /// That it stands among those who map the file.
    pub(crate) shown: Option<FileMapRef<'m>>,
    pub(crate) stream: FaultStream,
}

impl<'m> VmBacking<'m> {
    pub(crate) fn new(object: Object<'m>) -> Self {
        Self {
            object,
            anon: None,
            shown: None,
            stream: FaultStream::default(),
        }
    }

    /// The file, if there is one.
    pub fn mapping(&self) -> Option<&MappingRef<'m>> {
        match &self.object {
            Object::File(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// True if both show the same.
    pub(crate) fn same_object(&self, other: &Self) -> bool {
        match (&self.object, &other.object) {
            (Object::Anonymous, Object::Anonymous) => true,
            (Object::File(a), Object::File(b)) => KArc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// True for zero-filled private memory.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.object, Object::Anonymous)
    }
}

impl Backing for VmBacking<'_> {
    fn can_merge(&self, other: &Self) -> bool {
        // is_mergeable_anon_vma: what still shares pages with a parent does not spread.
        let same_anon = match (&self.anon, &other.anon) {
            (Some(a), Some(b)) => a.same_chain(b),
            (Some(one), None) | (None, Some(one)) => one.is_singular(),
            (None, None) => true,
        };
        same_anon && self.same_object(other)
    }

    fn is_linear(&self) -> bool {
        true
    }

    fn absorb(&mut self, other: &Self) {
        match (&self.anon, &other.anon) {
            (Some(mine), Some(theirs)) => mine.absorb(theirs),
            (None, Some(theirs)) => self.anon = Some(theirs.clone()),
            (_, None) => {}
        }
        if let (Some(mine), Some(theirs)) = (&self.shown, &other.shown)
            && !KArc::ptr_eq(mine, theirs)
        {
            let (first, last) = theirs.interval();
            mine.widen(first, last);
        }
    }
}

/// Files of shared anonymous memory are numbered from here; the machine's store never sees them.
pub(crate) const FIRST_SHMEM_FILE: u64 = 1 << 63;

/// True for shared anonymous memory, which has no backing store.
pub(crate) const fn is_shmem(file: FileId) -> bool {
    file.0 >= FIRST_SHMEM_FILE
}
