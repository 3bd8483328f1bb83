//! How a slab is cut.

use crate::CacheFlags;
use core::alloc::Layout;
use vellum_types::{Order, PAGE_SIZE};

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;
/// The largest slab, 8 pages: larger blocks are hard to get.
const MAX_ORDER: u8 = 3;
/// From this object size on, the free objects of a slab are a bitmap in its `Page`.
const BITMAP_STRIDE: usize = 512;
/// Bits of that bitmap.
const BITMAP_BITS: usize = 32;
/// Bytes of an entry of the index list.
const LINK_BYTES: usize = 2;
/// Bytes of a red zone at either end of an object.
pub(crate) const RED_BYTES: usize = 8;

/// Where the objects of a slab are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    /// What was asked for.
    pub(crate) layout: Layout,
    pub(crate) flags: CacheFlags,
    pub(crate) order: Order,
    /// Of the slab.
    pub(crate) bytes: u64,
    /// Objects of a slab; at most `BITMAP_BITS` with a bitmap.
    pub(crate) objects: u16,
    /// From one object to the next.
    pub(crate) stride: u32,
    /// Of the first object.
    pub(crate) offset: u32,
    /// 2^32 / stride, rounded up: see `index_of`.
    reciprocal: u64,
    pub(crate) bitmap: bool,
}

impl Geometry {
    /// The smallest slab that wastes no more than an eighth, else the one that wastes least.
    ///
    /// # Panics
    /// If an object does not fit the largest slab, or its alignment is larger than a page.
    pub(crate) fn new(layout: Layout, flags: CacheFlags) -> Self {
        assert!(
            layout.align() as u64 <= PAGE_SIZE,
            "objects aligned to more than a page"
        );
        let size = layout.size().max(1);
        let mut align = layout.align().max(8);
        if flags.contains(CacheFlags::HWCACHE_ALIGN) {
            let mut line = CACHE_LINE;
            while size * 2 <= line {
                line /= 2;
            }
            align = align.max(line);
        }
        let (before, behind) = if flags.contains(CacheFlags::RED_ZONE) {
            (RED_BYTES.next_multiple_of(align), RED_BYTES)
        } else {
            (0, 0)
        };
        let stride = (before + size.next_multiple_of(8) + behind).next_multiple_of(align);
        let bitmap = stride >= BITMAP_STRIDE;

        let mut best: Option<(u64, Self)> = None;
        for order in (0..=MAX_ORDER).filter_map(Order::new) {
            let bytes = order.bytes() as usize;
            let (objects, start) = cut(bytes, stride, align, bitmap);
            if objects == 0 {
                continue;
            }
            let left = (bytes - start - objects * stride) as u64;
            let this = Self {
                layout,
                flags,
                order,
                bytes: order.bytes(),
                objects: objects as u16,
                stride: stride as u32,
                offset: (start + before) as u32,
                reciprocal: (1u64 << 32).div_ceil(stride as u64),
                bitmap,
            };
            if left * 8 <= order.bytes() {
                return this;
            }
            // In bytes lost for each page, so that orders compare.
            let lost = left >> order.as_u8();
            if best.is_none_or(|(least, _)| lost < least) {
                best = Some((lost, this));
            }
        }
        best.expect("objects larger than the largest slab").1
    }

    /// Which object starts `offset` bytes into a slab; `None` if none does.
    #[inline]
    pub(crate) fn index_of(&self, offset: u64) -> Option<u16> {
        let into = offset.checked_sub(u64::from(self.offset))?;
        // Exact without a division: into < 2^15 and the reciprocal is off by less than
        // stride / 2^32 <= 2^15 / 2^32, so the product errs by less than 1 / stride.
        let index = (into * self.reciprocal) >> 32;
        (index < u64::from(self.objects) && index * u64::from(self.stride) == into)
            .then_some(index as u16)
    }
}

/// How many objects fit `bytes`, and where the first stride starts.
fn cut(bytes: usize, stride: usize, align: usize, bitmap: bool) -> (usize, usize) {
    if bitmap {
        return ((bytes / stride).min(BITMAP_BITS), 0);
    }
    let mut objects = bytes / (stride + LINK_BYTES);
    // The list is rounded up to the alignment, which may cost the last object or two.
    while (objects * LINK_BYTES).next_multiple_of(align) + objects * stride > bytes {
        objects -= 1;
    }
    (objects, (objects * LINK_BYTES).next_multiple_of(align))
}
