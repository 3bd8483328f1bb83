//! The request by which one CPU has another drain its lists, under a model checker: the very code of
//! `src/request.rs`, compiled over the checker's atomics, in every interleaving that the memory model
//! allows.

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};
}

#[path = "../src/request.rs"]
mod request;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use request::DrainRequest;

/// One CPU's list and its zone. The list is a plain cell: the checker fails if two touch it at once.
struct Model {
    request: DrainRequest,
    list: UnsafeCell<u32>,
    zone: Mutex<u32>,
    /// What the poster knows to be on the list, at least.
    published: AtomicU32,
}

// SAFETY: the cell is touched by the owning thread, and by the other only after it has joined it; the
// checker watches just that.
unsafe impl Sync for Model {}

impl Model {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            request: DrainRequest::new(),
            list: UnsafeCell::new(0),
            zone: Mutex::new(0),
            published: AtomicU32::new(0),
        })
    }

    fn free_one(&self) {
        // SAFETY: called by the owner alone.
        self.list.with_mut(|list| unsafe { *list += 1 });
        self.published.fetch_add(1, Ordering::Release);
    }

    fn drain(&self) {
        // SAFETY: called by the owner, or when the owner has stopped.
        let pages = self
            .list
            .with_mut(|list| unsafe { core::mem::take(&mut *list) });
        *self.zone.lock().unwrap() += pages;
    }

    fn serve(&self) {
        if self.request.is_posted() && self.request.take() {
            self.drain();
        }
    }
}

/// Whatever was on the list when the request was posted is in the zone when the owner has looked once
/// after that; no page is lost or counted twice.
#[test]
fn a_request_is_never_lost() {
    loom::model(|| {
        let model = Model::new();
        let owner = {
            let model = model.clone();
            thread::spawn(move || {
                model.free_one();
                model.serve();
                model.free_one();
                model.serve();
            })
        };
        let seen = model.published.load(Ordering::Acquire);
        model.request.post();
        owner.join().unwrap();
        // The owner's next free, whenever it is.
        model.serve();
        let zone = *model.zone.lock().unwrap();
        assert!(zone >= seen, "{zone} of {seen}");
        // SAFETY: the owner has ended.
        let left = model.list.with(|list| unsafe { *list });
        assert_eq!(zone + left, 2);
        assert!(!model.request.is_posted());
    });
}

/// Two ask at once; the owner drains at least once, and nothing is left behind after it looked.
#[test]
fn two_requests_may_become_one() {
    loom::model(|| {
        let model = Model::new();
        model.free_one();
        let other = {
            let model = model.clone();
            thread::spawn(move || model.request.post())
        };
        let third = {
            let model = model.clone();
            thread::spawn(move || model.request.post())
        };
        model.serve();
        model.free_one();
        other.join().unwrap();
        third.join().unwrap();
        model.serve();
        let zone = *model.zone.lock().unwrap();
        assert!(zone >= 1);
        // SAFETY: this thread is the owner.
        let left = model.list.with(|list| unsafe { *list });
        assert_eq!(zone + left, 2);
    });
}

/// A CPU that was stopped is drained by who stopped it: joining makes its work visible.
#[test]
fn a_stopped_cpu_is_drained_by_another() {
    loom::model(|| {
        let model = Model::new();
        let owner = {
            let model = model.clone();
            thread::spawn(move || {
                model.free_one();
                model.serve();
            })
        };
        model.request.post();
        owner.join().unwrap();
        model.drain();
        assert_eq!(*model.zone.lock().unwrap(), 1);
    });
}
