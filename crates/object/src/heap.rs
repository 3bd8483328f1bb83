//! A source on the host's heap, for tests.

use crate::ObjectSource;
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// Objects from the host's heap, counted, with a failure that can be timed.
#[derive(Debug)]
pub struct HeapSource {
    layout: Layout,
    live: AtomicUsize,
    fail_after: AtomicI64,
}

impl HeapSource {
    /// A source of objects of `layout`.
    pub const fn new(layout: Layout) -> Self {
        Self {
            layout,
            live: AtomicUsize::new(0),
            fail_after: AtomicI64::new(i64::MAX),
        }
    }
    /// The next `n` allocations succeed, all later ones fail.
    pub fn fail_after(&self, n: i64) {
        self.fail_after.store(n, Ordering::Relaxed);
    }
    /// Objects not yet freed.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

// SAFETY: the host's allocator gives exclusive memory of the layout until dealloc.
unsafe impl ObjectSource for HeapSource {
    fn alloc_object(&self) -> Option<NonNull<u8>> {
        if self.fail_after.fetch_sub(1, Ordering::Relaxed) <= 0 {
            self.fail_after.store(0, Ordering::Relaxed);
            return None;
        }
        // SAFETY: handle objects are never of size zero: they hold a source reference.
        let memory = NonNull::new(unsafe { std::alloc::alloc(self.layout) })?;
        self.live.fetch_add(1, Ordering::Relaxed);
        Some(memory)
    }
    unsafe fn free_object(&self, object: NonNull<u8>) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the caller passes what alloc_object returned, made with this layout.
        unsafe { std::alloc::dealloc(object.as_ptr(), self.layout) };
    }
    fn object_layout(&self) -> Layout {
        self.layout
    }
    fn name(&self) -> &str {
        "heap"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ObjectCache, OutOfMemory};

    #[test]
    fn box_and_arc_free_themselves() {
        let boxes = HeapSource::new(ObjectCache::<std::string::String>::BOX_LAYOUT);
        let arcs = HeapSource::new(ObjectCache::<u64>::ARC_LAYOUT);
        {
            let a = ObjectCache::new(&boxes)
                .boxed(std::string::String::from("x"))
                .unwrap();
            let b = ObjectCache::new(&arcs).shared(7u64).unwrap();
            let c = b.clone();
            assert_eq!((a.as_str(), *c), ("x", 7));
            drop(b);
            assert_eq!(arcs.live(), 1);
            assert_eq!(a.into_value(), "x");
            assert_eq!(boxes.live(), 0);
        }
        assert_eq!(arcs.live(), 0);
    }

    #[test]
    fn values_come_back() {
        let source = HeapSource::new(ObjectCache::<std::string::String>::ARC_LAYOUT);
        let cache = ObjectCache::new(&source);
        let one = cache.shared(std::string::String::from("x")).unwrap();
        let two = one.clone();
        let one = crate::KArc::try_unwrap(one).unwrap_err();
        drop(two);
        assert_eq!(crate::KArc::try_unwrap(one).unwrap(), "x");
        let pinned = cache.pinned(std::string::String::from("y")).unwrap();
        assert_eq!(pinned.as_str(), "y");
        drop(pinned);
        assert_eq!(source.live(), 0);
        source.fail_after(0);
        let (value, error) = cache.try_boxed(std::string::String::from("z")).unwrap_err();
        assert_eq!((value.as_str(), error), ("z", OutOfMemory));
    }

    #[test]
    fn out_of_memory_drops_the_value() {
        let source = HeapSource::new(ObjectCache::<std::sync::Arc<()>>::BOX_LAYOUT);
        source.fail_after(0);
        let value = std::sync::Arc::new(());
        let result = ObjectCache::new(&source).boxed(value.clone());
        assert_eq!(result.err(), Some(OutOfMemory));
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
    }
}
