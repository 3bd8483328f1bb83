//! Size classes of kmalloc.

/// Sizes of the classes, in bytes: powers of two, and 96 and 192 between them.
pub(crate) const SIZES: [u32; CLASSES] = [
    8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192,
];
pub(crate) const CLASSES: usize = 13;
/// The largest size that comes from a slab; above, whole pages.
pub(crate) const MAX_CLASS_BYTES: usize = 8192;

/// The class of each 8 bytes more. Linux has a table up to 192 bytes only, and counts bits above.
const CLASS_OF: &[u8; MAX_CLASS_BYTES / 8] = &table();

const fn table() -> [u8; MAX_CLASS_BYTES / 8] {
    let mut table = [0; MAX_CLASS_BYTES / 8];
    let (mut at, mut class) = (0, 0);
    while at < table.len() {
        while (SIZES[class] as usize) < (at + 1) * 8 {
            class += 1;
        }
        table[at] = class as u8;
        at += 1;
    }
    table
}

/// The class for `less_one + 1` bytes; `None` if that is more than [`MAX_CLASS_BYTES`].
#[inline(always)]
pub(crate) fn class_for(less_one: usize) -> Option<usize> {
    CLASS_OF.get(less_one / 8).map(|class| usize::from(*class))
}

/// How objects of a class are aligned, in bytes: as the size allows, up to a page.
pub(crate) const fn class_align(class: usize) -> usize {
    let natural = 1 << SIZES[class].trailing_zeros();
    if natural < 4096 { natural } else { 4096 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_smallest_that_fits() {
        for size in 1..=MAX_CLASS_BYTES {
            let class = class_for(size - 1).unwrap();
            assert!(SIZES[class] as usize >= size);
            assert!(class == 0 || (SIZES[class - 1] as usize) < size);
        }
        assert_eq!(class_for(MAX_CLASS_BYTES), None);
        // Nothing at all is one byte less than none.
        assert_eq!(class_for(usize::MAX), None);
    }
}
