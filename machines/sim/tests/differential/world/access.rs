//! Loads, stores and instruction fetches, and what they must find.

use super::{Step, World};
use crate::model::{CELLS, Outcome, PAGE, Page, WRITE};
use vellum_sim::Trouble;

impl World<'_> {
    /// What the core's answer to an access means in the model's words.
    pub(super) fn outcome(result: Result<u64, Trouble>) -> Result<Outcome, String> {
        Ok(match result {
            Ok(value) => Outcome::Value(value),
            Err(Trouble::Signal {
                number: 11,
                code: 1,
                ..
            }) => Outcome::MapErr,
            Err(Trouble::Signal {
                number: 11,
                code: 2,
                ..
            }) => Outcome::AccErr,
            Err(Trouble::Signal { number: 7, .. }) => Outcome::Bus,
            Err(other) => return Err(format!("{other:?}")),
        })
    }

    pub(super) fn load(&mut self, pid: usize, page: u64, cell: usize) -> Result<Outcome, String> {
        let mut bytes = [0; 8];
        let result = self.host.read(pid, page * PAGE + CELLS[cell], &mut bytes);
        Self::outcome(result.map(|()| u64::from_ne_bytes(bytes)))
    }

    pub(super) fn compare_cell(&mut self, pid: usize, page: u64, cell: usize) -> Step {
        let got = self.load(pid, page, cell)?;
        let want = self.space(pid).load(page, cell);
        if got == want {
            return Ok(());
        }
        let vanished = got == Outcome::Value(0);
        if let Some(model) = self.space(pid).pages.get_mut(&page)
            && model.may_vanish
            && vanished
        {
            model.own = None;
            return Ok(());
        }
        Err(format!(
            "process {pid} page {page:#x} cell {cell}: core {got:x?}, model {want:x?}"
        ))
    }

    /// Loads from each page of a range, or stores to each.
    pub(super) fn sweep(&mut self, pid: usize) -> Step {
        let start = self.some_page(pid);
        let store = self.rng.one_in(2);
        for page in start..start + self.scale.longest {
            match store {
                true => self.store_to(pid, page)?,
                false => self.load_from(pid, page)?,
            }
        }
        Ok(())
    }

    pub(super) fn access_read(&mut self, pid: usize) -> Step {
        let page = self.some_page(pid);
        self.load_from(pid, page)
    }

    fn load_from(&mut self, pid: usize, page: u64) -> Step {
        let cell = self.rng.below(4) as usize;
        self.note(format!("{pid} read {page:#x}.{cell}"));
        self.compare_cell(pid, page, cell)
    }

    pub(super) fn access_write(&mut self, pid: usize) -> Step {
        let page = self.some_page(pid);
        self.store_to(pid, page)
    }

    fn store_to(&mut self, pid: usize, page: u64) -> Step {
        let cell = self.rng.below(4) as usize;
        if !self.space(pid).may_store(page, cell) {
            return Ok(());
        }
        let value = self.stamp();
        self.note(format!("{pid} write {page:#x}.{cell} {value:x}"));
        let bytes = value.to_ne_bytes();
        let result = self.host.write(pid, page * PAGE + CELLS[cell], &bytes);
        let got = Self::outcome(result.map(|()| value))?;
        let before = self.space(pid).pages.get(&page).cloned();
        let want = self.space(pid).store(page, cell, value);
        if got != want {
            return Err(format!(
                "core {got:x?}, model {want:x?}, where was {before:x?}"
            ));
        }
        self.settle(pid, page)
    }

    /// After a write to a page that might have vanished, finds out whether it had.
    pub(super) fn settle(&mut self, pid: usize, page: u64) -> Step {
        if self
            .space(pid)
            .pages
            .get(&page)
            .is_some_and(|p| p.may_vanish && p.prot & WRITE != 0)
        {
            for cell in 0..4 {
                if let Outcome::Value(0) = self.load(pid, page, cell)?
                    && let Some(Page { own: Some(own), .. }) = self.space(pid).pages.get_mut(&page)
                {
                    own[cell] = 0;
                }
                self.compare_cell(pid, page, cell)?;
            }
            if let Some(model) = self.space(pid).pages.get_mut(&page) {
                model.may_vanish = false;
            }
        }
        Ok(())
    }

    pub(super) fn access_exec(&mut self, pid: usize) -> Step {
        let page = self.some_page(pid);
        self.note(format!("{pid} exec {page:#x}"));
        let result = self.host.exec(pid, page * PAGE);
        let got = Self::outcome(result.map(|()| 0))?;
        let want = match self.space(pid).exec(page) {
            Outcome::Value(_) => Outcome::Value(0),
            other => other,
        };
        if got == want {
            Ok(())
        } else {
            Err(format!("core {got:x?}, model {want:x?}"))
        }
    }

    pub(super) fn compare_all(&mut self) -> Step {
        if !self.rng.one_in(10) {
            return Ok(());
        }
        self.note("compare all".into());
        let pids: Vec<usize> = self.spaces.keys().copied().collect();
        for pid in pids {
            let pages: Vec<u64> = self.spaces[&pid].0.pages.keys().copied().collect();
            for page in pages {
                let cell = self.rng.below(4) as usize;
                self.compare_cell(pid, page, cell)?;
            }
        }
        Ok(())
    }
}
