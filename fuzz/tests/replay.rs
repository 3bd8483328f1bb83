//! Every target on random inputs, and on those that were found and kept.

use std::fs;

fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(byte).collect()
}

#[test]
fn random_inputs() {
    for (name, run) in vellum_fuzz::TARGETS {
        run(&[]);
        for seed in 1..=100 {
            let len = 1 << (seed % 12);
            println!("{name}, seed {seed}");
            run(&random(seed, len));
        }
    }
}

#[test]
fn kept_inputs() {
    for (name, run) in vellum_fuzz::TARGETS {
        let folder = format!("{}/regressions/{name}", env!("CARGO_MANIFEST_DIR"));
        let Ok(files) = fs::read_dir(folder) else {
            continue;
        };
        for file in files {
            let path = file.expect("readable").path();
            println!("{}", path.display());
            run(&fs::read(path).expect("readable"));
        }
    }
}
