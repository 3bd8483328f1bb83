//! Traces made up: the patterns that policies are known to stumble over.

use crate::trace::Trace;

/// A xorshift generator: the same numbers for the same seed.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// 20 passes over 1000 pages, each pass in the same order.
pub fn looping(seed: u64) -> Trace {
    let mut rng = Rng::new(seed);
    Trace::from_pages((0..20_000).map(|at| (at % 1000, rng.below(4) == 0)))
}

/// Random uses of 300 hot pages, and every now and then a scan over pages never seen again or, every
/// second time, over the same 700.
pub fn scan_hot(seed: u64) -> Trace {
    let mut rng = Rng::new(seed);
    let mut pages = Vec::new();
    let mut fresh = 2000;
    for round in 0..12 {
        for _ in 0..4000 {
            pages.push((rng.below(300), rng.below(4) == 0));
        }
        for at in 0..700 {
            let page = if round % 2 == 0 {
                1000 + at
            } else {
                fresh + at
            };
            pages.push((page, false));
            pages.push((rng.below(300), false));
        }
        if round % 2 == 1 {
            fresh += 700;
        }
    }
    Trace::from_pages(pages)
}

/// Independent uses of 2000 pages, the k-th most popular with a frequency in proportion to 1/k.
pub fn zipf(seed: u64) -> Trace {
    let mut rng = Rng::new(seed);
    let mut draw = zipf_of(2000);
    Trace::from_pages((0..60_000).map(|_| {
        let page = draw(&mut rng);
        (page, rng.below(4) == 0)
    }))
}

/// Phases: Zipf over a moving window, loops of several sizes, and scans.
pub fn mixed(seed: u64) -> Trace {
    let mut rng = Rng::new(seed);
    let mut draw = zipf_of(800);
    let mut pages = Vec::new();
    for phase in 0..8_u64 {
        for _ in 0..4000 {
            pages.push((phase * 100 + draw(&mut rng), rng.below(4) == 0));
        }
        for at in 0..3 * (200 + phase * 50) {
            pages.push((4000 + at % (200 + phase * 50), false));
            if at % 4 == 0 {
                pages.push((phase * 100 + draw(&mut rng), false));
            }
        }
        for at in 0..300 {
            pages.push((8000 + phase * 300 + at, true));
        }
    }
    Trace::from_pages(pages)
}

/// A heap of 800 pages by Zipf's law, and read()s: 250 popular pages of files among a stream of pages
/// that are read once.
pub fn file_scan(seed: u64) -> Trace {
    let mut rng = Rng::new(seed);
    let (mut heap, mut files) = (zipf_of(800), zipf_of(250));
    let mut uses = Vec::new();
    for at in 0..12_000 {
        for _ in 0..3 {
            uses.push((heap(&mut rng), rng.below(3) == 0, false));
        }
        uses.push((files(&mut rng), false, true));
        if at % 4 == 0 {
            uses.push((1000 + at / 4, false, true));
        }
    }
    Trace::from_uses(uses)
}

/// A database: read()s and write()s of 1500 pages by Zipf's law, beside a heap of 300 pages that is
/// gone through again and again, and 900 pages of it that were used at the start only.
pub fn database(seed: u64) -> Trace {
    let mut rng = Rng::new(seed);
    let mut files = zipf_of(1500);
    let mut uses: Vec<_> = (0..900).map(|at| (1000 + at, true, false)).collect();
    for at in 0..24_000 {
        uses.push((files(&mut rng), rng.below(8) == 0, true));
        uses.push((at % 300, at % 5 == 0, false));
    }
    Trace::from_uses(uses)
}

/// Two loops of 150 and 900 pages, the longer one every fifth time, and a third one over 400 pages from
/// the middle on.
pub fn nested_loops(seed: u64) -> Trace {
    let mut rng = Rng::new(seed);
    let mut pages = Vec::new();
    for round in 0..120 {
        pages.extend((0..150).map(|at| (at, rng.below(4) == 0)));
        if round % 5 == 0 {
            pages.extend((0..900).map(|at| (1000 + at, false)));
        }
        if round > 60 {
            pages.extend((0..400).map(|at| (3000 + at, at % 2 == 0)));
        }
    }
    Trace::from_pages(pages)
}

/// Zipf's law over 3000 pages whose popularity changes: every 500 uses the ranks move on by ten pages.
pub fn drift(seed: u64) -> Trace {
    let mut rng = Rng::new(seed);
    let mut draw = zipf_of(3000);
    Trace::from_pages((0..50_000).map(|at| {
        let page = (draw(&mut rng) + at / 500 * 10) % 3000;
        (page, rng.below(4) == 0)
    }))
}

/// Draws below `n` by Zipf's law, with the popular numbers spread over the range.
fn zipf_of(n: u64) -> impl FnMut(&mut Rng) -> u64 {
    let mut sums = Vec::new();
    let mut sum = 0.0;
    for k in 1..=n {
        sum += 1.0 / k as f64;
        sums.push(sum);
    }
    move |rng| {
        let x = rng.below(1 << 40) as f64 / (1_u64 << 40) as f64 * sum;
        let rank = sums.partition_point(|s| *s <= x) as u64;
        rank * 7919 % n
    }
}
