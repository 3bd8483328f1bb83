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
    assert_eq!(names, ["arcs", "boxes", "kmem_sheaf", "kmem_cache"]);
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
            .all(|info| info.name.starts_with("kmem_") || info.active_objs == 0)
    );
    let sheaves = slab
        .slabinfo()
        .find(|info| info.name == "kmem_sheaf")
        .unwrap();
    assert_eq!(slab.shrink(), 2 + u64::from(sheaves.pages_per_slab));
    assert_eq!(ram.used_pages(), own);
    assert_eq!(slab.shrink(), 0);
}
