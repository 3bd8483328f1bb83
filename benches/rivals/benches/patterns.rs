//! The patterns as criterion sees them: `cargo bench` in this folder. `rivals` prints the ratios.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rivals::clock::{Job, once};
use rivals::frames::{Frames, Use};
use rivals::heaps::Heap;
use rivals::patterns::Pattern;
use std::time::Duration;

fn objects(criterion: &mut Criterion) {
    let patterns = [
        Pattern::Pair,
        Pattern::Batch,
        Pattern::Random,
        Pattern::Handover,
    ];
    for (pattern, threads) in patterns.into_iter().flat_map(|p| [(p, 1), (p, 2)]) {
        if pattern == Pattern::Handover && threads == 1 {
            continue;
        }
        let mut group = criterion.benchmark_group(format!("{}/{threads}", pattern.name()));
        for heap in Heap::ALL {
            let fits = pattern.is_fixed() || !heap.is_fixed();
            if !fits || (heap.is_single() && threads > 1) {
                continue;
            }
            let id = BenchmarkId::from_parameter(heap.name());
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|n| {
                    let n = n.next_multiple_of(1000);
                    let job = Job {
                        pattern,
                        n,
                        threads,
                    };
                    Duration::from_nanos((once(heap, job) * n as f64) as u64)
                });
            });
        }
    }
}

fn frames(criterion: &mut Criterion) {
    for what in Use::ALL {
        let mut group = criterion.benchmark_group(what.name());
        for who in Frames::ALL {
            let id = BenchmarkId::from_parameter(who.name());
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|n| {
                    let n = n.next_multiple_of(1000);
                    Duration::from_nanos((who.once(what, n) * n as f64) as u64)
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = objects, frames
}
criterion_main!(benches);
