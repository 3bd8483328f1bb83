//! In which `anon_vma`s an area stands.

use crate::{AnonTable, AnonVma, AnonVmaRef, Mapper, Registration};
use core::fmt;
use vellum_collections::{IntervalNode, RadixNode};
use vellum_object::{KArc, ObjectCache, OutOfMemory};

/// A counted [`AnonLink`].
pub type AnonLinkRef<'m> = KArc<'m, AnonLink<'m>>;

/// The object caches of reverse mapping.
#[derive(Clone, Copy)]
pub struct RmapCaches<'m> {
    /// `anon_vma` (shared).
    pub anon_vma: ObjectCache<'m, AnonVma<'m>>,
    /// `anon_vma_chain` (shared).
    pub links: ObjectCache<'m, AnonLink<'m>>,
    /// Nodes of the table of `anon_vma`s (boxes).
    pub numbers: ObjectCache<'m, RadixNode<'m, AnonVmaRef<'m>>>,
    /// Nodes of all trees of mappers (boxes).
    pub mappers: ObjectCache<'m, IntervalNode<'m, Mapper>>,
}

/// `anon_vma_chain`: that an area stands in one `anon_vma`, and the rest of the chain. The head's is the
/// area's own, to which its new pages belong; the others are its ancestors'.
pub struct AnonLink<'m> {
    registration: Registration<'m, AnonVma<'m>>,
    /// This is the head of a chain.
    own: bool,
    next: Option<AnonLinkRef<'m>>,
}

impl<'m> AnonLink<'m> {
    /// The chain of an area that gets its first private page: one new `anon_vma`. Linux:
    /// `anon_vma_prepare`.
    ///
    /// # Errors
    /// Out of memory; nothing changed.
    pub fn prepare(
        table: &'m AnonTable<'m>,
        caches: &RmapCaches<'m>,
        mapper: Mapper,
        (first, last): (u64, u64),
    ) -> Result<AnonLinkRef<'m>, OutOfMemory> {
        let anon_vma = table.create(None, caches.anon_vma, caches.numbers)?;
        let handle = anon_vma.clone();
        let link = Registration::new(anon_vma, mapper, first, last, caches.mappers)
            .inspect_err(|_| table.forget(handle))?;
        Self::head(caches, link, None)
    }

    /// The chain of the child's copy of an area: the child stands wherever the parent does, and has its
    /// own `anon_vma` before that. Where a process forks on and on and its ancestors die, one that such
    /// an ancestor left behind is used again, so that chains stay as short as there are live ancestors.
    /// Linux: `anon_vma_fork`, `anon_vma_clone`.
    ///
    /// # Errors
    /// Out of memory; nothing changed.
    pub fn fork(
        &self,
        table: &'m AnonTable<'m>,
        caches: &RmapCaches<'m>,
        mapper: Mapper,
        interval: (u64, u64),
    ) -> Result<AnonLinkRef<'m>, OutOfMemory> {
        let mut adopted = None;
        let rest = self
            .clone_links(caches, mapper, interval, &mut Some(&mut adopted))
            .inspect_err(|_| {
                if let Some(registration) = &adopted {
                    registration.object().drop_owner();
                }
            })?;
        let registration = match adopted {
            Some(registration) => {
                let link = Self {
                    registration,
                    own: true,
                    next: rest,
                };
                return caches.links.shared(link);
            }
            None => {
                let anon_vma = table.create(
                    Some(self.anon_vma().root()),
                    caches.anon_vma,
                    caches.numbers,
                )?;
                let handle = anon_vma.clone();
                Registration::new(anon_vma, mapper, interval.0, interval.1, caches.mappers)
                    .inspect_err(|_| table.forget(handle))?
            }
        };
        Self::head(caches, registration, rest)
    }

    /// The same chain at another place: mremap moves pages, which keep their `anon_vma`s and indices.
    ///
    /// # Errors
    /// Out of memory; nothing changed.
    pub fn moved(
        &self,
        caches: &RmapCaches<'m>,
        mapper: Mapper,
        interval: (u64, u64),
    ) -> Result<AnonLinkRef<'m>, OutOfMemory> {
        let rest = match &self.next {
            Some(next) => next.clone_links(caches, mapper, interval, &mut None)?,
            None => None,
        };
        let anon_vma = self.anon_vma().clone();
        let (first, last) = interval;
        let registration = Registration::new(anon_vma, mapper, first, last, caches.mappers)?;
        Self::head(caches, registration, rest)
    }

    /// The head of a chain.
    fn head(
        caches: &RmapCaches<'m>,
        registration: Registration<'m, AnonVma<'m>>,
        next: Option<AnonLinkRef<'m>>,
    ) -> Result<AnonLinkRef<'m>, OutOfMemory> {
        registration.object().add_owner();
        caches.links.shared(Self {
            registration,
            own: true,
            next,
        })
    }

    /// Registers `mapper` wherever this chain stands. The first `anon_vma` that nobody owns is left out
    /// and goes to `adopted`, to become the caller's own.
    fn clone_links(
        &self,
        caches: &RmapCaches<'m>,
        mapper: Mapper,
        interval: (u64, u64),
        adopted: &mut Option<&mut Option<Registration<'m, AnonVma<'m>>>>,
    ) -> Result<Option<AnonLinkRef<'m>>, OutOfMemory> {
        // From the far end, as each link holds the one behind it. Deep at most as the chain is long.
        let next = match &self.next {
            Some(next) => next.clone_links(caches, mapper, interval, adopted)?,
            None => None,
        };
        let anon_vma = self.anon_vma();
        let (first, last) = interval;
        let registration =
            Registration::new(anon_vma.clone(), mapper, first, last, caches.mappers)?;
        if let Some(slot) = adopted
            && !self.own
            && slot.is_none()
            && anon_vma.adopt()
        {
            **slot = Some(registration);
            return Ok(next);
        }
        let link = Self {
            registration,
            own: false,
            next,
        };
        caches.links.shared(link).map(Some)
    }

    /// The `anon_vma` of this link; for the head, the one of the area's new pages.
    pub const fn anon_vma(&self) -> &AnonVmaRef<'m> {
        self.registration.object()
    }

    /// True if there are no ancestors. Linux: `list_is_singular(&vma->anon_vma_chain)`.
    pub const fn is_singular(&self) -> bool {
        self.next.is_none()
    }

    /// True if both stand in the same `anon_vma`s.
    pub fn same_chain(&self, other: &Self) -> bool {
        let (mut a, mut b) = (self, other);
        loop {
            if core::ptr::eq(a, b) {
                return true;
            }
            if !KArc::ptr_eq(a.anon_vma(), b.anon_vma()) {
                return false;
            }
            match (&a.next, &b.next) {
                (Some(next_a), Some(next_b)) => (a, b) = (next_a, next_b),
                (None, None) => return true,
                _ => return false,
            }
        }
    }

    /// Makes this chain stand for the pages of `other`, the same chain of an area that is merged in.
    pub fn absorb(&self, other: &Self) {
        let (mut a, mut b) = (self, other);
        while !core::ptr::eq(a, b) {
            let (first, last) = b.registration.interval();
            a.registration.widen(first, last);
            match (&a.next, &b.next) {
                (Some(next_a), Some(next_b)) => (a, b) = (next_a, next_b),
                _ => return,
            }
        }
    }

    /// Sees to it that new pages of `first..=last` will be found. Linux has no need of it, as its trees
    /// hold the areas themselves.
    #[inline]
    pub fn cover(&self, first: u64, last: u64) {
        if !self.registration.covers(first, last) {
            self.registration.widen(first, last);
        }
    }

    /// How many `anon_vma`s the area stands in.
    pub fn depth(&self) -> usize {
        1 + self.next.as_ref().map_or(0, |next| next.depth())
    }

    /// True if a page of `anon_vma` number `id` at `index` would be found at bias `bias` of this chain's
    /// space: the invariant of whoever writes an entry.
    pub fn finds(&self, id: u32, index: u64, bias: u64) -> bool {
        let registration = &self.registration;
        let here = registration.object().id() == id
            && registration.mapper().bias == bias
            && registration.covers(index, index);
        here || self
            .next
            .as_ref()
            .is_some_and(|next| next.finds(id, index, bias))
    }
}

impl Drop for AnonLink<'_> {
    fn drop(&mut self) {
        if self.own {
            self.anon_vma().drop_owner();
        }
    }
}

impl fmt::Debug for AnonLink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.anon_vma().id(), self.registration)?;
        match &self.next {
            Some(next) => write!(f, " > {next:?}"),
            None => Ok(()),
        }
    }
}
