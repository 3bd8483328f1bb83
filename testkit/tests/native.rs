//! Every scenario must be true on Linux: the kernel below is the oracle.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::process::Command;

#[test]
fn scenarios_are_true_on_linux() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of scenarios")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "scn"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 30);
    // A process of its own: workers are forked, which a test's threads would not survive well.
    let output = Command::new(env!("CARGO_BIN_EXE_scenario-run"))
        .args(&paths)
        .output()
        .expect("a run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
