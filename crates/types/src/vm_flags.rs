//! Flags of a virtual memory area.

use crate::{Access, Prot};

bitflags::bitflags! {
    /// `vm_flags`. Linux: `include/linux/mm.h`; the bit positions are ours.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct VmFlags: u32 {
        /// May be read.
        const READ = 1 << 0;
        /// May be written.
        const WRITE = 1 << 1;
        /// May be executed.
        const EXEC = 1 << 2;
        /// Stores reach the other mappers.
        const SHARED = 1 << 3;
        /// mprotect may set READ.
        const MAYREAD = 1 << 4;
        /// mprotect may set WRITE.
        const MAYWRITE = 1 << 5;
        /// mprotect may set EXEC.
        const MAYEXEC = 1 << 6;
        /// Was mapped shared, even if it can never be written.
        const MAYSHARE = 1 << 7;
        /// Grows towards lower addresses on a fault below it: a stack.
        const GROWSDOWN = 1 << 8;
        /// Pages stay in memory.
        const LOCKED = 1 << 9;
        /// Lock pages as they are faulted in, MLOCK_ONFAULT.
        const LOCKONFAULT = 1 << 10;
        /// MADV_SEQUENTIAL.
        const SEQ_READ = 1 << 11;
        /// MADV_RANDOM.
        const RAND_READ = 1 << 12;
        /// MADV_DONTFORK: not copied to a child.
        const DONTCOPY = 1 << 13;
        /// mremap may not grow it.
        const DONTEXPAND = 1 << 14;
        /// MADV_DONTDUMP.
        const DONTDUMP = 1 << 15;
        /// MADV_WIPEONFORK.
        const WIPEONFORK = 1 << 16;
        /// Counted against the commit limit.
        const ACCOUNT = 1 << 17;
        /// MAP_NORESERVE.
        const NORESERVE = 1 << 18;
        /// Frames that the core does not own: a device, or the host's vdso under `um`.
        const PFNMAP = 1 << 19;
        /// MADV_HUGEPAGE.
        const HUGEPAGE = 1 << 20;
        /// MADV_NOHUGEPAGE.
        const NOHUGEPAGE = 1 << 21;
        /// MADV_MERGEABLE.
        const MERGEABLE = 1 << 22;

        /// The three permissions.
        const PERMISSIONS = Self::READ.bits() | Self::WRITE.bits() | Self::EXEC.bits();
        /// What mprotect may set.
        const MAY = Self::MAYREAD.bits() | Self::MAYWRITE.bits() | Self::MAYEXEC.bits();
    }
}

impl VmFlags {
    /// The permissions that `prot` asks for.
    pub fn from_prot(prot: Prot) -> Self {
        let mut flags = Self::empty();
        flags.set(Self::READ, prot.contains(Prot::READ));
        flags.set(Self::WRITE, prot.contains(Prot::WRITE));
        flags.set(Self::EXEC, prot.contains(Prot::EXEC));
        flags
    }
    /// True if the permissions allow `access`. A writable area can be read, as on x86.
    pub const fn allows(self, access: Access) -> bool {
        match access {
            Access::Read => self.intersects(Self::PERMISSIONS),
            Access::Write => self.contains(Self::WRITE),
            Access::Exec => self.contains(Self::EXEC),
        }
    }
    /// True for a private area that may become writable: stores there make private copies.
    pub const fn is_cow(self) -> bool {
        !self.contains(Self::SHARED) && self.contains(Self::MAYWRITE)
    }
}
