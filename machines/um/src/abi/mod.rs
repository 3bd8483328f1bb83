//! The system calls of x86-64 Linux, as seen from the machine.
//!
//! The host stops a program at the entry of each call that takes a pointer or changes memory. This
//! module says what becomes of the call. Calls about memory go to the core; reads and writes of
//! regular files go through the core's page cache, so that they agree with mappings; questions
//! about memory in `/proc` are answered from the core; all others run on the host, once the pages
//! behind their pointers are there.
//!
//! ```text
//!                  ┌ Free ──────────────────────────────── never seen here
//!   number ─table──┼ Native, Engine ── prefault ─────────▶ Action::Native / NativeExit
//!                  ├ Emulate ─ memory, files, paths, … ──▶ Action::Return / Native…
//!                  └ Refuse ─────────────────────────────▶ Action::Return(-errno)
//! ```
//!
//! # The way of a call
//! The engine answers calls about tasks, signals and exec itself and hands all others to
//! [`dispatch`]. If that says [`Action::NativeExit`], [`syscall_exit`] is called when the host is
//! done. [`TaskState`] is what is remembered of a task over its life, [`State`] what belongs to all.
//!
//! # Pins
//! A call that runs natively reads and writes its buffers while the program's other threads go on,
//! so each buffer is faulted in with [`Engine::prefault`], which keeps its frames where they are
//! until the task stops again.
//!
//! # Failure
//! A bad pointer is EFAULT as on Linux, or less is transferred where Linux does that. Out of memory
//! while faulting in a buffer is the OOM killer's business; then the call is made again.

mod auxv;
mod calls;
mod changes;
mod descriptors;
mod elf;
mod exec;
mod fd;
mod files;
mod image;
mod known_files;
mod memory;
mod paths;
mod peer;
mod prefault;
mod procfs;
mod program;
mod snapshots;
mod special;
mod store;
pub mod table;
mod transfer;
mod user;

pub use exec::{exec_image, first_image};
pub use fd::raise_descriptor_limit;
pub(crate) use fd::reopen;
pub use paths::open_ours;
pub use prefault::prefault_call;
pub use store::HostStore;

use crate::engine::{Action, Engine};
use crate::task::Task;
use std::collections::HashMap;
use std::rc::Rc;

/// Numbers of the system calls that the host may run without a stop: no pointers, no state of ours.
pub fn free_calls() -> Vec<u32> {
    table::free_calls().collect()
}

/// Which calls the host may hold for us instead of stopping the task.
pub fn held_calls() -> table::HeldCalls {
    table::held_calls()
}

/// What a process runs.
#[derive(Debug)]
pub struct Program {
    /// The path of the program file, as `/proc/PID/exe` shows it.
    pub path: Vec<u8>,
    /// Holds the program file open, by path only.
    pub(crate) file: std::os::fd::OwnedFd,
}

/// What is remembered of a new image until a task runs it.
#[derive(Clone, Debug)]
pub struct ImageState {
    program: Rc<Program>,
}

/// What is remembered of a task.
#[derive(Clone, Debug, Default)]
pub struct TaskState {
    /// What it runs; `None` only before the first exec.
    program: Option<Rc<Program>>,
    /// The hard limit of RLIMIT_AS, if one was set.
    address_space_max: Option<u64>,
    /// A thread whose descriptors are not those of its process.
    own_files: bool,
    /// Shares its descriptors with another process.
    shares_files: bool,
    /// Memory ran out while the present call's buffers were faulted in.
    pub(crate) starved: bool,
    /// A call that the host may resume by restart_syscall.
    restartable: Option<(u64, [u64; 6])>,
    /// What is to be done at the exit of the present call.
    at_exit: calls::AtExit,
}

/// What is remembered of no task in particular.
#[derive(Debug, Default)]
pub struct State<'m> {
    descriptors: descriptors::Descriptors,
    known_files: known_files::KnownFiles,
    snapshots: snapshots::Snapshots,
    /// Devices, and whether their regular files are ordinary ones.
    devices: HashMap<u64, bool>,
    /// How often each call was refused or unknown.
    odd_calls: HashMap<u64, u64>,
    /// Some process set RLIMIT_FSIZE, so that writes must look.
    file_size_limited: bool,
    core: core::marker::PhantomData<&'m ()>,
}

impl State<'_> {
    /// The calls that were refused or unknown: name, number, times; most frequent first.
    pub fn odd_calls(&self) -> Vec<(&'static str, u64, u64)> {
        let mut list: Vec<_> = self
            .odd_calls
            .iter()
            .map(|(nr, n)| (table::call(*nr).name, *nr, *n))
            .collect();
        list.sort_by_key(|(_, nr, n)| (u64::MAX - n, *nr));
        list
    }
}

/// A system call that the engine does not answer itself.
pub fn dispatch<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    task.abi.starved = false;
    engine.abi.known_files.arrived(task.tid);
    if task.abi.own_files {
        engine.abi.known_files.splits(task.tgid);
    }
    if task.abi.shares_files {
        engine.abi.known_files.note_sharing();
    }
    let action = calls::enter(engine, task);
    match action {
        Action::Native | Action::NativeExit if task.abi.starved => Action::OutOfMemory,
        action => action,
    }
}

/// The exit of a call for which `dispatch` returned [`Action::NativeExit`]. `task.regs.rax` is the
/// result; arguments are the guest's original ones.
pub fn syscall_exit<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) {
    calls::exit(engine, task);
}

/// A child was created by fork, vfork or clone with these CLONE_ flags; its TaskState starts as what
/// this returns.
pub fn forked(parent: &TaskState, flags: u64) -> TaskState {
    let (files, thread) = (libc::CLONE_FILES as u64, libc::CLONE_THREAD as u64);
    TaskState {
        shares_files: parent.shares_files || flags & (files | thread) == files,
        own_files: flags & (files | thread) == thread,
        program: parent.program.clone(),
        address_space_max: parent.address_space_max,
        ..TaskState::default()
    }
}

/// The task runs a new image from now on (the host closed its CLOEXEC descriptors).
pub fn execed<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>, image: ImageState) {
    engine.abi.known_files.forget(task.tgid);
    task.abi = TaskState {
        program: Some(image.program),
        address_space_max: task.abi.address_space_max,
        ..TaskState::default()
    };
}

/// The task is gone.
pub fn exited<'m>(engine: &mut Engine<'m>, tid: i32, _state: TaskState) {
    // Its id may be given to another process; that one would be seen through the old handle.
    engine.abi.descriptors.forget(tid);
    engine.abi.known_files.ended(tid);
}
