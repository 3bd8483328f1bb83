//! All address spaces, by number: who must be asked when a file's pages go.

use crate::MmError;
use crate::context::MmContext;
use crate::mm::{Mm, MmRef};
use core::sync::atomic::{AtomicU32, Ordering};
use vellum_collections::RadixTree;
use vellum_machine::{LockRank, Machine, SpinLock};
use vellum_types::SpaceId;

/// The table of address spaces. Holds one reference to each.
pub(crate) struct SpaceTable<'m> {
    live: SpinLock<RadixTree<'m, MmRef<'m>>>,
    next: AtomicU32,
}

impl SpaceTable<'_> {
    pub(crate) fn new() -> Self {
        Self {
            live: SpinLock::new(LockRank::Spaces, RadixTree::new()),
            next: AtomicU32::new(1),
        }
    }

    /// Numbers are never reused: a machine may still hold translations of a dead space.
    fn next_id(&self) -> SpaceId {
        // Relaxed: only uniqueness matters.
        SpaceId(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl<'m, M: Machine> MmContext<'m, M> {
    /// A new, empty address space with one user.
    ///
    /// # Errors
    /// NoMem.
    pub fn mm_create(&self) -> Result<MmRef<'m>, MmError> {
        self.with_room(|| {
            let mm = self.new_mm(self.spaces.next_id())?;
            self.register(&mm).inspect_err(|_| self.exit_mmap(&mm))?;
            Ok(mm)
        })
    }

    /// A copy of `parent` with one user. Pages are shared; private ones become read-only in both,
    /// but for those that are the target of running I/O in the parent, which are copied at once.
    ///
    /// # Errors
    /// NoMem; the parent keeps all its memory, though it may fault again on private pages.
    pub fn mm_fork(&self, parent: &Mm<'m>) -> Result<MmRef<'m>, MmError> {
        self.with_room(|| self.try_fork(parent))
    }

    fn try_fork(&self, parent: &Mm<'m>) -> Result<MmRef<'m>, MmError> {
        let mut child = self.new_mm(self.spaces.next_id())?;
        let result = self.dup_mmap(parent, &mut child);
        if let Err(error) = result.and_then(|()| self.register(&child)) {
            self.exit_mmap(&child);
            return Err(error);
        }
        Ok(child)
    }

    fn register(&self, mm: &MmRef<'m>) -> Result<(), MmError> {
        let key = u64::from(mm.space().0);
        let mut live = self.spaces.live.lock();
        match live.insert(key, mm.clone(), self.caches.spaces) {
            Ok(_) => Ok(()),
            Err((again, oom)) => {
                drop(live);
                drop(again);
                Err(oom.into())
            }
        }
    }

    /// One more user: a task that shares the address space.
    pub fn mm_get(&self, mm: &MmRef<'m>) -> MmRef<'m> {
        mm.add_user();
        mm.clone()
    }

    /// One user fewer; the last one takes the address space apart.
    pub fn mm_put(&self, mm: MmRef<'m>) {
        if mm.drop_user() {
            let known = self.spaces.live.lock().remove(u64::from(mm.space().0));
            self.exit_mmap(&mm);
            drop(known);
        }
    }

    /// Calls `each` for every live address space, in order of number, until it returns false.
    pub fn for_each_mm(&self, each: &mut dyn FnMut(&MmRef<'m>) -> bool) {
        let mut at = 0;
        loop {
            // A reference keeps it alive while the table is unlocked.
            let next = self
                .spaces
                .live
                .lock()
                .next(at)
                .map(|(key, mm)| (key, mm.clone()));
            match next {
                Some((key, mm)) if each(&mm) => at = key + 1,
                _ => return,
            }
        }
    }

    /// The address space of that number, if it lives.
    pub(crate) fn space(&self, space: SpaceId) -> Option<MmRef<'m>> {
        self.spaces.live.lock().get(u64::from(space.0)).cloned()
    }

    /// How many address spaces live.
    pub fn nr_spaces(&self) -> u64 {
        self.spaces.live.lock().len()
    }
}
