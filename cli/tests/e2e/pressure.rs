//! Programs whose working set is larger than the RAM they get.

use crate::case::{Test, bash};
use crate::list::scripted;

/// Blocks that are used again and again, in order and at random: three times the RAM.
fn blocks(name: &'static str, options: &'static str) -> Test {
    scripted(name, "python3", "blocks.py", "")
        .needs(&["python3"])
        .ram("24M")
        .options(options)
        .seconds(300)
}

/// Right answers under pressure, with each kind of swap and each policy.
pub(crate) fn programs() -> Vec<Test> {
    vec![
        blocks("swap_file", "--swap 256M"),
        blocks("swap_zram", "--swap zram:256M --policy mglru"),
        blocks("swap_linux24", "--swap 256M --policy linux24"),
        blocks("swap_two_areas", "--swap 8M@9 --swap zram:256M@2 --policy lru"),
        bash(
            "swap_shared_and_forked",
            "python3 -c '\
import mmap, os, hashlib
size = 24 << 20
shared = mmap.mmap(-1, size)
private = bytearray(os.urandom(1) * size)
for i in range(0, size, 4096):
    shared[i:i+4] = (i // 4096).to_bytes(4, \"big\")
    private[i:i+4] = (i // 4096).to_bytes(4, \"big\")
pid = os.fork()
if pid == 0:
    for i in range(0, size, 8192):
        shared[i+4:i+8] = b\"kid!\"
        private[i:i+4] = b\"mine\"
    os._exit(0)
os.waitpid(pid, 0)
h = hashlib.sha256()
for i in range(0, size, 4096):
    h.update(shared[i:i+8])
    h.update(private[i:i+4])
print(h.hexdigest())
'",
        )
        .needs(&["bash", "python3"])
        .ram("24M")
        .options("--swap 256M")
        .seconds(120),
        // Aging dropped translations of pages that the host was about to fill: EFAULT.
        scripted(
            "swap_blocked_read_keeps_its_buffer",
            "python3",
            "blocked_reader.py",
            "",
        )
        .needs(&["python3"])
        .ram("24M")
        .options("--swap zram:256M --policy mglru")
        .seconds(120),
        scripted("swap_redis_save", "bash", "redis_values.sh", "6000")
            .needs(&["bash", "python3", "redis-server", "redis-cli"])
            .ram("20M")
            .options("--swap zram:128M --policy mglru")
            .seconds(200),
        bash(
            "swap_sqlite_index",
            "sqlite3 big.db \"CREATE TABLE t(a, b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 \
             FROM n WHERE i < 60000) INSERT INTO t SELECT i * 7919 % 60013, hex(i * i) FROM n;\"; \
             sqlite3 big.db 'PRAGMA cache_size = -40000; CREATE INDEX x ON t(b, a); SELECT count(*), \
             sum(a), min(b), max(b) FROM t; SELECT a FROM t ORDER BY b LIMIT 5; PRAGMA integrity_check;'",
        )
        .needs(&["bash", "sqlite3"])
        .ram("16M")
        .options("--swap 128M")
        .seconds(120),
        bash(
            "swap_sort_and_xz",
            "seq 1 300000 | awk '{print ($1 * 7919) % 300007, $1}' > in; sort -S 30M -n in | sha256sum; \
             xz -2 -c in | xz -d | sha256sum",
        )
        .needs(&["bash", "xz"])
        .ram("24M")
        .options("--swap 128M")
        .seconds(200),
    ]
}

/// The same with more of everything.
pub(crate) fn long() -> Vec<Test> {
    vec![
        scripted(
            "swap_sort_200_megabytes",
            "python3",
            "../../../examples/sort_big.py",
            "200",
        )
        .needs(&["python3"])
        .ram("64M")
        .options("--swap 512M")
        .seconds(900)
        .long(),
        scripted("swap_redis_four_times_ram", "bash", "redis_values.sh", "40000")
            .needs(&["bash", "python3", "redis-server", "redis-cli"])
            .ram("24M")
            .options("--swap 512M")
            .seconds(900)
            .long(),
        bash(
            "swap_sqlite_index_four_times_ram",
            "sqlite3 big.db \"PRAGMA journal_mode = off; PRAGMA synchronous = off; CREATE TABLE t(a, b); \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000) INSERT \
             INTO t SELECT i * 7919 % 500009, printf('%032d', i * 104729 % 500009) FROM n;\"; \
             sqlite3 big.db \"PRAGMA cache_size = -200000; PRAGMA temp_store = memory; CREATE INDEX x ON \
             t(b, a); SELECT count(*), sum(a), min(b), max(b) FROM t; SELECT a FROM t ORDER BY b LIMIT 5; \
             PRAGMA integrity_check;\"",
        )
        .needs(&["bash", "sqlite3"])
        .ram("20M")
        .options("--swap 512M")
        .seconds(1200)
        .long(),
    ]
}
