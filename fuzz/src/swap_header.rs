//! Headers of swap areas, which anybody may have written.

use crate::input::Input;
use vellum_swap::header::{HEADER_BYTES, HeaderPage, MAX_BAD_PAGES, SwapHeader, bad_pages};

/// Parses; what is accepted must hold what it promises, and be the same when written again.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let file_pages = input.below(1 << 20);
    let mut page: HeaderPage = [0; HEADER_BYTES];
    if input.one_in(2) {
        // Something that is nearly right: single words of a good header are changed.
        let good = SwapHeader {
            last_page: 1 + input.below(1 << 16) as u32,
            nr_bad: 0,
            uuid: [7; 16],
            label: [0; 16],
            dirty: false,
        };
        let bad: Vec<u32> = (0..input.below(64))
            .map(|_| input.below(70_000) as u32)
            .collect();
        let _ = good.write(&mut page, &bad);
        while !input.is_empty() {
            let at = input.below(HEADER_BYTES as u64) as usize;
            page[at] = input.byte();
        }
    } else {
        // The tail matters most: the signature is there.
        let rest = input.rest();
        let len = rest.len().min(HEADER_BYTES);
        page[HEADER_BYTES - len..].copy_from_slice(&rest[..len]);
    }
    let Ok(header) = SwapHeader::parse(&page, file_pages) else {
        return;
    };
    assert!(header.last_page > 0 && u64::from(header.last_page) < file_pages);
    assert!(header.nr_bad as usize <= MAX_BAD_PAGES && header.nr_bad < header.last_page);
    let bad: Vec<u32> = bad_pages(&page).collect();
    assert_eq!(bad.len(), header.nr_bad as usize);
    assert!(bad.iter().all(|bad| (1..=header.last_page).contains(bad)));
    let mut again: HeaderPage = [0; HEADER_BYTES];
    header.write(&mut again, &bad).expect("it was accepted");
    assert_eq!(SwapHeader::parse(&again, file_pages), Ok(header));
    assert!(bad_pages(&again).eq(bad));
}
