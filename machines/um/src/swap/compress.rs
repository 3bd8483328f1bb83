//! The compressor of the machine.

use vellum_swap::{Compressor, Corrupt};

/// LZ4, in safe Rust.
#[derive(Debug)]
pub(crate) struct Lz4;

impl Compressor for Lz4 {
    fn name(&self) -> &str {
        "lz4"
    }

    fn compress(&self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        let len = lz4_flex::block::compress_into(page, out).ok()?;
        (len < page.len()).then_some(len)
    }

    fn decompress(&self, data: &[u8], page: &mut [u8]) -> Result<(), Corrupt> {
        match lz4_flex::block::decompress_into(data, page) {
            Ok(len) if len == page.len() => Ok(()),
            _ => Err(Corrupt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back_and_damage_is_seen() {
        let page: Vec<u8> = (0..4096u32).map(|i| (i / 7) as u8).collect();
        let mut out = vec![0; vellum_swap::COMPRESS_BUFFER];
        let len = Lz4.compress(&page, &mut out).expect("it repeats itself");
        let mut back = vec![0; 4096];
        assert_eq!(Lz4.decompress(&out[..len], &mut back), Ok(()));
        assert_eq!(back, page);
        assert_eq!(Lz4.decompress(&out[..len / 2], &mut back), Err(Corrupt));
    }

    #[test]
    fn noise_does_not_get_smaller() {
        let mut seed = 1u64;
        let noise: Vec<u8> = (0..4096)
            .map(|_| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(99);
                (seed >> 33) as u8
            })
            .collect();
        let mut out = vec![0; vellum_swap::COMPRESS_BUFFER];
        assert_eq!(Lz4.compress(&noise, &mut out), None);
    }
}
