//! Reclaims clean pages that nobody uses, for an instruction count: `hot_path POLICY PAGES [fill]`.
//! With `fill` the pages are only put on lists; the difference, divided by PAGES, is the price of a
//! reclaimed page: selection, the questions to the host, the shadow, the freeing. The host does nothing
//! of its own but freeze the page.
//!
//! ```sh
//! valgrind --tool=callgrind target/release/examples/hot_path two-list 30000
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Frames, new_page};
use vellum_machine::VmStat;
use vellum_page::{PageFlags, PageSource, PageState};
use vellum_reclaim::{
    MayDo, Outcome, PolicyKind, Reclaim, ReclaimHost, ReclaimRequest, Referenced,
};
use vellum_types::{GfpFlags, Order, Pfn};

struct Idle<'a>(&'a Reclaim<'a>);

impl ReclaimHost for Idle<'_> {
    fn page_referenced(&self, _: Pfn) -> Referenced {
        Referenced::default()
    }
    fn reclaim_page(&self, pfn: Pfn, _: MayDo) -> Outcome {
        if !self.0.memmap().page(pfn).freeze(2) {
            return Outcome::Busy;
        }
        std::hint::black_box(self.0.shadow_for(pfn));
        self.0.free_pages(pfn);
        Outcome::Freed
    }
    fn launder_page(&self, _: Pfn) -> Outcome {
        Outcome::Written
    }
    fn free_swap(&self) -> u64 {
        u64::MAX
    }
    fn age_spaces(&self, _: &mut dyn FnMut(Pfn)) {}
    fn shrink_caches(&self, _: u64) -> u64 {
        0
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (policy, pages) = match &arguments[..] {
        [policy, pages, ..] => (policy.parse::<PolicyKind>()?, pages.parse::<u32>()?),
        _ => return Err("usage: hot_path POLICY PAGES [fill]".into()),
    };
    let frames = Frames::new(pages, 1, 1, 1);
    let (vmstat, lists) = (VmStat::new(), frames.lists(policy));
    let reclaim = Reclaim::new(&frames, &frames, &lists, &vmstat);
    while new_page(&reclaim, PageState::File, PageFlags::empty()).is_some() {}
    if arguments.len() == 2 {
        let request = ReclaimRequest {
            order: Order::ZERO,
            gfp: GfpFlags::KERNEL,
            target: 32,
        };
        while reclaim.try_to_free_pages(&Idle(&reclaim), request) > 0 {}
        assert_eq!(frames.nr_free(), u64::from(pages));
    }
    Ok(())
}
