//! The operations. Each sets up what it needs independently of `n`, then repeats.

use crate::machine::BenchMachine;
use crate::{rmap, swap};
use std::alloc::Layout;
use vellum_machine::{CpuLocal, Cpus};
use vellum_page::{AllocRequest, PageSource};
use vellum_page_table::X86_64FourLevel;
use vellum_slab::{CacheFlags, Kmalloc, KmemCache, SlabAllocator};
use vellum_system::{FaultInfo, FileRef, MmRef, MmapRequest, System};
use vellum_types::{Access, CpuId, FileId, GfpFlags, Order, PAGE_SIZE, Pfn, VirtAddr};
use vellum_vmalloc::{KernelLayout, Vmalloc};

type Bench<'m> = System<'m, BenchMachine>;
type Run = fn(&Bench<'_>, u64);

/// Name, what it is, how to do it.
pub(crate) const ALL: &[(&str, &str, Run)] = &[
    (
        "alloc-free-page",
        "alloc_pages(0) + free_pages",
        alloc_free_page,
    ),
    (
        "alloc-free-order3",
        "alloc_pages(3) + free_pages",
        alloc_free_order3,
    ),
    (
        "alloc-free-order9",
        "alloc_pages(9) + free_pages",
        alloc_free_order9,
    ),
    (
        "alloc-free-bulk",
        "a page of alloc_pages_bulk + free_pages_bulk of 64",
        alloc_free_bulk,
    ),
    (
        "kmem-cache",
        "kmem_cache_alloc + kmem_cache_free, 64 bytes",
        kmem_cache,
    ),
    (
        "kmem-cache-cpus",
        "the same, the CPU asked through a dyn CpuLocal",
        kmem_cache_cpus,
    ),
    (
        "kmem-cache-miss",
        "the same, 1000 objects at once: sheaves and slabs",
        kmem_cache_miss,
    ),
    ("kmalloc", "kmalloc + kfree, 64 bytes", kmalloc),
    (
        "kmalloc-any",
        "the same, the size known at run time only",
        kmalloc_any,
    ),
    ("kbox", "box of 64 bytes in a cache, made and dropped", kbox),
    (
        "vmalloc-vfree-4k",
        "vmalloc + vfree of 4 KiB, its share of the purge included",
        vmalloc_4k,
    ),
    (
        "vmalloc-vfree-1m",
        "vmalloc + vfree of 1 MiB, likewise",
        vmalloc_1m,
    ),
    (
        "vmalloc-vfree-4k-20000",
        "4 KiB in the holes between 20 000 areas",
        vmalloc_among_many,
    ),
    (
        "fault-anon-write",
        "anonymous write fault, and the zap of its page",
        anon_write,
    ),
    (
        "fault-anon-read",
        "anonymous read fault (zero page), and its zap",
        anon_read,
    ),
    (
        "fault-spurious",
        "fault on an entry that is already right",
        spurious,
    ),
    (
        "fault-cow-reuse",
        "write to a read-only entry by its sole owner",
        cow_reuse,
    ),
    (
        "fault-cow-copy",
        "write to a shared frame: copy included",
        cow_copy,
    ),
    (
        "fault-file-read",
        "file page that is cached, and its zap",
        file_read,
    ),
    (
        "mmap-munmap",
        "mmap + munmap of one page, untouched",
        mmap_munmap,
    ),
    (
        "mmap-munmap-20000",
        "the same among 20 000 areas",
        mmap_munmap_many,
    ),
    (
        "fault-among-1",
        "anonymous write fault and zap, one area",
        anon_write,
    ),
    (
        "fault-among-20000",
        "the same in a random one of 20 000 areas",
        fault_many,
    ),
    (
        "mprotect-split-merge",
        "mprotect of one page in the middle, and back",
        mprotect_pair,
    ),
    (
        "brk-pair",
        "brk up and down by one page, untouched",
        brk_pair,
    ),
    (
        "mremap-move",
        "mremap of one touched page, there and back",
        mremap_move,
    ),
    (
        "fork-exit-page",
        "fork + exit, per resident page (of 1024)",
        fork_exit,
    ),
    (
        "swap-slot",
        "a page takes a swap slot, enters the swap cache and leaves both",
        swap::slot,
    ),
    (
        "swap-dup-free",
        "one more table entry for a slot, and one fewer",
        swap::dup,
    ),
    (
        "swap-out-in",
        "a page out and back, frames included, device excluded",
        swap::out_in,
    ),
    (
        "swap-out-zram",
        "a page to compressed memory, compressor excluded, slot freed; frame included",
        swap::out_zram,
    ),
    ("swap-out-in-zram", "the same, and back", swap::out_in_zram),
    (
        "rmap-referenced-1",
        "page_referenced, a mapping: 1 mapper among 10 000 other processes",
        rmap::referenced::<1>,
    ),
    (
        "rmap-referenced-10",
        "the same with 10 mappers",
        rmap::referenced::<10>,
    ),
    (
        "rmap-referenced-1000",
        "the same with 1000 mappers",
        rmap::referenced::<1000>,
    ),
    (
        "rmap-unmap-1",
        "try_to_unmap and a fault, a mapping: 1 mapper of a file's page",
        rmap::unmap::<1>,
    ),
    (
        "rmap-unmap-10",
        "the same with 10 mappers",
        rmap::unmap::<10>,
    ),
    (
        "rmap-unmap-1000",
        "the same with 1000 mappers",
        rmap::unmap::<1000>,
    ),
    (
        "rmap-fault-again",
        "the fault of these, and MADV_DONTNEED",
        rmap::fault_again,
    ),
];

const ANON: u32 = 0x22;
const RW: u32 = 3;

pub(crate) fn map<'m>(system: &Bench<'m>, mm: &MmRef<'m>, pages: u64) -> VirtAddr {
    map_at(system, mm, 0, pages)
}

fn map_at<'m>(system: &Bench<'m>, mm: &MmRef<'m>, addr: u64, pages: u64) -> VirtAddr {
    let request = MmapRequest {
        addr,
        len: pages * PAGE_SIZE,
        prot: RW,
        flags: if addr == 0 { ANON } else { ANON | 0x10 },
        file: None,
        offset: 0,
    };
    VirtAddr::new(system.mmap(mm, request).expect("mmap"))
}

pub(crate) fn fault<'m>(system: &Bench<'m>, mm: &MmRef<'m>, addr: VirtAddr, access: Access) {
    let outcome = system.fault(
        mm,
        FaultInfo {
            addr,
            access,
            sp: None,
        },
    );
    assert!(outcome.is_served(), "{outcome:?}");
}

fn dontneed<'m>(system: &Bench<'m>, mm: &MmRef<'m>, addr: VirtAddr) {
    system
        .madvise(mm, addr.as_u64(), PAGE_SIZE, 4)
        .expect("madvise");
}

fn alloc_free(system: &Bench<'_>, order: u8, n: u64) {
    let pages = system.pages();
    let request = AllocRequest::kernel(Order::new(order).expect("an order"));
    for _ in 0..n {
        let pfn = pages.alloc_pages(request).expect("memory");
        pages.free_pages(std::hint::black_box(pfn));
    }
}

type Kernel<'m> = Vmalloc<'m, BenchMachine, X86_64FourLevel>;

fn kernel<'m>(system: &Bench<'m>) -> Kernel<'m> {
    let nodes = system.slab().typed_box("vmap_area").expect("a cache");
    let layout = KernelLayout::x86_64::<X86_64FourLevel>(64 << 30, 1);
    let (machine, vmstat) = (system.machine(), system.vmstat());
    let kernel = Vmalloc::boot(machine, system.pages(), vmstat, layout, nodes);
    let kernel = kernel.expect("kernel tables");
    // A purge each 1024 pages, so that any run of a few thousand has its share of them.
    kernel.set_lazy_max_pages(1024);
    kernel
}

fn vmalloc_pairs(system: &Bench<'_>, bytes: u64, n: u64) {
    let mut kernel = kernel(system);
    for _ in 0..n {
        let at = kernel.vmalloc(bytes).expect("memory");
        kernel.vfree(std::hint::black_box(at)).expect("an area");
    }
    kernel.shutdown().expect("nothing in use");
}

fn vmalloc_4k(system: &Bench<'_>, n: u64) {
    vmalloc_pairs(system, PAGE_SIZE, n);
}

fn vmalloc_1m(system: &Bench<'_>, n: u64) {
    vmalloc_pairs(system, 1 << 20, n);
}

fn vmalloc_among_many(system: &Bench<'_>, n: u64) {
    let mut kernel = kernel(system);
    let areas: Vec<_> = (0..40_000)
        .map(|_| kernel.vmalloc(PAGE_SIZE).expect("memory"))
        .collect();
    // Every other one goes: 20 000 areas and as many holes.
    let free = |areas: &[VirtAddr], from: usize| {
        let half = areas.iter().skip(from).step_by(2);
        half.for_each(|at| kernel.vfree(*at).expect("an area"));
    };
    free(&areas, 0);
    kernel.purge();
    for _ in 0..n {
        let at = kernel.vmalloc(PAGE_SIZE).expect("memory");
        kernel.vfree(std::hint::black_box(at)).expect("an area");
    }
    free(&areas, 1);
    kernel.shutdown().expect("nothing in use");
}

fn alloc_free_page(system: &Bench<'_>, n: u64) {
    alloc_free(system, 0, n);
}

fn alloc_free_order3(system: &Bench<'_>, n: u64) {
    alloc_free(system, 3, n);
}

fn alloc_free_order9(system: &Bench<'_>, n: u64) {
    alloc_free(system, 9, n);
}

fn alloc_free_bulk(system: &Bench<'_>, n: u64) {
    let pages = system.pages();
    let mut out = [Pfn::NONE; 64];
    for _ in 0..n.div_ceil(64) {
        let got = pages.alloc_pages_bulk(GfpFlags::KERNEL, &mut out);
        pages.free_pages_bulk(std::hint::black_box(&out[..got]));
    }
}

fn cache_pairs(cache: &KmemCache<'_>, n: u64) {
    for _ in 0..n {
        let object = cache.alloc().expect("memory");
        // SAFETY: allocated above, and used by nobody.
        unsafe { cache.free(std::hint::black_box(object)) };
    }
}

fn kmem_cache(system: &Bench<'_>, n: u64) {
    let layout = Layout::new::<[u64; 8]>();
    let cache = system
        .slab()
        .create_cache("bench", layout, CacheFlags::empty());
    cache_pairs(cache.expect("memory"), n);
}

/// The one thread of the benchmark is CPU 1 of 2.
struct SecondCpu;

// SAFETY: there is one flow of control.
unsafe impl CpuLocal for SecondCpu {
    fn pin(&self) -> CpuId {
        CpuId(1)
    }
    fn unpin(&self, _: CpuId) {}
}

fn kmem_cache_cpus(system: &Bench<'_>, n: u64) {
    let cpus = Cpus::new(2, &SecondCpu);
    let slab = SlabAllocator::boot(system.pages(), system.vmstat(), cpus).expect("memory");
    let layout = Layout::new::<[u64; 8]>();
    let cache = slab.create_cache("bench", layout, CacheFlags::empty());
    cache_pairs(cache.expect("memory"), n);
}

fn kmem_cache_miss(system: &Bench<'_>, n: u64) {
    let layout = Layout::new::<[u64; 8]>();
    let cache = system
        .slab()
        .create_cache("bench", layout, CacheFlags::empty());
    let cache = cache.expect("memory");
    let mut objects = Vec::with_capacity(1000);
    for _ in 0..n.div_ceil(1000) {
        objects.extend((0..1000).map(|_| cache.alloc().expect("memory")));
        for object in objects.drain(..) {
            // SAFETY: allocated above, and used by nobody.
            unsafe { cache.free(object) };
        }
    }
}

fn kmalloc(system: &Bench<'_>, n: u64) {
    kmalloc_pairs(system, n, || 64);
}

fn kmalloc_any(system: &Bench<'_>, n: u64) {
    kmalloc_pairs(system, n, || std::hint::black_box(64));
}

#[inline(always)]
fn kmalloc_pairs(system: &Bench<'_>, n: u64, size: impl Fn() -> usize) {
    let kmalloc = Kmalloc::boot(system.slab()).expect("memory");
    for _ in 0..n {
        let memory = kmalloc.alloc(size(), GfpFlags::KERNEL).expect("memory");
        // SAFETY: allocated above, and used by nobody.
        unsafe { kmalloc.free(std::hint::black_box(memory)) };
    }
}

fn kbox(system: &Bench<'_>, n: u64) {
    let cache = system
        .slab()
        .typed_box::<[u64; 7]>("bench")
        .expect("memory");
    for _ in 0..n {
        std::hint::black_box(cache.boxed([0; 7]).expect("memory"));
    }
}

fn faults(system: &Bench<'_>, n: u64, access: Access) {
    let mm = system.mm_create().expect("mm");
    let at = map(system, &mm, 16);
    for _ in 0..n {
        fault(system, &mm, at, access);
        dontneed(system, &mm, at);
    }
}

fn anon_write(system: &Bench<'_>, n: u64) {
    faults(system, n, Access::Write);
}

fn anon_read(system: &Bench<'_>, n: u64) {
    faults(system, n, Access::Read);
}

fn spurious(system: &Bench<'_>, n: u64) {
    let mm = system.mm_create().expect("mm");
    let at = map(system, &mm, 16);
    for _ in 0..=n {
        fault(system, &mm, at, Access::Write);
    }
}

fn cow_reuse(system: &Bench<'_>, n: u64) {
    let mm = system.mm_create().expect("mm");
    let at = map(system, &mm, 1);
    fault(system, &mm, at, Access::Write);
    for _ in 0..n {
        // A fork that ends at once leaves the parent sole owner of a read-only page.
        let child = system.mm_fork(&mm).expect("fork");
        system.mm_put(child);
        fault(system, &mm, at, Access::Write);
    }
}

fn cow_copy(system: &Bench<'_>, n: u64) {
    let mm = system.mm_create().expect("mm");
    let at = map(system, &mm, 1);
    fault(system, &mm, at, Access::Write);
    for _ in 0..n {
        let child = system.mm_fork(&mm).expect("fork");
        fault(system, &child, at, Access::Write);
        system.mm_put(child);
    }
}

fn file_read(system: &Bench<'_>, n: u64) {
    let mm = system.mm_create().expect("mm");
    let mapping = system.mapping(FileId(1)).expect("mapping");
    let file = FileRef {
        mapping,
        readable: true,
        writable: false,
        exec_ok: true,
    };
    let request = MmapRequest {
        addr: 0,
        len: 16 * PAGE_SIZE,
        prot: 1,
        flags: 2,
        file: Some(file),
        offset: 0,
    };
    let at = VirtAddr::new(system.mmap(&mm, request).expect("mmap"));
    for _ in 0..=n {
        fault(system, &mm, at, Access::Read);
        dontneed(system, &mm, at);
    }
}

fn mmap_munmap(system: &Bench<'_>, n: u64) {
    let mm = system.mm_create().expect("mm");
    pairs(system, &mm, n);
}

fn pairs<'m>(system: &Bench<'m>, mm: &MmRef<'m>, n: u64) {
    for _ in 0..n {
        let at = map(system, mm, 1);
        system.munmap(mm, at.as_u64(), PAGE_SIZE).expect("munmap");
    }
}

/// 20 000 areas that cannot merge: every other page of a stretch.
fn many<'m>(system: &Bench<'m>) -> (MmRef<'m>, u64) {
    let mm = system.mm_create().expect("mm");
    let base = 0x1000_0000_0000;
    for area in 0..20_000 {
        let at = map_at(system, &mm, base + area * 2 * PAGE_SIZE, 1);
        // The first touch of an area makes tables and an anon_vma, which is not the point here.
        fault(system, &mm, at, Access::Write);
        dontneed(system, &mm, at);
    }
    (mm, base)
}

fn mmap_munmap_many(system: &Bench<'_>, n: u64) {
    let (mm, _) = many(system);
    pairs(system, &mm, n);
}

fn fault_many(system: &Bench<'_>, n: u64) {
    let (mm, base) = many(system);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..n {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let at = VirtAddr::new(base + random % 20_000 * 2 * PAGE_SIZE);
        fault(system, &mm, at, Access::Write);
        dontneed(system, &mm, at);
    }
}

fn mprotect_pair(system: &Bench<'_>, n: u64) {
    let mm = system.mm_create().expect("mm");
    let middle = map(system, &mm, 16) + 8 * PAGE_SIZE;
    for _ in 0..n {
        system
            .mprotect(&mm, middle.as_u64(), PAGE_SIZE, 1)
            .expect("mprotect");
        system
            .mprotect(&mm, middle.as_u64(), PAGE_SIZE, RW)
            .expect("mprotect");
    }
}

fn brk_pair(system: &Bench<'_>, n: u64) {
    let mm = system.mm_create().expect("mm");
    let start = system.brk(&mm, 0);
    system.brk(&mm, start + PAGE_SIZE);
    for _ in 0..n {
        system.brk(&mm, start + 2 * PAGE_SIZE);
        system.brk(&mm, start + PAGE_SIZE);
    }
}

fn mremap_move(system: &Bench<'_>, n: u64) {
    let mm = system.mm_create().expect("mm");
    let here = map(system, &mm, 1).as_u64();
    let there = here - 64 * PAGE_SIZE;
    fault(system, &mm, VirtAddr::new(here), Access::Write);
    for _ in 0..n {
        system
            .mremap(&mm, here, PAGE_SIZE, PAGE_SIZE, 3, there)
            .expect("mremap");
        system
            .mremap(&mm, there, PAGE_SIZE, PAGE_SIZE, 3, here)
            .expect("mremap");
    }
}

fn fork_exit(system: &Bench<'_>, n: u64) {
    let mm = system.mm_create().expect("mm");
    let at = map(system, &mm, 1024);
    for page in 0..1024 {
        fault(system, &mm, at + page * PAGE_SIZE, Access::Write);
    }
    for _ in 0..n.div_ceil(1024) {
        let child = system.mm_fork(&mm).expect("fork");
        system.mm_put(child);
    }
}
