//! Signals of the guest that the host must not see as the guest means them.

/// Dispositions.
#[derive(Clone, Default)]
pub struct SigHand {}
