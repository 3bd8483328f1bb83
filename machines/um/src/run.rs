//! One run, from a configuration to a report.

use crate::abi;
use crate::engine::Engine;
use crate::facade::{Leaks, Report, System, SystemConfig};
use crate::host::wait::Status;
use crate::machine::UmMachine;
use crate::pace::Pace;
use crate::supervisor::Supervisor;
use crate::swap::{FileSwap, Lz4, SwapKind, SwapOpenError, SwapSpec};
use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::time::Instant;
use vellum_machine::Trace;
use vellum_reclaim::{PolicyKind, Reclaim};
use vellum_system::{BootError, SwapArea, SwapDevice as _, SwapOn};
use vellum_types::PAGE_SIZE;

/// What to run, and on how much memory.
#[derive(Clone, Debug)]
pub struct RunConfig<'t> {
    /// RAM of the machine, in bytes; rounded down to pages.
    pub ram_bytes: u64,
    /// Nodes that it is split over evenly, 1 to 8. Parts are whole blocks of 4 MiB, so a small machine
    /// may have fewer. All CPUs are near the first.
    pub nodes: u8,
    /// Stretches of pages that the host may hold for one address space at a time; the host's own
    /// limit (`vm.max_map_count`) must be above. Small values are for tests.
    pub tlb_capacity: usize,
    /// Swap areas, in the order in which they are put into use.
    pub swap: Vec<SwapSpec>,
    /// Which page goes when memory runs short.
    pub policy: PolicyKind,
    /// `vm.swappiness`, 0 to 200.
    pub swappiness: u8,
    /// Who hears of the core's events.
    pub trace: Trace<'t>,
    /// The program: a path, or a name that is looked up in PATH.
    pub program: OsString,
    /// Its arguments, without its own name.
    pub args: Vec<OsString>,
}

impl RunConfig<'_> {
    /// `program` without arguments on 256 MiB, with the defaults of all else.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            ram_bytes: 256 << 20,
            nodes: 1,
            tlb_capacity: Self::TLB_CAPACITY,
            swap: Vec::new(),
            policy: PolicyKind::TwoList,
            swappiness: Reclaim::SWAPPINESS,
            trace: Trace::OFF,
            program: program.into(),
            args: Vec::new(),
        }
    }

    /// The default of `tlb_capacity`: half of the host's default limit.
    pub const TLB_CAPACITY: usize = 32768;
}

/// How the program ended: one of the two is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// Its exit status.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
}

/// What the host was asked to do to address spaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostWork {
    /// Batches of calls.
    pub batches: u64,
    /// Calls in them: mmap, munmap, mprotect.
    pub calls: u64,
    /// Calls that failed; what they would have installed came by later faults.
    pub failures: u64,
}

/// A swap area as it was at the end: a line of `/proc/swaps`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SwapUse {
    /// The file, or `zram`.
    pub name: String,
    /// Bytes that can be used.
    pub bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Higher ones are filled first.
    pub priority: i16,
}

/// What came of a run.
#[derive(Debug)]
pub struct RunOutcome {
    /// How the first process ended.
    pub exit: Exit,
    /// The core's counters at the end, before everything was given back.
    pub report: Report,
    /// The swap areas at the end, before everything was given back.
    pub swap: Vec<SwapUse>,
    /// What was not given back.
    pub leaks: Leaks,
    /// System calls that were refused or not known: name, how often.
    pub refused_syscalls: Vec<(String, u64)>,
    /// The machine's work on the host.
    pub host: HostWork,
    /// Wall time from the first instruction to the end, in nanoseconds.
    pub elapsed_ns: u64,
}

/// Why there was no run.
#[derive(Debug)]
pub enum RunError {
    /// There is no such program.
    NoSuchProgram,
    /// There is, but it cannot be executed.
    NotExecutable,
    /// The machine has too little memory.
    RamTooSmall {
        /// How much it takes, in bytes.
        least: u64,
    },
    /// The host forbids ptrace.
    NoPtrace {
        /// The setting that does.
        setting: String,
    },
    /// A swap area cannot be used.
    Swap(SwapOpenError),
    /// Something else of the host.
    Host(std::io::Error),
}

impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSuchProgram => f.write_str("no such program"),
            Self::NotExecutable => f.write_str("the program cannot be executed"),
            Self::RamTooSmall { least } => {
                write!(f, "too little memory; the least is {least} bytes")
            }
            Self::NoPtrace { setting } => write!(f, "the host forbids ptrace ({setting})"),
            Self::Swap(error) => write!(f, "{error}"),
            Self::Host(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for RunError {}

impl From<std::io::Error> for RunError {
    fn from(error: std::io::Error) -> Self {
        let yama = "/proc/sys/kernel/yama/ptrace_scope";
        let scope = std::fs::read_to_string(yama).unwrap_or_default();
        match error.raw_os_error() {
            Some(libc::EPERM) if matches!(scope.trim(), "2" | "3") => Self::NoPtrace {
                setting: format!("kernel.yama.ptrace_scope={}", scope.trim()),
            },
            Some(libc::EPERM | libc::ENOSYS) => Self::NoPtrace {
                setting: "a tracer or a seccomp filter above this process".to_owned(),
            },
            _ => Self::Host(error),
        }
    }
}

/// Finds a program as a shell does.
fn find(program: &OsStr) -> Result<OsString, RunError> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    if program.as_bytes().contains(&b'/') {
        return Ok(program.to_owned());
    }
    let mut seen = false;
    for dir in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        let path = dir.join(program);
        if let Ok(meta) = path.metadata()
            && meta.is_file()
        {
            if meta.permissions().mode() & 0o111 != 0 {
                return Ok(path.into());
            }
            seen = true;
        }
    }
    Err(if seen {
        RunError::NotExecutable
    } else {
        RunError::NoSuchProgram
    })
}

/// The files of the areas that have one.
fn open_swap(specs: &[SwapSpec]) -> Result<Vec<Option<FileSwap>>, RunError> {
    let open = |spec: &SwapSpec| {
        let file = match &spec.kind {
            SwapKind::Temporary { bytes } => FileSwap::temporary(*bytes)?,
            SwapKind::File { path, bytes } => FileSwap::open(path, *bytes)?,
            SwapKind::Zram { .. } => return Ok(None),
        };
        if file.was_dirty() {
            let name = file.name();
            eprintln!("vellum: swap {name}: its last user was killed; what it held is gone");
        }
        Ok(Some(file))
    };
    specs
        .iter()
        .map(open)
        .collect::<Result<_, _>>()
        .map_err(RunError::Swap)
}

/// Puts one area into use.
fn swapon<'m>(
    sys: &System<'m, UmMachine>,
    spec: &SwapSpec,
    file: Option<&'m FileSwap>,
    ram_bytes: u64,
) -> Result<(), RunError> {
    let on = |bad| SwapOn {
        priority: spec.priority,
        bad,
    };
    let area = match (&spec.kind, file) {
        (SwapKind::Zram { bytes }, _) => {
            // Compressed pages may take half of RAM; the rest is for those in use.
            sys.swapon_zram(&Lz4, *bytes, ram_bytes / 2, on(&[]))
        }
        (_, Some(file)) => {
            let area = SwapArea {
                on: on(file.bad()),
                check: false,
            };
            sys.swapon(file, area)
        }
        (_, None) => return Ok(()),
    };
    area.map(drop).map_err(|error| {
        RunError::Swap(SwapOpenError {
            what: file.map_or("zram", |file| file.name()).to_owned(),
            why: error.to_string(),
        })
    })
}

fn swap_use(sys: &System<'_, UmMachine>) -> Vec<SwapUse> {
    let mut areas = Vec::new();
    sys.swaps(&mut |area, device| {
        areas.push(SwapUse {
            name: device.name().to_owned(),
            bytes: u64::from(area.usable) * PAGE_SIZE,
            used_bytes: u64::from(area.used) * PAGE_SIZE,
            priority: area.priority,
        });
    });
    areas
}

/// Runs a program to the end of its last process.
///
/// # Errors
/// See [`RunError`]; once the program runs, all that happens is part of the outcome.
pub fn run(config: &RunConfig<'_>) -> Result<RunOutcome, RunError> {
    let nofile = abi::raise_descriptor_limit().ok();
    let machine = UmMachine::new(config.ram_bytes, config.nodes, config.tlb_capacity)?;
    let store = abi::HostStore::default();
    // Refused before anything begins.
    let files = open_swap(&config.swap)?;
    let system_config = SystemConfig {
        policy: config.policy,
        swappiness: config.swappiness,
        trace: config.trace,
        ..SystemConfig::default()
    };
    let sys = System::boot(&machine, &store, system_config).map_err(|error| match error {
        BootError::TooSmall { least, .. } => RunError::RamTooSmall { least },
        error => RunError::Host(std::io::Error::other(error.to_string())),
    })?;
    for (spec, file) in config.swap.iter().zip(&files) {
        swapon(&sys, spec, file.as_ref(), config.ram_bytes)?;
    }
    let path = find(&config.program)?;
    let started = Instant::now();
    let engine = Engine {
        sys,
        machine: &machine,
        store: &store,
        abi: abi::State::default(),
        tasks: HashMap::default(),
    };
    let mut supervisor = Supervisor {
        engine,
        deferred: VecDeque::new(),
        starved: Vec::new(),
        listener: None,
        ask_children: true,
        early: HashMap::new(),
        first: 0,
        end: None,
        zombies: Vec::new(),
        stalled: Vec::new(),
        dying: Vec::new(),
        pace: Pace::new()?,
        decoder: crate::access::Decoder::new(),
    };
    let argv: Vec<&OsStr> = std::iter::once(&*config.program)
        .chain(config.args.iter().map(|a| &**a))
        .collect();
    let env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let envp: Vec<(&OsStr, &OsStr)> = env.iter().map(|(k, v)| (&**k, &**v)).collect();
    let image = match abi::first_image(&mut supervisor.engine, &path, &argv, &envp) {
        Ok(image) => image,
        Err(libc::ENOENT | libc::ENOTDIR) => return Err(RunError::NoSuchProgram),
        Err(libc::ENOMEM) => {
            return Err(RunError::RamTooSmall {
                least: vellum_system::MIN_RAM,
            });
        }
        Err(libc::EACCES | libc::ENOEXEC | libc::EISDIR | libc::EPERM) => {
            return Err(RunError::NotExecutable);
        }
        Err(errno) => return Err(RunError::Host(std::io::Error::from_raw_os_error(errno))),
    };
    // SAFETY: plain call. Orphans of the guest become ours, so that their ends are seen.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    supervisor.launch(image, nofile)?;
    supervisor.run()?;
    let elapsed_ns = started.elapsed().as_nanos() as u64;
    let Supervisor { engine, end, .. } = supervisor;
    let host = HostWork {
        batches: machine.stats.batches.get(),
        calls: machine.stats.calls.get(),
        failures: machine.stats.failures.get(),
    };
    let Engine { sys, abi, .. } = engine;
    let refused_syscalls = abi
        .odd_calls()
        .into_iter()
        .map(|(name, nr, n)| {
            (
                if name == "unknown" {
                    format!("{nr}")
                } else {
                    name.to_owned()
                },
                n,
            )
        })
        .collect();
    drop(abi);
    // A file that cannot be written any more: its program was told, or did not ask.
    let _ = sys.writeback_all();
    let report = sys.report();
    let swap = swap_use(&sys);
    let leaks = sys.shutdown();
    let exit = match end {
        _ if crate::launch::asked_to_stop().is_some() => Exit {
            code: None,
            signal: crate::launch::asked_to_stop(),
        },
        Some(Status::Exited(code)) => Exit {
            code: Some(code),
            signal: None,
        },
        Some(Status::Killed(signal, _)) => Exit {
            code: None,
            signal: Some(signal),
        },
        _ => Exit {
            code: None,
            signal: Some(libc::SIGKILL),
        },
    };
    Ok(RunOutcome {
        exit,
        report,
        swap,
        leaks,
        refused_syscalls,
        host,
        elapsed_ns,
    })
}
