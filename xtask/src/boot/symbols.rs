//! Names for the addresses of a backtrace, from the kernel's own symbol table.

use std::path::Path;

const SYMBOL: usize = 24;

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Offset, size and index of the linked section of each section of a kind.
fn section(elf: &[u8], kind: u32) -> Option<(usize, usize, u32)> {
    let table = word(elf, 40)? as usize;
    let count = u16::from_le_bytes(elf.get(60..62)?.try_into().ok()?);
    (0..usize::from(count))
        .map(|n| table + n * 64)
        .find_map(|at| {
            (half(elf, at + 4)? == kind).then_some(())?;
            Some((
                word(elf, at + 24)? as usize,
                word(elf, at + 32)? as usize,
                half(elf, at + 40)?,
            ))
        })
}

/// Functions of the kernel: address, size, name.
fn functions(elf: &[u8]) -> Option<Vec<(u64, u64, String)>> {
    let (at, size, link) = section(elf, 2)?;
    let names = word(elf, word(elf, 40)? as usize + link as usize * 64 + 24)? as usize;
    let mut list = Vec::new();
    for symbol in elf.get(at..at + size)?.chunks_exact(SYMBOL) {
        if symbol[4] & 15 != 2 {
            continue;
        }
        let name = elf.get(names + half(symbol, 0)? as usize..)?;
        let end = name.iter().position(|b| *b == 0)?;
        let name = String::from_utf8_lossy(&name[..end]).into_owned();
        list.push((word(symbol, 8)?, word(symbol, 16)?, name));
    }
    list.sort();
    Some(list)
}

/// The names of the addresses in the last line `backtrace:` of `output`, one a line.
pub(super) fn explain(kernel: &Path, output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let line = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("backtrace:"))?;
    let functions = functions(&std::fs::read(kernel).ok()?)?;
    let mut lines = vec!["addresses on the stack:".to_string()];
    for word in line.split_whitespace() {
        let address = u64::from_str_radix(word.trim_start_matches("0x"), 16).ok()?;
        let before = functions.partition_point(|(start, _, _)| *start <= address);
        let known = functions[..before]
            .last()
            .filter(|(start, size, _)| address < start + size);
        lines.push(match known {
            Some((start, _, name)) => format!("  {word} {}+{:#x}", short(name), address - start),
            None => format!("  {word}"),
        });
    }
    Some(lines.join("\n"))
}

/// The path in a mangled name, without the hash.
fn short(name: &str) -> String {
    let Some(rest) = name.strip_prefix("_ZN") else {
        return name.to_string();
    };
    let mut parts = Vec::new();
    let mut rest = rest;
    while let Some(digits) = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0) {
        let Ok(len) = rest[..digits].parse::<usize>() else {
            break;
        };
        let Some(part) = rest.get(digits..digits + len) else {
            break;
        };
        parts.push(part);
        rest = &rest[digits + len..];
    }
    if parts
        .last()
        .is_some_and(|last| last.len() == 17 && last.starts_with('h'))
    {
        parts.pop();
    }
    parts.join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mangled_names_become_paths() {
        let name = "_ZN13vellum_kernel4trap5fatal17h0123456789abcdefE";
        assert_eq!(short(name), "vellum_kernel::trap::fatal");
        assert_eq!(short("memcpy"), "memcpy");
    }
}
