//! What is behind an area: nothing, a file, or frames of somebody else.

use vellum_object::KArc;
use vellum_page_cache::MappingRef;
use vellum_types::{FileId, Order};
use vellum_vma::Backing;

/// `anon_vma`: the identity under which an area's anonymous pages are known. Areas share it by
/// splitting and by fork. Areas that differ in it do not merge, and its number is the owner word of
/// their pages; a list of the areas, for a walk from page to areas, does not exist yet.
#[derive(Debug)]
pub struct AnonVma {
    id: u32,
}

impl AnonVma {
    pub(crate) const fn new(id: u32) -> Self {
        Self { id }
    }
    /// The number in the owner word of its pages.
    pub const fn id(&self) -> u32 {
        self.id
    }
}

/// A counted [`AnonVma`].
pub type AnonVmaRef<'m> = KArc<'m, AnonVma>;

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

/// Backing of a [`Vma`](vellum_vma::Vma).
#[derive(Clone, Debug)]
pub struct VmBacking<'m> {
    /// What it shows.
    pub object: Object<'m>,
    /// Under which identity its private pages are known; `None` before the first.
    pub anon_vma: Option<AnonVmaRef<'m>>,
    pub(crate) stream: FaultStream,
}

impl<'m> VmBacking<'m> {
    pub(crate) fn new(object: Object<'m>) -> Self {
        Self {
            object,
            anon_vma: None,
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

    /// True for zero-filled private memory.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.object, Object::Anonymous)
    }
}

impl Backing for VmBacking<'_> {
    fn can_merge(&self, other: &Self) -> bool {
        let same_object = match (&self.object, &other.object) {
            (Object::Anonymous, Object::Anonymous) => true,
            (Object::File(a), Object::File(b)) => KArc::ptr_eq(a, b),
            _ => false,
        };
        let same_anon = match (&self.anon_vma, &other.anon_vma) {
            (Some(a), Some(b)) => KArc::ptr_eq(a, b),
            _ => true,
        };
        same_object && same_anon
    }

    fn is_linear(&self) -> bool {
        true
    }

    fn absorb(&mut self, other: &Self) {
        if self.anon_vma.is_none() {
            self.anon_vma = other.anon_vma.clone();
        }
    }
}

/// Files of shared anonymous memory are numbered from here; the machine's store never sees them.
pub(crate) const FIRST_SHMEM_FILE: u64 = 1 << 63;

/// True for shared anonymous memory, which has no backing store.
pub(crate) const fn is_shmem(file: FileId) -> bool {
    file.0 >= FIRST_SHMEM_FILE
}
