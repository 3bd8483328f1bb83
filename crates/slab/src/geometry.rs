//! How a slab is cut.

use crate::CacheFlags;
use core::alloc::Layout;
use vellum_types::{Order, PAGE_SIZE};

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;
/// The largest slab, 8 pages: larger blocks are hard to get.
const MAX_ORDER: u8 = 3;
/// A slab should hold this many objects, so that the page allocator is seldom asked.
const MIN_OBJECTS: usize = 4;
/// From this object size on, the free objects of a slab are a bitmap in its `Page`.
const BITMAP_STRIDE: usize = 512;
/// Bits of that bitmap.
const BITMAP_BITS: usize = 32;
/// Bytes of an entry of the index list.
const LINK_BYTES: usize = 2;
/// Bytes of a red zone at either end of an object, at least.
pub(crate) const RED_BYTES: usize = 8;
/// Bytes of the two call sites beside an object.
const USER_BYTES: usize = 16;
/// The most colours: what fits the descriptor.
const MAX_COLOURS: usize = 256;

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
    /// Of the first object of a slab of colour 0.
    pub(crate) offset: u32,
    /// From the start of an object to its call sites.
    pub(crate) user_offset: u32,
    /// How many bytes a colour moves the objects.
    pub(crate) colour_step: u32,
    /// How many colours there are, at least 1.
    pub(crate) colours: u16,
    /// 2^32 / stride, rounded up: see `index_of`.
    reciprocal: u64,
    /// The free objects are a bitmap in the `Page`; else an index list in front of the objects.
    pub(crate) bitmap: bool,
}

/// Sizes that do not depend on the slab's order.
struct Cut {
    stride: usize,
    align: usize,
    before: usize,
    user_offset: usize,
    bitmap: bool,
}

impl Cut {
    fn new(layout: Layout, flags: CacheFlags) -> Self {
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
        let user_offset = size.next_multiple_of(8) + behind;
        let user = if flags.contains(CacheFlags::STORE_USER) {
            USER_BYTES
        } else {
            0
        };
        let stride = (before + user_offset + user).next_multiple_of(align);
        Self {
            stride,
            align,
            before,
            user_offset,
            bitmap: stride >= BITMAP_STRIDE,
        }
    }

    /// How many objects fit `bytes`, and where the first stride starts.
    fn fit(&self, bytes: usize) -> (usize, usize) {
        let (stride, align) = (self.stride, self.align);
        if self.bitmap {
            return ((bytes / stride).min(BITMAP_BITS), 0);
        }
        let mut objects = bytes / (stride + LINK_BYTES);
        // The list is rounded up to the alignment, which may cost the last object or two.
        while (objects * LINK_BYTES).next_multiple_of(align) + objects * stride > bytes {
            objects -= 1;
        }
        (objects, (objects * LINK_BYTES).next_multiple_of(align))
    }

    /// Bytes left over in a slab of this order, if it holds `least` objects.
    fn waste(&self, order: Order, least: usize) -> Option<usize> {
        let bytes = order.bytes() as usize;
        let (objects, start) = self.fit(bytes);
        (objects >= least).then(|| bytes - start - objects * self.stride)
    }

    /// The smallest order with at least [`MIN_OBJECTS`] objects that wastes at most a sixteenth;
    /// failing that an eighth, a quarter; then the same with fewer objects; then any that fits.
    /// Linux's `calculate_order`.
    fn order(&self) -> Option<Order> {
        let orders = || (0..=MAX_ORDER).filter_map(Order::new);
        for least in [MIN_OBJECTS, 1] {
            for fraction in [16, 8, 4] {
                let good = |order: &Order| {
                    self.waste(*order, least)
                        .is_some_and(|left| left * fraction <= order.bytes() as usize)
                };
                if let Some(order) = orders().find(good) {
                    return Some(order);
                }
            }
        }
        orders().find(|order| self.waste(*order, 1).is_some())
    }
}

impl Geometry {
    /// Chooses the order of the slab by what it wastes.
    ///
    /// # Panics
    /// If an object does not fit the largest slab, or its alignment is larger than a page.
    pub(crate) fn new(layout: Layout, flags: CacheFlags) -> Self {
        assert!(
            layout.align() as u64 <= PAGE_SIZE,
            "objects aligned to more than a page"
        );
        let cut = Cut::new(layout, flags);
        let order = cut.order().expect("objects larger than the largest slab");
        let bytes = order.bytes() as usize;
        let (objects, start) = cut.fit(bytes);
        let left = bytes - start - objects * cut.stride;
        let colour_step = cut.align.max(CACHE_LINE);
        Self {
            layout,
            flags,
            order,
            bytes: order.bytes(),
            objects: objects as u16,
            stride: cut.stride as u32,
            offset: (start + cut.before) as u32,
            user_offset: cut.user_offset as u32,
            colour_step: colour_step as u32,
            colours: (left / colour_step + 1).min(MAX_COLOURS) as u16,
            reciprocal: (1u64 << 32).div_ceil(cut.stride as u64),
            bitmap: cut.bitmap,
        }
    }

    /// Where the first object of a slab of `colour` is.
    #[inline]
    pub(crate) const fn first(&self, colour: u8) -> u32 {
        self.offset + colour as u32 * self.colour_step
    }

    /// Which object starts `offset` bytes into a slab of `colour`; `None` if none does.
    #[inline]
    pub(crate) fn index_of(&self, offset: u64, colour: u8) -> Option<u16> {
        let into = offset.checked_sub(u64::from(self.first(colour)))?;
        // Exact without a division: into < 2^15 and the reciprocal is off by less than
        // stride / 2^32 <= 2^15 / 2^32, so the product errs by less than 1 / stride.
        let index = (into * self.reciprocal) >> 32;
        (index < u64::from(self.objects) && index * u64::from(self.stride) == into)
            .then_some(index as u16)
    }
}
