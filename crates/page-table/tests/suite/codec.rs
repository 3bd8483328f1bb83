//! Bits stand where the hardware wants them.

use vellum_page_table::{
    Format, LeafTable, Pte, PteFlags, X86_64FiveLevel, X86_64FourLevel, X86Pae, X86TwoLevel,
};
use vellum_types::{Pfn, VirtAddr};

#[test]
fn x86_bit_positions() {
    let pte = Pte::new(
        Pfn::new(0x12345),
        PteFlags::PRESENT | PteFlags::WRITE | PteFlags::USER,
    );
    assert_eq!(pte.raw(), 0x1234_5007);
    assert_eq!(pte.with(PteFlags::NX).raw(), 0x8000_0000_1234_5007);
    let flags = [
        (PteFlags::PWT, 3),
        (PteFlags::PCD, 4),
        (PteFlags::ACCESSED, 5),
        (PteFlags::DIRTY, 6),
        (PteFlags::HUGE, 7),
        (PteFlags::GLOBAL, 8),
        (PteFlags::SPECIAL, 9),
        (PteFlags::SOFT1, 10),
        (PteFlags::SOFT2, 11),
        (PteFlags::NX, 63),
    ];
    for (flag, bit) in flags {
        assert_eq!(flag.bits(), 1 << bit);
    }
}

fn round_trip<F: Format>(max_pfn: u32) {
    let mut pfns = vec![0, 1, max_pfn];
    pfns.extend((0..32).map(|bit| 1u32 << bit).filter(|pfn| *pfn <= max_pfn));
    for pfn in pfns {
        for bits in 0..1u64 << 13 {
            // Bit 12 of the loop stands for NX.
            let nx = PteFlags::from_bits_retain((bits >> 12 & 1) << 63);
            let flags = PteFlags::from_bits_truncate(bits & 0xfff) | nx;
            let kind = PteFlags::PRESENT | PteFlags::GLOBAL | PteFlags::SOFT1;
            if flags & kind == PteFlags::SOFT1 && flags != PteFlags::SOFT1 {
                // Such an entry is a swap entry, which has no other flags.
                continue;
            }
            let pte = Pte::new(Pfn::new(pfn), flags);
            assert_eq!((pte.pfn(), pte.flags()), (Pfn::new(pfn), flags));
            let stored = if F::HAS_NX {
                pte
            } else {
                pte.without(PteFlags::NX)
            };
            let raw = F::encode(pte);
            assert!(F::ENTRY_BYTES == 8 || raw <= u64::from(u32::MAX));
            assert_eq!(F::decode(raw), stored);
        }
    }
}

#[test]
fn entries_round_trip() {
    round_trip::<X86TwoLevel>((1 << 20) - 1);
    round_trip::<X86Pae>(u32::MAX - 1);
    round_trip::<X86_64FourLevel>(u32::MAX - 1);
    round_trip::<X86_64FiveLevel>(u32::MAX - 1);
}

#[test]
#[should_panic(expected = "frame too high")]
fn two_level_entries_hold_20_frame_bits() {
    X86TwoLevel::encode(Pte::new(Pfn::new(1 << 20), PteFlags::PRESENT));
}

fn shape<F: Format>() -> (Vec<u64>, u32) {
    let entries: Vec<u64> = (0..F::LEVELS).map(F::entries).collect();
    let bits = entries.iter().map(|n| n.trailing_zeros()).sum::<u32>() + 12;
    assert_eq!(bits, F::VA_BITS, "{}: index bits add up", F::NAME);
    assert!(entries.iter().all(|n| n * F::ENTRY_BYTES <= 4096));
    assert_eq!(LeafTable::<'static, F>::SPAN, F::span(1));
    let top = VirtAddr::new((1 << F::VA_BITS) - 1);
    assert!(F::translates(top) && !F::translates(VirtAddr::new(1 << F::VA_BITS)));
    assert!((0..F::LEVELS).all(|level| F::index(top, level) == F::entries(level) - 1));
    (entries, bits)
}

#[test]
fn shapes_are_the_manuals() {
    assert_eq!(shape::<X86TwoLevel>(), (vec![1024, 1024], 32));
    assert_eq!(shape::<X86Pae>(), (vec![512, 512, 4], 32));
    assert_eq!(shape::<X86_64FourLevel>(), (vec![512; 4], 48));
    assert_eq!(shape::<X86_64FiveLevel>(), (vec![512; 5], 57));
    assert_eq!(X86TwoLevel::span(1), 4 << 20);
    assert_eq!(X86Pae::span(1), 2 << 20);
    assert_eq!(X86_64FourLevel::span(2), 1 << 30);
    assert_eq!(X86Pae::link_flags(2), PteFlags::PRESENT);
}
