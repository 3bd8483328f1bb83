//! Faulting in the buffers of a call that the host will run.

use super::table::{self, Len, Pointer};
use super::user::{half_at, word_at};
use crate::engine::{Action, Engine};
use crate::task::Task;
use vellum_types::{Access, PAGE_SIZE};

/// The most that the host may read of one buffer, and the most that a device may fill. It is there
/// or will be filled anyhow; the bound is for the TLB's sake. Calls with a count transfer less.
const MAX_FULL: u64 = 64 << 20;
/// The most that the host may write to one buffer where it seldom fills it: pipes, sockets. It costs
/// memory whether it is filled or not.
const MAX_SELDOM_FULL: u64 = 8 << 20;
/// How much is assumed behind a pointer of unknown meaning.
const GUESS: u64 = 1024;
/// Entries of an iovec that the host accepts.
const IOV_MAX: u64 = 1024;
/// sizeof(struct iovec).
const IOVEC: u64 = 16;
/// sizeof(struct msghdr).
const MSGHDR: u64 = 56;
/// sizeof(struct mmsghdr).
const MMSGHDR: u64 = 64;

/// The six arguments.
pub(super) fn arguments(task: &Task<'_>) -> [u64; 6] {
    core::array::from_fn(|i| task.arg(i))
}

/// Faults in what the table says about the call at which `task` is stopped.
///
/// The answer is [`Action::Native`], or [`Action::NativeExit`] if a count had to be lowered.
pub fn prefault_call<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let nr = task.nr() as u64;
    let args = arguments(task);
    prefault_as(engine, task, nr, args, MAX_SELDOM_FULL)
}

/// As [`prefault_call`], for a read from a device that fills its buffer.
pub(super) fn prefault_full<'m>(engine: &mut Engine<'m>, task: &mut Task<'m>) -> Action {
    let nr = task.nr() as u64;
    let args = arguments(task);
    prefault_as(engine, task, nr, args, MAX_FULL)
}

/// For a call that the host resumes under another number.
pub(super) fn prefault_again<'m>(
    engine: &mut Engine<'m>,
    task: &mut Task<'m>,
    (nr, args): (u64, [u64; 6]),
) {
    prefault_as(engine, task, nr, args, MAX_SELDOM_FULL);
}

fn prefault_as<'m>(
    engine: &mut Engine<'m>,
    task: &mut Task<'m>,
    nr: u64,
    args: [u64; 6],
    max_out: u64,
) -> Action {
    let call = table::call(nr);
    let mut action = Action::Native;
    for (arg, pointer) in call.pointers {
        let at = args[usize::from(*arg)];
        if at == 0 {
            continue;
        }
        let (len, access) = match pointer {
            Pointer::In(len) => (*len, Access::Read),
            Pointer::Out(len) | Pointer::InOut(len) => (*len, Access::Write),
            other => {
                prefault_structure(engine, task, *other, at, &args);
                continue;
            }
        };
        let want = length(engine, task, len, &args);
        let max = if access == Access::Read {
            MAX_FULL
        } else {
            max_out
        };
        // Pinned pages cannot be reclaimed: one call must leave room for the rest of the machine.
        let max = max.min(engine.pin_limit());
        engine.prefault(task, at, want.min(max), access);
        // Where the buffer itself is bad, the host finds out and does what this kind of file does.
        if want > max
            && let (Some(count), Len::Arg(counted)) = (call.count, len)
            && count == counted
        {
            task.set_arg(usize::from(count), max);
            action = Action::NativeExit;
        }
    }
    action
}

fn length<'m>(engine: &Engine<'m>, task: &Task<'m>, len: Len, args: &[u64; 6]) -> u64 {
    let arg = |i: u8| args[usize::from(i)];
    match len {
        Len::Const(bytes) => bytes,
        Len::Arg(i) => arg(i),
        Len::Plus8(i) => arg(i).saturating_add(8),
        Len::Times(i, size) => (arg(i) & 0xffff_ffff).saturating_mul(size),
        Len::Bits(i) => (arg(i) & 0x7fff_ffff).div_ceil(64) * 8,
        Len::AtU32(i) => engine
            .read_user::<4>(task, arg(i))
            .map_or(0, |bytes| u64::from(u32::from_le_bytes(bytes))),
    }
}

fn prefault_structure<'m>(
    engine: &Engine<'m>,
    task: &mut Task<'m>,
    pointer: Pointer,
    at: u64,
    args: &[u64; 6],
) {
    match pointer {
        Pointer::Str => prefault_string(engine, task, at),
        Pointer::Iov(count, access) => {
            prefault_iovec(engine, task, at, args[usize::from(count)], access);
        }
        Pointer::Msg(access) => prefault_message(engine, task, at, access),
        Pointer::Mmsg(count, access) => {
            let messages = (args[usize::from(count)] & 0xffff_ffff).min(IOV_MAX);
            engine.prefault(task, at, messages * MMSGHDR, Access::Write);
            for i in 0..messages {
                prefault_message(engine, task, at.wrapping_add(i * MMSGHDR), access);
            }
        }
        Pointer::SigsetArg => {
            engine.prefault(task, at, 16, Access::Read);
            if let Some(set) = engine.read_u64(task, at)
                && set != 0
            {
                engine.prefault(task, set, 8, Access::Read);
            }
        }
        Pointer::Guess => prefault_guess(engine, task, at),
        Pointer::In(_) | Pointer::Out(_) | Pointer::InOut(_) => {}
    }
}

/// Something is behind `at`, perhaps: makes a little of it accessible, for writing if it can be.
pub(super) fn prefault_guess<'m>(engine: &Engine<'m>, task: &mut Task<'m>, at: u64) {
    // Small numbers are flags and counts; the first pages are never mapped.
    if at >= 0x1_0000 && engine.prefault(task, at, GUESS, Access::Write) == 0 {
        engine.prefault(task, at, GUESS, Access::Read);
    }
}

/// For writing if it can be written, else for reading.
pub(super) fn prefault_either<'m>(engine: &Engine<'m>, task: &mut Task<'m>, at: u64, len: u64) {
    if engine.prefault(task, at, len, Access::Write) < len {
        engine.prefault(task, at, len, Access::Read);
    }
}

/// A string up to its NUL: at most as many pages as a path, or 64 KiB of anything else, can have.
pub(super) fn prefault_string<'m>(engine: &Engine<'m>, task: &mut Task<'m>, start: u64) {
    let mut at = start;
    for _ in 0..17 {
        let len = PAGE_SIZE - at % PAGE_SIZE;
        if engine.prefault(task, at, len, Access::Read) < len {
            return;
        }
        let mut bytes = [0u8; PAGE_SIZE as usize];
        let page = &mut bytes[..len as usize];
        let from = vellum_types::VirtAddr::new(at);
        if engine.sys.copy_from_user(&task.mm, from, page).is_err() || page.contains(&0) {
            return;
        }
        let Some(next) = at.checked_add(len) else {
            return;
        };
        at = next;
    }
}

/// The array and its buffers. The total is bounded: past that the host sees a bad pointer and
/// transfers what came before it.
pub(super) fn prefault_iovec<'m>(
    engine: &Engine<'m>,
    task: &mut Task<'m>,
    at: u64,
    count: u64,
    access: Access,
) {
    let count = count.min(IOV_MAX);
    if engine.prefault(task, at, count * IOVEC, Access::Read) == 0 {
        return;
    }
    let mut left = if access == Access::Read {
        MAX_FULL
    } else {
        MAX_SELDOM_FULL
    };
    for i in 0..count {
        let Some(iov) = engine.read_user::<16>(task, at + i * IOVEC) else {
            return;
        };
        let want = word_at(&iov, 8);
        let len = want.min(left);
        let good = engine.prefault(task, word_at(&iov, 0), len, access);
        if good < want {
            return;
        }
        left -= good;
    }
}

fn prefault_message<'m>(engine: &Engine<'m>, task: &mut Task<'m>, at: u64, access: Access) {
    engine.prefault(task, at, MSGHDR, access);
    let Some(header) = engine.read_user::<56>(task, at) else {
        return;
    };
    let (name, name_len) = (word_at(&header, 0), u64::from(half_at(&header, 8)));
    let (control, control_len) = (word_at(&header, 32), word_at(&header, 40));
    if name != 0 {
        engine.prefault(task, name, name_len.min(PAGE_SIZE), access);
    }
    if control != 0 {
        engine.prefault(task, control, control_len.min(MAX_SELDOM_FULL), access);
    }
    prefault_iovec(
        engine,
        task,
        word_at(&header, 16),
        word_at(&header, 24),
        access,
    );
}
