//! stub
pub(crate) fn run(_: &[&str]) -> Result<(), String> {
    Ok(())
}
