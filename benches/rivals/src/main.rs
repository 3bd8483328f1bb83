//! `rivals`: the core's allocators beside others, as tables.
//!
//! `rivals one NAME ALLOCATOR N` does one pattern on one thread and nothing else that grows with N,
//! for callgrind. `rivals held ALLOCATOR` prints how much a process grows by a history.

use rivals::clock::{Job, calibrated, once};
use rivals::frames::{Frames, Use};
use rivals::heaps::Heap;
use rivals::patterns::Pattern;
use rivals::waste;
use std::collections::HashMap;
use std::process::{Command, ExitCode};

/// Rounds of which the best counts. All allocators take part in each.
const ROUNDS: usize = 15;
/// N of the two runs whose instructions are compared.
const COUNTED: (u64, u64) = (3000, 9000);
/// How many objects live while the flatness of an allocator is looked at.
const AMONG: [usize; 4] = [1000, 10_000, 100_000, 1_000_000];

const USAGE: &str = "\
usage: rivals [heaps] [frames] [flat] [waste] [--wall]   tables, all without arguments
       rivals one PATTERN ALLOCATOR N                    one pattern, for callgrind
--wall leaves the instruction counts out";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["held", allocator] = words.as_slice() {
        let held = Heap::by_name(allocator)
            .and_then(|heap| waste::history(heap, 1 << 30, waste::STEPS))
            .map_or(0, |outcome| outcome.resident);
        println!("{held}");
        return ExitCode::SUCCESS;
    }
    if let ["one", pattern, allocator, n] = words.as_slice() {
        return one(pattern, allocator, n.parse().unwrap_or(0));
    }
    let known = ["heaps", "frames", "flat", "waste", "--wall"];
    if words.iter().any(|word| !known.contains(word)) {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let all = words.iter().all(|word| word.starts_with('-'));
    let wants = |name| all || words.contains(&name);
    let counter = Counter::new(words.contains(&"--wall"));
    if wants("heaps") {
        heaps(&counter);
    }
    if wants("frames") {
        frames(&counter);
    }
    if wants("flat") {
        flat(&counter);
    }
    if wants("waste") {
        wasted();
    }
    ExitCode::SUCCESS
}

fn one(pattern: &str, allocator: &str, n: u64) -> ExitCode {
    let frames = Frames::ALL.into_iter().find(|f| f.name() == allocator);
    let what = Use::ALL.into_iter().find(|what| what.name() == pattern);
    if let (Some(frames), Some(what)) = (frames, what) {
        println!("{:.1}", frames.once(what, n));
        return ExitCode::SUCCESS;
    }
    let (Some(pattern), Some(heap)) = (Pattern::by_name(pattern), Heap::by_name(allocator)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let job = Job {
        pattern,
        n,
        threads: 1,
    };
    println!("{:.1}", once(heap, job));
    ExitCode::SUCCESS
}

/// Counts instructions, if valgrind is there.
struct Counter {
    on: bool,
}

impl Counter {
    fn new(off: bool) -> Self {
        let found = !off && Command::new("valgrind").arg("--version").output().is_ok();
        if !found {
            eprintln!("no instruction counts: valgrind is not installed, or not wanted");
        }
        Self { on: found }
    }

    /// Instructions of one operation; `None` if that would take minutes.
    fn count(&self, pattern: &str, allocator: &str) -> Option<f64> {
        let (few, many) = COUNTED;
        let (few_cost, many_cost) = (
            self.run(pattern, allocator, few)?,
            self.run(pattern, allocator, many)?,
        );
        Some((many_cost - few_cost) / (many - few) as f64)
    }

    fn run(&self, pattern: &str, allocator: &str, n: u64) -> Option<f64> {
        if !self.on {
            return None;
        }
        let own = std::env::current_exe().ok()?;
        let output = Command::new("timeout")
            .args(["-k", "5", "120", "valgrind", "--tool=callgrind"])
            .arg("--callgrind-out-file=/dev/null")
            .arg(own)
            .args(["one", pattern, allocator, &n.to_string()])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr);
        text.lines()
            .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
    }
}

/// Times of all who take part, in turn, the best of the rounds.
fn race<T: Copy>(who: &[T], mut run: impl FnMut(T) -> f64) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; who.len()];
    for _ in 0..ROUNDS {
        for (slot, contestant) in best.iter_mut().zip(who) {
            *slot = slot.min(run(*contestant));
        }
    }
    best
}

fn cell(time: Option<f64>, own: f64, count: Option<f64>, own_count: Option<f64>) -> String {
    let Some(time) = time else {
        return "–".to_string();
    };
    let wall = format!("{:.2}", time / own);
    match (count, own_count) {
        (Some(count), Some(own)) => format!("{wall} · {:.2} ({count:.0})", count / own),
        _ => wall,
    }
}

fn heaps(counter: &Counter) {
    let columns = [
        (Pattern::Pair, 1),
        (Pattern::Pair, 2),
        (Pattern::Batch, 1),
        (Pattern::Batch, 2),
        (Pattern::Random, 1),
        (Pattern::Random, 2),
        (Pattern::Handover, 2),
    ];
    let mut cells: HashMap<(usize, Heap), (f64, Option<f64>)> = HashMap::new();
    for (column, (pattern, threads)) in columns.into_iter().enumerate() {
        let fit = |heap: &Heap| {
            (pattern.is_fixed() || !heap.is_fixed()) && (threads == 1 || !heap.is_single())
        };
        let who: Vec<Heap> = Heap::ALL.into_iter().filter(fit).collect();
        let often: HashMap<&str, u64> = who
            .iter()
            .map(|heap| (heap.name(), calibrated(pattern, threads, *heap)))
            .collect();
        let times = race(&who, |heap| {
            let n = often[heap.name()];
            once(
                heap,
                Job {
                    pattern,
                    n,
                    threads,
                },
            )
        });
        for (heap, time) in who.into_iter().zip(times) {
            let single = threads == 1;
            let count = single
                .then(|| counter.count(&pattern.name(), heap.name()))
                .flatten();
            cells.insert((column, heap), (time, count));
        }
    }
    println!("### Objects, kmalloc = 1.00\n");
    print!("| allocator |");
    for (pattern, threads) in columns {
        print!(" {}, {threads} |", pattern.name());
    }
    println!("\n|---|--:|--:|--:|--:|--:|--:|--:|");
    for heap in Heap::ALL {
        print!("| {} |", heap.name());
        for column in 0..columns.len() {
            let (own, own_count) = cells[&(column, Heap::Kmalloc)];
            let here = cells.get(&(column, heap));
            let text = cell(
                here.map(|here| here.0),
                own,
                here.and_then(|here| here.1),
                own_count,
            );
            print!(" {text} |");
        }
        println!();
    }
    print!("| kmalloc, ns |");
    for column in 0..columns.len() {
        print!(" {:.1} |", cells[&(column, Heap::Kmalloc)].0);
    }
    println!("\n");
}

fn frames(counter: &Counter) {
    let aim = |who: Frames, what: Use| ((3e6 / who.once(what, 2000)) as u64).clamp(1000, 400_000);
    let mut rows = Frames::ALL.map(|who| (who, Vec::new()));
    for what in Use::ALL {
        let often = Frames::ALL.map(|who| aim(who, what) / 1000 * 1000);
        let index = |who| Frames::ALL.iter().position(|f| *f == who).unwrap_or(0);
        let times = race(&Frames::ALL, |who| who.once(what, often[index(who)]));
        let counts = Frames::ALL.map(|who| counter.count(what.name(), who.name()));
        for (at, row) in rows.iter_mut().enumerate() {
            row.1
                .push(cell(Some(times[at]), times[0], counts[at], counts[0]));
        }
    }
    println!("### Frames, PageAllocator = 1.00\n");
    print!("| allocator |");
    for what in Use::ALL {
        print!(" {} |", what.name());
    }
    println!("\n|---|--:|--:|--:|--:|--:|");
    for (who, cells) in rows {
        println!("| {} | {} |", who.name(), cells.join(" | "));
    }
    println!();
}

fn flat(counter: &Counter) {
    println!("### One replacement among so many objects of 8 to 256 B\n");
    print!("| allocator |");
    for live in AMONG {
        print!(" {live} |");
    }
    println!(" growth |\n|---|--:|--:|--:|--:|--:|");
    let who = Heap::ALL.into_iter().filter(|heap| !heap.is_fixed());
    for heap in who {
        print!("| {} |", heap.name());
        let mut counts = Vec::new();
        for live in AMONG {
            let pattern = Pattern::Among(live);
            // In a process of its own: what lives at its end is not freed.
            let time = alone(&pattern.name(), heap);
            let count = counter.count(&pattern.name(), heap.name());
            counts.push(count.or(time));
            match (time, count) {
                (Some(time), Some(count)) => print!(" {time:.0} ns, {count:.0} |"),
                (Some(time), None) => print!(" {time:.0} ns |"),
                _ => print!(" over a minute |"),
            }
        }
        match (counts.first(), counts.last()) {
            (Some(Some(first)), Some(Some(last))) => println!(" {:.2} |", last / first),
            _ => println!(" – |"),
        }
    }
    println!();
}

fn alone(pattern: &str, heap: Heap) -> Option<f64> {
    let own = std::env::current_exe().ok()?;
    let run = |n: &str| -> Option<f64> {
        let output = Command::new("timeout")
            .args(["-k", "5", "60"])
            .arg(&own)
            .args(["one", pattern, heap.name(), n])
            .output()
            .ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    let slow = run("1000")?;
    let n = if slow > 10_000.0 { "1000" } else { "200000" };
    (0..3).filter_map(|_| run(n)).reduce(f64::min)
}

/// What a process of its own grows by.
fn grown(heap: Heap) -> Option<u64> {
    let own = std::env::current_exe().ok()?;
    let mut child = Command::new("timeout");
    child.args(["60"]).arg(own).args(["held", heap.name()]);
    let output = child.output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

fn wasted() {
    println!(
        "### Memory for {} live objects of 8 B to 8 KiB\n",
        waste::LIVE
    );
    println!(
        "| allocator | least memory, MiB | of it asked for | rounding within objects | pages taken, MiB \
         | resident, MiB |\n|---|--:|--:|--:|--:|--:|"
    );
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    for heap in Heap::ALL.into_iter().filter(|heap| !heap.is_fixed()) {
        // The list walks its holes for each: a shorter history.
        let steps = if heap == Heap::LinkedList {
            waste::STEPS / 10
        } else {
            waste::STEPS
        };
        let least = heap.is_bounded().then(|| waste::least(heap, steps));
        let bytes = least.unwrap_or(1 << 30);
        let Some(outcome) = waste::history(heap, bytes, steps) else {
            continue;
        };
        let resident = grown(heap).unwrap_or(outcome.resident);
        let held = least.map_or(resident, |bytes| bytes as u64);
        let rounding = outcome.rounded.map_or("–".to_string(), |rounded| {
            let lost = rounded.saturating_sub(outcome.live);
            format!("{:.1} %", 100.0 * lost as f64 / rounded as f64)
        });
        println!(
            "| {} | {} | {:.1} % | {rounding} | {} | {} |",
            heap.name(),
            least.map_or("–".to_string(), |bytes| mib(bytes as u64)),
            100.0 * outcome.requested as f64 / held as f64,
            outcome.pages.map_or("–".to_string(), mib),
            mib(resident),
        );
    }
    println!();
}
