//! What is seldom done to a cache: shrinking, ending, starting again; objects in bulk.

use crate::KmemCache;
use crate::list::SlabList;
use crate::sheaf::CpuPublic;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use vellum_types::{CpuId, GfpFlags, Pfn};

impl KmemCache<'_> {
    /// Gives back what it can: the free objects of this CPU and of the nodes' barns, and empty slabs.
    /// Other CPUs are asked for their objects and give them back when they next miss, free, or call
    /// [`KmemCache::drain_local`]. Returns the pages freed. Linux's `kmem_cache_shrink`.
    pub fn shrink(&self) -> u64 {
        let before = self.nr_pages();
        self.publics.iter().for_each(CpuPublic::request_drain);
        self.drain_local();
        for node in 0..self.nodes.len() {
            self.drain_barn(node);
        }
        self.release_empty();
        before.saturating_sub(self.nr_pages())
    }

    /// Gives the free objects of this CPU back to their slabs. Linux's `flush_cpu_slab`.
    pub fn drain_local(&self) {
        self.cpus.with(|cpu| {
            cpu.take_request();
            self.drain(cpu);
        });
    }

    /// Gives the free objects of a CPU that does not run back to their slabs, as when it is
    /// removed.
    ///
    /// # Safety
    /// `cpu` is this flow's own, or no flow runs on it until this returns and its earlier work is
    /// visible here: it was stopped, or never started.
    pub unsafe fn drain_stopped(&self, cpu: CpuId) {
        let drain = |cpu: &mut crate::sheaf::CpuSheaves<'_>| {
            cpu.take_request();
            self.drain(cpu);
        };
        // SAFETY: this function's contract is the same.
        unsafe { self.cpus.with_stopped(cpu, drain) };
    }

    /// Pages of all its slabs.
    fn nr_pages(&self) -> u64 {
        let slabs: u64 = self.nodes.iter().map(|node| node.lock().num_slabs()).sum();
        slabs * u64::from(self.geometry.order.pages())
    }

    /// Gives the empty slabs back; those of a type-safe cache wait for the grace point.
    fn release_empty(&self) {
        for node in self.nodes {
            let mut lists = node.lock();
            let empty = core::mem::replace(&mut lists.empty, Pfn::NONE);
            if empty == Pfn::NONE {
                continue;
            }
            if self.geometry.flags.contains(crate::CacheFlags::TYPESAFE) {
                lists.deferred.push(self.memmap, empty);
            } else {
                drop(lists);
                self.release(empty);
            }
        }
    }

    /// Gives back the slabs that waited for a grace point. Returns the pages freed.
    pub(crate) fn release_deferred(&self) -> u64 {
        let take = |node: &vellum_machine::SpinLock<crate::node::Lists>| {
            core::mem::replace(&mut node.lock().deferred, SlabList::new())
        };
        self.nodes
            .iter()
            .map(|node| self.release_all(take(node)))
            .sum()
    }

    /// Stops the cache if it has no live objects; else says how many it has.
    pub(crate) fn retire(&self) -> Result<(), u64> {
        self.shrink();
        let live = self.info().active_objs;
        if live != 0 {
            return Err(live);
        }
        self.dead.store(true, Ordering::Relaxed);
        self.shrink();
        Ok(())
    }

    /// Makes a destroyed cache usable again. False if it was not destroyed.
    pub(crate) fn revive(&self) -> bool {
        self.dead.swap(false, Ordering::Relaxed)
    }

    /// Fills `objects`, all or none: true if it did. One lock for all of those that this CPU has not
    /// in its sheaves. Linux's `kmem_cache_alloc_bulk`.
    #[track_caller]
    pub fn alloc_bulk(&self, gfp: GfpFlags, objects: &mut [Option<NonNull<u8>>]) -> bool {
        let site = Location::caller();
        let mut done = 0;
        while done < objects.len() {
            let rest = &mut objects[done..];
            let taken = self.cpus.with(|cpu| {
                let pairs = rest.iter_mut().map_while(|slot| Some((slot, cpu.pop()?)));
                pairs.map(|(slot, object)| *slot = Some(object)).count()
            });
            done += taken.unwrap_or(0);
            if let Some(slot) = objects.get_mut(done) {
                *slot = self.alloc_slow(gfp, site);
                if slot.is_none() {
                    let rest = objects[..done].iter_mut().filter_map(Option::take);
                    // SAFETY: allocated above, and nobody was told.
                    rest.for_each(|object| unsafe { self.free_at(object, site) });
                    return false;
                }
                done += 1;
            }
        }
        if gfp.contains(GfpFlags::ZERO) {
            for object in objects.iter().flatten() {
                // SAFETY: the caller's alone, and of this size.
                unsafe { object.write_bytes(0, self.geometry.layout.size()) };
            }
        }
        true
    }

    /// Takes objects back. Linux's `kmem_cache_free_bulk`.
    ///
    /// # Safety
    /// As [`KmemCache::free`], for each of them; none occurs twice.
    ///
    /// # Panics
    /// As [`KmemCache::free`].
    #[track_caller]
    pub unsafe fn free_bulk(&self, objects: &[NonNull<u8>]) {
        let site = Location::caller();
        for object in objects {
            // SAFETY: the caller's promise for each.
            unsafe { self.free_at(*object, site) };
        }
    }
}
