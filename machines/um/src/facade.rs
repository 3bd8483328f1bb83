//! The core's names that this machine uses, in one place.

pub(crate) use vellum_system::{
    BackingStore, FaultInfo, FaultOutcome, FileRef, IoError, Leaks, Limits, MappingRef, Mm,
    MmError, MmLayout, MmRef, MmapRequest, Report, SegvCode, System, SystemConfig, proc,
};
