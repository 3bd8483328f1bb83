//! Memory for the allocator's own structures, which stays theirs until the end of the machine.

use crate::KmemCache;
use crate::node::Lists;
use crate::sheaf::{CpuPublic, CpuSheaves};
use crate::words;
use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::NonNull;
use vellum_machine::{Cpus, LockRank, PerCpuSlot, SpinLock};
use vellum_page::{AllocRequest, PageSource};
use vellum_types::{CpuId, Order, OutOfMemory, PAGE_SIZE, Pfn};

/// What of a cache is as long as the machine has CPUs and nodes.
pub(crate) struct Parts<'m> {
    pub(crate) slots: &'m mut [PerCpuSlot<CpuSheaves<'m>>],
    pub(crate) publics: &'m [CpuPublic],
    pub(crate) nodes: &'m [SpinLock<Lists>],
}

/// Where the arrays of one cache begin behind a head.
#[derive(Clone, Copy)]
struct Plan {
    layout: Layout,
    slots: usize,
    publics: usize,
    nodes: usize,
}

/// How many CPUs and nodes a cache's arrays are for.
#[derive(Clone, Copy)]
pub(crate) struct Shape<'m> {
    pub(crate) cpus: Cpus<'m>,
    pub(crate) nr_nodes: usize,
}

impl<'m> Shape<'m> {
    pub(crate) fn new(cpus: Cpus<'m>) -> Self {
        let nodes = (0..cpus.len()).map(|cpu| usize::from(cpus.node_of(CpuId(cpu)).0) + 1);
        let nr_nodes = nodes.max().unwrap_or(1).min(words::MAX_NODES);
        Self { cpus, nr_nodes }
    }

    /// The layout of a cache's descriptor with its arrays.
    pub(crate) fn cache_layout(&self) -> Layout {
        self.plan::<KmemCache<'m>>().layout
    }

    fn plan<H>(&self) -> Plan {
        let cpus = usize::from(self.cpus.len());
        let array = |layout: Layout, one: Layout, count: usize| {
            let array = Layout::from_size_align(one.size() * count, one.align());
            // The counts are bounded by MAX_CPUS and MAX_NODES.
            array
                .and_then(|array| layout.extend(array))
                .expect("a few KiB")
        };
        let head = Layout::new::<H>();
        let (layout, slots) = array(head, Layout::new::<PerCpuSlot<CpuSheaves<'m>>>(), cpus);
        let (layout, publics) = array(layout, Layout::new::<CpuPublic>(), cpus);
        let node = Layout::new::<SpinLock<Lists>>();
        let (layout, nodes) = array(layout, node, self.nr_nodes);
        Plan {
            layout: layout.pad_to_align(),
            slots,
            publics,
            nodes,
        }
    }
}

/// Room for one value and the arrays of one cache.
///
/// # Invariants
/// `memory` has the size and alignment of `plan.layout`, belongs to nobody else and is never freed.
pub(crate) struct Slot<'m, H> {
    memory: NonNull<u8>,
    plan: Plan,
    shape: Shape<'m>,
    head: PhantomData<H>,
}

impl<'m, H> Slot<'m, H> {
    /// In pages of its own, the first of which is returned too.
    pub(crate) fn in_pages(
        source: &'m dyn PageSource,
        shape: Shape<'m>,
    ) -> Result<(Self, Pfn), OutOfMemory> {
        const { assert!(align_of::<H>() as u64 <= PAGE_SIZE) };
        let plan = shape.plan::<H>();
        let order = Order::for_bytes(plan.layout.size() as u64).ok_or(OutOfMemory)?;
        let pfn = source.alloc_pages(AllocRequest::kernel(order))?;
        // INVARIANT: pages are aligned enough, enough of them, and nobody frees them.
        let slot = Self {
            memory: source.ram().ptr(pfn.addr(), order.bytes()),
            plan,
            shape,
            head: PhantomData,
        };
        Ok((slot, pfn))
    }

    /// In an object of `cache`.
    pub(crate) fn in_cache(
        cache: &'m KmemCache<'m>,
        shape: Shape<'m>,
    ) -> Result<Self, OutOfMemory> {
        let (have, plan) = (cache.layout(), shape.plan::<H>());
        assert!(have.size() >= plan.layout.size() && have.align() >= plan.layout.align());
        // INVARIANT: checked above; the object is not given back.
        Ok(Self {
            memory: cache.alloc().ok_or(OutOfMemory)?,
            plan,
            shape,
            head: PhantomData,
        })
    }

    /// It is not needed after all; it came from `cache`.
    pub(crate) fn give_back(self, cache: &KmemCache<'m>) {
        // SAFETY: an object of that cache; `self` is consumed.
        unsafe { cache.free(self.memory) };
    }

    /// Lays out the arrays, of a cache with this owner word on node 0.
    pub(crate) fn lay_out(self, owner: u32) -> (Parts<'m>, Head<'m, H>) {
        let (cpus, nodes) = (usize::from(self.shape.cpus.len()), self.shape.nr_nodes);
        // SAFETY: the plan has room for this many at this offset, and nobody else uses it.
        let publics = unsafe { array(self.memory, self.plan.publics, cpus, |_| CpuPublic::new()) };
        let publics: &'m [CpuPublic] = publics;
        let sheaves = |cpu: usize| {
            let node = self.shape.cpus.node_of(CpuId(cpu as u16));
            let node = words::node_index(node, nodes);
            PerCpuSlot::new(CpuSheaves::new(&publics[cpu], words::on_node(owner, node)))
        };
        // SAFETY: as above, for the slots.
        let slots = unsafe { array(self.memory, self.plan.slots, cpus, sheaves) };
        let lists = |_| SpinLock::new(LockRank::Slab, Lists::new());
        // SAFETY: as above, for the nodes.
        let nodes = unsafe { array(self.memory, self.plan.nodes, nodes, lists) };
        let parts = Parts {
            slots,
            publics,
            nodes,
        };
        // INVARIANT: the arrays lie behind the head, and `self` is consumed.
        let head = Head {
            memory: self.memory.cast(),
            ram: PhantomData,
        };
        (parts, head)
    }
}

/// Room for the value alone.
///
/// # Invariants
/// `memory` has the layout of `H`, belongs to nobody else and is never freed.
pub(crate) struct Head<'m, H> {
    memory: NonNull<H>,
    ram: PhantomData<&'m ()>,
}

impl<'m, H> Head<'m, H> {
    /// In an object of `cache`.
    pub(crate) fn in_cache(cache: &'m KmemCache<'m>) -> Result<Self, OutOfMemory> {
        let (have, need) = (cache.layout(), Layout::new::<H>());
        assert!(have.size() >= need.size() && have.align() >= need.align());
        // INVARIANT: checked above; the object is not given back.
        Ok(Self {
            memory: cache.alloc().ok_or(OutOfMemory)?.cast(),
            ram: PhantomData,
        })
    }

    /// Fills it.
    pub(crate) fn write(self, value: H) -> &'m H {
        // SAFETY: large and aligned enough, and ours alone, by the invariant.
        unsafe { self.memory.write(value) };
        // SAFETY: initialised, never freed and never written again, in memory mapped for 'm.
        unsafe { self.memory.as_ref() }
    }
}

/// Fills an array at `offset` into `memory`.
///
/// # Safety
/// There are `len` places for `T` there, aligned, used by nobody else for `'m`.
unsafe fn array<'m, T>(
    memory: NonNull<u8>,
    offset: usize,
    len: usize,
    make: impl Fn(usize) -> T,
) -> &'m mut [T] {
    // SAFETY: inside the caller's memory.
    let start = unsafe { memory.add(offset) }.cast::<T>();
    for i in 0..len {
        // SAFETY: one of the `len` places.
        let place = unsafe { start.add(i) };
        // SAFETY: as above, aligned and ours alone.
        unsafe { place.write(make(i)) };
    }
    let mut slice = NonNull::slice_from_raw_parts(start, len);
    // SAFETY: all `len` values are initialised, and nobody else refers to them.
    unsafe { slice.as_mut() }
}
