//! Several CPUs at once.

use crate::machine::{CPU, Random, TestMachine, layout};
use vellum_machine::PerCpuSlot;
use vellum_page::PageSource;
use vellum_page_table::{X86_64FourLevel, X86Pae};
use vellum_types::PAGE_SIZE;
use vellum_vmalloc::{KM_MAX, Kmap, KmapDepth, KmapLocal, KmapSlot};

const CPUS: u16 = 4;

#[test]
fn cpus_allocate_and_purge_at_once() {
    let machine = TestMachine::new(4096, 4096, CPUS);
    let mut vmalloc = machine.boot::<X86_64FourLevel>(layout::<X86_64FourLevel>(32 << 20, CPUS));
    vmalloc.set_lazy_max_pages(64);
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let vmalloc = &vmalloc;
            scope.spawn(move || {
                CPU.set(cpu);
                let mut random = Random(0x9e37 + u64::from(cpu));
                let mut mine = Vec::new();
                for step in 0..4000u64 {
                    if random.below(2) == 0 {
                        let pages = 1 + random.below(20);
                        if let Ok(at) = vmalloc.vmalloc(pages * PAGE_SIZE) {
                            let tag = step << 8 | u64::from(cpu);
                            let last = at + (pages * PAGE_SIZE - 8);
                            vmalloc.write(last, &tag.to_le_bytes()).unwrap();
                            mine.push((at, last, tag));
                        }
                    } else if !mine.is_empty() {
                        let index = random.below(mine.len() as u64) as usize;
                        let (at, last, tag) = mine.swap_remove(index);
                        let mut word = [0; 8];
                        vmalloc.read(last, &mut word).unwrap();
                        assert_eq!(u64::from_le_bytes(word), tag);
                        vmalloc.vfree(at).unwrap();
                    }
                }
                for (at, ..) in mine {
                    vmalloc.vfree(at).unwrap();
                }
            });
        }
    });
    assert_eq!(vmalloc.validate(), Ok(()));
    assert!(vmalloc.purges() > 10);
    assert_eq!(vmalloc.shutdown(), Ok(()));
    drop(vmalloc);
    assert_eq!((machine.used_pages(), machine.nodes.live()), (0, 0));
}

#[test]
fn who_needs_what_another_cpu_is_purging_waits_for_it() {
    let machine = TestMachine::new(1024, 1024, 2);
    let mut vmalloc = machine.boot::<X86_64FourLevel>(layout::<X86_64FourLevel>(32 << 20, 2));
    vmalloc.set_lazy_max_pages(1 << 20);
    let most = vmalloc.vmalloc(700 * PAGE_SIZE).unwrap();
    vmalloc.vfree(most).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    *machine.at_flush.lock().unwrap() = Some(Box::new(move || {
        tell.send(()).unwrap();
        // Long enough for the other to look for frames, which are all with this purge.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }));
    std::thread::scope(|scope| {
        let vmalloc = &vmalloc;
        scope.spawn(move || vmalloc.purge());
        told.recv().unwrap();
        CPU.set(1);
        let again = vmalloc
            .vmalloc(700 * PAGE_SIZE)
            .expect("after the other's purge");
        vmalloc.vfree(again).unwrap();
    });
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

#[test]
fn each_cpu_has_slots_of_its_own() {
    let machine = TestMachine::new(2048, 1024, CPUS);
    let mut vmalloc = machine.boot::<X86Pae>(layout::<X86Pae>(32 << 20, CPUS));
    let depths = Box::leak(Box::new([const { PerCpuSlot::new(KmapDepth::NONE) }; 4]));
    let local = KmapLocal::new(&vmalloc, depths).unwrap();
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let local = &local;
            scope.spawn(move || {
                CPU.set(cpu);
                let mut random = Random(0x1357 + u64::from(cpu));
                let frames = machine.frames(32);
                for round in 0..2000u64 {
                    let depth = 1 + random.below(u64::from(KM_MAX)) as usize;
                    let mut held = Vec::new();
                    for i in 0..depth {
                        let pfn = frames[(round as usize + i) % frames.len()];
                        assert!(machine.is_high(pfn));
                        let page = local.map(pfn).unwrap();
                        page.write(8, &[cpu as u8, i as u8]);
                        held.push(page);
                    }
                    assert_eq!(local.depth(), depth as u16);
                    while let Some(page) = held.pop() {
                        let mut bytes = [0; 2];
                        page.read(8, &mut bytes);
                        assert_eq!(bytes, [cpu as u8, held.len() as u8]);
                    }
                    assert_eq!(local.depth(), 0);
                }
                frames.iter().for_each(|pfn| machine.free_pages(*pfn));
            });
        }
    });
    assert_eq!(vmalloc.shutdown(), Ok(()));
}

#[test]
fn cpus_share_the_slots_of_kmap() {
    let machine = TestMachine::new(2048, 1024, CPUS);
    let mut vmalloc = machine.boot::<X86Pae>(layout::<X86Pae>(32 << 20, CPUS));
    let kmap = Kmap::new(&vmalloc, Box::leak(Box::new([KmapSlot::FREE; 40]))).unwrap();
    let frames = machine.frames(64);
    for (i, pfn) in frames.iter().enumerate() {
        kmap.kmap(*pfn).unwrap().write(0, &[i as u8]);
    }
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (kmap, frames) = (&kmap, &frames);
            scope.spawn(move || {
                CPU.set(cpu);
                let mut random = Random(0x2468 + u64::from(cpu));
                for _ in 0..5000 {
                    // At most 4 CPUs times 8: the 40 slots never run out.
                    let held: Vec<_> = (0..1 + random.below(8))
                        .map(|_| random.below(64) as usize)
                        .map(|i| (i, kmap.kmap(frames[i]).unwrap()))
                        .collect();
                    for (i, page) in &held {
                        let mut byte = [0];
                        page.read(0, &mut byte);
                        assert_eq!(usize::from(byte[0]), *i);
                    }
                }
            });
        }
    });
    assert_eq!(kmap.validate(), Ok(()));
    assert_eq!(kmap.used().0, 0);
    assert!(kmap.flushes() > 0);
    assert_eq!(vmalloc.shutdown(), Ok(()));
}
