//! Runs a program on 256 MiB: `cargo run --example run -- ls -l /`.

use std::ffi::OsString;
use vellum_um::{RunConfig, run};

fn main() {
    let mut args = std::env::args_os().skip(1);
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let program = args.next().unwrap_or_else(|| OsString::from("true"));
    let config = RunConfig {
        ram_bytes: number("RAM_MIB", 256) << 20,
        tlb_capacity: number("TLB", RunConfig::TLB_CAPACITY as u64) as usize,
        args: args.collect(),
        ..RunConfig::new(program)
    };
    match run(&config) {
        Ok(outcome) => {
            if std::env::var_os("QUIET").is_none() {
                let ms = outcome.elapsed_ns as f64 / 1e6;
                eprintln!(
                    "{:?} {ms:.1} ms, {} faults, {:?}, leaks {} {:?}, {:?}",
                    outcome.exit,
                    outcome.report.vmstat_value("pgfault").unwrap_or(0),
                    outcome.host,
                    outcome.leaks.frames,
                    outcome.leaks.worst_cache,
                    outcome.refused_syscalls,
                );
            }
            let code = outcome.exit.code.or(outcome.exit.signal.map(|s| s + 128));
            std::process::exit(code.unwrap_or(125));
        }
        Err(error) => {
            eprintln!("um: {error}");
            std::process::exit(125);
        }
    }
}
