//! The objects of private pages.

use crate::{MapTree, Mapped};
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use vellum_collections::{RadixNode, RadixTree};
use vellum_machine::{LockRank, SpinLock};
use vellum_object::{KArc, ObjectCache, OutOfMemory};

/// A counted [`AnonVma`].
pub type AnonVmaRef<'m> = KArc<'m, AnonVma<'m>>;

/// `anon_vma`: the object that the private pages of an area belong to.
pub struct AnonVma<'m> {
    id: u32,
    /// The number of the first of its family, in which all that stand here stand too.
    root: u32,
    /// Links through which areas have it as their own. Linux: `num_active_vmas`.
    owners: AtomicU32,
    mappers: MapTree<'m>,
    table: &'m AnonTable<'m>,
}

impl AnonVma<'_> {
    /// The owner word of its pages. Never 0; may be used again when it is dead.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The `anon_vma` from which this one descends by fork, or itself. Whoever shares a page with an area
    /// that stands here stands there as well. Linux: `anon_vma->root`.
    pub const fn root(&self) -> u32 {
        self.root
    }

    pub(crate) fn add_owner(&self) {
        // Relaxed: only a heuristic looks at it from outside.
        self.owners.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn drop_owner(&self) {
        self.owners.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes the caller an owner if there is none: the process that had it is gone.
    pub(crate) fn adopt(&self) -> bool {
        self.owners
            .compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

impl<'m> Mapped<'m> for AnonVma<'m> {
    fn mappers(&self) -> &MapTree<'m> {
        &self.mappers
    }

    fn unmapped(&self) {
        // The caller's reference keeps it until the lock is open again.
        let _dead = self.table.by_id.lock().tree.remove(u64::from(self.id));
    }
}

impl fmt::Debug for AnonVma<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnonVma({}, {:?})", self.id, self.mappers)
    }
}

/// All of them, by number.
pub struct AnonTable<'m> {
    by_id: SpinLock<Numbers<'m>>,
}

struct Numbers<'m> {
    tree: RadixTree<'m, AnonVmaRef<'m>>,
    /// Where the search for a free number begins: old numbers rest as long as can be.
    next: u32,
}

impl<'m> AnonTable<'m> {
    /// An empty table.
    pub const fn new() -> Self {
        let numbers = Numbers {
            tree: RadixTree::new(),
            next: 1,
        };
        Self {
            by_id: SpinLock::new(LockRank::Rmap, numbers),
        }
    }

    /// The one whose pages carry `id`.
    pub fn get(&self, id: u32) -> Option<AnonVmaRef<'m>> {
        self.by_id.lock().tree.get(u64::from(id)).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.by_id.lock().tree.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A new one that nobody is registered in. It must be given a registration at once, or be
    /// [forgotten](Self::forget).
    pub(crate) fn create(
        &'m self,
        root: Option<u32>,
        objects: ObjectCache<'m, AnonVma<'m>>,
        nodes: ObjectCache<'m, RadixNode<'m, AnonVmaRef<'m>>>,
    ) -> Result<AnonVmaRef<'m>, OutOfMemory> {
        let mut numbers = self.by_id.lock();
        let free = numbers.tree.next_gap(u64::from(numbers.next));
        let id = match u32::try_from(free) {
            Ok(id) => id,
            // Round again: number 0 stands for nobody.
            Err(_) => u32::try_from(numbers.tree.next_gap(1)).map_err(|_| OutOfMemory)?,
        };
        let anon_vma = objects.shared(AnonVma {
            id,
            root: root.unwrap_or(id),
            owners: AtomicU32::new(0),
            mappers: MapTree::new(),
            table: self,
        })?;
        let inserted = numbers.tree.insert(u64::from(id), anon_vma.clone(), nodes);
        match inserted {
            Ok(_) => {
                numbers.next = id.checked_add(1).unwrap_or(1);
                Ok(anon_vma)
            }
            Err((again, oom)) => {
                drop(numbers);
                drop(again);
                Err(oom)
            }
        }
    }

    /// Undoes [`create`](Self::create).
    pub(crate) fn forget(&self, anon_vma: AnonVmaRef<'m>) {
        anon_vma.unmapped();
    }

    /// Checks the table and every tree.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), &'static str> {
        let mut at = 0;
        loop {
            // Trees have the same rank as the table: one lock at a time.
            let next = {
                let numbers = self.by_id.lock();
                if at == 0 {
                    numbers.tree.validate()?;
                }
                numbers.tree.next(at).map(|(id, one)| (id, one.clone()))
            };
            let Some((id, anon_vma)) = next else {
                return Ok(());
            };
            anon_vma.mappers.validate()?;
            if u64::from(anon_vma.id) != id {
                return Err("an anon_vma has a wrong number");
            }
            if anon_vma.mappers.is_empty() {
                return Err("a dead anon_vma is still in the table");
            }
            at = id + 1;
        }
    }
}

impl Default for AnonTable<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for AnonTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnonTable({})", self.len())
    }
}
