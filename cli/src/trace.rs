//! Events of the core as JSON lines.

use crate::Failure;
use crate::args::RunArgs;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use vellum_machine::{TraceEvent, TraceSink};

/// Writes each event as one JSON object on a line of its own.
pub(crate) struct JsonLines {
    /// The events that are wanted, as bits of `TraceEvent::kind`.
    mask: u32,
    start: Instant,
    out: Mutex<Out>,
}

struct Out {
    file: BufWriter<File>,
    /// The first error; nothing is written after it.
    error: Option<io::Error>,
}

impl JsonLines {
    /// Opens the trace file, if events were asked for.
    pub(crate) fn open(arguments: &RunArgs) -> Result<Option<Self>, Failure> {
        let Some(path) = &arguments.trace_file else {
            return Ok(None);
        };
        let file = File::create(path)
            .map_err(|error| Failure::new(format!("--trace-file {}: {error}", path.display())))?;
        let out = Out {
            file: BufWriter::with_capacity(1 << 16, file),
            error: None,
        };
        Ok(Some(Self {
            mask: arguments.trace_mask(),
            start: Instant::now(),
            out: Mutex::new(out),
        }))
    }

    /// The events that are wanted.
    pub(crate) fn mask(&self) -> u32 {
        self.mask
    }

    /// Writes what is still in memory.
    ///
    /// # Errors
    /// The first error of the whole trace.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = out.file.flush();
        match out.error.take().map_or(flushed, Err) {
            Ok(()) => Ok(()),
            Err(error) => Err(Failure::new(format!("writing the trace: {error}"))),
        }
    }
}

impl TraceSink for JsonLines {
    fn event(&self, event: &TraceEvent) {
        let mut line = fields(event);
        line["event"] = event.name().into();
        line["ts_ns"] = u64::try_from(self.start.elapsed().as_nanos())
            .unwrap_or(u64::MAX)
            .into();
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.error.is_none()
            && let Err(error) = writeln!(out.file, "{line}")
        {
            out.error = Some(error);
        }
    }
}

/// The fields of an event, with Linux's names where Linux has the field. Addresses are numbers.
fn fields(event: &TraceEvent) -> Value {
    match event {
        TraceEvent::MmPageAlloc {
            pfn,
            order,
            gfp,
            migrate_type,
        } => json!({
            "pfn": pfn.as_u32(),
            "order": order.as_u8(),
            "gfp_flags": gfp.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join("|"),
            "migratetype": migrate_type.name(),
        }),
        TraceEvent::MmPageFree { pfn, order } => {
            json!({ "pfn": pfn.as_u32(), "order": order.as_u8() })
        }
        TraceEvent::PageFaultUser {
            space,
            address,
            access,
        } => json!({
            "space": space.0,
            "address": address.as_u64(),
            "access": format!("{access:?}").to_lowercase(),
        }),
        TraceEvent::MmFilemapAddToPageCache { file, index, pfn }
        | TraceEvent::MmFilemapDeleteFromPageCache { file, index, pfn } => {
            json!({ "file": file.0, "index": index, "pfn": pfn.as_u32() })
        }
        TraceEvent::TlbFlush { space, range } => json!({
            "space": space.0,
            "start": range.start().as_u64(),
            "end": range.end().as_u64(),
        }),
        TraceEvent::MarkVictim { space, rss_pages } => {
            json!({ "space": space.0, "rss_pages": rss_pages })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vellum_types::{Access, SpaceId, VirtAddr};

    #[test]
    fn a_fault_has_its_fields() {
        let fault = TraceEvent::PageFaultUser {
            space: SpaceId(3),
            address: VirtAddr::new(0x7000),
            access: Access::Write,
        };
        let value = fields(&fault);
        assert_eq!(
            value,
            json!({ "space": 3, "address": 0x7000, "access": "write" })
        );
    }
}
