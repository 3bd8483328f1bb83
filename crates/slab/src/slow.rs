//! The paths that are taken when a sheaf is empty or full.

use crate::KmemCache;
use crate::debug::Site;
use crate::list::SlabList;
use crate::sheaf::CpuSheaves;
use crate::words;
use core::ptr::NonNull;
use vellum_types::GfpFlags;

/// What became of an attempt to put objects into a CPU's first sheaf, or to make room there.
enum Refill {
    Done,
    /// The CPU wants one more sheaf first.
    NeedSheaf,
    /// The node has no free object.
    Nothing,
}

impl KmemCache<'_> {
    /// An object when the CPU's first sheaf has none.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_slow(&self, gfp: GfpFlags, site: Site) -> Option<NonNull<u8>> {
        self.empty_if_dead();
        if self.tunables.max_limit != 0 && !self.is_dead() {
            let refill = |cpu: &mut CpuSheaves<'_>| (self.refill(cpu), cpu.pop());
            let mut tried = self.cpus.with(refill);
            if let Some((Refill::NeedSheaf, None)) = tried
                && self.add_sheaf(gfp)
            {
                tried = self.cpus.with(refill);
            }
            if let Some((_, Some(object))) = tried {
                return Some(object);
            }
        }
        self.take_direct(gfp, site)
    }

    /// Takes `object` back when the CPU's first sheaf does not.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_slow(&self, object: NonNull<u8>, owner: u32, site: Site) {
        if words::on_node(owner, 0) != self.owner || words::node_of(owner) >= self.nodes.len() {
            self.foreign(object, site);
        }
        self.empty_if_dead();
        if self.tunables.max_limit != 0 && !self.is_dead() {
            let room = |cpu: &mut CpuSheaves<'_>| {
                if cpu.is_top(object) {
                    self.corrupt("double free", object, None, site);
                }
                // An object of another node goes back there, where it is wanted.
                if cpu.owner() != owner {
                    return (Refill::Nothing, false);
                }
                (self.make_room(cpu), cpu.push(object, owner))
            };
            let mut tried = self.cpus.with(room);
            if let Some((Refill::NeedSheaf, false)) = tried
                && self.add_sheaf(GfpFlags::NOWAIT)
            {
                tried = self.cpus.with(room);
            }
            if let Some((_, true)) = tried {
                return;
            }
        }
        let mut surplus = SlabList::new();
        {
            let mut lists = self.nodes[words::node_of(owner)].lock();
            self.put_one(&mut lists, object, site, &mut surplus);
        }
        self.release_all(surplus);
    }

    /// Gives this CPU one sheaf more. False if there is no memory for it.
    fn add_sheaf(&self, gfp: GfpFlags) -> bool {
        let Some(sheaf) = self.new_sheaf(gfp) else {
            return false;
        };
        let left = self.cpus.with(|cpu| {
            if !cpu.has_main() {
                cpu.set_limit(self.tunables.first_limit);
                cpu.exchange(Some(sheaf))
            } else if !cpu.has_spare() {
                // The first one is full: keep it as the second.
                let full = cpu.exchange(Some(sheaf));
                cpu.exchange_spare(full)
            } else {
                Some(sheaf)
            }
        });
        if let Some(Some(sheaf)) = left {
            self.drop_sheaf(sheaf);
        }
        true
    }

    /// Puts objects into the first sheaf of a CPU, which is empty.
    fn refill(&self, cpu: &mut CpuSheaves<'_>) -> Refill {
        self.serve_request(cpu);
        if cpu.spare_len() > 0 {
            cpu.swap();
            return Refill::Done;
        }
        if !cpu.has_main() {
            return Refill::NeedSheaf;
        }
        let mut lists = self.nodes[words::node_of(cpu.owner())].lock();
        if let Some(full) = lists.full_sheaves.pop() {
            lists.in_barn -= u64::from(full.len());
            if let Some(empty) = cpu.exchange(Some(full)) {
                lists.empty_sheaves.push(empty);
            }
            return Refill::Done;
        }
        self.grow_limit(cpu);
        let mut taking = self.taking(&mut lists);
        match cpu.fill(cpu.limit(), || taking.next()) {
            0 => Refill::Nothing,
            _ => Refill::Done,
        }
    }

    /// Makes room in the first sheaf of a CPU, which is full.
    fn make_room(&self, cpu: &mut CpuSheaves<'_>) -> Refill {
        self.serve_request(cpu);
        if !cpu.has_main() {
            return Refill::NeedSheaf;
        }
        if cpu.len() < cpu.limit() {
            // Only the request was in the way.
            cpu.set_limit(cpu.limit());
            return Refill::Done;
        }
        if !cpu.has_spare() {
            return Refill::NeedSheaf;
        }
        if cpu.spare_len() == 0 {
            cpu.swap();
            return Refill::Done;
        }
        let mut surplus = SlabList::new();
        {
            let mut lists = self.nodes[words::node_of(cpu.owner())].lock();
            if lists.full_sheaves.len() < self.tunables.barn
                && let Some(empty) = lists.empty_sheaves.pop()
            {
                // The full one becomes the second, and the second goes to the barn.
                let full = cpu.exchange(Some(empty));
                if let Some(spare) = cpu.exchange_spare(full) {
                    lists.in_barn += u64::from(spare.len());
                    lists.full_sheaves.push(spare);
                }
                return Refill::Done;
            }
            if lists.full_sheaves.len() >= self.tunables.barn {
                // The objects that lay longest go back to their slabs.
                self.grow_limit(cpu);
                if let Some(mut spare) = cpu.exchange_spare(None) {
                    self.empty_into(&mut lists, &mut spare, &mut surplus);
                    cpu.exchange_spare(Some(spare));
                    cpu.swap();
                }
            } else if let Some(spare) = cpu.exchange_spare(None) {
                // Room in the barn, but no sheaf to go on with: the caller fetches one.
                lists.in_barn += u64::from(spare.len());
                lists.full_sheaves.push(spare);
                return Refill::NeedSheaf;
            }
        }
        self.release_all(surplus);
        Refill::Done
    }

    /// Misses are frequent: let the sheaves be longer.
    fn grow_limit(&self, cpu: &mut CpuSheaves<'_>) {
        cpu.set_limit((cpu.limit() * 2).clamp(1, self.tunables.max_limit));
    }

    /// The sheaves of a destroyed cache go back as soon as their CPU comes by.
    fn empty_if_dead(&self) {
        if self.is_dead() {
            self.cpus.with(|cpu| self.drain(cpu));
        }
    }

    /// Does what `shrink` on another CPU asked for.
    fn serve_request(&self, cpu: &mut CpuSheaves<'_>) {
        if cpu.take_request() {
            self.drain(cpu);
        }
    }

    /// Gives all objects and sheaves of a CPU back.
    pub(crate) fn drain(&self, cpu: &mut CpuSheaves<'_>) {
        let sheaves = [cpu.exchange(None), cpu.exchange_spare(None)];
        let mut surplus = SlabList::new();
        for mut sheaf in sheaves.into_iter().flatten() {
            {
                let mut lists = self.nodes[words::node_of(cpu.owner())].lock();
                self.empty_into(&mut lists, &mut sheaf, &mut surplus);
            }
            self.drop_sheaf(sheaf);
        }
        self.release_all(surplus);
    }

    /// Gives all objects and sheaves of a node's barn back.
    pub(crate) fn drain_barn(&self, node: usize) {
        loop {
            let mut surplus = SlabList::new();
            let sheaf = {
                let mut lists = self.nodes[node].lock();
                if let Some(mut full) = lists.full_sheaves.pop() {
                    lists.in_barn -= u64::from(full.len());
                    self.empty_into(&mut lists, &mut full, &mut surplus);
                    Some(full)
                } else {
                    lists.empty_sheaves.pop()
                }
            };
            self.release_all(surplus);
            match sheaf {
                Some(sheaf) => self.drop_sheaf(sheaf),
                None => return,
            }
        }
    }
}
