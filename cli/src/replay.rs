//! `vellum replay`: how well each reclaim policy would have chosen.

use crate::Failure;
use crate::args::ReplayArgs;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use vellum_reclaim::PolicyKind;
use vellum_replay::{Comparison, Recorder, Trace};
use vellum_types::PAGE_SIZE;

/// Sizes of memory that `--compare` tries.
const STEPS: u32 = 8;

/// Reads the trace, replays it, and prints a table on standard output.
pub(crate) fn replay(arguments: &ReplayArgs) -> Result<u8, Failure> {
    let named = |error: &dyn std::fmt::Display| {
        Failure::new(format!("{}: {error}", arguments.trace.display()))
    };
    let trace = read(&arguments.trace).map_err(|error| named(&error))?;
    let policies = if arguments.policy.is_empty() {
        &PolicyKind::ALL[..]
    } else {
        &arguments.policy[..]
    };
    let results = if arguments.compare {
        vellum_replay::curve(&trace, STEPS, policies)
    } else {
        let ram = match arguments.ram {
            Some(bytes) => u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX),
            None => trace.pages / 2,
        };
        // More memory than the trace has pages changes nothing.
        let ram = ram.clamp(1, trace.pages + 1);
        vec![Comparison::new(&trace, ram, policies)]
    };
    if let Some(path) = &arguments.svg {
        let title = arguments.trace.display().to_string();
        let text = vellum_replay::svg(&title, &results).map_err(Failure::new)?;
        std::fs::write(path, text)
            .map_err(|error| Failure::new(format!("--svg {}: {error}", path.display())))?;
    }
    let mut out = io::stdout().lock();
    for (nth, result) in results.iter().enumerate() {
        let gap = if nth > 0 { "\n" } else { "" };
        match write!(out, "{gap}{result}") {
            Ok(()) => {}
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(Failure::new(format!("standard output: {error}"))),
        }
    }
    Ok(0)
}

fn read(path: &Path) -> Result<Trace, vellum_replay::TraceError> {
    let mut input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(BufReader::with_capacity(1 << 20, io::stdin()))
    } else {
        Box::new(BufReader::with_capacity(1 << 20, File::open(path)?))
    };
    if Trace::is_packed(input.fill_buf()?) {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        Trace::unpack(&bytes)
    } else {
        Trace::read(input, Recorder::new())
    }
}
