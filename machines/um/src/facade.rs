//! The core's names, gathered. Bodies come from the core crates as they land.
#![allow(unused_variables, missing_docs, clippy::unimplemented, dead_code)]
use std::fmt;
use vellum_machine::{DirectMap, Machine, Trace};
use vellum_types::{Access, FileId, Pfn, PhysAddr, SpaceId, VirtAddr, VirtRange, VmFlags};

#[derive(Clone, Copy, Debug)]
pub struct IoError {
    pub errno: i32,
}
pub trait BackingStore: Sync {
    fn read(&self, file: FileId, offset: u64, frames: &[Pfn], ram: DirectMap<'_>) -> Result<u64, IoError>;
    fn write(&self, file: FileId, offset: u64, frames: &[Pfn], bytes: u64, ram: DirectMap<'_>) -> Result<(), IoError>;
    fn sync(&self, file: FileId) -> Result<(), IoError>;
    fn size(&self, file: FileId) -> u64;
    fn name(&self, file: FileId, out: &mut dyn fmt::Write) -> fmt::Result;
    fn dev_ino(&self, file: FileId) -> (u32, u32, u64);
    fn release(&self, file: FileId);
}
pub struct Mapping<'m>(std::marker::PhantomData<&'m ()>);
impl Mapping<'_> {
    pub fn file(&self) -> FileId {
        unimplemented!()
    }
    pub fn size(&self) -> u64 {
        unimplemented!()
    }
}
pub type MappingRef<'m> = vellum_object::KArc<'m, Mapping<'m>>;
pub struct Mm<'m>(std::marker::PhantomData<&'m ()>);
pub type MmRef<'m> = vellum_object::KArc<'m, Mm<'m>>;
impl Mm<'_> {
    pub fn space(&self) -> SpaceId {
        unimplemented!()
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmError {
    NoMem,
    Inval,
    Exist,
    Access,
    Perm,
    Again,
    Fault,
    BadFd,
    NoDev,
    Overflow,
    Busy,
    Io(i32),
}
impl MmError {
    pub fn errno(self) -> i32 {
        unimplemented!()
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegvCode {
    MapErr = 1,
    AccErr = 2,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOutcome {
    Minor,
    Major,
    Segv(SegvCode),
    Bus,
    Oom,
}
pub struct FaultInfo {
    pub addr: VirtAddr,
    pub access: Access,
    pub sp: Option<VirtAddr>,
}
pub struct FileRef<'m> {
    pub mapping: MappingRef<'m>,
    pub readable: bool,
    pub writable: bool,
    pub exec_ok: bool,
}
pub struct MmapRequest<'m> {
    pub addr: u64,
    pub len: u64,
    pub prot: u32,
    pub flags: u32,
    pub file: Option<FileRef<'m>>,
    pub offset: u64,
}
#[derive(Clone, Copy, Debug, Default)]
pub struct MmLayout {
    pub task_size: u64,
    pub mmap_min: u64,
    pub mmap_base: u64,
    pub start_brk: u64,
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub address_space: u64,
    pub data: u64,
    pub stack: u64,
    pub memlock: u64,
}
pub struct SystemConfig<'m> {
    pub trace: Trace<'m>,
    pub max_map_count: u32,
}
#[derive(Debug)]
pub struct BootError;
pub struct Report;
pub struct Leaks {
    pub frames: u64,
}
pub struct OomVictim {
    pub space: SpaceId,
    pub total_vm_kb: u64,
    pub rss_kb: u64,
    pub anon_kb: u64,
    pub file_kb: u64,
    pub pgtables_kb: u64,
}
pub struct System<'m, M: Machine>(std::marker::PhantomData<&'m M>);
type R<T> = Result<T, MmError>;
impl<'m, M: Machine> System<'m, M> {
    pub fn boot(machine: &'m M, store: &'m dyn BackingStore, config: SystemConfig<'m>) -> Result<Self, BootError> {
        unimplemented!()
    }
    pub fn mm_create(&self) -> R<MmRef<'m>> {
        unimplemented!()
    }
    pub fn mm_fork(&self, parent: &MmRef<'m>) -> R<MmRef<'m>> {
        unimplemented!()
    }
    pub fn mm_get(&self, mm: &MmRef<'m>) -> MmRef<'m> {
        unimplemented!()
    }
    pub fn mm_put(&self, mm: MmRef<'m>) {
        unimplemented!()
    }
    pub fn set_layout(&self, mm: &Mm<'m>, l: MmLayout) {
        unimplemented!()
    }
    pub fn layout(&self, mm: &Mm<'m>) -> MmLayout {
        unimplemented!()
    }
    pub fn set_limits(&self, mm: &Mm<'m>, l: Limits) {
        unimplemented!()
    }
    pub fn install_special(&self, mm: &Mm<'m>, range: VirtRange, flags: VmFlags, name: &'static str) -> R<()> {
        unimplemented!()
    }
    pub fn fault(&self, mm: &Mm<'m>, info: FaultInfo) -> FaultOutcome {
        unimplemented!()
    }
    pub fn fault_in(&self, mm: &Mm<'m>, start: VirtAddr, len: u64, access: Access, sp: Option<VirtAddr>) -> R<u64> {
        unimplemented!()
    }
    pub fn mmap(&self, mm: &Mm<'m>, r: MmapRequest<'m>) -> R<u64> {
        unimplemented!()
    }
    pub fn munmap(&self, mm: &Mm<'m>, addr: u64, len: u64) -> R<()> {
        unimplemented!()
    }
    pub fn mprotect(&self, mm: &Mm<'m>, addr: u64, len: u64, prot: u32) -> R<()> {
        unimplemented!()
    }
    pub fn mremap(&self, mm: &Mm<'m>, old: u64, old_len: u64, new_len: u64, flags: u32, new_addr: u64) -> R<u64> {
        unimplemented!()
    }
    pub fn brk(&self, mm: &Mm<'m>, addr: u64) -> u64 {
        unimplemented!()
    }
    pub fn madvise(&self, mm: &Mm<'m>, addr: u64, len: u64, advice: i32) -> R<()> {
        unimplemented!()
    }
    pub fn msync(&self, mm: &Mm<'m>, addr: u64, len: u64, flags: u32) -> R<()> {
        unimplemented!()
    }
    pub fn mincore(&self, mm: &Mm<'m>, addr: u64, len: u64, vec: u64) -> R<()> {
        unimplemented!()
    }
    pub fn mlock(&self, mm: &Mm<'m>, addr: u64, len: u64) -> R<()> {
        unimplemented!()
    }
    pub fn mlock2(&self, mm: &Mm<'m>, addr: u64, len: u64, flags: u32) -> R<()> {
        unimplemented!()
    }
    pub fn munlock(&self, mm: &Mm<'m>, addr: u64, len: u64) -> R<()> {
        unimplemented!()
    }
    pub fn mlockall(&self, mm: &Mm<'m>, flags: u32) -> R<()> {
        unimplemented!()
    }
    pub fn munlockall(&self, mm: &Mm<'m>) -> R<()> {
        unimplemented!()
    }
    pub fn copy_from_user(&self, mm: &Mm<'m>, from: VirtAddr, to: &mut [u8]) -> Result<(), usize> {
        unimplemented!()
    }
    pub fn copy_to_user(&self, mm: &Mm<'m>, to: VirtAddr, from: &[u8]) -> Result<(), usize> {
        unimplemented!()
    }
    pub fn user_segments(&self, mm: &Mm<'m>, start: VirtAddr, len: u64, access: Access, each: &mut dyn FnMut(PhysAddr, u64)) -> R<u64> {
        unimplemented!()
    }
    pub fn mapping(&self, file: FileId) -> R<MappingRef<'m>> {
        unimplemented!()
    }
    pub fn find_mapping(&self, file: FileId) -> Option<MappingRef<'m>> {
        unimplemented!()
    }
    pub fn file_read(&self, mapping: &MappingRef<'m>, offset: u64, mm: &Mm<'m>, to: VirtAddr, len: u64) -> R<u64> {
        unimplemented!()
    }
    pub fn file_write(&self, mapping: &MappingRef<'m>, offset: u64, mm: &Mm<'m>, from: VirtAddr, len: u64) -> R<u64> {
        unimplemented!()
    }
    pub fn file_written(&self, mapping: &MappingRef<'m>, offset: u64, mm: &Mm<'m>, from: VirtAddr, len: u64) -> R<()> {
        unimplemented!()
    }
    pub fn kernel_read(&self, mapping: &MappingRef<'m>, offset: u64, to: &mut [u8]) -> R<usize> {
        unimplemented!()
    }
    pub fn truncate(&self, mapping: &MappingRef<'m>, new_size: u64) {
        unimplemented!()
    }
    pub fn punch(&self, mapping: &MappingRef<'m>, offset: u64, len: u64) {
        unimplemented!()
    }
    pub fn invalidate(&self, mapping: &MappingRef<'m>) {
        unimplemented!()
    }
    pub fn writeback(&self, mapping: &MappingRef<'m>, offset: u64, len: u64) -> R<()> {
        unimplemented!()
    }
    pub fn writeback_all(&self) -> R<()> {
        unimplemented!()
    }
    pub fn put_mapping(&self, mapping: MappingRef<'m>) {
        unimplemented!()
    }
    pub fn oom_victim(&self) -> Option<OomVictim> {
        unimplemented!()
    }
    pub fn report(&self) -> Report {
        unimplemented!()
    }
    pub fn shutdown(self) -> Leaks {
        unimplemented!()
    }
}
pub mod proc {
    use super::*;
    pub fn meminfo<'m, M: Machine>(sys: &System<'m, M>, out: &mut dyn fmt::Write) -> fmt::Result {
        unimplemented!()
    }
    pub fn maps<'m, M: Machine>(sys: &System<'m, M>, mm: &Mm<'m>, out: &mut dyn fmt::Write) -> fmt::Result {
        unimplemented!()
    }
}
