//! The patch table: which bytes of a file jump to which thunk, and back.

use alloc::collections::BTreeMap;
use core::ops::{Range, RangeBounds};

/// A displaced instruction (pattern 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Displaced {
    /// Where it runs, from the thunk's start.
    pub thunk: u8,
    /// Where the file has it, from the site's start.
    pub site: u8,
}

/// The most instructions a thunk takes over.
pub const MAX_DISPLACED: usize = 4;

/// A patched site. Offsets without another word are the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// First replaced byte.
    pub start: u64,
    /// Bytes replaced.
    pub len: u8,
    /// The `syscall`: behind the replaced bytes for pattern 1, the first of them for pattern 2.
    pub syscall: u64,
    /// The thunk, in the thunk area.
    pub thunk: u64,
    /// Length of the thunk.
    pub thunk_len: u8,
    /// Offset in the thunk behind the jump to the libOS.
    pub call_end: u8,
    /// Instructions that run in the thunk behind the call, in order.
    pub displaced: [Option<Displaced>; MAX_DISPLACED],
}

impl Patch {
    /// The program's own place for offset `at` of the thunk: before the call the site's start, for everything can
    /// be done again; after it the displaced instruction's own; at the last jump what it leads to.
    fn original(&self, at: u64) -> u64 {
        if at < u64::from(self.call_end) {
            return self.start;
        }
        let instructions = || self.displaced.iter().flatten();
        // The jump back lies behind the last instruction, which is as long there as here.
        let last = instructions().last();
        let jump_back = u64::from(self.thunk_len).saturating_sub(super::thunk::JUMP_LEN as u64);
        if last.is_some() && at >= jump_back {
            return self.start + u64::from(self.len);
        }
        instructions()
            .take_while(|instruction| u64::from(instruction.thunk) <= at)
            .last()
            .map_or(self.start, |instruction| {
                self.start + u64::from(instruction.site)
            })
    }
}

/// All patches of a file.
#[derive(Debug, Default)]
pub struct PatchTable {
    /// Every thunk there is, by its offset: threads may be in it whatever became of the site.
    by_thunk: BTreeMap<u64, Patch>,
    /// The sites that are patched now: start to thunk.
    by_start: BTreeMap<u64, u64>,
}

impl PatchTable {
    /// Adds a patch.
    pub fn insert(&mut self, patch: Patch) {
        self.by_start.insert(patch.start, patch.thunk);
        self.by_thunk.insert(patch.thunk, patch);
    }

    /// Forgets the sites that start in `starts`; their thunks stay.
    pub fn forget_sites(&mut self, starts: Range<u64>) {
        self.by_start.retain(|start, _| !starts.contains(start));
    }

    /// Number of patched sites.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// The last patched site that starts in `starts`.
    fn last_in(&self, starts: impl RangeBounds<u64>) -> Option<&Patch> {
        let (_, thunk) = self.by_start.range(starts).next_back()?;
        self.by_thunk.get(thunk)
    }

    /// The patch whose `syscall` is at `offset` of the file.
    #[must_use]
    pub fn at_syscall(&self, offset: u64) -> Option<&Patch> {
        self.last_in(..=offset)
            .filter(|patch| patch.syscall == offset)
    }

    /// Whether a patch replaces any of the `len` bytes at `offset`.
    #[must_use]
    pub fn overlaps(&self, offset: u64, len: u64) -> bool {
        self.last_in(..offset + len)
            .is_some_and(|patch| patch.start + u64::from(patch.len) > offset)
    }

    /// The file offset that offset `at` of the thunk area stands for; `None` outside thunks.
    #[must_use]
    pub fn original(&self, at: u64) -> Option<u64> {
        let (thunk, patch) = self.by_thunk.range(..=at).next_back()?;
        let inside = at - thunk;
        (inside < u64::from(patch.thunk_len)).then(|| patch.original(inside))
    }

    /// Where in the thunk area execution goes on that is to go on at `offset` of the file, if that was
    /// replaced by something else: the start of a site goes to its thunk, a displaced instruction to its copy. `None`
    /// for what is still there, and for the middle of a replaced instruction, where no program goes on.
    #[must_use]
    pub fn resume(&self, offset: u64) -> Option<u64> {
        let patch = self.last_in(..=offset)?;
        let inside = offset - patch.start;
        if inside == 0 {
            return Some(patch.thunk);
        }
        patch
            .displaced
            .iter()
            .flatten()
            .find(|instruction| u64::from(instruction.site) == inside)
            .map(|instruction| patch.thunk + u64::from(instruction.thunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `mov $39, %eax; syscall` at 0x1000, thunk of 19 bytes at 0x40.
    const PATTERN_1: Patch = Patch {
        start: 0x1000,
        len: 5,
        syscall: 0x1005,
        thunk: 0x40,
        thunk_len: 19,
        call_end: 19,
        displaced: [None; MAX_DISPLACED],
    };

    /// `syscall; mov %rax, %rbx; test %eax, %eax` at 0x2000: lea 7, jmp 7, 3 + 2 displaced, jmp 5.
    const PATTERN_2: Patch = Patch {
        start: 0x2000,
        len: 7,
        syscall: 0x2000,
        thunk: 0x80,
        thunk_len: 24,
        call_end: 14,
        displaced: [
            Some(Displaced { thunk: 14, site: 2 }),
            Some(Displaced { thunk: 17, site: 5 }),
            None,
            None,
        ],
    };

    fn table() -> PatchTable {
        let mut table = PatchTable::default();
        table.insert(PATTERN_1);
        table.insert(PATTERN_2);
        table
    }

    #[test]
    fn every_byte_of_a_pattern_1_thunk_is_the_site_s_start() {
        let table = table();
        for at in 0x40..0x40 + 19 {
            assert_eq!(table.original(at), Some(0x1000), "{at:#x}");
        }
        for at in [0, 0x3f, 0x40 + 19, 0x7f] {
            assert_eq!(table.original(at), None, "{at:#x}");
        }
    }

    #[test]
    fn every_byte_of_a_pattern_2_thunk_has_its_original() {
        let table = table();
        for at in 0..24u64 {
            let expected = match at {
                0..14 => 0x2000,
                14..17 => 0x2002,
                17..19 => 0x2005,
                _ => 0x2007,
            };
            assert_eq!(table.original(0x80 + at), Some(expected), "{at}");
        }
        assert_eq!(table.original(0x80 + 24), None);
    }

    #[test]
    fn every_byte_of_a_replaced_region_resumes_right() {
        let table = table();
        for offset in 0xff0..0x1010 {
            let expected = (offset == 0x1000).then_some(0x40);
            assert_eq!(table.resume(offset), expected, "{offset:#x}");
        }
        for offset in 0x1ff0..0x2010 {
            let expected = match offset {
                0x2000 => Some(0x80),
                0x2002 => Some(0x80 + 14),
                0x2005 => Some(0x80 + 17),
                _ => None,
            };
            assert_eq!(table.resume(offset), expected, "{offset:#x}");
        }
    }

    #[test]
    fn resuming_and_mapping_back_are_inverse() {
        let table = table();
        for offset in 0..0x3000 {
            if let Some(at) = table.resume(offset) {
                assert_eq!(table.original(at), Some(offset));
            }
        }
    }

    #[test]
    fn sites_are_found_by_their_syscall() {
        let table = table();
        for offset in 0..0x3000 {
            let found = table.at_syscall(offset).map(|patch| patch.start);
            let expected = match offset {
                0x1005 => Some(0x1000),
                0x2000 => Some(0x2000),
                _ => None,
            };
            assert_eq!(found, expected);
        }
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn overlaps_are_seen() {
        let table = table();
        assert!(table.overlaps(0x0ffc, 5));
        assert!(!table.overlaps(0x0ffb, 5));
        assert!(table.overlaps(0x1004, 1));
        assert!(!table.overlaps(0x1005, 2));
        assert!(!PatchTable::default().overlaps(0, 100));
    }

    #[test]
    fn forgotten_sites_leave_their_thunks() {
        let mut table = table();
        table.forget_sites(0x1000..0x2000);
        assert_eq!(table.len(), 1);
        assert_eq!(table.at_syscall(0x1005), None);
        assert_eq!(table.resume(0x1000), None);
        assert!(!table.overlaps(0x1000, 5));
        assert_eq!(table.original(0x45), Some(0x1000));
        assert_eq!(table.resume(0x2000), Some(0x80));
    }
}
