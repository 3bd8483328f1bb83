//! Slots whose pages are kept in little memory.

use crate::array::FrameArray;
use crate::zpool::{Handle, MAX_OBJECT, Zpool};
use vellum_machine::{DirectMap, PerCpu};
use vellum_page::PageSource;
use vellum_types::{IoError, OutOfMemory, PAGE_SIZE, Pfn};

const PAGE: usize = PAGE_SIZE as usize;

/// A page of bytes.
pub(crate) type PageBytes = [u8; PAGE];

/// Bytes of the buffer that a [`Compressor`] writes to: more than a page, for those that want room.
pub const COMPRESS_BUFFER: usize = PAGE + PAGE / 4;

/// Pieces in which pages are looked at without a buffer for all of them.
const PIECE: usize = 512;

/// The buffers of one CPU. Linux's `zcomp_strm`.
pub struct Stream {
    pub(crate) page: PageBytes,
    pub(crate) data: [u8; COMPRESS_BUFFER],
}

impl Stream {
    /// Empty ones.
    pub const fn new() -> Self {
        Self {
            page: [0; PAGE],
            data: [0; COMPRESS_BUFFER],
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

/// A [`Stream`] for each CPU. All devices may share them.
pub type Streams<'m> = PerCpu<'m, Stream>;

/// Makes pages small. Core crates have none: a machine brings one.
pub trait Compressor: Sync {
    /// As in `/sys/block/zram0/comp_algorithm`.
    fn name(&self) -> &str;

    /// Compresses a page into `out`, which has [`COMPRESS_BUFFER`] bytes; returns how many it took, or
    /// `None` if it does not get smaller.
    fn compress(&self, page: &[u8], out: &mut [u8]) -> Option<usize>;

    /// Undoes it: fills all of `page`.
    ///
    /// # Errors
    /// `data` is not what `compress` made of a page.
    fn decompress(&self, data: &[u8], page: &mut [u8]) -> Result<(), Corrupt>;
}

/// Compressed data that cannot be decompressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Corrupt;

impl core::fmt::Display for Corrupt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("compressed page is damaged")
    }
}

impl core::error::Error for Corrupt {}

/// What compressed memory holds: `/sys/block/zram0/mm_stat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PackedStat {
    /// Pages held, of any kind.
    pub pages: u64,
    /// Of these, pages that are one word all over and take no memory.
    pub same_pages: u64,
    /// Of these, pages that do not compress and take a frame each.
    pub huge_pages: u64,
    /// Bytes of all compressed pages, huge ones included.
    pub compr_data_size: u64,
    /// Bytes of frames used for them.
    pub mem_used_total: u64,
    /// Bytes that these may become.
    pub mem_limit: u64,
}

/// The word that a page consists of, if it is the same all over. Linux's `page_same_filled`.
#[inline]
pub(crate) fn same_filled(page: &PageBytes) -> Option<u64> {
    let word = page.first_chunk()?;
    // The last word first: what is not the same often ends otherwise. Then the page must be equal to
    // itself, one word on: one quick comparison.
    let same = page.last_chunk() == Some(word) && page[..PAGE - 8] == page[8..];
    same.then(|| u64::from_ne_bytes(*word))
}

/// The word that a frame consists of, if it is the same all over.
pub(crate) fn frame_word(ram: DirectMap<'_>, frame: Pfn) -> Option<u64> {
    let word = ram.read_u64(frame.addr());
    // The last word first: what is not the same often ends otherwise.
    if ram.read_u64(frame.addr() + (PAGE_SIZE - 8)) != word {
        return None;
    }
    let mut bytes = [0; PIECE];
    for piece in (0..PAGE).step_by(PIECE) {
        ram.read_bytes(frame.addr() + piece as u64, &mut bytes);
        if bytes
            .as_chunks()
            .0
            .iter()
            .any(|b| u64::from_ne_bytes(*b) != word)
        {
            return None;
        }
    }
    Some(word)
}

/// A checksum of a frame, never 0.
pub(crate) fn checksum(ram: DirectMap<'_>, frame: Pfn) -> u32 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = [0; PIECE];
    for piece in (0..PAGE).step_by(PIECE) {
        ram.read_bytes(frame.addr() + piece as u64, &mut bytes);
        for word in bytes.as_chunks().0 {
            // Xor, multiplying by an odd number and rotation lose nothing.
            hash = (hash ^ u64::from_le_bytes(*word))
                .wrapping_mul(0xff51_afd7_ed55_8ccd)
                .rotate_left(29);
        }
    }
    ((hash ^ hash >> 32) as u32).max(1)
}

/// Fills a frame with a word.
pub(crate) fn fill(ram: DirectMap<'_>, frame: Pfn, word: u64) {
    let bytes = word.to_ne_bytes();
    if bytes == [bytes[0]; 8] {
        return ram.fill_pages(frame, 1, bytes[0]);
    }
    let mut piece = [0; PIECE];
    for chunk in piece.chunks_exact_mut(8) {
        chunk.copy_from_slice(&bytes);
    }
    for at in (0..PAGE).step_by(PIECE) {
        ram.write_bytes(frame.addr() + at as u64, &piece);
    }
}

/// What became of a page.
#[derive(Clone, Copy)]
pub(crate) enum Squeezed<'a> {
    Same(u64),
    Small(&'a [u8]),
    Huge(&'a PageBytes),
}

/// Makes a page as small as it gets.
#[inline]
pub(crate) fn squeeze<'a>(
    compressor: &dyn Compressor,
    stream: &'a mut Stream,
    frame: Pfn,
    ram: DirectMap<'_>,
) -> Squeezed<'a> {
    ram.read_bytes(frame.addr(), &mut stream.page);
    if let Some(word) = same_filled(&stream.page) {
        return Squeezed::Same(word);
    }
    match compressor.compress(&stream.page, &mut stream.data) {
        Some(len) if len > 0 && len <= MAX_OBJECT => Squeezed::Small(&stream.data[..len]),
        _ => Squeezed::Huge(&stream.page),
    }
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// Nothing.
    None,
    /// A word all over.
    Same(u64),
    /// A compressed page of so many bytes.
    Small(Handle, usize),
    /// A page as it is.
    Huge(Pfn),
    /// The page is not here but on the device behind.
    Behind,
}

/// The pages of all slots of a device. 12 bytes for each slot, and what they are compressed to.
pub(crate) struct Packed<'m> {
    pool: Zpool<'m>,
    ram: DirectMap<'m>,
    values: FrameArray<'m, u64>,
    kinds: FrameArray<'m, u32>,
    stat: PackedStat,
}

impl<'m> Packed<'m> {
    pub(crate) fn new(
        source: &'m dyn PageSource,
        slots: u32,
        limit: u64,
    ) -> Result<Self, OutOfMemory> {
        let frames = u32::try_from(limit / PAGE_SIZE).unwrap_or(u32::MAX);
        Ok(Self {
            pool: Zpool::new(source, frames),
            ram: source.ram(),
            values: FrameArray::new(source, slots)?,
            kinds: FrameArray::new(source, slots)?,
            stat: PackedStat {
                mem_limit: u64::from(frames) * PAGE_SIZE,
                ..PackedStat::default()
            },
        })
    }

    pub(crate) fn slots(&self) -> u32 {
        self.kinds.len()
    }

    pub(crate) fn frames(&self) -> u32 {
        self.pool.frames()
    }

    pub(crate) fn stat(&self) -> PackedStat {
        PackedStat {
            mem_used_total: u64::from(self.pool.frames()) * PAGE_SIZE,
            ..self.stat
        }
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Content {
        let value = self.values.get(slot);
        match self.kinds.get(slot) {
            0 => Content::None,
            1 => Content::Same(value),
            2 => Content::Huge(Pfn::new(value as u32)),
            3 => Content::Behind,
            size => {
                let first = Pfn::new(value as u32);
                let object = (value >> 32) as u16;
                // Sizes are stored plus 3.
                Content::Small(Handle { first, object }, size as usize - 3)
            }
        }
    }

    #[inline]
    fn set(&mut self, slot: u32, content: Content) {
        let (kind, value) = match content {
            Content::None => (0, 0),
            Content::Same(word) => (1, word),
            Content::Huge(pfn) => (2, u64::from(pfn.as_u32())),
            Content::Behind => (3, 0),
            Content::Small(handle, size) => (
                size as u32 + 3,
                u64::from(handle.first.as_u32()) | u64::from(handle.object) << 32,
            ),
        };
        self.values.set(slot, value);
        self.kinds.set(slot, kind);
    }

    /// Keeps a page in an empty slot.
    ///
    /// # Errors
    /// No frame for it, or the limit is reached. The slot stays empty.
    #[inline]
    pub(crate) fn insert(&mut self, slot: u32, page: Squeezed<'_>) -> Result<(), OutOfMemory> {
        let content = match page {
            Squeezed::Same(word) => {
                self.stat.same_pages += 1;
                Content::Same(word)
            }
            Squeezed::Small(bytes) => {
                let handle = self.pool.alloc(bytes.len())?;
                self.pool.write(handle, bytes);
                self.stat.compr_data_size += bytes.len() as u64;
                Content::Small(handle, bytes.len())
            }
            Squeezed::Huge(bytes) => {
                let pfn = self.pool.take_frame()?;
                self.ram.write_bytes(pfn.addr(), bytes);
                self.stat.huge_pages += 1;
                self.stat.compr_data_size += PAGE_SIZE;
                Content::Huge(pfn)
            }
        };
        self.stat.pages += 1;
        self.set(slot, content);
        Ok(())
    }

    /// Empties a slot; returns what it held, whose memory is gone.
    #[inline]
    pub(crate) fn remove(&mut self, slot: u32) -> Content {
        let content = self.get(slot);
        match content {
            Content::None => return content,
            Content::Same(_) => self.stat.same_pages -= 1,
            Content::Small(handle, size) => {
                self.pool.free(handle, size);
                self.stat.compr_data_size -= size as u64;
            }
            Content::Huge(pfn) => {
                self.pool.give_frame(pfn);
                self.stat.huge_pages -= 1;
                self.stat.compr_data_size -= PAGE_SIZE;
            }
            Content::Behind => {}
        }
        self.stat.pages -= u64::from(content != Content::Behind);
        self.set(slot, Content::None);
        content
    }

    /// The page of an empty slot is on the device behind.
    pub(crate) fn set_behind(&mut self, slot: u32) {
        self.set(slot, Content::Behind);
    }

    /// Copies what a slot holds; `out` is written if it is a compressed page.
    #[inline]
    pub(crate) fn copy_out(&self, slot: u32, frame: Pfn, out: &mut [u8]) -> Content {
        let content = self.get(slot);
        match content {
            Content::Small(handle, size) => self.pool.read(handle, &mut out[..size]),
            Content::Huge(pfn) => self.ram.copy_page(frame, pfn),
            _ => {}
        }
        content
    }

    /// Empties everything.
    pub(crate) fn clear(&mut self) {
        for slot in 0..self.slots() {
            self.remove(slot);
        }
    }

    /// Compares numbers with slots. Says what is wrong.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        let mut found = PackedStat::default();
        for slot in 0..self.slots() {
            match self.get(slot) {
                Content::None | Content::Behind => continue,
                Content::Same(_) => found.same_pages += 1,
                Content::Small(_, size) => found.compr_data_size += size as u64,
                Content::Huge(_) => {
                    found.huge_pages += 1;
                    found.compr_data_size += PAGE_SIZE;
                }
            }
            found.pages += 1;
        }
        let stat = self.stat();
        if found.compr_data_size > stat.mem_used_total {
            return Err("compressed pages need more frames than there are");
        }
        found.mem_used_total = stat.mem_used_total;
        found.mem_limit = stat.mem_limit;
        if found != stat {
            return Err("compressed pages are miscounted");
        }
        Ok(())
    }
}

/// Turns what [`Packed::copy_out`] found into a page, if it is here; true if so.
#[inline]
pub(crate) fn unpack(
    compressor: &dyn Compressor,
    content: Content,
    stream: &mut Stream,
    frame: Pfn,
    ram: DirectMap<'_>,
) -> Result<bool, IoError> {
    match content {
        Content::Same(word) => fill(ram, frame, word),
        Content::Small(_, size) => {
            compressor
                .decompress(&stream.data[..size], &mut stream.page)
                .map_err(|Corrupt| IoError::EBADMSG)?;
            ram.write_bytes(frame.addr(), &stream.page);
        }
        Content::Huge(_) => {}
        Content::None | Content::Behind => return Ok(false),
    }
    Ok(true)
}
