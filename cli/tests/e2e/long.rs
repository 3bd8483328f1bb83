//! Programs that take minutes; run with `--all`.

use crate::case::Test;
use crate::list::{scripted, suite};

/// The long ones.
pub(crate) fn programs() -> Vec<Test> {
    vec![
        suite(
            "python_test_multiprocessing_fork",
            "test_multiprocessing_fork",
        )
        .long(),
        scripted("xz_100_megabytes", "bash", "xz.sh", "12000000")
            .needs(&["xz"])
            .ram("2G")
            .seconds(600)
            .long(),
        scripted("sort_100_megabytes", "bash", "sort.sh", "2600000")
            .ram("1G")
            .seconds(300)
            .long(),
        scripted("git_many_commits", "bash", "git.sh", "150")
            .needs(&["git"])
            .seconds(600)
            .long(),
        scripted("redis_many_requests", "bash", "redis.sh", "50000")
            .needs(&["redis-server", "redis-benchmark", "redis-cli"])
            .seconds(300)
            .long(),
    ]
}
