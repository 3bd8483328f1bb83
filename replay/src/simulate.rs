//! One policy, one size of memory, one trace.

use crate::frames::Frames;
use crate::trace::Trace;
use std::cell::RefCell;
use vellum_machine::{VmEvent, VmStat};
use vellum_page::{AllocRequest, PageFlags, PageSource, PageState};
use vellum_reclaim::{
    LruNode, MayDo, Outcome, PolicyKind, Reclaim, ReclaimHost, ReclaimRequest, Referenced,
};
use vellum_types::{Order, Pfn};

/// What a replay cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Uses of pages that were not in memory.
    pub faults: u64,
    /// Of those, pages that had been there before.
    pub refaults: u64,
    /// Dirty pages that were written as they were evicted.
    pub writes: u64,
    /// Pages looked at for eviction.
    pub scanned: u64,
    /// Questions to the host whether a page was used: each costs a call of the host's.
    pub looks: u64,
}

/// What the hardware and the swap device know.
struct World {
    /// Each frame's page and its accessed and dirty bit.
    frames: Vec<(u32, bool, bool)>,
    /// Each page's frame.
    resident: Vec<Option<Pfn>>,
    /// What was kept where a page was; 0 is nothing.
    shadows: Vec<u32>,
    writes: u64,
    looks: u64,
}

struct Host<'a> {
    reclaim: &'a Reclaim<'a>,
    world: RefCell<World>,
}

impl ReclaimHost for Host<'_> {
    fn page_referenced(&self, pfn: Pfn) -> Referenced {
        let mut world = self.world.borrow_mut();
        world.looks += 1;
        let accessed = std::mem::take(&mut world.frames[pfn.index()].1);
        Referenced {
            young: u32::from(accessed),
            ..Referenced::default()
        }
    }
    fn reclaim_page(&self, pfn: Pfn, _: MayDo) -> Outcome {
        let page = self.reclaim.memmap().page(pfn);
        if !page.freeze(2) {
            return Outcome::Busy;
        }
        let shadow = self.reclaim.shadow_for(pfn);
        let mut world = self.world.borrow_mut();
        let (number, _, dirty) = world.frames[pfn.index()];
        world.resident[number as usize] = None;
        world.shadows[number as usize] = shadow;
        world.writes += u64::from(dirty);
        self.reclaim.free_pages(pfn);
        Outcome::Freed
    }
    fn launder_page(&self, pfn: Pfn) -> Outcome {
        let mut world = self.world.borrow_mut();
        let dirty = std::mem::take(&mut world.frames[pfn.index()].2);
        world.writes += u64::from(dirty);
        self.reclaim
            .memmap()
            .page(pfn)
            .clear_flags(PageFlags::DIRTY);
        Outcome::Written
    }
    fn free_swap(&self) -> u64 {
        u64::MAX
    }
    fn age_spaces(&self, young: &mut dyn FnMut(Pfn)) {
        let mut found = Vec::new();
        let mut world = self.world.borrow_mut();
        world.looks += world.resident.iter().flatten().count() as u64;
        for (at, frame) in world.frames.iter_mut().enumerate() {
            if std::mem::take(&mut frame.1) {
                found.push(Pfn::new(at as u32));
            }
        }
        drop(world);
        found.into_iter().for_each(young);
    }
    fn shrink_caches(&self, _: u64) -> u64 {
        0
    }
}

/// Replays `trace` in a memory of `ram` pages under `policy`.
///
/// Pages are anonymous memory in one address space, whose accessed and dirty bits hardware sets, or
/// pages of files, used by read() and write(); I/O takes no time. Reclaim is the real one.
///
/// # Panics
/// If the policy frees nothing though nothing is in its way: a bug of the policy.
pub fn replay(trace: &Trace, ram: u32, policy: PolicyKind) -> Counts {
    let frames = Frames::new(ram, u64::from(ram / 128).clamp(1, 32));
    let vmstat = VmStat::new();
    let lists = [LruNode::new(policy)];
    let reclaim = Reclaim::new(&frames, &frames, &lists, &vmstat);
    let pages = trace.pages as usize;
    let host = Host {
        reclaim: &reclaim,
        world: RefCell::new(World {
            frames: vec![(0, false, false); frames.len()],
            resident: vec![None; pages],
            shadows: vec![0; pages],
            writes: 0,
            looks: 0,
        }),
    };
    let mut faults = 0;
    for reference in &trace.references {
        let number = reference.page as usize;
        let resident = host.world.borrow().resident[number];
        let pfn = resident.unwrap_or_else(|| {
            faults += 1;
            fault_in(&host, reference.page, trace.files.contains(&reference.page))
        });
        let frame = &mut host.world.borrow_mut().frames[pfn.index()];
        if trace.files.contains(&reference.page) {
            reclaim.mark_accessed(pfn);
        } else {
            frame.1 = true;
        }
        if reference.write && !frame.2 {
            frame.2 = true;
            reclaim.memmap().page(pfn).set_flags(PageFlags::DIRTY);
        }
    }
    let world = host.world.into_inner();
    Counts {
        faults,
        refaults: faults - world.seen(),
        writes: world.writes,
        looks: world.looks,
        scanned: vmstat.events(VmEvent::PgScanKswapd) + vmstat.events(VmEvent::PgScanDirect),
    }
}

impl World {
    /// Pages that were ever in memory.
    fn seen(&self) -> u64 {
        let ever = self.resident.iter().zip(&self.shadows);
        ever.filter(|(frame, shadow)| frame.is_some() || **shadow != 0)
            .count() as u64
    }
}

/// Brings a page in.
fn fault_in(host: &Host<'_>, number: u32, file: bool) -> Pfn {
    let reclaim = host.reclaim;
    reclaim.balance(host);
    let request = AllocRequest::user_movable(Order::ZERO);
    let pfn = loop {
        if let Ok(pfn) = reclaim.alloc_pages(request) {
            break pfn;
        }
        let direct = ReclaimRequest {
            order: request.order,
            gfp: request.gfp,
            target: 1,
        };
        let freed = reclaim.try_to_free_pages(host, direct);
        assert!(freed > 0, "{} frees nothing", reclaim.policy());
    };
    let page = reclaim.memmap().page(pfn);
    if file {
        page.set_state(PageState::File);
    } else {
        page.set_state(PageState::Anon);
        page.set_flags(PageFlags::SWAPBACKED);
    }
    page.set_index(u64::from(number));
    let shadow = {
        let mut world = host.world.borrow_mut();
        world.frames[pfn.index()] = (number, false, false);
        world.resident[number as usize] = Some(pfn);
        world.shadows[number as usize]
    };
    reclaim.refault(pfn, shadow);
    reclaim.lru_add(pfn);
    pfn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{generate, lru_faults, optimal_faults};

    #[test]
    fn enough_memory_means_first_uses_only() {
        let trace = generate::mixed(1);
        for policy in PolicyKind::ALL {
            let counts = replay(&trace, trace.pages + 2, policy);
            assert_eq!(counts.faults, u64::from(trace.pages));
            assert_eq!((counts.refaults, counts.writes), (0, 0));
        }
    }

    #[test]
    fn nobody_beats_the_optimum() {
        let generators = [
            generate::looping,
            generate::scan_hot,
            generate::zipf,
            generate::mixed,
        ];
        for trace in generators.map(|make| make(5)) {
            for ram in [100, trace.pages / 2] {
                let best = optimal_faults(&trace, ram);
                assert!(best <= lru_faults(&trace)[ram as usize]);
                for policy in PolicyKind::ALL {
                    let counts = replay(&trace, ram, policy);
                    assert!(counts.faults >= best);
                    assert_eq!(counts.faults - counts.refaults, u64::from(trace.pages));
                }
            }
        }
    }
}
