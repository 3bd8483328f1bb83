//! The end of an address space. Linux: `exit_mmap`.

use crate::context::MmContext;
use crate::mm::Mm;
use vellum_machine::Machine;
use vellum_types::VirtAddr;

impl<'m, M: Machine> MmContext<'m, M> {
    /// Takes an address space apart: areas, pages, tables. Called once, by its last user; the value
    /// itself lives on until its last reference goes.
    pub fn exit_mmap(&self, mm: &Mm<'m>) {
        let mut inner = mm.lock();
        // One flush of everything replaces one for each range.
        self.machine.flush_tlb_mm(mm.space());
        self.machine.flush_wait(mm.space());
        let mut gather = self.gather(mm.space());
        while let Some(area) = inner.areas.first() {
            let range = area.range();
            self.zap(&mut inner, range, &mut gather);
            if let Some(area) = inner.areas.remove(range.start()) {
                gather.flush();
                self.area_gone(area.into_value());
            }
            let next = inner.areas.first().map(|area| area.start());
            // Under the last area all is gone, to the end of the last table.
            let ceiling = next.unwrap_or(VirtAddr::new(u64::MAX));
            inner.table.free_tables_below(range, ceiling, &mut gather);
        }
        inner.table.destroy(&mut gather);
        gather.flush();
        inner.locked_vm = 0;
        self.note_peak_rss(inner.hiwater_rss);
    }
}
