//! What is measured, and the ratios that are aimed at.

/// What a run gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Seconds for the whole program.
    Seconds,
    /// Requests per second, of redis-benchmark against a server that runs as the case says.
    RequestsPerSecond,
}

/// A program to be measured.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The largest ratio to native that is aimed at.
    pub(super) goal: f64,
    pub(super) unit: Unit,
    /// The program and its arguments.
    pub(super) argv: &'static [&'static str],
    /// Programs that must be installed.
    pub(super) needs: &'static [&'static str],
}

const INSERTS: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT); BEGIN; \
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
    INSERT INTO t SELECT i, 'name ' || i FROM n; COMMIT;";

const AUTOCOMMITS: &str =
    "sqlite3 test.db 'CREATE TABLE t(i INTEGER)'; sqlite3 test.db < inserts.sql";

const LOOP: &str = "i = 0\nwhile i < 20000000: i += 1";

/// The cases, in the order of the table.
pub(super) fn all() -> Vec<Case> {
    let case = |name, goal, argv, needs| Case {
        name,
        goal,
        unit: Unit::Seconds,
        argv,
        needs,
    };
    vec![
        case(
            "python3 -c pass",
            4.3,
            &["python3", "-c", "pass"],
            &["python3"],
        ),
        case(
            "python3 import json, asyncio, http.client",
            2.5,
            &["python3", "-c", "import json, asyncio, http.client"],
            &["python3"],
        ),
        case(
            "sqlite3, 100k inserts in one transaction",
            1.7,
            &["sqlite3", "test.db", INSERTS],
            &["sqlite3"],
        ),
        case(
            "sqlite3, 2000 autocommits",
            4.5,
            &["sh", "-c", AUTOCOMMITS],
            &["sqlite3"],
        ),
        Case {
            name: "redis-benchmark SET, 20 clients",
            goal: 2.2,
            unit: Unit::RequestsPerSecond,
            argv: &["redis-server"],
            needs: &["redis-server", "redis-benchmark", "redis-cli"],
        },
        case(
            "python3, 64 MiB of 16 KiB bytearrays",
            4.8,
            &[
                "python3",
                "-c",
                "x = [bytearray(16384) for _ in range(4096)]",
            ],
            &["python3"],
        ),
        case(
            "bash, 20 × fork and exec of true",
            6.0,
            &["bash", "-c", "for i in {1..20}; do /bin/true; done"],
            &["bash"],
        ),
        case(
            "python3, a loop that only computes",
            1.05,
            &["python3", "-c", LOOP],
            &["python3"],
        ),
    ]
}
