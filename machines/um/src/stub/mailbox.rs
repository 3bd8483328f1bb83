//! Calls for the host, written by the supervisor and run inside a guest's space.

use super::{MAILBOX_BASE, MAILBOX_LEN};
use crate::host::memory::{SharedMap, memfd};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const SLOT_LEN: u64 = 16 << 10;
const CALLS_OFFSET: u64 = 64;
const CALL_LEN: u64 = 64;
/// Slots of the mailbox; one is in use per space.
pub(crate) const SLOTS: usize = (MAILBOX_LEN / SLOT_LEN) as usize;
/// The end of each slot is scratch memory for arguments of single system calls.
const SCRATCH_OFFSET: u64 = 12 << 10;
/// Bytes of scratch memory that a task has.
pub(crate) const SCRATCH_LEN: u64 = 64;
const SCRATCHES: u64 = (SLOT_LEN - SCRATCH_OFFSET) / SCRATCH_LEN;
/// Calls that fit into one batch.
pub(crate) const BATCH: usize = ((SCRATCH_OFFSET - CALLS_OFFSET) / CALL_LEN) as usize;

/// One call: number and arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HostCall {
    /// Its number.
    pub nr: i64,
    /// Its arguments.
    pub args: [u64; 6],
}

impl HostCall {
    /// A call with up to six arguments; the rest is zero.
    pub(crate) fn new<const N: usize>(nr: i64, args: [u64; N]) -> Self {
        let mut all = [0; 6];
        all[..N].copy_from_slice(&args);
        Self { nr, args: all }
    }
}

/// The memory that supervisor and guests share.
#[derive(Debug)]
pub(crate) struct Mailbox {
    fd: OwnedFd,
    map: SharedMap,
}

/// The index of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot(usize);

impl Slot {
    /// Slot number `index`.
    ///
    /// # Panics
    /// If there are not so many.
    pub(crate) fn new(index: usize) -> Self {
        assert!(index < SLOTS);
        Self(index)
    }
    /// Where a guest sees it.
    pub(crate) fn guest_addr(self) -> u64 {
        MAILBOX_BASE + self.0 as u64 * SLOT_LEN
    }
}

impl Mailbox {
    /// A fresh mailbox.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = memfd(c"vellum-mailbox", MAILBOX_LEN)?;
        let map = SharedMap::new(&fd, MAILBOX_LEN)?;
        Ok(Self { fd, map })
    }

    /// Its file.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    fn word(&self, slot: Slot, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < SLOT_LEN);
        let at = slot.0 * SLOT_LEN as usize + offset as usize;
        // SAFETY: Slot::new and the assertion keep the offset inside the mapping.
        let word = unsafe { self.map.base().add(at) }.cast::<AtomicU64>();
        // SAFETY: 8-aligned, mapped while self lives, and only ever accessed atomically by us.
        unsafe { word.as_ref() }
    }

    fn half(&self, slot: Slot, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset < SLOT_LEN);
        let at = slot.0 * SLOT_LEN as usize + offset as usize;
        // SAFETY: as in `word`.
        let word = unsafe { self.map.base().add(at) }.cast::<AtomicU32>();
        // SAFETY: as in `word`.
        unsafe { word.as_ref() }
    }

    /// Writes a batch without starting it.
    ///
    /// # Panics
    /// If there are more than [`BATCH`] calls.
    pub(crate) fn write(&self, slot: Slot, calls: &[HostCall]) {
        assert!(calls.len() <= BATCH);
        for (i, call) in calls.iter().enumerate() {
            let at = CALLS_OFFSET + i as u64 * CALL_LEN;
            // Relaxed: published by the Release in `post`, or by the task being stopped.
            self.word(slot, at).store(call.nr as u64, Ordering::Relaxed);
            for (n, arg) in call.args.iter().enumerate() {
                self.word(slot, at + 8 + n as u64 * 8)
                    .store(*arg, Ordering::Relaxed);
            }
        }
        self.word(slot, 8)
            .store(calls.len() as u64, Ordering::Relaxed);
    }

    /// Puts `words` into the scratch memory of task `tid`; returns where the guest sees them. Tasks
    /// of one space whose ids are far apart share: the content serves one system call.
    ///
    /// # Panics
    /// If that are more than [`SCRATCH_LEN`] bytes.
    pub(crate) fn scratch(&self, slot: Slot, tid: i32, words: &[u64]) -> u64 {
        assert!(words.len() as u64 * 8 <= SCRATCH_LEN);
        let at = SCRATCH_OFFSET + tid as u64 % SCRATCHES * SCRATCH_LEN;
        for (i, word) in words.iter().enumerate() {
            self.word(slot, at + i as u64 * 8)
                .store(*word, Ordering::Relaxed);
        }
        slot.guest_addr() + at
    }

    /// The result of call `i` of the last batch.
    pub(crate) fn result(&self, slot: Slot, i: usize) -> i64 {
        let at = CALLS_OFFSET + i as u64 * CALL_LEN + 56;
        self.word(slot, at).load(Ordering::Relaxed) as i64
    }

    /// What the service got when it opened the RAM: 0, or a negative errno.
    pub(crate) fn ram_fd(&self, slot: Slot) -> i64 {
        self.word(slot, 16).load(Ordering::Relaxed) as i64
    }

    /// Makes the slot one that asks nothing of a new service yet.
    pub(crate) fn quiet(&self, slot: Slot) {
        self.half(slot, 4).store(0, Ordering::Relaxed);
        self.half(slot, 0).store(0, Ordering::Release);
    }

    /// The first request to a new service: what `write` put there.
    pub(crate) fn start(&self, slot: Slot) {
        self.post(slot);
    }

    /// Starts the batch in the service process.
    pub(crate) fn post(&self, slot: Slot) {
        let request = self.half(slot, 0);
        let next = request.load(Ordering::Relaxed).wrapping_add(1);
        // Release: the service sees the calls once it sees the number.
        request.store(next, Ordering::Release);
        futex(request, libc::FUTEX_WAKE, 1, None);
    }

    /// Waits up to `millis` for the end of the batch; false if it still runs.
    pub(crate) fn wait(&self, slot: Slot, millis: u32) -> bool {
        let request = self.half(slot, 0).load(Ordering::Relaxed);
        let done = self.half(slot, 4);
        // Acquire pairs with the service's store: results are seen once the number is.
        let seen = done.load(Ordering::Acquire);
        if seen == request {
            return true;
        }
        futex(done, libc::FUTEX_WAIT, seen, Some(millis));
        done.load(Ordering::Acquire) == request
    }
}

fn futex(word: &AtomicU32, op: i32, value: u32, millis: Option<u32>) {
    let timeout = millis.map(|ms| libc::timespec {
        tv_sec: i64::from(ms / 1000),
        tv_nsec: i64::from(ms % 1000) * 1_000_000,
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), |t| &raw const *t);
    // SAFETY: the word and the timeout outlive the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, value, timeout) };
}
