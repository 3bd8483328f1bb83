//! What every JSON report must hold.

use serde_json::Value;
use std::fs;
use std::path::Path;

/// The fields that are promised.
const FIELDS: [&str; 10] = [
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

/// The report of a run.
pub(crate) fn read(path: &Path) -> Result<Value, String> {
    let text = fs::read(path).map_err(|error| format!("report: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("report: {error}"))
}

/// What is wrong with the report of a run that ended with `status`.
pub(crate) fn problems(path: &Path, status: i32) -> Vec<String> {
    let report = match read(path) {
        Ok(report) => report,
        Err(error) => return vec![error],
    };
    let mut wrong = Vec::new();
    for field in FIELDS {
        if report.get(field).is_none() {
            wrong.push(format!("report: no `{field}`"));
        }
    }
    if report["frames_leaked"] != 0 {
        wrong.push(format!("frames_leaked: {}", report["frames_leaked"]));
    }
    let exit = &report["exit"];
    let said = match (exit["code"].as_i64(), exit["signal"].as_i64()) {
        (Some(code), None) => code,
        (None, Some(signal)) => 128 + signal,
        _ => -1,
    };
    if said != i64::from(status) {
        wrong.push(format!("report says exit {exit}, the status was {status}"));
    }
    for (section, names) in [
        (
            "meminfo",
            &["MemTotal", "MemFree", "Slab", "PageTables"][..],
        ),
        (
            "vmstat",
            &["pgfault", "pgmajfault", "pgfree", "nr_free_pages"][..],
        ),
        ("machine", &["ram_bytes", "nodes", "cpus"][..]),
    ] {
        for name in names {
            if report[section][name].as_u64().is_none() {
                wrong.push(format!("report: no number `{section}.{name}`"));
            }
        }
    }
    if report["vmstat"]["pgfault"].as_u64() == Some(0) {
        wrong.push("report: no page fault at all".to_string());
    }
    let caches = report["slabinfo"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for name in ["vm_area_struct", "mm_struct"] {
        if !caches.iter().any(|cache| cache["name"] == name) {
            wrong.push(format!("report: no slab cache `{name}`"));
        }
    }
    wrong
}
