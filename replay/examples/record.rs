//! Records the traces of replay/traces anew: runs programs under `valgrind --tool=lackey` and keeps
//! which pages they use in which order. Arguments select by name; without any, all are recorded.
//! Needs valgrind, gcc, sqlite3, python3, perl, git, xz, awk and bash.
//!
//! The inputs are made here and in replay/programs, always the same. Library versions and the
//! environment change the traces a little.

use std::fmt::Write as _;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use vellum_replay::generate::Rng;
use vellum_replay::{Recorder, Trace};

/// While a program runs, uses of so many latest pages are left out, but a page is recorded again after
/// so many others: see [`Recorder::filtered`].
const AT_ONCE: (usize, u64) = (32, 8);
/// What is then left out, as parts of the trace's pages: half of the smallest memory that the figures
/// replay with, and a sixteenth of it.
const AFTERWARDS: (u32, u32) = (8, 64);

/// Of longer traces the beginning is kept.
const MOST: usize = 200_000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Name, how to prepare, and the command, in a shell; `$P` is the folder of the programs.
const PROGRAMS: [(&str, &str, &str); 9] = [
    (
        "gcc",
        "",
        "$(gcc -print-prog-name=cc1) -quiet -O1 many.c -o many.s",
    ),
    (
        "sqlite3",
        "rm -f db",
        "$(which sqlite3) db \".read $P/index.sql\"",
    ),
    (
        "python3",
        "",
        "$(python3 -c 'import sys; print(sys.executable)') -S -E $P/dict.py",
    ),
    ("sort", "", "$(which sort) -S 1M --parallel=1 lines"),
    ("perl", "", "$(which perl) $P/words.pl <text"),
    ("bash", "", "$(which bash) --norc $P/tables.sh"),
    (
        "git",
        "rm -rf repo && git init -q repo && cd repo && for n in 1 2 3; do \
         for f in $(seq 30); do sed -n \"$((f * n)),$((f * n + 150))p\" ../text >$f; done; \
         git add . && git -c user.name=n -c user.email=e commit -qm $n; done",
        "$(which git) -C repo pack-objects --all --threads=1 --stdout </dev/null",
    ),
    (
        "xz",
        "head -c 200000 text >part",
        "$(which xz) -1 -T1 -c part",
    ),
    ("awk", "", "$(which mawk || which awk) -f $P/join.awk text"),
];

fn main() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::temp_dir().join(format!("vellum-record-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("many.c"), functions(8))?;
    std::fs::write(folder.join("lines"), lines(9_000))?;
    std::fs::write(folder.join("text"), text(2500))?;
    for (name, prepare, command) in PROGRAMS {
        if !asked.is_empty() && !asked.iter().any(|asked| asked == name) {
            continue;
        }
        let trace = record(&folder, &here.join("programs"), prepare, command)?;
        let packed = trace.pack();
        let (pages, uses) = (trace.pages, trace.references.len());
        println!(
            "{name}: {uses} uses of {pages} pages, {} bytes",
            packed.len()
        );
        std::fs::write(here.join("traces").join(name).with_extension("vpt"), packed)?;
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn record(folder: &Path, programs: &Path, prepare: &str, command: &str) -> Result<Trace> {
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(folder);
        shell.env("P", programs).env("LC_ALL", "C");
        shell
    };
    if !shell(prepare).status()?.success() {
        return Err(format!("{prepare}: failed").into());
    }
    // Lackey's lines go to the pipe, the program's own output nowhere.
    let lackey = "valgrind --tool=lackey --trace-mem=yes --log-fd=9";
    let mut child = shell(&format!("exec 9>&1 >/dev/null; exec {lackey} {command}"))
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()?;
    let output = child.stdout.take().ok_or("no pipe")?;
    let trace = Trace::read(
        BufReader::with_capacity(1 << 20, output),
        Recorder::filtered(AT_ONCE.0, AT_ONCE.1),
    )?;
    if !child.wait()?.success() {
        return Err(format!("{command}: failed").into());
    }
    let (depth, refresh) = AFTERWARDS;
    let depth = (trace.pages / depth) as usize;
    let trace = trace.filtered(depth, u64::from(trace.pages / refresh));
    Ok(trace.first(MOST))
}

/// A C file with loops, switches and arrays.
fn functions(n: u64) -> String {
    let mut rng = Rng::new(1);
    let mut out = String::from("struct pair { long a, b; };\n");
    for f in 0..n {
        let (a, b, c) = (rng.below(90) + 3, rng.below(900) + 7, rng.below(9) + 2);
        let _ = write!(
            out,
            "long f{f}(long x, struct pair *p, int n) {{\n  long t[{a}], s = x;\n  \
             for (int i = 0; i < n; i++) {{\n    t[i % {a}] = p[i].a * {b} + p[i].b / {c};\n    \
             switch (p[i].a % {c}) {{\n    case 0: s += t[i % {a}]; break;\n    case 1: s ^= p[i].b << {c}; \
             break;\n    default: if (s > {b}) s -= t[(i + {c}) % {a}]; else s *= {c}; }}\n  }}\n  "
        );
        if f > 0 {
            let _ = write!(out, "s += f{}(s, p, n / 2);\n  ", rng.below(f));
        }
        out.push_str("return s;\n}\n");
    }
    out
}

/// Lines in no order.
fn lines(n: u64) -> String {
    let mut rng = Rng::new(2);
    let line = |_| format!("{:08x} {:012}\n", rng.below(1 << 32), rng.below(1 << 40));
    (0..n).map(line).collect()
}

/// Lines of words, a few of which are frequent.
fn text(n: u64) -> String {
    let mut rng = Rng::new(3);
    let mut out = String::new();
    for _ in 0..n {
        for _ in 0..8 {
            let most = 1 + rng.below(9000);
            let _ = write!(out, "w{} ", rng.below(most));
        }
        out.push('\n');
    }
    out
}
