//! Sheaves: arrays of free objects, two for each CPU, handed over whole.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Objects that a sheaf can hold: what makes it 256 bytes.
pub(crate) const CAPACITY: u32 = 30;

/// The memory of a sheaf.
#[repr(C)]
pub(crate) struct Block {
    next: Option<Sheaf>,
    /// Entries that are set. Stands right before the first one: see `CpuSheaves::push`.
    len: usize,
    objects: [MaybeUninit<NonNull<u8>>; CAPACITY as usize],
}

const _: () = assert!(size_of::<Block>() == 256);
const _: () = assert!(core::mem::offset_of!(Block, objects) == 16);

/// An array of free objects of one cache, all from slabs of one node.
///
/// # Invariants
/// Owns its block. The first `len` entries are set, each to an object that its slab takes for live
/// and that nobody else has. While a sheaf is a CPU's first one, its length is in `CpuPublic`.
pub(crate) struct Sheaf(NonNull<Block>);

// SAFETY: a sheaf owns its block and the objects named there; nothing is bound to a thread.
unsafe impl Send for Sheaf {}

impl Sheaf {
    /// An empty sheaf.
    ///
    /// # Safety
    /// `memory` is the caller's alone and of the layout of [`Block`].
    pub(crate) unsafe fn new(memory: NonNull<u8>) -> Self {
        let block = memory.cast::<Block>();
        // SAFETY: the caller's memory, large enough; the fields in front of the entries are all
        // that an empty sheaf needs, and writing them one by one spares the copy of the rest.
        let next = unsafe { &raw mut (*block.as_ptr()).next };
        // SAFETY: as above.
        unsafe { next.write(None) };
        let this = Self(block);
        this.set_len(0);
        this
    }

    /// Its memory, to be given back. It must be empty.
    pub(crate) fn into_memory(self) -> NonNull<u8> {
        assert!(self.len() == 0, "a sheaf with objects is thrown away");
        self.0.cast()
    }

    /// How many objects it holds.
    pub(crate) fn len(&self) -> u32 {
        // SAFETY: owned and initialised.
        unsafe { (*self.0.as_ptr()).len as u32 }
    }

    fn set_len(&self, len: u32) {
        // SAFETY: owned; the field is plain data.
        unsafe { (*self.0.as_ptr()).len = len as usize };
    }

    fn objects(&self) -> NonNull<NonNull<u8>> {
        // SAFETY: inside the owned block. The pointer may reach all of the block.
        let objects = unsafe { &raw mut (*self.0.as_ptr()).objects };
        // SAFETY: an address inside an object is not null.
        unsafe { NonNull::new_unchecked(objects.cast()) }
    }

    /// The entry that was set last.
    pub(crate) fn pop(&mut self) -> Option<NonNull<u8>> {
        let len = self.len().checked_sub(1)?;
        self.set_len(len);
        // SAFETY: within the block.
        let entry = unsafe { self.objects().add(len as usize) };
        // SAFETY: entries below the old length are set.
        Some(unsafe { entry.read() })
    }
}

/// Sheaves that nobody uses at the moment, linked through their blocks.
pub(crate) struct Stack {
    top: Option<Sheaf>,
    len: u32,
}

impl Stack {
    pub(crate) const fn new() -> Self {
        Self { top: None, len: 0 }
    }
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }
    pub(crate) fn push(&mut self, sheaf: Sheaf) {
        let block = sheaf.0;
        let old = self.top.replace(sheaf);
        // SAFETY: the stack owns the block from now on; `next` is initialised.
        unsafe { (*block.as_ptr()).next = old };
        self.len += 1;
    }
    pub(crate) fn pop(&mut self) -> Option<Sheaf> {
        let sheaf = self.top.take()?;
        // SAFETY: owned and initialised; taking it leaves None behind.
        self.top = unsafe { (*sheaf.0.as_ptr()).next.take() };
        self.len -= 1;
        Some(sheaf)
    }
}

/// What others may know of a CPU's sheaves, and ask of it. Relaxed where not stated: numbers that
/// stand for themselves; the sheaves' content changes hands under the lock of a node.
#[repr(align(64))]
pub(crate) struct CpuPublic {
    /// Objects in the first sheaf. Written by the CPU alone. At most `CAPACITY`.
    len: AtomicU32,
    /// At this length the first sheaf is full: 0 while there is none. At most `CAPACITY`. Another CPU
    /// sets it to 0 so that the next free finds the request.
    limit: AtomicU32,
    /// Objects in the second sheaf. Written by the CPU alone.
    spare: AtomicU32,
    /// Somebody wants the objects back.
    drain: AtomicBool,
}

impl CpuPublic {
    pub(crate) const fn new() -> Self {
        Self {
            len: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            spare: AtomicU32::new(0),
            drain: AtomicBool::new(false),
        }
    }
    /// Objects of that CPU.
    pub(crate) fn cached(&self) -> u64 {
        let main = self.len.load(Ordering::Relaxed);
        u64::from(main) + u64::from(self.spare.load(Ordering::Relaxed))
    }
    /// Asks the CPU to give its objects back when it next misses or frees.
    pub(crate) fn request_drain(&self) {
        // If the CPU sets its limit at the same moment, the request waits for its next miss.
        self.drain.store(true, Ordering::Relaxed);
        self.limit.store(0, Ordering::Relaxed);
    }
}

/// The sheaves of one CPU.
///
/// # Invariants
/// With a first sheaf `objects` are its entries, and the first `public.len` of them are set;
/// without, `public.len` and `public.limit` are 0. `public.limit` is at most `CAPACITY`.
pub(crate) struct CpuSheaves<'m> {
    objects: NonNull<NonNull<u8>>,
    public: &'m CpuPublic,
    /// The owner word of slabs of this cache on this CPU's node.
    owner: u32,
    /// What `public.limit` is while nobody asks for the objects.
    limit: u32,
    main: Option<Sheaf>,
    spare: Option<Sheaf>,
}

// SAFETY: the pointer is into the first sheaf, which is owned.
unsafe impl Send for CpuSheaves<'_> {}

impl<'m> CpuSheaves<'m> {
    pub(crate) const fn new(public: &'m CpuPublic, owner: u32) -> Self {
        Self {
            objects: NonNull::dangling(),
            public,
            owner,
            limit: 0,
            main: None,
            spare: None,
        }
    }

    /// An object of the first sheaf.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<NonNull<u8>> {
        // Relaxed: only this CPU writes it.
        let len = self.public.len.load(Ordering::Relaxed).checked_sub(1)?;
        self.public.len.store(len, Ordering::Relaxed);
        // SAFETY: the length was not 0, so there is a first sheaf, and this entry is inside.
        let entry = unsafe { self.objects.add(len as usize) };
        // SAFETY: entries below the old length are set.
        Some(unsafe { entry.read() })
    }

    /// Adds an object whose slab has `owner` for its owner word. False, and nothing happened, if
    /// the sheaf is full, the object is on top of it already, or belongs elsewhere.
    #[inline(always)]
    pub(crate) fn push(&mut self, object: NonNull<u8>, owner: u32) -> bool {
        let len = self.public.len.load(Ordering::Relaxed);
        // Not looking at the request: who asks sets the limit to 0.
        if owner != self.owner || len >= self.public.limit.load(Ordering::Relaxed) {
            return false;
        }
        // SAFETY: the limit was not 0, so there is a first sheaf; len < limit <= CAPACITY.
        let entry = unsafe { self.objects.add(len as usize) };
        // SAFETY: the word before the first entry is the block's `len`, so that no case is needed.
        let before = unsafe { entry.sub(1) };
        // SAFETY: a set entry or `len`, read as a number, which is no object's address.
        if unsafe { before.cast::<usize>().read() } == object.as_ptr().addr() {
            return false;
        }
        // SAFETY: inside the owned block.
        unsafe { entry.write(object) };
        self.public.len.store(len + 1, Ordering::Relaxed);
        true
    }

    /// True if `object` is on top of the first sheaf: it was freed just now.
    pub(crate) fn is_top(&self, object: NonNull<u8>) -> bool {
        let Some(at) = self.len().checked_sub(1) else {
            return false;
        };
        // SAFETY: the length was not 0, so there is a first sheaf, and this entry is inside.
        let entry = unsafe { self.objects.add(at as usize) };
        // SAFETY: entries below the length are set.
        unsafe { entry.read() == object }
    }

    pub(crate) const fn owner(&self) -> u32 {
        self.owner
    }
    /// Objects in the first sheaf.
    pub(crate) fn len(&self) -> u32 {
        self.public.len.load(Ordering::Relaxed)
    }
    /// The present length of a full sheaf.
    pub(crate) const fn limit(&self) -> u32 {
        self.limit
    }
    /// Sets it; the first sheaf may be longer for a while.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        assert!(limit <= CAPACITY);
        self.limit = limit;
        let open = if self.main.is_some() { limit } else { 0 };
        self.public.limit.store(open, Ordering::Relaxed);
    }
    /// True, once, if somebody wants the objects back.
    pub(crate) fn take_request(&self) -> bool {
        // Looking first keeps the line shared. Relaxed: a request carries no data.
        self.public.drain.load(Ordering::Relaxed)
            && self.public.drain.swap(false, Ordering::Relaxed)
    }
    pub(crate) const fn has_main(&self) -> bool {
        self.main.is_some()
    }
    pub(crate) const fn has_spare(&self) -> bool {
        self.spare.is_some()
    }
    /// Objects in the second sheaf.
    pub(crate) fn spare_len(&self) -> u32 {
        self.spare.as_ref().map_or(0, Sheaf::len)
    }

    /// Makes `sheaf` the first one; returns the one it was.
    pub(crate) fn exchange(&mut self, sheaf: Option<Sheaf>) -> Option<Sheaf> {
        let old = self.main.take();
        if let Some(old) = &old {
            old.set_len(self.len());
        }
        let (objects, len) = match &sheaf {
            Some(sheaf) => (sheaf.objects(), sheaf.len()),
            None => (NonNull::dangling(), 0),
        };
        self.objects = objects;
        self.main = sheaf;
        self.public.len.store(len, Ordering::Relaxed);
        self.set_limit(self.limit);
        old
    }
    /// Makes `sheaf` the second one; returns the one it was.
    pub(crate) fn exchange_spare(&mut self, sheaf: Option<Sheaf>) -> Option<Sheaf> {
        let len = sheaf.as_ref().map_or(0, Sheaf::len);
        self.public.spare.store(len, Ordering::Relaxed);
        core::mem::replace(&mut self.spare, sheaf)
    }
    /// The second sheaf becomes the first, and the other way round.
    pub(crate) fn swap(&mut self) {
        let spare = self.exchange_spare(None);
        let main = self.exchange(spare);
        self.exchange_spare(main);
    }
    /// Adds up to `count` objects to the first sheaf, no more than it has room for.
    pub(crate) fn fill(
        &mut self,
        count: u32,
        mut from: impl FnMut() -> Option<NonNull<u8>>,
    ) -> u32 {
        let start = self.len();
        let end = (start + count).min(if self.has_main() { CAPACITY } else { 0 });
        for len in start..end {
            let Some(object) = from() else {
                return len - start;
            };
            // SAFETY: there is a first sheaf, and `len` is less than its capacity.
            let entry = unsafe { self.objects.add(len as usize) };
            // SAFETY: inside the owned block.
            unsafe { entry.write(object) };
            self.public.len.store(len + 1, Ordering::Relaxed);
        }
        end - start
    }
}
