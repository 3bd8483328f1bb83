//! process_vm_readv(2) and process_vm_writev(2) between programs of this machine.

use super::calls::fail;
use super::user::{User, word_at};
use crate::engine::{Action, Engine, Sys};
use crate::facade::MmRef;
use crate::task::Task;
use vellum_types::{PAGE_SIZE, VirtAddr};

type Result<T> = core::result::Result<T, i32>;

/// `UIO_MAXIOV`.
const IOV_MAX: u64 = 1024;

/// Answers the call at which `task` is stopped.
pub(super) fn copy<'m>(engine: &Engine<'m>, task: &Task<'m>) -> Action {
    match try_copy(engine, task) {
        Ok(bytes) => Action::Return(bytes as i64),
        Err(errno) => fail(errno),
    }
}

fn try_copy<'m>(engine: &Engine<'m>, task: &Task<'m>) -> Result<u64> {
    let pid = task.arg(0) as i32;
    if task.arg(5) != 0 {
        return Err(libc::EINVAL);
    }
    let own = User {
        system: &engine.sys,
        mm: &task.mm,
    };
    let local = vector(&own, task.arg(1), task.arg(2))?;
    let remote = vector(&own, task.arg(3), task.arg(4))?;
    let other = if pid == task.tid || pid == task.tgid {
        task.mm.clone()
    } else {
        let tasks = &engine.tasks;
        let found = tasks
            .get(&pid)
            .or_else(|| tasks.values().find(|task| task.tgid == pid));
        found.map(|task| task.mm.clone()).ok_or(libc::ESRCH)?
    };
    let (from, to) = if task.nr() == libc::SYS_process_vm_readv {
        ((&other, remote), (&task.mm, local))
    } else {
        ((&task.mm, local), (&other, remote))
    };
    transfer(&engine.sys, from, to)
}

fn vector<M: vellum_machine::Machine>(
    user: &User<'_, '_, M>,
    at: u64,
    count: u64,
) -> Result<Vec<(u64, u64)>> {
    if count > IOV_MAX {
        return Err(libc::EINVAL);
    }
    let mut bytes = vec![0; count as usize * 16];
    user.read(at, &mut bytes)?;
    bytes
        .chunks_exact(16)
        .map(|iov| match (word_at(iov, 0), word_at(iov, 8)) {
            (_, len) if len as i64 <= -1 => Err(libc::EINVAL),
            piece => Ok(piece),
        })
        .collect()
}

/// Copies page by page; stops at the first bad one.
fn transfer<'m>(
    sys: &Sys<'m>,
    (from_mm, from): (&MmRef<'m>, Vec<(u64, u64)>),
    (to_mm, to): (&MmRef<'m>, Vec<(u64, u64)>),
) -> Result<u64> {
    let mut buffer = [0; PAGE_SIZE as usize];
    let mut sources = from.into_iter().filter(|(_, len)| *len > 0);
    let mut source = sources.next();
    let mut total = 0;
    for (mut at, mut room) in to {
        while room > 0 {
            let Some((start, left)) = &mut source else {
                return Ok(total);
            };
            // Within one page on either side, so that a failure copies nothing.
            let in_page = |at: u64| PAGE_SIZE - at % PAGE_SIZE;
            let len = room.min(*left).min(in_page(*start)).min(in_page(at));
            let chunk = &mut buffer[..len as usize];
            let copied = sys
                .copy_from_user(from_mm, VirtAddr::new(*start), chunk)
                .and_then(|()| sys.copy_to_user(to_mm, VirtAddr::new(at), chunk));
            if copied.is_err() {
                return if total > 0 {
                    Ok(total)
                } else {
                    Err(libc::EFAULT)
                };
            }
            (at, room, total) = (at + len, room - len, total + len);
            (*start, *left) = (*start + len, *left - len);
            if *left == 0 {
                source = sources.next();
            }
        }
    }
    Ok(total)
}
