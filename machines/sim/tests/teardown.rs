//! Page tables go with what they mapped.

use vellum_mm::MmapRequest;
use vellum_sim::{SimConfig, SimHost, SimMachine, SimStore};
use vellum_types::PAGE_SIZE;

#[test]
fn the_tables_of_the_topmost_area_go_with_munmap() {
    let machine = SimMachine::new(SimConfig::with_ram(16 << 20));
    let store = SimStore::new();
    let mut host = SimHost::boot(&machine, &store, 1).expect("a boot");
    let pid = host.spawn().expect("a process");
    let map = |host: &mut SimHost<'_>, addr| {
        let request = MmapRequest {
            addr,
            len: PAGE_SIZE,
            prot: 3,
            flags: 0x32,
            file: None,
            offset: 0,
        };
        assert_eq!(host.mmap(pid, request), Ok(addr));
        host.write(pid, addr, &[1]).expect("a write");
    };
    let top = host.mm(pid).layout().task_size - PAGE_SIZE;
    // Upper tables stay for the sake of this one.
    map(&mut host, top - (3 << 30));
    let before = host.mm(pid).stats().pgtables_bytes;
    map(&mut host, top);
    assert_eq!(host.mm(pid).stats().pgtables_bytes, before + 2 * PAGE_SIZE);
    host.syscall(pid, |s, mm| s.munmap(mm, top, PAGE_SIZE))
        .expect("munmap");
    assert_eq!(host.mm(pid).stats().pgtables_bytes, before);
    host.exit(pid);
    host.shutdown().expect("a clean end");
}
