//! Boxes and shared objects in slabs.

use crate::boot;
use core::ptr::NonNull;
use vellum_object::KArc;
use vellum_page::{PageSource, PageState};
use vellum_types::Pfn;

#[test]
fn handles_free_their_objects() {
    let (ram, _, slab) = boot(64);
    let own = ram.used_pages();
    let boxes = slab.typed_box::<[u64; 9]>("boxes").unwrap();
    let arcs = slab.typed_arc::<String>("arcs").unwrap();
    let names: Vec<&str> = slab.caches().map(|cache| cache.name()).collect();
    assert_eq!(names, ["arcs", "boxes", "kmem_cache"]);
    {
        let mut a = boxes.boxed([1; 9]).unwrap();
        a[3] = 4;
        let b = arcs.shared(String::from("shared")).unwrap();
        let c = KArc::clone(&b);
        assert_eq!((a[3], b.as_str(), c.len()), (4, "shared", 6));
        let inside = ram
            .ram()
            .phys_of(NonNull::from(&*a).cast())
            .expect("boxes lie in RAM");
        assert_eq!(
            ram.page(Pfn::containing(inside).unwrap()).state(),
            PageState::Slab
        );
        let info = slab.slabinfo().find(|info| info.name == "boxes").unwrap();
        assert_eq!(
            (info.active_objs, info.active_slabs, info.num_slabs),
            (1, 1, 1)
        );
        assert!(info.to_string().starts_with("boxes "));
    }
    assert!(
        slab.slabinfo()
            .all(|info| info.name == "kmem_cache" || info.active_objs == 0)
    );
    assert_eq!(slab.shrink(), 2);
    // The cache of caches has a slab now.
    let descriptors = slab.slabinfo().last().unwrap().pages_per_slab as usize;
    assert_eq!(ram.used_pages(), own + descriptors);
    assert_eq!(slab.shrink(), 0);
}
