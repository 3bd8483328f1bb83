//! System calls of the guest: files, memory, `/proc`, program images.

use crate::engine::{Action, Engine, Image};
use crate::facade::{BackingStore, IoError};
use crate::task::Task;
use std::ffi::OsStr;
use std::fmt;
use vellum_machine::DirectMap;
use vellum_types::{FileId, Pfn};

mod table;

/// Numbers of the system calls that the host may run without a stop: no pointers, no state of ours.
pub fn free_calls() -> Vec<u32> {
    Vec::new()
}

/// What this layer remembers of a task.
#[derive(Clone, Default)]
pub struct TaskState {}

/// What this layer remembers of a program image until it runs.
#[derive(Default)]
pub struct ImageState {}

/// State that belongs to no task.
#[derive(Default)]
pub struct State<'m> {
    marker: std::marker::PhantomData<&'m ()>,
}

/// Files of the host.
#[derive(Default)]
pub struct HostStore {}

impl BackingStore for HostStore {
    fn read(&self, _: FileId, _: u64, _: &[Pfn], _: DirectMap<'_>) -> Result<u64, IoError> {
        Ok(0)
    }
    fn write(&self, _: FileId, _: u64, _: &[Pfn], _: u64, _: DirectMap<'_>) -> Result<(), IoError> {
        Ok(())
    }
    fn sync(&self, _: FileId) -> Result<(), IoError> {
        Ok(())
    }
    fn size(&self, _: FileId) -> u64 {
        0
    }
    fn name(&self, _: FileId, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
    fn dev_ino(&self, _: FileId) -> (u32, u32, u64) {
        (0, 0, 0)
    }
    fn release(&self, _: FileId) {}
}

/// A system call that the engine does not answer itself.
pub fn dispatch<'m>(_engine: &mut Engine<'m>, _task: &mut Task<'m>) -> Action<'m> {
    Action::Native
}

/// The exit of a call for which `dispatch` returned [`Action::NativeExit`]. `task.regs.rax` is the
/// result; arguments are the guest's original ones.
pub fn syscall_exit<'m>(_engine: &mut Engine<'m>, _task: &mut Task<'m>) {}

/// Loads the program that an execve or execveat of `task` names (arguments in its registers).
///
/// # Errors
/// A positive errno for the guest.
pub fn exec_image<'m>(_engine: &mut Engine<'m>, _task: &mut Task<'m>) -> Result<Image<'m>, i32> {
    Err(libc::ENOSYS)
}

/// Loads the first program. `program` is a path; `argv` includes argument zero; the directory is the
/// supervisor's.
///
/// # Errors
/// A positive errno.
pub fn first_image<'m>(
    _engine: &mut Engine<'m>,
    _program: &OsStr,
    _argv: &[&OsStr],
    _envp: &[(&OsStr, &OsStr)],
) -> Result<Image<'m>, i32> {
    Err(libc::ENOSYS)
}

/// A child was created by fork, vfork or clone with these CLONE_ flags; its TaskState starts as what
/// this returns.
pub fn forked(parent: &TaskState, _flags: u64) -> TaskState {
    parent.clone()
}

/// The task runs a new image from now on (the host closed its CLOEXEC descriptors).
pub fn execed<'m>(_engine: &mut Engine<'m>, _task: &mut Task<'m>, _image: ImageState) {}

/// The task is gone.
pub fn exited<'m>(_engine: &mut Engine<'m>, _tid: i32, _state: TaskState) {}
