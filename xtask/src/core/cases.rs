//! The operations that are measured.

use crate::Core;
use vellum_system::{FaultInfo, FaultOutcome, FileRef, MmLayout, MmRef, MmapRequest};
use vellum_types::{Access, FileId, VirtAddr};

const PAGE: u64 = 4096;
const READ: u32 = 1;
const READ_WRITE: u32 = 3;
const SHARED: u32 = 1;
const PRIVATE: u32 = 2;
const ANONYMOUS: u32 = 0x20;

/// What an operation works on.
pub(crate) struct State {
    mm: MmRef<'static>,
    /// Of the region.
    base: u64,
    /// Kept alive: a parent.
    _other: Option<MmRef<'static>>,
}

/// One operation.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// How many are done in a round.
    pub(crate) count: u64,
    pub(crate) prepare: fn(&Core, u64) -> State,
    pub(crate) operate: fn(&Core, &State, u64),
}

/// All of them.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "write fault, fresh page",
        count: 8192,
        prepare: fresh,
        operate: write,
    },
    Case {
        name: "read fault, zero page",
        count: 8192,
        prepare: fresh,
        operate: read,
    },
    Case {
        name: "write after the zero page",
        count: 8192,
        prepare: zeros,
        operate: write,
    },
    Case {
        name: "copy on write, shared",
        count: 8192,
        prepare: forked,
        operate: write,
    },
    Case {
        name: "copy on write, sole owner",
        count: 8192,
        prepare: orphaned,
        operate: write,
    },
    Case {
        name: "file fault, per page of 16 around",
        count: 8192,
        prepare: file,
        operate: read_sixteenth,
    },
    Case {
        name: "write fault, among 1 area",
        count: 4096,
        prepare: among_one,
        operate: write_scattered,
    },
    Case {
        name: "write fault, among 20000 areas",
        count: 4096,
        prepare: among_many,
        operate: write_scattered,
    },
    Case {
        name: "mmap + munmap, 1 page, untouched",
        count: 4096,
        prepare: fresh,
        operate: map_unmap,
    },
    Case {
        name: "mmap + munmap, among 20000 areas",
        count: 4096,
        prepare: among_many,
        operate: map_unmap,
    },
    Case {
        name: "mmap + touch + munmap, 1 page",
        count: 4096,
        prepare: touched,
        operate: map_touch_unmap,
    },
    Case {
        name: "munmap of touched memory, per page",
        count: 8192,
        prepare: touched,
        operate: unmap_all,
    },
    Case {
        name: "mprotect, split and merge, pair",
        count: 4096,
        prepare: touched,
        operate: protect_pair,
    },
    Case {
        name: "fork + exit, per page",
        count: 8192,
        prepare: touched,
        operate: fork_exit,
    },
];

fn space(core: &Core) -> MmRef<'static> {
    let mm = core.mm_create().expect("memory");
    mm.set_layout(MmLayout::default());
    mm
}

fn anonymous(core: &Core, mm: &MmRef<'static>, pages: u64, prot: u32) -> u64 {
    let flags = PRIVATE | ANONYMOUS;
    let request = MmapRequest {
        addr: 0,
        len: pages * PAGE,
        prot,
        flags,
        file: None,
        offset: 0,
    };
    core.mmap(mm, request).expect("room")
}

fn touch(core: &Core, mm: &MmRef<'static>, addr: u64, access: Access) {
    let info = FaultInfo {
        addr: VirtAddr::new(addr),
        access,
        sp: None,
    };
    let outcome = core.fault(mm, info);
    assert!(
        matches!(outcome, FaultOutcome::Minor | FaultOutcome::Major),
        "{outcome:?}"
    );
}

fn with_region(core: &Core, count: u64, before: Option<Access>) -> State {
    let mm = space(core);
    let base = anonymous(core, &mm, count, READ_WRITE);
    if let Some(access) = before {
        (0..count).for_each(|i| touch(core, &mm, base + i * PAGE, access));
    }
    State {
        mm,
        base,
        _other: None,
    }
}

fn fresh(core: &Core, count: u64) -> State {
    with_region(core, count, None)
}

fn zeros(core: &Core, count: u64) -> State {
    with_region(core, count, Some(Access::Read))
}

fn touched(core: &Core, count: u64) -> State {
    with_region(core, count, Some(Access::Write))
}

/// A child whose parent still has all pages.
fn forked(core: &Core, count: u64) -> State {
    let parent = touched(core, count);
    let mm = core.mm_fork(&parent.mm).expect("memory");
    State {
        mm,
        base: parent.base,
        _other: Some(parent.mm),
    }
}

/// A child whose parent is gone.
fn orphaned(core: &Core, count: u64) -> State {
    let State {
        mm,
        base,
        _other: parent,
    } = forked(core, count);
    core.mm_put(parent.expect("the parent was kept"));
    State {
        mm,
        base,
        _other: None,
    }
}

/// A file that is in the page cache, mapped and not touched.
fn file(core: &Core, count: u64) -> State {
    let map = |mm: &MmRef<'static>| {
        let mapping = core.mapping(FileId(1)).expect("memory");
        let file = FileRef {
            mapping,
            readable: true,
            writable: false,
            exec_ok: true,
        };
        let len = count * PAGE;
        let request = MmapRequest {
            addr: 0,
            len,
            prot: READ,
            flags: SHARED,
            file: Some(file),
            offset: 0,
        };
        core.mmap(mm, request).expect("room")
    };
    let reader = space(core);
    let base = map(&reader);
    (0..count).for_each(|i| touch(core, &reader, base + i * PAGE, Access::Read));
    core.mm_put(reader);
    let mm = space(core);
    let base = map(&mm);
    State {
        mm,
        base,
        _other: None,
    }
}

/// Two pages for each of `areas`; neighbours differ in their permissions, so that none merge.
fn among(core: &Core, areas: u64) -> State {
    let mm = space(core);
    let base = anonymous(core, &mm, 2 * 20_000, READ_WRITE);
    let step = 20_000 / areas;
    for i in (0..20_000).filter(|i| areas > 1 && i % step == 0) {
        core.mprotect(&mm, base + (2 * i + 1) * PAGE, PAGE, READ)
            .expect("memory");
    }
    // Page tables stand, so that only the search differs.
    for i in (0..40_000).step_by(512) {
        touch(core, &mm, base + i * PAGE, Access::Read);
    }
    State {
        mm,
        base,
        _other: None,
    }
}

fn among_one(core: &Core, _count: u64) -> State {
    among(core, 1)
}

fn among_many(core: &Core, _count: u64) -> State {
    among(core, 10_000)
}

fn write(core: &Core, state: &State, i: u64) {
    touch(core, &state.mm, state.base + i * PAGE, Access::Write);
}

fn read(core: &Core, state: &State, i: u64) {
    touch(core, &state.mm, state.base + i * PAGE, Access::Read);
}

/// The sixteenth fault maps what it finds around itself.
fn read_sixteenth(core: &Core, state: &State, i: u64) {
    if i.is_multiple_of(16) {
        read(core, state, i);
    }
}

/// A page that is writable in both layouts, far from the one before: 7919 is prime to 20000.
fn write_scattered(core: &Core, state: &State, i: u64) {
    let page = 2 * (i * 7919 % 20_000);
    touch(core, &state.mm, state.base + page * PAGE, Access::Write);
}

fn map_unmap(core: &Core, state: &State, _i: u64) {
    let at = anonymous(core, &state.mm, 1, READ);
    core.munmap(&state.mm, at, PAGE).expect("it is mapped");
}

fn map_touch_unmap(core: &Core, state: &State, _i: u64) {
    let at = anonymous(core, &state.mm, 1, READ_WRITE);
    touch(core, &state.mm, at, Access::Write);
    core.munmap(&state.mm, at, PAGE).expect("it is mapped");
}

/// All of the region, once.
fn unmap_all(core: &Core, state: &State, i: u64) {
    if i == 0 {
        core.munmap(&state.mm, state.base, 8192 * PAGE)
            .expect("it is mapped");
    }
}

fn protect_pair(core: &Core, state: &State, i: u64) {
    let at = state.base + (i + 1) % 4000 * PAGE;
    core.mprotect(&state.mm, at, PAGE, READ).expect("memory");
    core.mprotect(&state.mm, at, PAGE, READ_WRITE)
        .expect("memory");
}

/// All of the region, once.
fn fork_exit(core: &Core, state: &State, i: u64) {
    if i == 0 {
        let child = core.mm_fork(&state.mm).expect("memory");
        core.mm_put(child);
    }
}
