//! What is changed of areas that stay where they are: protection, advice, locks.

use super::{PROTS, Step, World};
use crate::model::{EINVAL, Outcome, PAGE};
use vellum_mm::MmError;

impl World<'_> {
    pub(super) fn protect(&mut self, pid: usize) -> Step {
        let range = self.some_range(pid);
        let prot = *self.rng.pick(&PROTS);
        self.note(format!("{pid} protect {range:x?} {prot}"));
        let (addr, len) = (range.start * PAGE, (range.end - range.start) * PAGE);
        let got = self
            .host
            .syscall(pid, |s, mm| s.mprotect(mm, addr, len, prot));
        let want = self.space(pid).protect(range, prot);
        Self::same(got, want)
    }

    pub(super) fn advise(&mut self, pid: usize) -> Step {
        let range = self.some_range(pid);
        let advice = *self
            .rng
            .pick(&[4, 4, 4, 8, 8, 10, 11, 18, 19, 0, 3, 20, 21]);
        self.note(format!("{pid} advise {range:x?} {advice}"));
        let (addr, len) = (range.start * PAGE, (range.end - range.start) * PAGE);
        let got = self
            .host
            .syscall(pid, |s, mm| s.madvise(mm, addr, len, advice));
        let want = self.space(pid).advise(range, |page| {
            match advice {
                4 if page.locked => return Err(EINVAL),
                4 => {
                    page.own = None;
                    page.may_vanish = false;
                }
                8 if page.locked || !page.is_private_anonymous() => return Err(EINVAL),
                8 => page.may_vanish = page.own.is_some(),
                10 => page.dont_fork = true,
                11 => page.dont_fork = false,
                18 if !page.is_private_anonymous() => return Err(EINVAL),
                18 => page.wipe_on_fork = true,
                20 | 21 if page.locked => return Err(EINVAL),
                19 => page.wipe_on_fork = false,
                _ => {}
            }
            Ok(())
        });
        Self::same(got, want)
    }

    fn locked_pages(&self) -> usize {
        let spaces = self.spaces.values();
        let pages = spaces.flat_map(|(space, _)| space.pages.values());
        pages.filter(|page| page.locked).count()
    }

    pub(super) fn lock(&mut self, pid: usize) -> Step {
        let range = self.some_range(pid);
        // Locking copies private pages of files, up to the first that cannot be had: not modelled.
        if range.clone().any(|n| {
            let page = self.space(pid).pages.get(&n);
            page.is_some_and(|p| !p.shared && !p.is_private_anonymous())
        }) {
            return Ok(());
        }
        let locked = self.locked_pages() + (range.end - range.start) as usize;
        let lock = locked <= self.scale.locked && self.rng.one_in(2);
        self.note(format!("{pid} lock {lock} {range:x?}"));
        let (addr, len) = (range.start * PAGE, (range.end - range.start) * PAGE);
        let got = self.host.syscall(pid, |s, mm| match lock {
            true => s.mlock(mm, addr, len),
            false => s.munlock(mm, addr, len),
        });
        let model = self.space(pid);
        for n in range.clone() {
            let Some(page) = model.pages.get_mut(&n) else {
                break;
            };
            page.locked = lock;
        }
        let whole = model.is_mapped(range.clone());
        let reachable = range
            .clone()
            .all(|n| !matches!(model.load(n, 0), Outcome::AccErr | Outcome::Bus));
        match got {
            Ok(()) if whole => Ok(()),
            // Pages that cannot be brought in make mlock fail after it has marked them.
            Err(MmError::NoMem) if !whole || (lock && !reachable) => Ok(()),
            other => Err(format!("{other:?}, all mapped: {whole}")),
        }
    }
}
