//! The report for tools: one JSON object. Its fields are stable.

use super::{Exit, Facts, Slab, Swap, Zone};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

#[derive(Serialize)]
struct Document<'a> {
    exit: ExitFields,
    machine: Machine,
    /// kB.
    meminfo: Pairs<'a>,
    /// Counts.
    vmstat: Pairs<'a>,
    buddyinfo: Vec<ZoneFields<'a>>,
    slabinfo: Vec<SlabFields<'a>>,
    swap: Vec<SwapFields<'a>>,
    policy: &'a str,
    frames_leaked: u64,
    elapsed_ns: u64,
}

#[derive(Serialize)]
struct ExitFields {
    code: Option<i32>,
    signal: Option<i32>,
}

#[derive(Serialize)]
struct Machine {
    ram_bytes: u64,
    nodes: u32,
    cpus: u32,
}

#[derive(Serialize)]
struct ZoneFields<'a> {
    node: u32,
    zone: &'a str,
    free_area: &'a [u64],
}

#[derive(Serialize)]
struct SlabFields<'a> {
    name: &'a str,
    active_objs: u64,
    num_objs: u64,
    objsize: u64,
    objperslab: u64,
    pagesperslab: u64,
    active_slabs: u64,
    num_slabs: u64,
}

#[derive(Serialize)]
struct SwapFields<'a> {
    name: &'a str,
    size_kb: u64,
    used_kb: u64,
    priority: i16,
}

impl<'a> From<&'a Swap> for SwapFields<'a> {
    fn from(area: &'a Swap) -> Self {
        Self {
            name: &area.name,
            size_kb: area.size_kb,
            used_kb: area.used_kb,
            priority: area.priority,
        }
    }
}

/// An object whose keys keep the order of the list.
struct Pairs<'a>(&'a [(String, u64)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'a> From<&'a Zone> for ZoneFields<'a> {
    fn from(zone: &'a Zone) -> Self {
        Self {
            node: zone.node,
            zone: &zone.name,
            free_area: &zone.free_area,
        }
    }
}

impl<'a> From<&'a Slab> for SlabFields<'a> {
    fn from(slab: &'a Slab) -> Self {
        Self {
            name: &slab.name,
            active_objs: slab.active_objs,
            num_objs: slab.num_objs,
            objsize: slab.objsize,
            objperslab: slab.objperslab,
            pagesperslab: slab.pagesperslab,
            active_slabs: slab.active_slabs,
            num_slabs: slab.num_slabs,
        }
    }
}

pub(super) fn text(facts: &Facts) -> String {
    let exit = match facts.exit {
        Exit::Code(code) => ExitFields {
            code: Some(code),
            signal: None,
        },
        Exit::Signal(signal) => ExitFields {
            code: None,
            signal: Some(signal),
        },
    };
    let document = Document {
        exit,
        machine: Machine {
            ram_bytes: facts.ram_bytes,
            nodes: facts.nodes,
            cpus: facts.cpus,
        },
        meminfo: Pairs(&facts.meminfo),
        vmstat: Pairs(&facts.vmstat),
        buddyinfo: facts.buddyinfo.iter().map(ZoneFields::from).collect(),
        slabinfo: facts.slabinfo.iter().map(SlabFields::from).collect(),
        swap: facts.swap.iter().map(SwapFields::from).collect(),
        policy: facts.policy,
        frames_leaked: facts.frames_leaked,
        elapsed_ns: facts.elapsed_ns,
    };
    let mut text = serde_json::to_string_pretty(&document)
        .expect("maps with string keys and integers can be written");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use serde_json::Value;

    #[test]
    fn the_fields_are_the_promised_ones() {
        let value: Value = serde_json::from_str(&text(&sample())).unwrap();
        let mut keys: Vec<_> = value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        let mut promised = [
            "exit",
            "machine",
            "meminfo",
            "vmstat",
            "buddyinfo",
            "slabinfo",
            "swap",
            "policy",
            "frames_leaked",
            "elapsed_ns",
        ];
        promised.sort_unstable();
        assert_eq!(keys, promised);
        assert_eq!(value["exit"]["code"], 0);
        assert!(value["exit"]["signal"].is_null());
        assert_eq!(value["machine"]["ram_bytes"], 128 << 20);
        assert_eq!(value["meminfo"]["MemTotal"], 126_000);
        assert_eq!(value["vmstat"]["pgfault"], 1000);
        assert_eq!(value["buddyinfo"][0]["zone"], "DMA32");
        assert_eq!(value["slabinfo"][0]["name"], "vm_area_struct");
    }

    #[test]
    fn swap_areas_have_the_columns_of_proc_swaps() {
        let mut facts = sample();
        facts.swap.push(Swap {
            name: "zram".to_string(),
            size_kb: 65_536,
            used_kb: 12,
            priority: -2,
        });
        let value: Value = serde_json::from_str(&text(&facts)).unwrap();
        let area = serde_json::json!(
            {"name": "zram", "size_kb": 65_536, "used_kb": 12, "priority": -2}
        );
        assert_eq!(value["swap"], serde_json::json!([area]));
        assert_eq!(value["policy"], "two-list");
    }

    #[test]
    fn a_signal_is_not_a_code() {
        let mut facts = sample();
        facts.exit = Exit::Signal(9);
        let value: Value = serde_json::from_str(&text(&facts)).unwrap();
        assert!(value["exit"]["code"].is_null());
        assert_eq!(value["exit"]["signal"], 9);
    }

    #[test]
    fn names_keep_their_order() {
        let text = text(&sample());
        assert!(text.find("MemTotal").unwrap() < text.find("MemFree").unwrap());
    }
}
