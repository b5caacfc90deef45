//! Which parts of a file's thunk area are free.

use alloc::vec::Vec;

use husk_abi::boundary::layout::PAGE_SIZE;

use super::thunk::THUNK_ALIGN;

const UNITS_PER_WORD: u64 = 64;

/// The free places of a thunk area, in units of [`THUNK_ALIGN`] bytes.
#[derive(Debug, Default)]
pub struct ThunkArea {
    /// A bit for each unit that is taken; what lies behind the last word is free.
    taken: Vec<u64>,
}

impl ThunkArea {
    fn is_taken(&self, unit: u64) -> bool {
        let word = self.taken.get((unit / UNITS_PER_WORD) as usize);
        word.is_some_and(|word| word >> (unit % UNITS_PER_WORD) & 1 == 1)
    }

    /// The lowest place for `len` bytes, on one page, in an area of `area_bytes`, that `suits`; on a page that is in use
    /// (`has_page`) if there is one.
    pub fn find(
        &self,
        area_bytes: u64,
        len: usize,
        has_page: impl Fn(u64) -> bool,
        suits: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let len = len as u64;
        let is_free = |at: &u64| {
            let last = *at + len - 1;
            last < area_bytes
                && *at / PAGE_SIZE == last / PAGE_SIZE
                && (*at / THUNK_ALIGN..=last / THUNK_ALIGN).all(|unit| !self.is_taken(unit))
        };
        let mut fresh = None;
        for page in 0..area_bytes / PAGE_SIZE {
            let is_in_use = has_page(page);
            if !is_in_use && fresh.is_some() {
                continue;
            }
            let places = page * PAGE_SIZE..(page + 1) * PAGE_SIZE;
            let found = places
                .step_by(THUNK_ALIGN as usize)
                .find(|at| is_free(at) && suits(*at));
            if is_in_use && found.is_some() {
                return found;
            }
            fresh = fresh.or(found);
        }
        fresh
    }

    /// Takes the `len` bytes at `at`.
    pub fn take(&mut self, at: u64, len: usize) {
        for unit in at / THUNK_ALIGN..(at + len as u64).div_ceil(THUNK_ALIGN) {
            let word = (unit / UNITS_PER_WORD) as usize;
            if self.taken.len() <= word {
                self.taken.resize(word + 1, 0);
            }
            self.taken[word] |= 1 << (unit % UNITS_PER_WORD);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(area: &ThunkArea, len: usize, pages: &[u64]) -> Option<u64> {
        area.find(2 * PAGE_SIZE, len, |page| pages.contains(&page), |_| true)
    }

    #[test]
    fn places_are_taken_from_below() {
        let mut area = ThunkArea::default();
        for (len, expected) in [(19, 0), (32, 32), (33, 64), (1, 128)] {
            let at = find(&area, len, &[]).expect("room");
            assert_eq!(at, expected);
            area.take(at, len);
        }
    }

    #[test]
    fn pages_in_use_are_preferred() {
        let mut area = ThunkArea::default();
        assert_eq!(find(&area, 19, &[1]), Some(PAGE_SIZE));
        area.take(PAGE_SIZE, PAGE_SIZE as usize);
        assert_eq!(find(&area, 19, &[1]), Some(0));
    }

    #[test]
    fn no_thunk_lies_on_two_pages() {
        let mut area = ThunkArea::default();
        area.take(0, PAGE_SIZE as usize - 32);
        assert_eq!(find(&area, 33, &[0]), Some(PAGE_SIZE));
        assert_eq!(find(&area, 32, &[0]), Some(PAGE_SIZE - 32));
        area.take(PAGE_SIZE, PAGE_SIZE as usize);
        assert_eq!(find(&area, 33, &[0]), None);
    }

    #[test]
    fn what_does_not_suit_is_passed_over() {
        let area = ThunkArea::default();
        let found = area.find(PAGE_SIZE, 19, |_| false, |at| at >> 8 & 0xff == 0x06);
        assert_eq!(found, Some(0x600));
        assert_eq!(area.find(PAGE_SIZE, 19, |_| false, |_| false), None);
    }
}
