//! LZ4 blocks for pages in swap. The encoder is our own because a kernel that has run out of memory
//! cannot take any to compress: its table of places is the caller's.
//!
//! Source: the LZ4 block format description, <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>.

/// The shortest match.
const MIN_MATCH: usize = 4;
/// The last match starts at least so many bytes before the end.
const MATCH_LIMIT: usize = 12;
/// So many bytes at the end are literals.
const LAST_LITERALS: usize = 5;
const TABLE_BITS: u32 = 11;
/// Positions are 16 bits, and one is none.
const LONGEST: usize = u16::MAX as usize - 1;

/// Where four bytes were last seen: what [`compress`] works with, 4 KiB.
pub struct Table([u16; 1 << TABLE_BITS]);

impl Table {
    /// One to be used as often as wanted.
    pub const fn new() -> Self {
        Self([0; 1 << TABLE_BITS])
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

struct Output<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl Output<'_> {
    fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.len)? = byte;
        self.len += 1;
        Some(())
    }

    fn push_all(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.bytes.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    /// What does not fit into four bits.
    fn push_rest(&mut self, length: usize) -> Option<()> {
        let Some(mut rest) = length.checked_sub(15) else {
            return Some(());
        };
        while rest >= 255 {
            self.push(255)?;
            rest -= 255;
        }
        self.push(rest as u8)
    }

    /// Literals, and `distance` back `length` bytes to repeat; none at the end of a block.
    fn sequence(&mut self, literals: &[u8], repeat: Option<(u16, usize)>) -> Option<()> {
        let more = repeat.map_or(0, |(_, length)| length - MIN_MATCH);
        self.push((literals.len().min(15) << 4 | more.min(15)) as u8)?;
        self.push_rest(literals.len())?;
        self.push_all(literals)?;
        if let Some((distance, _)) = repeat {
            self.push_all(&distance.to_le_bytes())?;
            self.push_rest(more)?;
        }
        Some(())
    }
}

fn word(input: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&input[at..at + 4]);
    u32::from_le_bytes(bytes)
}

/// Compresses `input`, of less than 64 KiB, into `out`; returns the bytes it took. `None` if it gets no
/// smaller or does not fit.
pub fn compress(input: &[u8], out: &mut [u8], table: &mut Table) -> Option<usize> {
    if input.len() > LONGEST {
        return None;
    }
    table.0.fill(0);
    let mut out = Output { bytes: out, len: 0 };
    let (mut at, mut done) = (0, 0);
    while at + MATCH_LIMIT <= input.len() {
        let here = word(input, at);
        // Fibonacci hashing.
        let slot = &mut table.0[(here.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)) as usize];
        let seen = usize::from(core::mem::replace(slot, at as u16 + 1)).checked_sub(1);
        let Some(seen) = seen.filter(|&seen| word(input, seen) == here) else {
            // The longer nothing repeats, the fewer places are looked at.
            at += 1 + ((at - done) >> 6);
            continue;
        };
        let ahead = &input[at + MIN_MATCH..input.len() - LAST_LITERALS];
        let same = input[seen + MIN_MATCH..].iter().zip(ahead);
        let length = MIN_MATCH + same.take_while(|(old, new)| old == new).count();
        out.sequence(&input[done..at], Some(((at - seen) as u16, length)))?;
        at += length;
        done = at;
    }
    out.sequence(&input[done..], None)?;
    (out.len < input.len()).then_some(out.len)
}

/// Undoes [`compress`]: true if `data` was a block of just as many bytes as `page` has.
pub fn decompress(data: &[u8], page: &mut [u8]) -> bool {
    lz4_flex::block::decompress_into(data, page).is_ok_and(|len| len == page.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// Bytes with repetitions of all lengths: `kinds` values, copied from before now and then.
    fn bytes(len: usize, kinds: u64, state: &mut u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 1024);
        while bytes.len() < len {
            let old = bytes.len() as u64;
            if old > 8 && random(state).is_multiple_of(4) {
                let from = (random(state) % old) as usize;
                for i in from..from + (random(state) % 600) as usize {
                    bytes.push(bytes[i]);
                }
            } else {
                bytes.push((random(state) % kinds) as u8);
            }
        }
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn an_independent_decoder_reads_what_was_written() {
        let (mut table, mut state) = (Table::new(), 0x1234_5678);
        let mut smaller = 0;
        for round in 0..4000_usize {
            let len = if round.is_multiple_of(3) { round } else { 4096 };
            let page = bytes(len, 1 << (round % 9), &mut state);
            let mut out = vec![0xaa; 5120];
            let Some(took) = compress(&page, &mut out, &mut table) else {
                continue;
            };
            assert!(took < page.len());
            smaller += 1;
            let mut back = vec![0x55; len];
            assert!(decompress(&out[..took], &mut back), "round {round}");
            assert!(back == page, "round {round}");
            if took > 1 {
                assert!(!decompress(&out[..took], &mut back[..len - 1]));
            }
        }
        assert!(smaller > 3000, "{smaller}");
    }

    #[test]
    fn noise_and_small_buffers_are_refused() {
        let (mut table, mut state) = (Table::new(), 99);
        let noise: Vec<u8> = (0..4096).map(|_| random(&mut state) as u8).collect();
        assert_eq!(compress(&noise, &mut [0; 5120], &mut table), None);
        assert_eq!(compress(&[7; 4096], &mut [0; 8], &mut table), None);
        assert_eq!(compress(&[7; 70_000], &mut [0; 5120], &mut table), None);
        assert!(compress(&[7; 4096], &mut [0; 5120], &mut table).is_some_and(|len| len < 40));
    }
}
