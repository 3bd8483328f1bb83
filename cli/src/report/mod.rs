//! What the memory system did, told after the program has ended.

mod human;
mod json;

use crate::Failure;
use crate::args::{ReportForm, RunArgs};
use std::fs::File;
use std::io::{self, Write};

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The status that a shell would show.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Code(code) => code.to_le_bytes()[0],
            Self::Signal(signal) => 128_u8.wrapping_add(signal.to_le_bytes()[0]),
        }
    }
}

/// The free blocks of one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) node: u32,
    pub(crate) name: String,
    /// Free blocks of each order.
    pub(crate) free_area: Vec<u64>,
}

/// One object cache, in the columns of `/proc/slabinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slab {
    pub(crate) name: String,
    pub(crate) active_objs: u64,
    pub(crate) num_objs: u64,
    pub(crate) objsize: u64,
    pub(crate) objperslab: u64,
    pub(crate) pagesperslab: u64,
    pub(crate) active_slabs: u64,
    pub(crate) num_slabs: u64,
}

/// One swap area, in the columns of `/proc/swaps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Swap {
    pub(crate) name: String,
    pub(crate) size_kb: u64,
    /// At the end of the first process.
    pub(crate) used_kb: u64,
    pub(crate) priority: i16,
}

/// Everything that a report tells.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) exit: Exit,
    pub(crate) ram_bytes: u64,
    pub(crate) nodes: u32,
    pub(crate) cpus: u32,
    /// Linux's names, kB, in Linux's order.
    pub(crate) meminfo: Vec<(String, u64)>,
    /// Linux's names, counts.
    pub(crate) vmstat: Vec<(String, u64)>,
    pub(crate) buddyinfo: Vec<Zone>,
    pub(crate) slabinfo: Vec<Slab>,
    pub(crate) swap: Vec<Swap>,
    pub(crate) policy: &'static str,
    /// The most that one address space had resident at once.
    pub(crate) peak_bytes: u64,
    pub(crate) frames_leaked: u64,
    /// A line for each leaked frame that is known.
    pub(crate) leaks: Vec<String>,
    /// A line for each kind of system call that was refused, and for each victim of the OOM killer.
    pub(crate) notes: Vec<String>,
    pub(crate) elapsed_ns: u64,
}

impl Facts {
    /// The value of a counter, zero if there is none of that name.
    fn vmstat(&self, name: &str) -> u64 {
        self.vmstat
            .iter()
            .find(|(known, _)| known == name)
            .map_or(0, |(_, value)| *value)
    }
}

/// Where the report goes, and in which form.
pub(crate) struct Target {
    form: ReportForm,
    file: Option<File>,
}

impl Target {
    /// Opens the report file, if one was asked for.
    pub(crate) fn open(arguments: &RunArgs) -> Result<Self, Failure> {
        let file = match &arguments.report_file {
            Some(path) => Some(File::create(path).map_err(|error| {
                Failure::new(format!("--report-file {}: {error}", path.display()))
            })?),
            None => None,
        };
        Ok(Self {
            form: arguments.report,
            file,
        })
    }

    /// Writes the report.
    pub(crate) fn write(self, facts: &Facts) -> Result<(), Failure> {
        let text = match self.form {
            ReportForm::Human => human::text(facts),
            ReportForm::Json => json::text(facts),
            ReportForm::None => return Ok(()),
        };
        let written = match self.file {
            Some(mut file) => file.write_all(text.as_bytes()),
            None => io::stderr().lock().write_all(text.as_bytes()),
        };
        written.map_err(|error| Failure::new(format!("writing the report: {error}")))
    }
}

#[cfg(test)]
pub(crate) fn sample() -> Facts {
    let pairs = |list: &[(&str, u64)]| list.iter().map(|(k, v)| (k.to_string(), *v)).collect();
    Facts {
        exit: Exit::Code(0),
        ram_bytes: 128 << 20,
        nodes: 1,
        cpus: 1,
        meminfo: pairs(&[("MemTotal", 126_000), ("MemFree", 120_000)]),
        vmstat: pairs(&[
            ("pgfault", 1000),
            ("pgmajfault", 40),
            ("vellum_zero_page_mapped", 30),
            ("vellum_cow_copy", 20),
            ("vellum_cow_reuse", 10),
            ("nr_file_pages", 700),
        ]),
        buddyinfo: vec![Zone {
            node: 0,
            name: "DMA32".to_string(),
            free_area: vec![3, 0, 1],
        }],
        slabinfo: vec![Slab {
            name: "vm_area_struct".to_string(),
            active_objs: 0,
            num_objs: 42,
            objsize: 96,
            objperslab: 42,
            pagesperslab: 1,
            active_slabs: 0,
            num_slabs: 1,
        }],
        swap: Vec::new(),
        policy: "two-list",
        peak_bytes: 8 << 20,
        frames_leaked: 0,
        leaks: Vec::new(),
        notes: Vec::new(),
        elapsed_ns: 1_234_567_890,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        assert_eq!(Exit::Code(3).status(), 3);
        assert_eq!(Exit::Signal(9).status(), 137);
        assert_eq!(Exit::Signal(11).status(), 139);
    }
}
