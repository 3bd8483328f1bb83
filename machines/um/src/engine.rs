//! What the supervisor and the system-call layer share.

use crate::abi;
use crate::facade::{MmRef, System};
use crate::ids::ById;
use crate::machine::UmMachine;
use crate::task::Task;
use vellum_types::{Access, PAGE_SIZE, VirtAddr, VirtRange};

/// The core on this machine.
pub(crate) type Sys<'m> = System<'m, UmMachine>;

/// What is to be done with a system call.
pub(crate) enum Action {
    /// Skip it; the program gets this value (a negative errno for an error).
    Return(i64),
    /// The host runs it, with the registers in [`Task::regs`]. Arguments that were changed with
    /// `set_arg` stay changed afterwards: use [`Action::NativeExit`] if the guest may notice.
    Native,
    /// The host runs it; then `abi::syscall_exit` is called. The arguments (rdi rsi rdx r10 r8 r9)
    /// and the number are put back to what the guest passed before that call.
    NativeExit,
    /// The call opens a file: it gets this descriptor of ours instead, opened anew with these flags.
    OpenOurs {
        /// What to open.
        target: std::os::fd::RawFd,
        /// The flags of open(2) that the guest asked for.
        flags: i32,
        /// Which argument is the path, which are the flags.
        args: (usize, usize),
    },
    /// There is no memory for it: the OOM killer's turn. If the task survives, it calls again.
    OutOfMemory,
}

/// A new program, loaded into an address space of its own, before the host knows of it.
pub(crate) struct Image<'m> {
    /// The address space. Holds its first user count.
    pub mm: MmRef<'m>,
    /// First instruction: of the interpreter if there is one.
    pub entry: u64,
    /// Initial stack pointer.
    pub sp: u64,
    /// Where the value of AT_SYSINFO_EHDR stands in the auxiliary vector; the supervisor writes the
    /// address of the host's vdso there, or turns the entry's key, 8 bytes below, into AT_IGNORE.
    pub vdso_slot: Option<VirtAddr>,
    /// Name of the task, NUL-terminated.
    pub comm: [u8; 16],
    /// What the system-call layer wants to remember of the new program.
    pub abi: abi::ImageState,
}

/// The state of a run that is not in tasks.
pub(crate) struct Engine<'m> {
    /// The core.
    pub sys: Sys<'m>,
    /// The machine under it.
    pub machine: &'m UmMachine,
    /// The host's files, as the core's backing store.
    pub store: &'m abi::HostStore,
    /// State of the system-call layer that belongs to no task.
    pub abi: abi::State<'m>,
    /// All tasks but the one that is being handled.
    pub tasks: ById<i32, Box<Task<'m>>>,
}

impl<'m> Engine<'m> {
    /// Makes `len` bytes from `start` accessible to the host kernel until the task stops next.
    /// Returns how many bytes from `start` are good; fewer than `len` if an area ends or forbids it.
    pub(crate) fn prefault(
        &self,
        task: &mut Task<'m>,
        start: u64,
        len: u64,
        access: Access,
    ) -> u64 {
        if len == 0 {
            return 0;
        }
        let from = VirtAddr::new(start);
        let sp = Some(task.sp());
        // First of all: what is faulted in for one page must not take another one away.
        let Some(pinned) = VirtRange::from_len(from, len).and_then(|range| range.to_pages()) else {
            return 0;
        };
        self.machine.pin(task.space, task.tid, pinned);
        task.pins.push(pinned);
        match self.sys.fault_in(&task.mm, from, len, access, sp) {
            Ok(good) => good,
            Err(_) => {
                task.abi.starved = true;
                0
            }
        }
    }

    /// The most bytes that one call may keep in place while the host runs it.
    pub(crate) fn pin_limit(&self) -> u64 {
        (self.machine.ram_bytes() / 8).next_multiple_of(PAGE_SIZE)
    }

    /// Copies from the task's memory; `None` if a byte is not readable.
    pub(crate) fn read_user<const N: usize>(&self, task: &Task<'m>, from: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.sys
            .copy_from_user(&task.mm, VirtAddr::new(from), &mut bytes)
            .ok()?;
        Some(bytes)
    }

    /// Reads a 64-bit word of the task's memory.
    pub(crate) fn read_u64(&self, task: &Task<'m>, from: u64) -> Option<u64> {
        self.read_user(task, from).map(u64::from_le_bytes)
    }

    /// Copies to the task's memory; false if a byte is not writable.
    pub(crate) fn write_user(&self, task: &Task<'m>, to: u64, bytes: &[u8]) -> bool {
        self.sys
            .copy_to_user(&task.mm, VirtAddr::new(to), bytes)
            .is_ok()
    }
}
