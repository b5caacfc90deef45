//! The patch table: which bytes of a file jump to which thunk, and back.

use alloc::collections::BTreeMap;
use core::ops::{Range, RangeBounds};

use super::decode::{MAX_DISPLACED, SYSCALL_LEN};

/// An instruction that a thunk has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Displaced {
    /// Where it runs, from the thunk's start.
    pub thunk: u8,
    /// Where the file has it, from the site's start.
    pub site: u8,
}

/// A patched site. Offsets without another word are the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// First replaced byte.
    pub start: u64,
    /// Bytes replaced.
    pub len: u8,
    /// The `syscall`: the first of the replaced bytes for pattern 2, else somewhere behind them.
    pub syscall: u64,
    /// The thunk, in the thunk area.
    pub thunk: u64,
    /// Length of the thunk.
    pub thunk_len: u8,
    /// Offset in the thunk where the call begins.
    pub call_at: u8,
    /// Offset in the thunk behind the jump to the libOS.
    pub call_end: u8,
    /// Instructions that run in the thunk, in order: all before the call (patterns 1 and 3) or all behind it.
    pub displaced: [Option<Displaced>; MAX_DISPLACED],
    /// Whether the site is a `syscall`'s: a `cpuid` has not begun before the libOS is entered.
    pub is_syscall: bool,
}

/// Where a program is that executes a thunk. Offsets are the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this instruction of its own, with all registers as it would have them there.
    At(u64),
    /// About to enter the libOS from the `syscall` at this offset: rcx holds the return address already.
    Entering(u64),
    /// Behind the `syscall`, at this offset, but rcx does not hold that address yet.
    Returned(u64),
}

impl Place {
    /// The same with another measure of where.
    #[must_use]
    pub fn map(self, f: impl FnOnce(u64) -> u64) -> Self {
        match self {
            Self::At(offset) => Self::At(f(offset)),
            Self::Entering(offset) => Self::Entering(f(offset)),
            Self::Returned(offset) => Self::Returned(f(offset)),
        }
    }

    /// The program's own address or offset.
    #[must_use]
    pub fn address(self) -> u64 {
        match self {
            Self::At(offset) | Self::Entering(offset) | Self::Returned(offset) => offset,
        }
    }
}

impl Patch {
    /// What offset `at` of the thunk is to the program.
    fn place(&self, at: u64) -> Place {
        let [call_at, call_end] = [self.call_at, self.call_end].map(u64::from);
        if at == call_at || !self.is_syscall && (call_at..call_end).contains(&at) {
            return Place::At(self.syscall);
        }
        if (call_at..call_end).contains(&at) {
            return Place::Entering(self.syscall);
        }
        let reached = |instruction: &&Displaced| u64::from(instruction.thunk) <= at;
        let Some(instruction) = self.displaced.iter().flatten().take_while(reached).last() else {
            return Place::Returned(self.syscall + SYSCALL_LEN as u64);
        };
        // The jump back lies behind the last instruction.
        let jump_back = u64::from(self.thunk_len) - super::thunk::JUMP_LEN as u64;
        if at > call_end && at >= jump_back {
            return Place::At(self.start + u64::from(self.len));
        }
        Place::At(self.start + u64::from(instruction.site))
    }

    /// The instructions that run behind the call: those whose place in the file is taken by the jump.
    fn behind(&self) -> impl Iterator<Item = &Displaced> {
        let is_behind = |instruction: &&Displaced| instruction.thunk >= self.call_end;
        self.displaced.iter().flatten().filter(is_behind)
    }

    /// Whether an instruction that has brought the program to offset `at` of the thunk is none of its own: the jump from
    /// the site, and what thunks have besides displaced instructions.
    fn is_extra_step(&self, at: u64) -> bool {
        let [call_at, call_end] = [self.call_at, self.call_end].map(u64::from);
        let first = self.behind().next().map(|first| u64::from(first.thunk));
        at == 0
            || at > call_at && at < call_end
            || self.is_syscall && (at == call_end || Some(at) == first)
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

    /// The patched site one of whose replaced bytes is at `offset` of the file.
    #[must_use]
    pub fn containing(&self, offset: u64) -> Option<&Patch> {
        self.last_in(..=offset)
            .filter(|patch| offset - patch.start < u64::from(patch.len))
    }

    /// Whether a patch replaces any of the `len` bytes at `offset`.
    #[must_use]
    pub fn overlaps(&self, offset: u64, len: u64) -> bool {
        self.last_in(..offset + len)
            .is_some_and(|patch| patch.start + u64::from(patch.len) > offset)
    }

    fn patch_of(&self, at: u64) -> Option<(&Patch, u64)> {
        let (thunk, patch) = self.by_thunk.range(..=at).next_back()?;
        let inside = at - thunk;
        (inside < u64::from(patch.thunk_len)).then_some((patch, inside))
    }

    /// Where a program is whose instruction pointer is at offset `at` of the thunk area; `None` outside thunks.
    #[must_use]
    pub fn place(&self, at: u64) -> Option<Place> {
        let (patch, inside) = self.patch_of(at)?;
        Some(patch.place(inside))
    }

    /// Whether the step of a program that single-steps and is now at offset `at` of the thunk area was none of its own
    /// instructions.
    #[must_use]
    pub fn is_extra_step(&self, at: u64) -> bool {
        self.patch_of(at)
            .is_some_and(|(patch, inside)| patch.is_extra_step(inside))
    }

    /// Where in the thunk area execution goes on that is to go on at `offset` of the file, if that is a displaced
    /// instruction. `None` for what is still there (the jump at a site's start does what was there), and for the middle of
    /// a replaced instruction, where no program goes on.
    #[must_use]
    pub fn resume(&self, offset: u64) -> Option<u64> {
        let patch = self.last_in(..=offset)?;
        let inside = offset - patch.start;
        patch
            .behind()
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
        call_at: 5,
        call_end: 19,
        displaced: [
            Some(Displaced { thunk: 0, site: 0 }),
            None,
            None,
            None,
            None,
            None,
        ],
        is_syscall: true,
    };

    /// `mov $39, %eax; mov %ebx, %edx; syscall` at 0x3000.
    const PATTERN_3: Patch = Patch {
        start: 0x3000,
        len: 5,
        syscall: 0x3007,
        thunk: 0xc0,
        thunk_len: 21,
        call_at: 7,
        call_end: 21,
        displaced: [
            Some(Displaced { thunk: 0, site: 0 }),
            Some(Displaced { thunk: 5, site: 5 }),
            None,
            None,
            None,
            None,
        ],
        is_syscall: true,
    };

    /// `syscall; mov %rax, %rbx; test %eax, %eax` at 0x2000: lea 7, jmp 7, lea 7, 3 + 2 displaced, jmp 5.
    const PATTERN_2: Patch = Patch {
        start: 0x2000,
        len: 7,
        syscall: 0x2000,
        thunk: 0x80,
        thunk_len: 31,
        call_at: 0,
        call_end: 14,
        displaced: [
            Some(Displaced { thunk: 21, site: 2 }),
            Some(Displaced { thunk: 24, site: 5 }),
            None,
            None,
            None,
            None,
        ],
        is_syscall: true,
    };

    fn table() -> PatchTable {
        let mut table = PatchTable::default();
        table.insert(PATTERN_1);
        table.insert(PATTERN_2);
        table.insert(PATTERN_3);
        table
    }

    #[test]
    fn every_byte_of_a_pattern_1_thunk_has_its_place() {
        let table = table();
        for at in 0..19u64 {
            let expected = match at {
                0..5 => Place::At(0x1000),
                5 => Place::At(0x1005),
                _ => Place::Entering(0x1005),
            };
            assert_eq!(table.place(0x40 + at), Some(expected), "{at}");
        }
        for at in [0, 0x3f, 0x40 + 19, 0x7f] {
            assert_eq!(table.place(at), None, "{at:#x}");
        }
    }

    #[test]
    fn every_byte_of_a_pattern_2_thunk_has_its_place() {
        let table = table();
        for at in 0..31u64 {
            let expected = match at {
                0 => Place::At(0x2000),
                1..14 => Place::Entering(0x2000),
                14..21 => Place::Returned(0x2002),
                21..24 => Place::At(0x2002),
                24..26 => Place::At(0x2005),
                _ => Place::At(0x2007),
            };
            assert_eq!(table.place(0x80 + at), Some(expected), "{at}");
        }
        assert_eq!(table.place(0x80 + 31), None);
    }

    #[test]
    fn every_byte_of_a_pattern_3_thunk_has_its_place() {
        let table = table();
        for at in 0..21u64 {
            let expected = match at {
                0..5 => Place::At(0x3000),
                5..7 => Place::At(0x3005),
                7 => Place::At(0x3007),
                _ => Place::Entering(0x3007),
            };
            assert_eq!(table.place(0xc0 + at), Some(expected), "{at}");
        }
        for offset in 0x2ff0..0x3010 {
            assert_eq!(table.resume(offset), None, "what is not replaced is there");
        }
        assert!(!table.is_extra_step(0xc0 + 5) && !table.is_extra_step(0xc0 + 7));
        assert!(table.is_extra_step(0xc0) && table.is_extra_step(0xc0 + 14));
    }

    #[test]
    fn only_the_program_s_own_instructions_are_steps() {
        let table = table();
        let steps = |from: u64, to: u64| -> std::vec::Vec<u64> {
            (0..to)
                .filter(|at| !table.is_extra_step(from + at))
                .collect()
        };
        // Behind the load. (Only places between instructions are ever asked about.)
        assert_eq!(steps(0x40, 19), [1, 2, 3, 4, 5]);
        // Behind each displaced instruction.
        let found = steps(0x80, 31);
        assert!(found.contains(&24) && found.contains(&26));
        for at in [0, 7, 14, 21] {
            assert!(!found.contains(&at), "{at}");
        }
        assert!(!table.is_extra_step(0x1000));
    }

    #[test]
    fn every_byte_of_a_replaced_region_resumes_right() {
        let table = table();
        for offset in 0xff0..0x1010 {
            assert_eq!(table.resume(offset), None, "{offset:#x}");
        }
        for offset in 0x1ff0..0x2010 {
            let expected = match offset {
                0x2002 => Some(0x80 + 21),
                0x2005 => Some(0x80 + 24),
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
                assert_eq!(table.place(at), Some(Place::At(offset)));
            }
        }
    }

    #[test]
    fn sites_are_found_by_their_syscall() {
        let table = table();
        for offset in 0..0x4000 {
            let found = table.at_syscall(offset).map(|patch| patch.start);
            let expected = match offset {
                0x1005 => Some(0x1000),
                0x2000 => Some(0x2000),
                0x3007 => Some(0x3000),
                _ => None,
            };
            assert_eq!(found, expected);
        }
        assert_eq!(table.len(), 3);
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
    fn a_cpuid_begins_in_the_libos() {
        let patch = Patch {
            is_syscall: false,
            ..PATTERN_3
        };
        let call_at = u64::from(patch.call_at);
        for at in call_at..u64::from(patch.call_end) {
            assert_eq!(patch.place(at), Place::At(patch.syscall), "at {at}");
        }
        assert!(patch.is_extra_step(call_at + 7) && !patch.is_extra_step(call_at));
    }

    #[test]
    fn forgotten_sites_leave_their_thunks() {
        let mut table = table();
        table.forget_sites(0x1000..0x2000);
        assert_eq!(table.len(), 2);
        assert_eq!(table.at_syscall(0x1005), None);
        assert!(!table.overlaps(0x1000, 5));
        assert_eq!(table.place(0x44), Some(Place::At(0x1000)));
        assert_eq!(table.resume(0x2002), Some(0x80 + 21));
    }
}
