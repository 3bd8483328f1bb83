//! The command line.

use crate::{size, swap_arg};
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use vellum_machine::TraceEvent;
use vellum_reclaim::PolicyKind;
use vellum_um::SwapSpec;

const RUN_EXAMPLES: &str = "\
Examples:
  vellum run --ram 128M -- python3 -c 'print(sum(range(10**6)))'
        Python on a machine of 128 MiB. Its output is on stdout, the memory report on stderr.

  vellum run --ram 64M --report json --report-file report.json -- sqlite3 app.db .dump
        The report as one JSON object in a file; stderr belongs to the program alone.

  vellum run --ram 64M --swap 512M --policy mglru -- python3 sort_big.py
        A working set larger than RAM: what is not used goes to a temporary swap file.

  vellum run --report none -- bash -c 'sort big.txt | uniq -c | sort -rn | head'
        A pipeline: every process of it lives on the same machine.

  vellum run --trace page_fault_user,mm_page_alloc --trace-file t.jsonl -- /bin/true
        Each page fault and each frame taken, one JSON object per line.

Exit status:
  the program's own, or 128+N if signal N killed it (137: SIGKILL, as by the OOM killer)
  127 no such program   126 it cannot be executed
  125 the machine could not be started   2 a mistake in the arguments";

const SWAP_HELP: &str = "\
A swap area; may be given several times:
  SIZE               a temporary file of that size, gone with the machine
  file:PATH          a file or device with a swap header (mkswap)
  file:PATH:SIZE     the same, made so large and given a header
  zram:SIZE          so many bytes of pages, compressed, in the machine's own RAM
each perhaps with @PRIORITY (0 to 32767): higher ones are filled first, equal ones in turn.";

/// Run unmodified Linux programs on a virtual-memory system in user space.
///
/// Every page fault, every mmap and every page frame of the program is served by Vellum, on a
/// machine whose RAM has the size you choose. No root, no virtual machine, no set-up.
#[derive(Debug, Parser)]
#[command(name = "vellum", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program and report what the memory system did.
    Run(RunArgs),
    /// Replay a trace of page references under the reclaim policies, beside Bélády's optimum.
    Replay(ReplayArgs),
}

const REPLAY_EXAMPLES: &str = "\
Examples:
  valgrind --tool=lackey --trace-mem=yes --log-file=sort.trace sort big.txt > sorted.txt
  vellum replay sort.trace --ram 4M --policy mglru --policy lru
        Faults, refaults and writes of two policies on a machine of 1024 pages.

  vellum replay sort.trace --compare --svg curve.svg
        All policies at eight sizes of memory, and the miss-ratio curve as a picture.

Formats, told apart line by line:
  lackey's  I  04000d2b,3    L 1ffeffe7e0,8    S …    M …
  plain     R 7f001000       W 0x7f002000
  ours      the JSON lines of `vellum run --trace page_fault_user`
  or a packed trace of this project's repository";

#[derive(Debug, Args)]
#[command(after_help = REPLAY_EXAMPLES)]
pub(crate) struct ReplayArgs {
    /// The trace; `-` is standard input.
    #[arg(value_name = "TRACE")]
    pub(crate) trace: PathBuf,

    /// Memory, rounded down to whole pages; half of the trace's pages if not given.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) ram: Option<u64>,

    /// A policy to replay under: two-list, linux24, mglru or lru; may be repeated. All if not given.
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Vec<PolicyKind>,

    /// Compare at eight sizes of memory instead of one.
    #[arg(long, conflicts_with = "ram")]
    pub(crate) compare: bool,

    /// Where to draw the miss-ratio curve.
    #[arg(long, value_name = "PATH", requires = "compare")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// RAM of the machine: 64M, 1G, 65536K, or a number of bytes; rounded down to whole pages.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size::parse)]
    pub(crate) ram: u64,

    /// A swap area; may be given several times.
    #[arg(long, value_name = "AREA", value_parser = swap_arg::parse, long_help = SWAP_HELP)]
    pub(crate) swap: Vec<SwapSpec>,

    /// Which page goes when memory runs short: two-list, linux24, mglru or lru.
    #[arg(long, value_name = "POLICY", default_value_t = PolicyKind::TwoList)]
    pub(crate) policy: PolicyKind,

    /// How much rather to swap than to drop file pages, Linux's vm.swappiness.
    #[arg(long, value_name = "0..200", default_value_t = 60, value_parser = clap::value_parser!(u8).range(0..=200))]
    pub(crate) swappiness: u8,

    /// Nodes of the machine, 1 to 8: its RAM is split over them evenly.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(crate) nodes: u8,

    /// What to say about the memory system after the program has ended.
    #[arg(long, value_enum, value_name = "FORM", default_value_t = ReportForm::Human)]
    pub(crate) report: ReportForm,

    /// Where to say it, instead of standard error.
    #[arg(long, value_name = "PATH")]
    pub(crate) report_file: Option<PathBuf>,

    /// Events to record, separated by commas, or `all`.
    #[arg(
        long,
        value_name = "EVENTS",
        value_delimiter = ',',
        requires = "trace_file",
        value_parser = PossibleValuesParser::new(event_names()),
        hide_possible_values = true,
        long_help = trace_help(),
    )]
    pub(crate) trace: Vec<String>,

    /// Where to record them: one JSON object per line.
    #[arg(long, value_name = "PATH", requires = "trace")]
    pub(crate) trace_file: Option<PathBuf>,

    /// The program and its arguments.
    #[arg(required = true, last = true, num_args = 1.., value_name = "PROGRAM [ARGS]")]
    pub(crate) program: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportForm {
    /// A few lines to read.
    Human,
    /// One JSON object.
    Json,
    /// Nothing.
    None,
}

fn event_names() -> Vec<&'static str> {
    TraceEvent::NAMES.iter().copied().chain(["all"]).collect()
}

fn trace_help() -> String {
    format!(
        "Events to record, separated by commas, or `all`. They have the names of Linux's \
         tracepoints:\n{}",
        TraceEvent::NAMES.join(", ")
    )
}

impl RunArgs {
    /// The events asked for, as bits of `TraceEvent::kind`.
    pub(crate) fn trace_mask(&self) -> u32 {
        let all = self.trace.iter().any(|name| name == "all");
        TraceEvent::NAMES
            .iter()
            .enumerate()
            .filter(|(_, name)| all || self.trace.iter().any(|asked| asked == *name))
            .fold(0, |mask, (kind, _)| mask | 1 << kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &[&str]) -> Result<RunArgs, clap::Error> {
        match Cli::try_parse_from(words)?.command {
            Command::Run(arguments) => Ok(arguments),
            Command::Replay(_) => panic!("not a run"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_plain_run() {
        let run = parse(&["vellum", "run", "--", "true"]).unwrap();
        assert_eq!(run.ram, 256 << 20);
        assert_eq!(run.nodes, 1);
        assert_eq!(run.report, ReportForm::Human);
        assert_eq!(run.program, ["true"]);
        assert_eq!(run.trace_mask(), 0);
    }

    #[test]
    fn the_options_of_the_program_are_its_own() {
        let run = parse(&["vellum", "run", "--ram", "1G", "--", "ls", "--ram", "-l"]).unwrap();
        assert_eq!(run.ram, 1 << 30);
        assert_eq!(run.program, ["ls", "--ram", "-l"]);
    }

    #[test]
    fn events_are_named() {
        let words = [
            "vellum",
            "run",
            "--trace",
            "mm_page_free,tlb_flush",
            "--trace-file",
            "f",
            "--",
            "x",
        ];
        assert_eq!(parse(&words).unwrap().trace_mask(), 1 << 1 | 1 << 5);
        let all = [
            "vellum",
            "run",
            "--trace",
            "all",
            "--trace-file",
            "f",
            "--",
            "x",
        ];
        assert_eq!(parse(&all).unwrap().trace_mask(), 0x7f);
    }

    #[test]
    fn a_replay() {
        let words = ["vellum", "replay", "t", "--ram", "4M", "--policy", "mglru"];
        let Command::Replay(replay) = Cli::try_parse_from(words).unwrap().command else {
            panic!("not a replay")
        };
        assert_eq!(replay.ram, Some(4 << 20));
        assert_eq!(replay.policy, [PolicyKind::Mglru]);
        for words in [
            &["vellum", "replay"][..],
            &["vellum", "replay", "t", "--policy", "fifo"],
            &["vellum", "replay", "t", "--svg", "f"],
            &["vellum", "replay", "t", "--compare", "--ram", "1M"],
        ] {
            assert!(Cli::try_parse_from(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn swap_and_policy() {
        let words = "vellum run --swap 1M --swap zram:2M@5 --policy mglru --swappiness 100 -- x";
        let words: Vec<&str> = words.split(' ').collect();
        let run = parse(&words).unwrap();
        assert_eq!(run.swap.len(), 2);
        assert_eq!(run.swap[1].priority, Some(5));
        assert_eq!((run.policy, run.swappiness), (PolicyKind::Mglru, 100));
        let plain = parse(&["vellum", "run", "--", "x"]).unwrap();
        assert_eq!((plain.policy, plain.swappiness), (PolicyKind::TwoList, 60));
    }

    #[test]
    fn mistakes_are_refused() {
        for words in [
            &["vellum"][..],
            &["vellum", "run"],
            &["vellum", "run", "--"],
            &["vellum", "run", "true"],
            &["vellum", "run", "--ram", "12Q", "--", "true"],
            &["vellum", "run", "--swap", "tape:1G", "--", "true"],
            &["vellum", "run", "--policy", "best", "--", "true"],
            &["vellum", "run", "--swappiness", "201", "--", "true"],
            &["vellum", "run", "--nodes", "0", "--", "true"],
            &["vellum", "run", "--nodes", "9", "--", "true"],
            &["vellum", "run", "--report", "xml", "--", "true"],
            &["vellum", "run", "--unknown", "--", "true"],
            &["vellum", "run", "--trace", "mm_page_free", "--", "true"],
            &["vellum", "run", "--trace-file", "f", "--", "true"],
            &[
                "vellum",
                "run",
                "--trace",
                "no_such",
                "--trace-file",
                "f",
                "--",
                "true",
            ],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
