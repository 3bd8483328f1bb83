//! Size classes of kmalloc.

/// Sizes of the classes, in bytes: powers of two, and 96 and 192 between them.
pub(crate) const SIZES: [u32; CLASSES] = [
    8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192,
];
pub(crate) const CLASSES: usize = 13;
/// The largest size that comes from a slab; above, whole pages.
pub(crate) const MAX_CLASS_BYTES: usize = 8192;

/// Up to 192 bytes, the class of each 8 bytes more. Linux's `kmalloc_size_index`.
const SMALL: [u8; 25] = small();

const fn small() -> [u8; 25] {
    let mut table = [0; 25];
    let mut eighth = 1;
    while eighth < 25 {
        let mut class = 0;
        while SIZES[class] < eighth as u32 * 8 {
            class += 1;
        }
        table[eighth] = class as u8;
        eighth += 1;
    }
    table
}

/// The class for `size` bytes, 1 to [`MAX_CLASS_BYTES`].
#[inline(always)]
pub(crate) const fn class_for(size: usize) -> usize {
    if size <= 192 {
        SMALL[size.div_ceil(8)] as usize
    } else {
        // 193..=256 is class 7, and each further doubling the next one.
        (usize::BITS - (size - 1).leading_zeros()) as usize - 1
    }
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
            let class = class_for(size);
            assert!(SIZES[class] as usize >= size);
            assert!(class == 0 || (SIZES[class - 1] as usize) < size);
        }
    }
}
