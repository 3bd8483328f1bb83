//! `soak SECONDS [SEED]`: random histories on zones and slabs, for as long as one likes.
//!
//! Two threads, a CPU each, take and give blocks of all orders and mobilities, objects of caches and
//! memory of any size; some of it crosses from one to the other. Then all is freed, and the machine
//! must be as it was when it started: every block merged to the largest, in every zone. No history may
//! leave a hole.

use std::alloc::Layout;
use std::cell::Cell;
use std::process::ExitCode;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use vellum_machine::{CpuLocal, Cpus, DirectMap, Trace, VmStat};
use vellum_memblock::MemBlock;
use vellum_page::{AllocRequest, PageSource};
use vellum_page_alloc::PageAllocator;
use vellum_slab::{CacheFlags, Kmalloc, KmemCache, SlabAllocator};
use vellum_types::{CpuId, GfpFlags, NodeId, Order, Pfn, PhysAddr, PhysRange};

const MIB: u64 = 1 << 20;
const CPUS: u16 = 2;
/// Operations of each thread in one history.
const STEPS: u32 = 60_000;

std::thread_local! {
    static CPU: Cell<u16> = const { Cell::new(0) };
}

struct Threads;

// SAFETY: each thread has a number of its own before it allocates; CPU 0 is the one that waits for
// the others.
unsafe impl CpuLocal for Threads {
    fn pin(&self) -> CpuId {
        CpuId(CPU.get())
    }
    fn unpin(&self, _: CpuId) {}
}

/// Something that is held.
enum Held<'m> {
    Block(Pfn),
    Object(&'m KmemCache<'m>, NonNull<u8>, u8),
    Memory(NonNull<u8>, usize, u8),
}

// SAFETY: memory that nobody else refers to.
unsafe impl Send for Held<'_> {}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

struct World<'m> {
    pages: &'m PageAllocator<'m>,
    slab: &'m SlabAllocator<'m>,
    kmalloc: &'m Kmalloc<'m>,
    caches: Vec<&'m KmemCache<'m>>,
    /// What one thread leaves to the other.
    crossing: Mutex<Vec<Held<'m>>>,
}

impl<'m> World<'m> {
    fn boot(ram: DirectMap<'m>, span: PhysRange, vmstat: &'m VmStat) -> Option<Self> {
        let mut memblock = MemBlock::new();
        memblock.add(span, NodeId(0)).ok()?;
        let cpus = Cpus::new(CPUS, &Threads);
        let pages = PageAllocator::boot(ram, memblock, cpus, vmstat, Trace::OFF).ok()?;
        let slab = SlabAllocator::boot(pages, vmstat, cpus).ok()?;
        let kmalloc = Kmalloc::boot(slab).ok()?;
        let kinds = [
            ("soak-24", 24, CacheFlags::empty()),
            ("soak-200", 200, CacheFlags::HWCACHE_ALIGN),
            ("soak-700", 700, CacheFlags::RECLAIM_ACCOUNT),
            (
                "soak-poison",
                120,
                CacheFlags::POISON | CacheFlags::RED_ZONE,
            ),
        ];
        let mut caches = Vec::new();
        for (name, size, flags) in kinds {
            let layout = Layout::from_size_align(size, 8).ok()?;
            caches.push(slab.create_cache(name, layout, flags).ok()?);
        }
        Some(Self {
            pages,
            slab,
            kmalloc,
            caches,
            crossing: Mutex::new(Vec::new()),
        })
    }

    fn take(&self, random: &mut Random) -> Option<Held<'m>> {
        let fill = random.below(256) as u8;
        match random.below(8) {
            0..=2 => {
                let top = 1 + random.below(11);
                let order = Order::new(random.below(top) as u8)?;
                let gfp = match random.below(6) {
                    0 => GfpFlags::KERNEL | GfpFlags::DMA,
                    1 => GfpFlags::KERNEL | GfpFlags::RECLAIMABLE,
                    2 => GfpFlags::ATOMIC,
                    3 => GfpFlags::KERNEL | GfpFlags::DMA32,
                    4 => GfpFlags::HIGHUSER_MOVABLE,
                    _ => GfpFlags::KERNEL,
                };
                let pfn = self.pages.alloc_pages(AllocRequest { order, gfp }).ok()?;
                Some(Held::Block(pfn))
            }
            3..=5 => {
                let cache = self.caches[random.below(self.caches.len() as u64) as usize];
                let object = cache.alloc()?;
                // SAFETY: just allocated, of this size.
                unsafe { object.write_bytes(fill, cache.layout().size()) };
                Some(Held::Object(cache, object, fill))
            }
            _ => {
                let magnitude = 3 + random.below(13);
                let size = 1 + random.below(1 << magnitude) as usize;
                let memory = self.kmalloc.alloc(size, GfpFlags::KERNEL)?;
                // SAFETY: just allocated, of this size.
                unsafe { memory.write_bytes(fill, size) };
                Some(Held::Memory(memory, size, fill))
            }
        }
    }

    fn give(&self, held: Held<'m>) {
        let check = |memory: NonNull<u8>, size: usize, fill: u8| {
            let bytes = NonNull::slice_from_raw_parts(memory, size);
            // SAFETY: held, and every byte was written.
            let bytes = unsafe { bytes.as_ref() };
            assert!(bytes.iter().all(|byte| *byte == fill), "memory was changed");
        };
        match held {
            Held::Block(pfn) => self.pages.free_pages(pfn),
            Held::Object(cache, object, fill) => {
                check(object, cache.layout().size(), fill);
                // SAFETY: held, of this cache.
                unsafe { cache.free(object) };
            }
            Held::Memory(memory, size, fill) => {
                check(memory, size, fill);
                // SAFETY: held, of kmalloc.
                unsafe { self.kmalloc.free(memory) };
            }
        }
    }

    /// One thread's part of a history.
    fn work(&self, mut random: Random) -> u64 {
        let mut held = Vec::new();
        let mut refused = 0;
        let mut growing = 3;
        for step in 0..STEPS {
            if step % 4096 == 0 {
                growing = 2 + random.below(5);
            }
            if random.below(8) < growing {
                match self.take(&mut random) {
                    Some(new) => held.push(new),
                    None => refused += 1,
                }
            } else if !held.is_empty() {
                let at = random.below(held.len() as u64) as usize;
                self.give(held.swap_remove(at));
            }
            if random.below(32) == 0 {
                let mut crossing = self.crossing.lock().expect("no panic");
                let got = (crossing.len() > 64).then(|| crossing.swap_remove(0));
                crossing.extend(held.pop());
                drop(crossing);
                got.into_iter().for_each(|got| self.give(got));
            }
        }
        held.into_iter().for_each(|held| self.give(held));
        refused
    }

    /// Free blocks of each order in each zone, nothing being kept at hand.
    fn blocks(&self) -> Vec<Vec<u64>> {
        self.slab.shrink();
        for cpu in 0..CPUS {
            // SAFETY: the threads that were this CPU have ended; this one is CPU 0.
            unsafe { self.slab.drain_stopped(CpuId(cpu)) };
        }
        self.slab.shrink();
        for cpu in 0..CPUS {
            // SAFETY: as above.
            unsafe { self.pages.drain_stopped(CpuId(cpu)) };
        }
        self.slab.validate().expect("valid slabs");
        self.pages.validate().expect("valid zones");
        let area = |zone: vellum_page_alloc::ZoneInfo| {
            let orders = Order::all().map(|order| zone.free_area[order.index()]);
            orders.collect()
        };
        self.pages.zones().map(area).collect()
    }
}

/// Histories on one machine until the time is over; how many, and how often memory had run out.
fn soak(span: PhysRange, seconds: u64, seed: u64) -> (u64, u64) {
    let layout = Layout::from_size_align(span.len() as usize, 4096).expect("whole pages");
    // SAFETY: the layout is not of size zero.
    let memory = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("host memory");
    let vmstat = VmStat::new();
    let mut counts = (0, 0);
    {
        // SAFETY: the memory is given back below, when nothing refers to it any more; page aligned.
        let ram = unsafe { DirectMap::new(memory, span) };
        let world = World::boot(ram, span, &vmstat).expect("enough memory");
        let at_boot = world.blocks();
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let serial = counts.0;
            let world = &world;
            std::thread::scope(|scope| {
                let run = |cpu: u16| {
                    let part = serial * 2 + u64::from(cpu) + 1;
                    let seed = seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    scope.spawn(move || {
                        CPU.set(cpu);
                        world.work(Random(seed | 1))
                    })
                };
                let running: Vec<_> = (0..CPUS).map(run).collect();
                for thread in running {
                    counts.1 += thread.join().expect("no panic");
                }
            });
            let left: Vec<_> = world.crossing.lock().expect("no panic").drain(..).collect();
            left.into_iter().for_each(|held| world.give(held));
            assert_eq!(
                world.blocks(),
                at_boot,
                "history {serial} of seed {seed} left holes"
            );
            counts.0 += 1;
        }
    }
    // SAFETY: allocated above with this layout.
    unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
    counts
}

/// Machines with DMA and DMA32, and with DMA32 and NORMAL.
fn machines() -> [PhysRange; 2] {
    let range = |start, end| PhysRange::new(PhysAddr::new(start), PhysAddr::new(end));
    let four_gib = 4096 * MIB;
    [
        range(0, 40 * MIB).expect("not empty"),
        range(four_gib - 12 * MIB, four_gib + 20 * MIB).expect("not empty"),
    ]
}

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Some(Ok(seconds)), seed) = (numbers.next(), numbers.next()) else {
        eprintln!("usage: soak SECONDS [SEED]");
        return ExitCode::from(2);
    };
    let seed = match seed {
        Some(Ok(seed)) => seed,
        _ => std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.as_secs()),
    };
    for span in machines() {
        let (histories, refused) = soak(span, seconds / 2, seed);
        println!(
            "soak: {span:?}, seed {seed}: {histories} histories of {} operations, memory ran out \
             {refused} times, all blocks were maximal after each",
            STEPS * u32::from(CPUS)
        );
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_free_gives_maximal_blocks_after_any_history() {
        for span in machines() {
            let (histories, refused) = soak(span, 2, 0x5eed);
            assert!(histories > 0 && refused > 0, "it never ran out of memory");
        }
    }
}
