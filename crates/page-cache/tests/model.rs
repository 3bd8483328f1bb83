//! Random operations against files that are plain vectors.

mod common;
mod world;

use world::World;

#[test]
fn agrees_with_a_plain_file() {
    let mut world = World::new(0x5eed_0006, 1024, false);
    for _ in 0..300_000 {
        world.step();
    }
    assert_eq!(world.finish(), 0, "memory was plenty");
}

#[test]
fn agrees_with_a_plain_file_in_little_memory() {
    let mut world = World::new(6, 60, false);
    for _ in 0..30_000 {
        world.step();
    }
    assert!(world.finish() > 0);
}

#[test]
fn survives_every_nth_allocation_failing() {
    for n in 1..=12 {
        let mut world = World::new(1000 + n, 300, true);
        world.rig.frames.fail_every(n);
        for _ in 0..3_000 {
            world.step();
        }
        assert!(world.finish() > 0);
    }
}

#[test]
fn survives_tree_nodes_running_out() {
    let mut world = World::new(4242, 300, true);
    for _ in 0..20_000 {
        let n = if world.rng.below(3) == 0 {
            i64::MAX
        } else {
            world.rng.below(3) as i64
        };
        world.rig.nodes.fail_after(n);
        world.step();
    }
    assert!(world.finish() > 0);
}
