//! The header of a swap file, as Linux's mkswap writes it. `union swap_header`.

use core::fmt;

/// Bytes of the header: one page.
pub const HEADER_BYTES: usize = 4096;

const VERSION: usize = 1024;
const LAST_PAGE: usize = 1028;
const NR_BAD: usize = 1032;
const UUID: usize = 1036;
const LABEL: usize = 1052;
const BAD: usize = 1536;
const SIGNATURE: usize = HEADER_BYTES - SIGNATURE_BYTES.len();
const SIGNATURE_BYTES: &[u8; 10] = b"SWAPSPACE2";
/// Linux's signature of a hibernated system, in the same place.
const HIBERNATED: &[u8; 10] = b"S1SUSPEND\0";

/// In the first 1024 bytes, which Linux leaves to boot loaders, we note whether an area is in use.
const MARK: &[u8; 8] = b"VELLUMSW";
const DIRTY: usize = 8;

/// The most bad pages that fit.
pub const MAX_BAD_PAGES: usize = (SIGNATURE - BAD) / 4;

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwapHeader {
    /// The last page that may be used; page 0 is the header. An area of it has `last_page + 1` slots.
    pub last_page: u32,
    /// How many pages are listed as bad: see [`bad_pages`].
    pub nr_bad: u32,
    /// The file system's name for it.
    pub uuid: [u8; 16],
    /// The volume label, padded with zeros.
    pub label: [u8; 16],
    /// Somebody put the area into use and did not put it out of use: it was killed, or still runs.
    pub dirty: bool,
}

/// Why a page is no header of an area that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// No signature: not a swap area, or not a finished one.
    Signature,
    /// It holds the image of a hibernated system, which would be lost.
    Hibernated,
    /// Written by a machine of the other byte order.
    ByteOrder,
    /// A version other than 1.
    Version(u32),
    /// No page besides the header.
    Empty,
    /// The file has fewer pages than the header says.
    TooSmall {
        /// Pages by the header, itself included.
        need: u64,
        /// Pages of the file.
        have: u64,
    },
    /// More bad pages than fit, or than there are.
    BadCount(u32),
    /// A page listed as bad does not exist.
    BadPage(u32),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature => f.write_str("no swap signature"),
            Self::Hibernated => f.write_str("holds a hibernated system"),
            Self::ByteOrder => f.write_str("swap area of the other byte order"),
            Self::Version(version) => write!(f, "swap header version {version} is not supported"),
            Self::Empty => f.write_str("swap area has no pages"),
            Self::TooSmall { need, have } => {
                write!(f, "swap area of {need} pages in a file of {have}")
            }
            Self::BadCount(count) => write!(f, "{count} bad pages are too many"),
            Self::BadPage(page) => write!(f, "bad page {page} is beyond the swap area"),
        }
    }
}

impl core::error::Error for HeaderError {}

/// A page of bytes.
pub type HeaderPage = [u8; HEADER_BYTES];

fn word(page: &HeaderPage, at: usize) -> u32 {
    let bytes = page.get(at..at + 4).and_then(|b| b.try_into().ok());
    bytes.map_or(0, u32::from_le_bytes)
}

fn set_word(page: &mut HeaderPage, at: usize, value: u32) {
    page[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The pages listed as bad, of a header that was read by [`SwapHeader::parse`].
pub fn bad_pages(page: &HeaderPage) -> impl Iterator<Item = u32> + '_ {
    let count = (word(page, NR_BAD) as usize).min(MAX_BAD_PAGES);
    (0..count).map(|i| word(page, BAD + 4 * i))
}

/// Marks the header: in use, or properly put out of use. The page must then be written before the
/// first slot is, or after the last one.
pub fn set_dirty(page: &mut HeaderPage, dirty: bool) {
    page[..MARK.len()].copy_from_slice(MARK);
    page[DIRTY] = u8::from(dirty);
}

impl SwapHeader {
    /// Reads the first page of a file of `file_pages` pages.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn parse(page: &HeaderPage, file_pages: u64) -> Result<Self, HeaderError> {
        let signature = &page[SIGNATURE..];
        if signature == HIBERNATED {
            return Err(HeaderError::Hibernated);
        }
        if signature != SIGNATURE_BYTES {
            return Err(HeaderError::Signature);
        }
        match word(page, VERSION) {
            1 => {}
            0x0100_0000 => return Err(HeaderError::ByteOrder),
            version => return Err(HeaderError::Version(version)),
        }
        let last_page = word(page, LAST_PAGE);
        if last_page == 0 {
            return Err(HeaderError::Empty);
        }
        let need = u64::from(last_page) + 1;
        if file_pages < need {
            return Err(HeaderError::TooSmall {
                need,
                have: file_pages,
            });
        }
        let nr_bad = word(page, NR_BAD);
        if nr_bad as usize > MAX_BAD_PAGES || nr_bad >= last_page {
            return Err(HeaderError::BadCount(nr_bad));
        }
        if let Some(bad) = bad_pages(page).find(|bad| *bad == 0 || *bad > last_page) {
            return Err(HeaderError::BadPage(bad));
        }
        Ok(Self {
            last_page,
            nr_bad,
            uuid: core::array::from_fn(|i| page[UUID + i]),
            label: core::array::from_fn(|i| page[LABEL + i]),
            dirty: page.starts_with(MARK) && page[DIRTY] != 0,
        })
    }

    /// Writes a new header with these bad pages, as mkswap(8) does. Bytes that have no meaning are left
    /// as they are: a boot loader may be there.
    ///
    /// # Errors
    /// No page besides the header, or bad pages that are too many or do not exist; nothing is written.
    pub fn write(&self, page: &mut HeaderPage, bad: &[u32]) -> Result<(), HeaderError> {
        if self.last_page == 0 {
            return Err(HeaderError::Empty);
        }
        let nr_bad = u32::try_from(bad.len()).unwrap_or(u32::MAX);
        if bad.len() > MAX_BAD_PAGES || nr_bad >= self.last_page {
            return Err(HeaderError::BadCount(nr_bad));
        }
        if let Some(&bad) = bad.iter().find(|bad| **bad == 0 || **bad > self.last_page) {
            return Err(HeaderError::BadPage(bad));
        }
        set_word(page, VERSION, 1);
        set_word(page, LAST_PAGE, self.last_page);
        set_word(page, NR_BAD, nr_bad);
        page[UUID..UUID + 16].copy_from_slice(&self.uuid);
        page[LABEL..LABEL + 16].copy_from_slice(&self.label);
        for (i, bad) in bad.iter().enumerate() {
            set_word(page, BAD + 4 * i, *bad);
        }
        page[SIGNATURE..].copy_from_slice(SIGNATURE_BYTES);
        set_dirty(page, self.dirty);
        Ok(())
    }
}
