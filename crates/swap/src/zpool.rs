//! Room for objects of any size up to most of a page. Linux: `mm/zsmalloc.c`.

use vellum_machine::DirectMap;
use vellum_page::{AllocRequest, Memmap, PageSource};
use vellum_types::{GfpFlags, Order, OutOfMemory, PAGE_SIZE, Pfn, PhysAddr};

/// Sizes are rounded up to a multiple of this.
const STEP: usize = 32;
/// The largest object: five of them fill four frames. What is larger has a frame of its own.
pub(crate) const MAX_OBJECT: usize = 3264;
const CLASSES: usize = MAX_OBJECT / STEP;
const MAX_FRAMES: usize = 4;
const NONE: u16 = u16::MAX;

/// How objects of one size are laid out.
#[derive(Clone, Copy)]
struct Class {
    /// Bytes of an object.
    size: u16,
    /// Frames of a zspage.
    frames: u8,
    /// Objects in it.
    objects: u16,
    /// The class that is used for this size: a larger one that packs as many in as many frames.
    stand_in: u8,
}

const TABLE: [Class; CLASSES] = classes();

const fn classes() -> [Class; CLASSES] {
    let none = Class {
        size: 0,
        frames: 0,
        objects: 0,
        stand_in: 0,
    };
    let mut table = [none; CLASSES];
    let mut i = CLASSES;
    while i > 0 {
        i -= 1;
        let size = (i + 1) * STEP;
        let mut best = 1;
        let mut frames = 2;
        while frames <= MAX_FRAMES {
            // Less waste per frame.
            let (new, old) = (frames * 4096 % size, best * 4096 % size);
            if new * best < old * frames {
                best = frames;
            }
            frames += 1;
        }
        let objects = best * 4096 / size;
        let mut stand_in = i;
        if i + 1 < CLASSES {
            let above = table[i + 1];
            if above.frames as usize == best && above.objects as usize == objects {
                stand_in = above.stand_in as usize;
            }
        }
        table[i] = Class {
            size: size as u16,
            frames: best as u8,
            objects: objects as u16,
            stand_in: stand_in as u8,
        };
    }
    table
}

/// An object: the first frame of its zspage, and its position there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handle {
    pub(crate) first: Pfn,
    pub(crate) object: u16,
}

/// A zspage's numbers, kept in the index word of its first frame.
#[derive(Clone, Copy)]
struct Info {
    used: u16,
    /// Objects from here on were never given out.
    fresh: u16,
    /// The first of the chain of others that are free.
    chain: u16,
}

impl Info {
    fn unpack(raw: u64) -> Self {
        Self {
            used: raw as u16,
            fresh: (raw >> 16) as u16,
            chain: (raw >> 32) as u16,
        }
    }
    fn pack(self) -> u64 {
        u64::from(self.used) | u64::from(self.fresh) << 16 | u64::from(self.chain) << 32
    }
}

/// Objects in zspages of one to four frames, which need not be neighbours: frame after frame is linked
/// by the owner word. Zspages with room are on two lists of their class, the fuller ones first in use,
/// so that the emptier ones may become empty, which are given back at once.
pub(crate) struct Zpool<'m> {
    source: &'m dyn PageSource,
    ram: DirectMap<'m>,
    memmap: Memmap<'m>,
    /// Of each class: zspages less, and at least, three quarters full.
    lists: [[Pfn; 2]; CLASSES],
    frames: u32,
    limit: u32,
}

impl<'m> Zpool<'m> {
    /// Of at most `limit` frames.
    pub(crate) fn new(source: &'m dyn PageSource, limit: u32) -> Self {
        Self {
            source,
            ram: source.ram(),
            memmap: source.memmap(),
            lists: [[Pfn::NONE; 2]; CLASSES],
            frames: 0,
            limit,
        }
    }

    /// Frames in use.
    pub(crate) const fn frames(&self) -> u32 {
        self.frames
    }

    /// Takes a frame. The pool frees memory in the end, so it may take from the reserve.
    pub(crate) fn take_frame(&mut self) -> Result<Pfn, OutOfMemory> {
        if self.frames >= self.limit {
            return Err(OutOfMemory);
        }
        let pfn = self.source.alloc_pages(AllocRequest {
            order: Order::ZERO,
            gfp: GfpFlags::NOWAIT | GfpFlags::MEMALLOC | GfpFlags::HIGHMEM,
        })?;
        self.frames += 1;
        Ok(pfn)
    }

    pub(crate) fn give_frame(&mut self, pfn: Pfn) {
        self.frames -= 1;
        self.source.free_pages(pfn);
    }

    fn class_of(size: usize) -> (usize, Class) {
        let class = usize::from(TABLE[size.saturating_sub(1) / STEP].stand_in);
        (class, TABLE[class])
    }

    /// Which list a zspage with these numbers is on.
    fn list_of(class: Class, used: u16) -> Option<usize> {
        if used == class.objects {
            None
        } else {
            Some(usize::from(used * 4 >= class.objects * 3))
        }
    }

    /// Room for `size` bytes, at most [`MAX_OBJECT`].
    pub(crate) fn alloc(&mut self, size: usize) -> Result<Handle, OutOfMemory> {
        let (number, class) = Self::class_of(size);
        let [emptier, fuller] = self.lists[number];
        let first = match (fuller, emptier) {
            (Pfn::NONE, Pfn::NONE) => self.grow(number, class)?,
            (Pfn::NONE, first) | (first, _) => first,
        };
        let mut info = Info::unpack(self.memmap.page(first).index());
        let object = if info.chain == NONE {
            info.fresh += 1;
            info.fresh - 1
        } else {
            let object = info.chain;
            let handle = Handle { first, object };
            info.chain = self.ram.read_u32(self.place(handle, class).0) as u16;
            object
        };
        self.change(number, class, first, info, info.used + 1);
        Ok(Handle { first, object })
    }

    /// Gives an object of `size` bytes back.
    pub(crate) fn free(&mut self, handle: Handle, size: usize) {
        let (number, class) = Self::class_of(size);
        let first = handle.first;
        let mut info = Info::unpack(self.memmap.page(first).index());
        assert!(info.used > 0, "zspage {first:?} is damaged");
        let (at, ..) = self.place(handle, class);
        self.ram.write_u32(at, u32::from(info.chain));
        info.chain = handle.object;
        self.change(number, class, first, info, info.used - 1);
        if info.used == 1 {
            self.unlink(number, 0, first);
            let mut next = first;
            while next != Pfn::NONE {
                let pfn = next;
                next = Pfn::new(self.memmap.page(pfn).owner());
                self.give_frame(pfn);
            }
        }
    }

    /// A new zspage, on the list of emptier ones.
    fn grow(&mut self, number: usize, class: Class) -> Result<Pfn, OutOfMemory> {
        let mut first = Pfn::NONE;
        for _ in 0..class.frames {
            match self.take_frame() {
                Ok(pfn) => {
                    self.memmap.page(pfn).set_owner(first.as_u32());
                    first = pfn;
                }
                Err(OutOfMemory) => {
                    while first != Pfn::NONE {
                        let pfn = first;
                        first = Pfn::new(self.memmap.page(pfn).owner());
                        self.give_frame(pfn);
                    }
                    return Err(OutOfMemory);
                }
            }
        }
        let info = Info {
            used: 0,
            fresh: 0,
            chain: NONE,
        };
        self.memmap.page(first).set_index(info.pack());
        self.link(number, 0, first);
        Ok(first)
    }

    /// Sets the number of used objects, and the list that follows from it.
    fn change(&mut self, number: usize, class: Class, first: Pfn, mut info: Info, used: u16) {
        let before = Self::list_of(class, info.used);
        let after = Self::list_of(class, used);
        info.used = used;
        self.memmap.page(first).set_index(info.pack());
        if before != after {
            if let Some(list) = before {
                self.unlink(number, list, first);
            }
            if let Some(list) = after {
                self.link(number, list, first);
            }
        }
    }

    fn link(&mut self, number: usize, list: usize, first: Pfn) {
        let old = core::mem::replace(&mut self.lists[number][list], first);
        let page = self.memmap.page(first);
        page.set_next(old);
        page.set_prev(Pfn::NONE);
        if old != Pfn::NONE {
            self.memmap.page(old).set_prev(first);
        }
    }

    fn unlink(&mut self, number: usize, list: usize, first: Pfn) {
        let page = self.memmap.page(first);
        let (next, prev) = (page.next(), page.prev());
        if prev == Pfn::NONE {
            self.lists[number][list] = next;
        } else {
            self.memmap.page(prev).set_next(next);
        }
        if next != Pfn::NONE {
            self.memmap.page(next).set_prev(prev);
        }
    }

    /// Where an object begins, the bytes from there to the end of the frame, and the frame.
    fn place(&self, handle: Handle, class: Class) -> (PhysAddr, usize, Pfn) {
        assert!(handle.object < class.objects, "{handle:?} is damaged");
        let mut offset = usize::from(handle.object) * usize::from(class.size);
        let mut frame = handle.first;
        while offset >= PAGE_SIZE as usize {
            frame = Pfn::new(self.memmap.page(frame).owner());
            offset -= PAGE_SIZE as usize;
        }
        let here = PAGE_SIZE as usize - offset;
        (frame.addr() + offset as u64, here, frame)
    }

    /// Fills an object that was taken for so many bytes.
    pub(crate) fn write(&self, handle: Handle, bytes: &[u8]) {
        let (at, here, frame) = self.place(handle, Self::class_of(bytes.len()).1);
        match bytes.split_at_checked(here) {
            None => self.ram.write_bytes(at, bytes),
            Some((start, rest)) => {
                self.ram.write_bytes(at, start);
                if !rest.is_empty() {
                    let next = Pfn::new(self.memmap.page(frame).owner());
                    self.ram.write_bytes(next.addr(), rest);
                }
            }
        }
    }

    /// Reads an object of so many bytes.
    pub(crate) fn read(&self, handle: Handle, bytes: &mut [u8]) {
        let (at, here, frame) = self.place(handle, Self::class_of(bytes.len()).1);
        let here = here.min(bytes.len());
        let (start, rest) = bytes.split_at_mut(here);
        self.ram.read_bytes(at, start);
        if !rest.is_empty() {
            let next = Pfn::new(self.memmap.page(frame).owner());
            self.ram.read_bytes(next.addr(), rest);
        }
    }
}
