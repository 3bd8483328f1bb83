//! The one place that knows how the `um` machine is started and what it gives back.

use crate::Failure;
use crate::args::RunArgs;
use crate::report::{Exit, Facts, Slab, Swap, Zone};
use crate::size::human;
use crate::trace::JsonLines;
use vellum_machine::Trace;
use vellum_system::{Leaks, SlabInfo, ZoneInfo};
use vellum_um::{RunConfig, RunError, RunOutcome, SwapUse};

/// Runs the program to its end.
pub(crate) fn run(arguments: &RunArgs, trace: Option<JsonLines>) -> Result<Facts, Failure> {
    let (program, rest) = arguments
        .program
        .split_first()
        .expect("clap asks for a program");
    let config = RunConfig {
        ram_bytes: arguments.ram,
        nodes: arguments.nodes,
        trace: trace
            .as_ref()
            .map_or(Trace::OFF, |lines| Trace::new(lines, lines.mask())),
        swap: arguments.swap.clone(),
        policy: arguments.policy,
        swappiness: arguments.swappiness,
        args: rest.to_vec(),
        ..RunConfig::new(program)
    };
    let outcome = vellum_um::run(&config).map_err(|error| failure(&error, arguments))?;
    if let Some(lines) = &trace {
        lines.finish()?;
    }
    Ok(facts(&outcome, arguments))
}

fn failure(error: &RunError, arguments: &RunArgs) -> Failure {
    let program = arguments.program[0].display();
    match error {
        RunError::NoSuchProgram => Failure {
            status: 127,
            message: format!("{program}: {error}"),
        },
        RunError::NotExecutable => Failure {
            status: 126,
            message: format!("{program}: cannot be executed"),
        },
        RunError::RamTooSmall { least } => Failure::new(format!(
            "--ram: {} is too little for a machine and this program; at least {} is needed",
            human(arguments.ram),
            // As the option takes it: without a blank.
            human(*least).replace(' ', "")
        )),
        RunError::NoPtrace { .. } | RunError::Swap(_) | RunError::Host(_) => {
            Failure::new(error.to_string())
        }
    }
}

fn facts(outcome: &RunOutcome, arguments: &RunArgs) -> Facts {
    let report = &outcome.report;
    let own = |(name, value): (&str, u64)| (name.to_string(), value);
    Facts {
        exit: match outcome.exit.signal {
            Some(signal) => Exit::Signal(signal),
            None => Exit::Code(outcome.exit.code.unwrap_or_default()),
        },
        ram_bytes: arguments.ram,
        nodes: report.nr_nodes,
        // What the `um` machine has; it knows no others.
        cpus: 1,
        meminfo: report.meminfo.fields().iter().copied().map(own).collect(),
        vmstat: report.vmstat().map(own).collect(),
        buddyinfo: report
            .zones()
            .filter(|zone| zone.present > 0)
            .map(zone)
            .collect(),
        slabinfo: report.slabs().map(slab).collect(),
        swap: outcome.swap.iter().map(swap).collect(),
        policy: arguments.policy.name(),
        peak_bytes: report.peak_rss_bytes,
        frames_leaked: outcome.leaks.frames,
        leaks: leaks(&outcome.leaks),
        notes: outcome
            .refused_syscalls
            .iter()
            .map(|(name, times)| format!("refused     system call {name}, {times}×"))
            .collect(),
        elapsed_ns: outcome.elapsed_ns,
    }
}

fn zone(zone: &ZoneInfo) -> Zone {
    Zone {
        node: zone.node.0.into(),
        name: zone.name.to_string(),
        free_area: zone.free_area.to_vec(),
    }
}

fn slab(slab: &SlabInfo) -> Slab {
    Slab {
        name: slab.name.to_string(),
        active_objs: slab.active_objs,
        num_objs: slab.num_objs,
        objsize: slab.obj_size.into(),
        objperslab: slab.objs_per_slab.into(),
        pagesperslab: slab.pages_per_slab.into(),
        active_slabs: slab.active_slabs,
        num_slabs: slab.num_slabs,
    }
}

fn swap(area: &SwapUse) -> Swap {
    Swap {
        name: area.name.clone(),
        size_kb: area.bytes >> 10,
        used_kb: area.used_bytes >> 10,
        priority: area.priority,
    }
}

fn leaks(leaks: &Leaks) -> Vec<String> {
    let mut lines: Vec<String> = leaks
        .first
        .iter()
        .flatten()
        .map(|(pfn, state)| format!("frame {}: {state:?}", pfn.as_u32()))
        .collect();
    if let Some(cache) = leaks.worst_cache {
        lines.push(format!(
            "{} objects are still alive, most of them {cache}",
            leaks.objects
        ));
    }
    lines
}
