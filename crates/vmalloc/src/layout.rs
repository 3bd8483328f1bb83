//! Where in the kernel half what lies.

use vellum_page_table::Format;
use vellum_types::{PAGE_SIZE, VirtAddr, VirtRange};

/// Slots of each CPU for [`crate::KmapLocal`]. Linux's `KM_MAX_IDX`.
pub const KM_MAX: u16 = 16;
/// Slots of the fixmap for a system's own use, below those of the CPUs.
pub const FIX_SLOTS: u16 = 16;

/// The windows of the kernel half, in canonical addresses.
///
/// ```text
///   x86-32, 896 MiB of low memory                    x86-64
///   0xc0000000  direct map of low memory             0xffff888000000000  direct map of all RAM
///   0xf8000000  8 MiB that nobody may touch
///   0xf8800000  vmalloc                              0xffffc90000000000  vmalloc
///   0xff800000  pkmap, 1024 (PAE: 512) pages                             (no pkmap: nothing is high)
///   0xffffefff  end of the fixmap, growing down      0xffffffffff7ff000  end of the fixmap
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelLayout {
    /// Where the kernel half begins: a boundary between two root entries.
    pub start: VirtAddr,
    /// Where physical address zero is seen. Linux's `PAGE_OFFSET`.
    pub direct_map: VirtAddr,
    /// For vmalloc and vmap.
    pub vmalloc: VirtRange,
    /// For kmap, if there is memory above the direct map.
    pub pkmap: Option<VirtRange>,
    /// For [`crate::Fixmap`] and [`crate::KmapLocal`].
    pub fixmap: VirtRange,
}

impl KernelLayout {
    /// The most bytes of low memory of a 32-bit kernel: 1 GiB less 128 MiB for the windows. Linux's
    /// `MAXMEM`.
    pub const LOWMEM_MAX: u64 = 896 << 20;

    /// That of a 32-bit kernel, 3 GiB for programs and 1 GiB for itself, with `lowmem` bytes in the
    /// direct map. Source: Linux's `arch/x86/include/asm/pgtable_32_areas.h`.
    ///
    /// # Panics
    /// If `lowmem` is more than [`KernelLayout::LOWMEM_MAX`], `nr_cpus` more than 64, or the format
    /// has more than 32 bits of address.
    pub fn x86_32<F: Format>(lowmem: u64, nr_cpus: u16) -> Self {
        const OFFSET: u64 = 0xc000_0000;
        const HOLE: u64 = 8 << 20;
        assert!(lowmem <= Self::LOWMEM_MAX, "too much for the direct map");
        assert!(F::VA_BITS == 32, "a 32-bit format");
        let fixmap = fixmap(0xffff_f000, nr_cpus);
        let pkmap_bytes = F::entries(0) * PAGE_SIZE;
        let pkmap = VirtAddr::new(fixmap.start().as_u64() - pkmap_bytes - PAGE_SIZE);
        let pkmap = range(pkmap.align_down(F::span(1)).as_u64(), pkmap_bytes);
        let start = (OFFSET + lowmem + HOLE) & !(HOLE - 1);
        let end = pkmap.start().as_u64() - 2 * PAGE_SIZE;
        Self {
            start: VirtAddr::new(OFFSET),
            direct_map: VirtAddr::new(OFFSET),
            vmalloc: range(start, end - start),
            pkmap: Some(pkmap),
            fixmap,
        }
    }

    /// That of a 64-bit kernel, which maps all of RAM directly, with `vmalloc_bytes` for vmalloc:
    /// Linux has 32 TiB, but each 512 GiB (with five levels, 256 TiB) cost a table at boot. Source:
    /// Linux's `Documentation/arch/x86/x86_64/mm.rst`.
    ///
    /// # Panics
    /// If `vmalloc_bytes` is 0, unaligned or more than 32 TiB, `nr_cpus` more than 64, or the format
    /// has fewer than 48 bits of address.
    pub fn x86_64<F: Format>(vmalloc_bytes: u64, nr_cpus: u16) -> Self {
        assert!(F::VA_BITS >= 48, "a 64-bit format");
        assert!(
            vmalloc_bytes <= 32 << 40 && vmalloc_bytes.is_multiple_of(PAGE_SIZE),
            "the window is too large"
        );
        let (direct_map, vmalloc) = if F::VA_BITS == 57 {
            (0xff11_0000_0000_0000, 0xffa0_0000_0000_0000)
        } else {
            (0xffff_8880_0000_0000, 0xffff_c900_0000_0000)
        };
        Self {
            start: F::canonical(VirtAddr::new(1 << (F::VA_BITS - 1))),
            direct_map: VirtAddr::new(direct_map),
            vmalloc: range(vmalloc, vmalloc_bytes),
            pkmap: None,
            fixmap: fixmap(0xffff_ffff_ff7f_f000, nr_cpus),
        }
    }
}

/// The slots of all CPUs and those for other uses, which end at `top`.
fn fixmap(top: u64, nr_cpus: u16) -> VirtRange {
    assert!(nr_cpus <= vellum_machine::MAX_CPUS, "too many CPUs");
    let slots = u64::from(FIX_SLOTS) + u64::from(nr_cpus) * u64::from(KM_MAX);
    range(top - slots * PAGE_SIZE, slots * PAGE_SIZE)
}

fn range(start: u64, len: u64) -> VirtRange {
    VirtRange::from_len(VirtAddr::new(start), len).expect("a window that is not empty")
}
