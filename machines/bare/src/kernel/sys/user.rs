//! The memory of the program that made the call.

use crate::fs::{E2BIG, EFAULT, EINVAL, ENAMETOOLONG, Result};
use crate::machine::system;
use crate::task;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use vellum_types::VirtAddr;

/// The longest path.
const PATH_MAX: usize = 4096;
/// Bytes of arguments and environment that execve(2) takes.
const ARG_MAX: usize = 2 << 20;

/// Copies in.
#[inline]
pub(crate) fn get(from: u64, to: &mut [u8]) -> Result<()> {
    let mm = task::current().memory();
    system()
        .copy_from_user(mm, VirtAddr::new(from), to)
        .map_err(|_| EFAULT)
}

/// Copies out.
#[inline]
pub(crate) fn put(to: u64, from: &[u8]) -> Result<()> {
    let mm = task::current().memory();
    system()
        .copy_to_user(mm, VirtAddr::new(to), from)
        .map_err(|_| EFAULT)
}

pub(crate) fn word(from: u64) -> Result<u64> {
    Ok(words::<1>(from)?[0])
}

pub(crate) fn half(from: u64) -> Result<u32> {
    let mut bytes = [0; 4];
    get(from, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

pub(crate) fn words<const N: usize>(from: u64) -> Result<[u64; N]> {
    let mut words = [0; N];
    let mut bytes = [[0u8; 8]; N];
    get(from, bytes.as_flattened_mut())?;
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}

pub(crate) fn put_half(to: u64, value: u32) -> Result<()> {
    put(to, &value.to_le_bytes())
}

pub(crate) fn put_words(to: u64, words: &[u64]) -> Result<()> {
    let mut at = to;
    for word in words {
        put(at, &word.to_le_bytes())?;
        at += 8;
    }
    Ok(())
}

/// Fills the program's buffer with what `make` makes.
pub(crate) fn fill(to: u64, len: u64, mut make: impl FnMut(&mut [u8])) -> Result<u64> {
    let mut chunk = [0; 1024];
    let mut done = 0;
    while done < len {
        let n = chunk.len().min((len - done) as usize);
        make(&mut chunk[..n]);
        match put(to + done, &chunk[..n]) {
            Ok(()) => done += n as u64,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Bytes up to a NUL, `max` at most.
fn bytes_to_nul(from: u64, max: usize) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 256];
    let mut at = from;
    while bytes.len() < max {
        // Never across a page that need not be there.
        let n = chunk.len().min((4096 - at % 4096) as usize);
        get(at, &mut chunk[..n])?;
        if let Some(end) = chunk[..n].iter().position(|b| *b == 0) {
            bytes.extend_from_slice(&chunk[..end]);
            return Ok(Some(bytes));
        }
        bytes.extend_from_slice(&chunk[..n]);
        at += n as u64;
    }
    Ok(None)
}

/// A path.
pub(crate) fn path(from: u64) -> Result<String> {
    let bytes = bytes_to_nul(from, PATH_MAX)?.ok_or(ENAMETOOLONG)?;
    String::from_utf8(bytes).map_err(|_| EINVAL)
}

/// A list of strings that ends with a null pointer.
pub(crate) fn strings(from: u64) -> Result<Vec<Vec<u8>>> {
    let mut list = vec![];
    let mut total = 0;
    if from == 0 {
        return Ok(list);
    }
    loop {
        let at = word(from + list.len() as u64 * 8)?;
        if at == 0 {
            return Ok(list);
        }
        let text = bytes_to_nul(at, ARG_MAX)?.ok_or(E2BIG)?;
        total += text.len() + 9;
        if total > ARG_MAX {
            return Err(E2BIG);
        }
        list.push(text);
    }
}

/// `struct timespec`, as nanoseconds.
pub(crate) fn timespec(from: u64) -> Result<u64> {
    let [seconds, nanoseconds] = words::<2>(from)?;
    if nanoseconds >= 1_000_000_000 || (seconds as i64) < 0 {
        return Err(EINVAL);
    }
    Ok(seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds))
}

pub(crate) fn put_timespec(to: u64, ns: u64) -> Result<()> {
    put_words(to, &[ns / 1_000_000_000, ns % 1_000_000_000])
}
