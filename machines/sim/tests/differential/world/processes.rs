//! fork and exit.

use super::{Step, World};

impl World<'_> {
    pub(super) fn fork(&mut self, pid: usize) -> Step {
        let Some(child) = (0..self.scale.processes).find(|slot| !self.spaces.contains_key(slot))
        else {
            return self.exit(pid);
        };
        self.note(format!("{pid} fork {child}"));
        self.host.fork(pid, child).map_err(|e| format!("{e:?}"))?;
        let (space, at) = &self.spaces[&pid];
        let copy = (space.fork(), *at);
        self.spaces.insert(child, copy);
        Ok(())
    }

    pub(super) fn exit(&mut self, pid: usize) -> Step {
        if self.spaces.len() == 1 && !self.rng.one_in(8) {
            return Ok(());
        }
        self.note(format!("{pid} exit"));
        self.host.exit(pid);
        self.spaces.remove(&pid);
        Ok(())
    }
}
