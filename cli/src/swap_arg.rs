//! `--swap` as people write it.

use crate::size;
use vellum_um::{SwapKind, SwapSpec};

/// Reads `SIZE`, `file:PATH`, `file:PATH:SIZE` or `zram:SIZE`, each perhaps with `@PRIORITY`.
///
/// # Errors
/// One line that says what was wrong and what is possible.
pub(crate) fn parse(text: &str) -> Result<SwapSpec, String> {
    let (area, priority) = match text.rsplit_once('@') {
        Some((area, digits)) if is_number(digits) => (area, Some(priority(digits)?)),
        // A path may have an @ in it.
        Some((area, rest)) if !area.starts_with("file:") => {
            return Err(format!(
                "`{rest}` is no priority; use 0 to 32767, as in {area}@5"
            ));
        }
        _ => (text, None),
    };
    let kind = match area.split_once(':') {
        None => SwapKind::Temporary {
            bytes: size::parse(area)?,
        },
        Some(("zram", bytes)) => SwapKind::Zram {
            bytes: size::parse(bytes)?,
        },
        Some(("file", rest)) => file(rest)?,
        Some((other, _)) => {
            return Err(format!(
                "`{other}` is no kind of swap; use SIZE, file:PATH[:SIZE] or zram:SIZE"
            ));
        }
    };
    Ok(SwapSpec { kind, priority })
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// As swapon(8) takes it.
fn priority(digits: &str) -> Result<i16, String> {
    digits
        .parse()
        .ok()
        .filter(|priority| *priority >= 0)
        .ok_or_else(|| format!("`{digits}` is no priority; use 0 to 32767"))
}

fn file(text: &str) -> Result<SwapKind, String> {
    let (path, bytes) = match text.rsplit_once(':') {
        Some((path, size)) => (path, Some(size::parse(size)?)),
        None => (text, None),
    };
    if path.is_empty() {
        return Err("file: needs a path, as in file:/var/tmp/swap:512M".to_string());
    }
    Ok(SwapKind::File {
        path: path.into(),
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: Option<u64>) -> SwapKind {
        SwapKind::File {
            path: path.into(),
            bytes,
        }
    }

    #[test]
    fn areas_are_read() {
        let temporary = SwapKind::Temporary { bytes: 512 << 20 };
        for (text, kind, priority) in [
            ("512M", temporary.clone(), None),
            ("512M@7", temporary, Some(7)),
            ("zram:1G", SwapKind::Zram { bytes: 1 << 30 }, None),
            ("zram:1G@100", SwapKind::Zram { bytes: 1 << 30 }, Some(100)),
            ("file:/s", file("/s", None), None),
            ("file:/s@0", file("/s", None), Some(0)),
            ("file:/s:1M@3", file("/s", Some(1 << 20)), Some(3)),
            ("file:/a:b:1M", file("/a:b", Some(1 << 20)), None),
            ("file:/srv/me@here", file("/srv/me@here", None), None),
        ] {
            assert_eq!(parse(text), Ok(SwapSpec { kind, priority }), "{text}");
        }
    }

    #[test]
    fn what_is_no_area_is_refused() {
        for text in [
            "",
            "zram",
            "zram:",
            "disk:1G",
            "1G@high",
            "1G@-1",
            "1G@40000",
            "file:",
            "file::1M",
            "file:/s:big",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
