//! mmap(2). Linux: `mm/mmap.c` `do_mmap`, `mmap_region`.

use super::page_align;
use super::populate::populate_access;
use crate::MmError;
use crate::backing::{FIRST_SHMEM_FILE, Object, VmBacking, is_shmem};
use crate::context::MmContext;
use crate::fault::STACK_GUARD_GAP;
use crate::mm::{Area, Mm, MmInner};
use vellum_machine::Machine;
use vellum_page_cache::MappingRef;
use vellum_types::{FileId, PAGE_SHIFT, PAGE_SIZE, Prot, VirtAddr, VirtRange, VmFlags};
use vellum_vma::GapRequest;

/// `MAP_*` of x86-64 Linux.
pub(crate) mod map {
    pub(crate) const SHARED: u32 = 0x01;
    pub(crate) const PRIVATE: u32 = 0x02;
    pub(crate) const SHARED_VALIDATE: u32 = 0x03;
    pub(crate) const TYPE: u32 = 0x0f;
    pub(crate) const FIXED: u32 = 0x10;
    pub(crate) const ANONYMOUS: u32 = 0x20;
    pub(crate) const LOW_32BIT: u32 = 0x40;
    pub(crate) const GROWSDOWN: u32 = 0x0100;
    pub(crate) const LOCKED: u32 = 0x2000;
    pub(crate) const NORESERVE: u32 = 0x4000;
    pub(crate) const POPULATE: u32 = 0x8000;
    pub(crate) const NONBLOCK: u32 = 0x10000;
    pub(crate) const HUGETLB: u32 = 0x40000;
    pub(crate) const FIXED_NOREPLACE: u32 = 0x100000;
    /// What every file understands; MAP_SHARED_VALIDATE refuses the rest.
    pub(crate) const LEGACY: u32 = SHARED
        | PRIVATE
        | FIXED
        | ANONYMOUS
        | 0x0800 // DENYWRITE
        | 0x1000 // EXECUTABLE
        | GROWSDOWN
        | LOCKED
        | NORESERVE
        | POPULATE
        | NONBLOCK
        | 0x20000 // STACK
        | HUGETLB
        | LOW_32BIT;
}

/// An open file, as mmap sees it.
#[derive(Clone, Debug)]
pub struct FileRef<'m> {
    /// Its pages.
    pub mapping: MappingRef<'m>,
    /// Opened for reading.
    pub readable: bool,
    /// Opened for writing.
    pub writable: bool,
    /// Not on a `noexec` file system.
    pub exec_ok: bool,
}

/// The arguments of mmap(2), raw.
#[derive(Clone, Debug)]
pub struct MmapRequest<'m> {
    /// The hint, or the place with MAP_FIXED.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// `MAP_*`.
    pub flags: u32,
    /// The file; ignored with MAP_ANONYMOUS.
    pub file: Option<FileRef<'m>>,
    /// Bytes into the file.
    pub offset: u64,
}

impl<'m, M: Machine> MmContext<'m, M> {
    /// Maps memory; returns its address.
    ///
    /// # Errors
    /// As mmap(2), in Linux's order of checks.
    pub fn mmap(&self, mm: &Mm<'m>, request: MmapRequest<'m>) -> Result<u64, MmError> {
        if !request.offset.is_multiple_of(PAGE_SIZE) {
            return Err(MmError::Inval);
        }
        if request.flags & map::HUGETLB != 0 {
            // No huge page pool exists, which is what ENOMEM says.
            return Err(MmError::NoMem);
        }
        let flags = request.flags;
        let (range, vm_flags) = self.with_room(|| self.place(mm, &mut mm.lock(), &request))?;
        let locked = vm_flags.contains(VmFlags::LOCKED) && !vm_flags.contains(VmFlags::LOCKONFAULT);
        let populate = flags & (map::POPULATE | map::NONBLOCK) == map::POPULATE;
        if locked || populate {
            // Best effort, as in Linux: mmap succeeds even if memory ends half-way.
            let access = populate_access(vm_flags);
            let _ = self.populate(mm, range, access);
        }
        Ok(range.start().as_u64())
    }

    fn place(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        request: &MmapRequest<'m>,
    ) -> Result<(VirtRange, VmFlags), MmError> {
        if request.len == 0 {
            return Err(MmError::Inval);
        }
        let len = page_align(request.len);
        if len == 0 {
            return Err(MmError::NoMem);
        }
        let pgoff = request.offset >> PAGE_SHIFT;
        if pgoff
            .checked_add(len >> PAGE_SHIFT)
            .is_none_or(|end| end > u64::MAX >> PAGE_SHIFT)
        {
            return Err(MmError::Overflow);
        }
        if inner.areas.len() > self.max_map_count {
            return Err(MmError::NoMem);
        }
        let fixed = request.flags & (map::FIXED | map::FIXED_NOREPLACE) != 0;
        let range = self.unmapped_range(inner, request, len, fixed)?;
        if request.flags & map::FIXED_NOREPLACE != 0
            && inner.areas.overlapping(range).next().is_some()
        {
            return Err(MmError::Exist);
        }
        let mut vm_flags = VmFlags::from_prot(Prot::from_bits_truncate(request.prot))
            | VmFlags::MAY
            | inner.def_flags;
        vm_flags.set(VmFlags::GROWSDOWN, request.flags & map::GROWSDOWN != 0);
        vm_flags.set(VmFlags::NORESERVE, request.flags & map::NORESERVE != 0);
        if request.flags & map::LOCKED != 0 {
            vm_flags |= VmFlags::LOCKED;
            if inner.limits.memlock == 0 {
                return Err(MmError::Perm);
            }
        }
        if vm_flags.contains(VmFlags::LOCKED) {
            let locked = (inner.locked_vm << PAGE_SHIFT).saturating_add(len);
            if locked > inner.limits.memlock {
                return Err(MmError::Again);
            }
        }
        let (object, pgoff) = self.object_for(request, range, len, &mut vm_flags)?;
        let backing = self.new_backing(mm.space(), object.clone(), range, pgoff);
        let installed = backing.map_err(MmError::from).and_then(|backing| {
            let area = Area::new(range, vm_flags, pgoff, backing);
            self.install(mm, inner, area)
        });
        installed.inspect_err(|_| {
            // Shared memory that was made for this call and that nobody got.
            if let Object::File(mapping) = object
                && is_shmem(mapping.file())
            {
                let file = mapping.file();
                drop(mapping);
                self.cache.drop_mapping(file);
            }
        })
    }

    /// Puts a new area in the place of what is there.
    fn install(
        &self,
        mm: &Mm<'m>,
        inner: &mut MmInner<'m>,
        mut area: Area<'m>,
    ) -> Result<(VirtRange, VmFlags), MmError> {
        let range = area.range();
        let pages = range.nr_pages();
        let replaced: u64 = inner
            .areas
            .overlapping(range)
            .filter_map(|area| area.range().intersect(&range))
            .map(|part| part.nr_pages())
            .sum();
        if !inner.may_expand(area.flags, pages, replaced) {
            return Err(MmError::NoMem);
        }
        if replaced > 0 {
            self.unmap_range(mm, inner, range)?;
        }
        // accountable_mapping: the flag decides which areas merge.
        let exempt = VmFlags::SHARED | VmFlags::NORESERVE;
        if area.flags.contains(VmFlags::WRITE) && !area.flags.intersects(exempt) {
            area.flags |= VmFlags::ACCOUNT;
        }
        let flags = area.flags;
        inner.areas.insert_merged(area)?;
        if flags.contains(VmFlags::LOCKED) {
            inner.locked_vm += pages;
        }
        inner.note_total();
        Ok((range, flags))
    }

    fn unmapped_range(
        &self,
        inner: &MmInner<'m>,
        request: &MmapRequest<'m>,
        len: u64,
        fixed: bool,
    ) -> Result<VirtRange, MmError> {
        let layout = &inner.layout;
        if len > layout.task_size {
            return Err(MmError::NoMem);
        }
        let at = |addr: u64| VirtRange::from_len(VirtAddr::new(addr), len).ok_or(MmError::NoMem);
        if fixed {
            if request.addr > layout.task_size - len {
                return Err(MmError::NoMem);
            }
            if !request.addr.is_multiple_of(PAGE_SIZE) {
                return Err(MmError::Inval);
            }
            if request.addr < layout.mmap_min {
                return Err(MmError::Perm);
            }
            return at(request.addr);
        }
        // round_hint_to_min, then PAGE_ALIGN.
        let mut hint = page_align(request.addr);
        if hint != 0 && hint < layout.mmap_min {
            hint = layout.mmap_min;
        }
        if hint != 0 && hint <= layout.task_size - len {
            let range = at(hint)?;
            let free = inner.areas.overlapping(range).next().is_none()
                && inner.areas.find(range.end()).is_none_or(|next| {
                    !next.flags.contains(VmFlags::GROWSDOWN)
                        || next.start() - range.end() >= STACK_GUARD_GAP
                });
            if free {
                return Ok(range);
            }
        }
        let mut gap = GapRequest {
            len,
            low: VirtAddr::new(layout.mmap_min),
            high: VirtAddr::new(layout.mmap_base),
            align: PAGE_SIZE,
            top_down: true,
            guard_gap: STACK_GUARD_GAP,
        };
        if request.flags & map::LOW_32BIT != 0 {
            gap.low = VirtAddr::new(0x4000_0000);
            gap.high = VirtAddr::new(0x8000_0000);
            gap.top_down = false;
        }
        let found = inner.areas.unmapped_area(gap).or_else(|| {
            // As Linux does when the top-down part is full: bottom-up from the middle of all.
            gap.low = VirtAddr::new((layout.task_size / 3).next_multiple_of(PAGE_SIZE));
            gap.high = VirtAddr::new(layout.task_size);
            gap.top_down = false;
            inner.areas.unmapped_area(gap)
        });
        at(found.ok_or(MmError::NoMem)?.as_u64())
    }

    /// What will be behind the area, after the checks that depend on it.
    fn object_for(
        &self,
        request: &MmapRequest<'m>,
        range: VirtRange,
        len: u64,
        vm_flags: &mut VmFlags,
    ) -> Result<(Object<'m>, u64), MmError> {
        let kind = request.flags & map::TYPE;
        let anonymous = request.flags & map::ANONYMOUS != 0;
        let Some(file) = request.file.as_ref().filter(|_| !anonymous) else {
            if !anonymous {
                return Err(MmError::BadFd);
            }
            return match kind {
                map::SHARED => {
                    if vm_flags.contains(VmFlags::GROWSDOWN) {
                        return Err(MmError::Inval);
                    }
                    *vm_flags |= VmFlags::SHARED | VmFlags::MAYSHARE;
                    Ok((Object::File(self.create_shmem(len)?), 0))
                }
                map::PRIVATE => Ok((Object::Anonymous, range.start().page_number())),
                _ => Err(MmError::Inval),
            };
        };
        match kind {
            map::SHARED | map::SHARED_VALIDATE => {
                if kind == map::SHARED_VALIDATE
                    && request.flags & !(map::LEGACY | map::SHARED_VALIDATE) != 0
                {
                    return Err(MmError::NotSupported);
                }
                if vm_flags.contains(VmFlags::WRITE) && !file.writable {
                    return Err(MmError::Access);
                }
                *vm_flags |= VmFlags::SHARED | VmFlags::MAYSHARE;
                if !file.writable {
                    *vm_flags -= VmFlags::MAYWRITE | VmFlags::SHARED;
                }
            }
            map::PRIVATE => {}
            _ => return Err(MmError::Inval),
        }
        if !file.readable {
            return Err(MmError::Access);
        }
        if !file.exec_ok {
            if vm_flags.contains(VmFlags::EXEC) {
                return Err(MmError::Perm);
            }
            *vm_flags -= VmFlags::MAYEXEC;
        }
        if vm_flags.contains(VmFlags::GROWSDOWN) {
            return Err(MmError::Inval);
        }
        Ok((
            Object::File(file.mapping.clone()),
            request.offset >> PAGE_SHIFT,
        ))
    }

    fn create_shmem(&self, len: u64) -> Result<MappingRef<'m>, MmError> {
        let file = FileId(FIRST_SHMEM_FILE + u64::from(self.next_shmem_id()));
        let mapping = self.cache.mapping(file)?;
        mapping.set_size(len);
        Ok(mapping)
    }

    /// Adds an area that the machine maps by itself.
    ///
    /// # Errors
    /// Exist if something is mapped there; NoMem.
    pub fn install_special(
        &self,
        mm: &Mm<'m>,
        range: VirtRange,
        flags: VmFlags,
        name: &'static str,
    ) -> Result<(), MmError> {
        let flags = flags | VmFlags::PFNMAP | VmFlags::DONTEXPAND;
        self.with_room(|| {
            let mut inner = mm.lock();
            if inner.areas.overlapping(range).next().is_some() {
                return Err(MmError::Exist);
            }
            let backing = VmBacking::new(Object::Special(name));
            let pgoff = range.start().page_number();
            inner
                .areas
                .insert(Area::new(range, flags, pgoff, backing))?;
            inner.note_total();
            Ok(())
        })
    }
}
