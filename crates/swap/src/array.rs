//! Arrays of words in frames.

use core::marker::PhantomData;
use vellum_machine::DirectMap;
use vellum_page::{AllocRequest, PageSource};
use vellum_types::{Order, OutOfMemory, Pfn, PhysAddr};

/// What an array may hold.
pub(crate) trait Word: Copy {
    /// Bytes of one, a power of two.
    const BYTES: u64;
    fn load(ram: DirectMap<'_>, at: PhysAddr) -> Self;
    fn store(self, ram: DirectMap<'_>, at: PhysAddr);
}

impl Word for u32 {
    const BYTES: u64 = 4;
    #[inline]
    fn load(ram: DirectMap<'_>, at: PhysAddr) -> Self {
        ram.read_u32(at)
    }
    #[inline]
    fn store(self, ram: DirectMap<'_>, at: PhysAddr) {
        ram.write_u32(at, self);
    }
}

impl Word for u64 {
    const BYTES: u64 = 8;
    #[inline]
    fn load(ram: DirectMap<'_>, at: PhysAddr) -> Self {
        ram.read_u64(at)
    }
    #[inline]
    fn store(self, ram: DirectMap<'_>, at: PhysAddr) {
        ram.write_u64(at, self);
    }
}

/// `len` words in equal blocks of frames, zero at first; given back on drop.
///
/// The blocks are as large as memory allows at creation. If one is enough, `root` is that block; else
/// `root` is a block of their frame numbers.
pub(crate) struct FrameArray<'m, W> {
    source: &'m dyn PageSource,
    ram: DirectMap<'m>,
    len: u32,
    order: Order,
    blocks: u32,
    root: Pfn,
    word: PhantomData<fn() -> W>,
}

impl<'m, W: Word> FrameArray<'m, W> {
    /// Takes the frames.
    ///
    /// # Errors
    /// They cannot be had, not even one by one.
    pub(crate) fn new(source: &'m dyn PageSource, len: u32) -> Result<Self, OutOfMemory> {
        let bytes = (u64::from(len) * W::BYTES).max(1);
        let mut order = Order::for_bytes(bytes).unwrap_or(Order::MAX);
        loop {
            match Self::with_order(source, len, bytes, order) {
                Ok(array) => return Ok(array),
                Err(OutOfMemory) => order = order.down().ok_or(OutOfMemory)?,
            }
        }
    }

    fn with_order(
        source: &'m dyn PageSource,
        len: u32,
        bytes: u64,
        order: Order,
    ) -> Result<Self, OutOfMemory> {
        let blocks = bytes.div_ceil(order.bytes());
        let root_order = if blocks == 1 {
            order
        } else {
            Order::for_bytes(blocks * 4).ok_or(OutOfMemory)?
        };
        let mut array = Self {
            source,
            ram: source.ram(),
            len,
            order,
            blocks: 1,
            root: zeroed(source, root_order)?,
            word: PhantomData,
        };
        if blocks > 1 {
            // From here on dropping the array frees the blocks so far: those that are not zero.
            array.blocks = blocks as u32;
            for block in 0..array.blocks {
                let pfn = zeroed(source, order)?;
                // Plus one, so that frame 0 is not taken for none.
                array.ram.write_u32(array.link(block), pfn.as_u32() + 1);
            }
        }
        Ok(array)
    }

    #[inline]
    fn link(&self, block: u32) -> PhysAddr {
        self.root.addr() + u64::from(block) * 4
    }

    #[inline]
    fn place(&self, index: u32) -> PhysAddr {
        assert!(index < self.len, "index {index} of {}", self.len);
        let offset = u64::from(index) * W::BYTES;
        if self.blocks == 1 {
            return self.root.addr() + offset;
        }
        let block = (offset / self.order.bytes()) as u32;
        let pfn = Pfn::new(self.ram.read_u32(self.link(block)) - 1);
        pfn.addr() + (offset & (self.order.bytes() - 1))
    }

    /// Word `index`.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> W {
        W::load(self.ram, self.place(index))
    }

    /// Sets word `index`.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub(crate) fn set(&self, index: u32, word: W) {
        word.store(self.ram, self.place(index));
    }

    /// How many words.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }
}

fn zeroed(source: &dyn PageSource, order: Order) -> Result<Pfn, OutOfMemory> {
    let pfn = source.alloc_pages(AllocRequest::kernel(order))?;
    source.ram().fill_pages(pfn, order.pages(), 0);
    Ok(pfn)
}

impl<W> Drop for FrameArray<'_, W> {
    fn drop(&mut self) {
        if self.blocks > 1 {
            for block in 0..self.blocks {
                let link = self.root.addr() + u64::from(block) * 4;
                if let Some(raw) = self.ram.read_u32(link).checked_sub(1) {
                    self.source.free_pages(Pfn::new(raw));
                }
            }
        }
        self.source.free_pages(self.root);
    }
}
