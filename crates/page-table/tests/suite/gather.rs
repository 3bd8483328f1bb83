//! No frame is free before the flush of its addresses.

use crate::machine::{Event, Recorder};
use crate::ram::{HostRam, Random};
use std::cell::RefCell;
use vellum_machine::Trace;
use vellum_page::{AllocRequest, PageSource, PageState};
use vellum_page_table::TlbGather;
use vellum_types::{Order, PAGE_SIZE, Pfn, SpaceId, VirtAddr, VirtRange};

const SPACE: SpaceId = SpaceId(7);

fn page(number: u64) -> VirtAddr {
    VirtAddr::from_page_number(number)
}

fn pages(first: u64, count: u64) -> VirtRange {
    VirtRange::from_len(page(first), count * PAGE_SIZE).unwrap()
}

fn frame(ram: &HostRam) -> Pfn {
    ram.alloc_pages(AllocRequest::kernel(Order::ZERO)).unwrap()
}

#[test]
fn neighbours_make_one_flush() {
    let ram = HostRam::new(64);
    let machine = Recorder::new(ram);
    let mut gather = TlbGather::new(&machine, ram, SPACE, Trace::OFF);
    for number in [10, 11, 12, 9] {
        gather.remove(page(number), frame(ram));
    }
    gather.remove(page(40), frame(ram));
    drop(gather);
    let expected = [
        Event::Flush(pages(9, 4)),
        Event::Flush(pages(40, 1)),
        Event::Wait,
    ];
    assert_eq!(machine.take(), expected);
    assert_eq!(ram.used_pages(), 0);
}

#[test]
fn many_ranges_become_one() {
    let ram = HostRam::new(16);
    let machine = Recorder::new(ram);
    let mut gather = TlbGather::new(&machine, ram, SPACE, Trace::OFF);
    for i in 0..9 {
        gather.note_flush(pages(i * 10, 1));
    }
    gather.flush();
    assert_eq!(machine.take(), [Event::Flush(pages(0, 81)), Event::Wait]);
    gather.flush();
    drop(gather);
    assert!(
        machine.take().is_empty(),
        "nothing pending, nothing flushed"
    );
}

#[test]
fn shared_frames_lose_one_reference() {
    let ram = HostRam::new(16);
    let machine = Recorder::new(ram);
    let pfn = frame(ram);
    ram.page(pfn).get();
    TlbGather::new(&machine, ram, SPACE, Trace::OFF).remove(page(1), pfn);
    assert_eq!(ram.page(pfn).refcount(), 1);
    TlbGather::new(&machine, ram, SPACE, Trace::OFF).remove(page(1), pfn);
    assert_eq!(ram.page(pfn).state(), PageState::Free);
}

#[test]
fn no_frame_is_free_before_its_flush() {
    let ram = HostRam::new(1024);
    let live = RefCell::new(Vec::<Pfn>::new());
    let mut machine = Recorder::new(ram);
    machine.at_wait = Box::new(|| {
        for pfn in live.borrow().iter() {
            assert_eq!(
                ram.page(*pfn).state(),
                PageState::Allocated,
                "freed too early"
            );
            assert_eq!(ram.page(*pfn).refcount(), 1);
        }
    });
    let mut random = Random(0x9e37_79b9);
    for _ in 0..200 {
        let mut gather = TlbGather::new(&machine, ram, SPACE, Trace::OFF);
        let mut unflushed = Vec::new();
        for _ in 0..random.below(400) {
            let va = page(random.below(1 << 20));
            let pfn = frame(ram);
            live.borrow_mut().push(pfn);
            unflushed.push(va);
            gather.remove(va, pfn);
            if gather.pending_frames() == 0 {
                check_covered(&machine.take(), &mut unflushed);
                live.borrow_mut().clear();
            }
        }
        drop(gather);
        check_covered(&machine.take(), &mut unflushed);
        live.borrow_mut().clear();
        assert_eq!(ram.used_pages(), 0);
    }
}

fn check_covered(events: &[Event], unflushed: &mut Vec<VirtAddr>) {
    for va in unflushed.drain(..) {
        let covered = events
            .iter()
            .any(|e| matches!(e, Event::Flush(r) if r.contains(va)));
        assert!(covered, "{va:?} was not flushed");
        assert_eq!(events.last(), Some(&Event::Wait));
    }
}
