//! Sizes as people write them.

/// Reads `128M`, `1G`, `65536K` or a number of bytes. The suffixes are powers of 1024 and may be
/// written in either case, with or without `B` or `iB` after them.
///
/// # Errors
/// One line that says what was wrong and what a size looks like.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => {
            return Err(format!(
                "`{suffix}` is no unit; use K, M, G or T, as in 128M"
            ));
        }
    };
    if number.is_empty() {
        return Err("a size begins with a whole number, as in 128M".to_string());
    }
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "more bytes than a 64-bit number can hold".to_string())?;
    if bytes == 0 {
        return Err("a machine needs some memory".to_string());
    }
    Ok(bytes)
}

/// `bytes` in the largest unit that divides it or leaves at least three digits.
pub(crate) fn human(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let whole = bytes >> shift;
        if whole > 0 && bytes & ((1 << shift) - 1) == 0 || whole >= 100 {
            return format!("{whole} {unit}");
        }
        if whole > 0 {
            let tenths = ((bytes as u128 * 10) >> shift) as u64;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("4096", 4096),
            ("1b", 1),
            ("65536K", 64 << 20),
            ("128M", 128 << 20),
            ("128m", 128 << 20),
            ("128MiB", 128 << 20),
            ("1G", 1 << 30),
            ("16T", 16 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "M",
            "-1",
            "1.5G",
            "12Q",
            "0",
            "0M",
            "99999999999999999999",
            "99999999T",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written() {
        for (bytes, text) in [
            (0, "0 B"),
            (4095, "3.9 KiB"),
            (4096, "4 KiB"),
            (1536 << 10, "1.5 MiB"),
            (128 << 20, "128 MiB"),
            (150_000 << 10, "146 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
