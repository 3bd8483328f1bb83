//! What a slab keeps in the words of its `Page`s.
//!
//! ```text
//!   owner   of every page    1 | node (3) | kmalloc class (8) | cache id (20)
//!   index   of the first     first free (16) | live (16) | colour (8)
//!   mapcount of the first    bitmap of the free objects, for large ones
//! ```
//! The highest bit of the owner word is set for slabs and large kmalloc blocks, and for nobody
//! else, so that one comparison tells whether an address belongs to a cache.

use vellum_page::Page;
use vellum_types::NodeId;

/// Set in the owner word of everything that this crate owns.
const OWNED: u32 = 1 << 31;
const NODE_SHIFT: u32 = 28;
const CLASS_SHIFT: u32 = 20;
const NODE_MASK: u32 = 7 << NODE_SHIFT;

/// The most nodes whose slabs are told apart.
pub(crate) const MAX_NODES: usize = 8;
/// The most caches of a system.
pub(crate) const MAX_CACHES: u32 = 1 << CLASS_SHIFT;
/// The owner word of pages that kmalloc gave out as they are.
pub(crate) const LARGE: u32 = OWNED | 0xff << CLASS_SHIFT;

/// The owner word of a cache's slabs on node 0. `class`: its place in kmalloc's table plus one, or 0.
pub(crate) const fn owner_word(id: u32, class: u8) -> u32 {
    OWNED | (class as u32) << CLASS_SHIFT | id
}

/// The same cache on `node`.
#[inline]
pub(crate) const fn on_node(owner: u32, node: usize) -> u32 {
    owner & !NODE_MASK | (node as u32) << NODE_SHIFT
}

/// Which node's lists a slab with this owner word is on.
#[inline]
pub(crate) const fn node_of(owner: u32) -> usize {
    ((owner & NODE_MASK) >> NODE_SHIFT) as usize
}

/// The kmalloc class of an owner word.
#[inline]
pub(crate) const fn class_of(owner: u32) -> u32 {
    owner >> CLASS_SHIFT & 0xff
}

/// A node as an index into lists of `count` nodes.
pub(crate) fn node_index(node: NodeId, count: usize) -> usize {
    usize::from(node.0).min(count - 1)
}

/// The bitmap of a slab with no live object.
pub(crate) const fn all_free(objects: u16) -> u32 {
    u32::MAX >> (u32::BITS - objects as u32)
}

/// The `index` word of a slab's first `Page`.
#[derive(Clone, Copy)]
pub(crate) struct FreeWord {
    /// The first free object, or `END`.
    pub(crate) first: u16,
    /// How many are live, or in a sheaf.
    pub(crate) live: u16,
    /// Where the first object is.
    pub(crate) colour: u8,
}

impl FreeWord {
    #[inline]
    pub(crate) fn of(page: &Page) -> Self {
        let raw = page.index();
        Self {
            first: raw as u16,
            live: (raw >> 16) as u16,
            colour: (raw >> 32) as u8,
        }
    }
    #[inline]
    pub(crate) fn set(self, page: &Page) {
        page.set_index(
            u64::from(self.colour) << 32 | u64::from(self.live) << 16 | u64::from(self.first),
        );
    }
}
