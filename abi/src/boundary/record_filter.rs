//! Which calls are recorded: a page the VMM writes, at `BootInfo::record_filter_gpa`, that the guest applies.
//!
//! A call is recorded if one of the [`FilterRule`]s selects it, and a rule selects a call that meets all of its
//! conditions. A call no rule names costs the guest a load and a bit test.
//!
//! The VMM may replace the filter while the guest runs: it makes [`RecordFilter::generation`] odd, writes the rest, makes
//! it even again (another number than before) and interrupts the guest, which takes over what it finds unless the
//! number is odd or changes while it reads.

/// `RecordFilter::magic`.
pub const FILTER_MAGIC: u64 = u64::from_le_bytes(*b"huskfilt");
/// Version of the filter.
pub const FILTER_VERSION: u32 = 2;

/// `RecordFilter::flags`: capture what arguments point to.
pub const FILTER_PAYLOADS: u32 = 1;
/// `RecordFilter::flags`: drop and count when a ring is full, instead of waiting.
pub const FILTER_DROP: u32 = 2;

/// Words of the bitmap of calls.
pub const FILTER_WORDS: usize = 8;
/// Words of the bitmap of errors.
pub const ERRNO_WORDS: usize = 3;
/// Most rules of a filter.
pub const MAX_RULES: usize = 8;
/// Most processes of a rule.
pub const MAX_PROCESSES: usize = 8;
/// Bytes for a rule's paths.
pub const PATHS_BYTES: usize = 256;

/// In [`FilterRule::processes`]: the process's descendants, too, those before and those to come.
pub const PROCESS_TREE: u32 = 1 << 31;

/// `FilterRule::results`: calls that succeed.
pub const RESULT_SUCCESS: u32 = 1;
/// `FilterRule::results`: calls that fail.
pub const RESULT_FAILURE: u32 = 2;
/// `FilterRule::results`: calls that fail with one of [`FilterRule::errnos`].
pub const RESULT_ERRNOS: u32 = 4;

/// Conditions on a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterRule {
    /// Bit `nr % 64` of word `nr / 64` for call `nr`; the last bit stands for all numbers from there on.
    pub calls: [u64; FILTER_WORDS],
    /// Bit `errno % 64` of word `errno / 64`.
    pub errnos: [u64; ERRNO_WORDS],
    /// `RESULT_*`, one of which must hold; 0 for no condition. A call that never returns meets none.
    pub results: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// Process ids, perhaps with [`PROCESS_TREE`]; 0 for unused. All 0 for no condition.
    pub processes: [u32; MAX_PROCESSES],
    /// Absolute paths, each ended by a NUL: one of the files a call names, by path or by descriptor, must be one of
    /// these or lie below. Empty for no condition.
    pub paths: [u8; PATHS_BYTES],
}
super::assert_size!(FilterRule, 384);

/// Which calls are recorded and how. All zero records nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFilter {
    /// [`FILTER_MAGIC`].
    pub magic: u64,
    /// [`FILTER_VERSION`].
    pub version: u32,
    /// `FILTER_*`.
    pub flags: u32,
    /// Odd while the VMM writes; another number after each change.
    pub generation: u64,
    /// How many of `rules` are in use.
    pub rule_count: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// The rules.
    pub rules: [FilterRule; MAX_RULES],
}
super::assert_size!(RecordFilter, 32 + 384 * MAX_RULES);
const _: () = assert!(size_of::<RecordFilter>() <= 4096, "the filter has one page");

/// Word and bit of call `nr` in [`FilterRule::calls`].
#[inline]
#[must_use]
pub const fn filter_bit(nr: u64) -> (usize, u64) {
    let last = FILTER_WORDS as u64 * 64 - 1;
    let nr = if nr < last { nr } else { last };
    ((nr / 64) as usize, 1 << (nr % 64))
}

impl FilterRule {
    /// Selects nothing yet.
    pub const NONE: Self = Self {
        calls: [0; FILTER_WORDS],
        errnos: [0; ERRNO_WORDS],
        results: 0,
        reserved: 0,
        processes: [0; MAX_PROCESSES],
        paths: [0; PATHS_BYTES],
    };

    /// Selects every call.
    pub const ALL: Self = Self {
        calls: [u64::MAX; FILTER_WORDS],
        ..Self::NONE
    };

    /// Adds call `nr`.
    pub const fn add(&mut self, nr: u64) {
        let (word, bit) = filter_bit(nr);
        self.calls[word] |= bit;
    }

    /// Whether call `nr` is named.
    #[inline]
    #[must_use]
    pub const fn has(&self, nr: u64) -> bool {
        let (word, bit) = filter_bit(nr);
        self.calls[word] & bit != 0
    }

    /// Whether the result `rax`, as two's complement, meets the condition on results; `None` is that of a call that
    /// never returns.
    #[must_use]
    pub const fn wants_result(&self, rax: Option<i64>) -> bool {
        let Some(rax) = rax else {
            return self.results == 0;
        };
        let errno = if rax < 0 && rax >= -4095 {
            rax.unsigned_abs() as usize
        } else {
            0
        };
        self.results == 0
            || (self.results & RESULT_SUCCESS != 0 && errno == 0)
            || (self.results & RESULT_FAILURE != 0 && errno != 0)
            || (self.results & RESULT_ERRNOS != 0
                && errno != 0
                && errno / 64 < ERRNO_WORDS
                && self.errnos[errno / 64] & (1 << (errno % 64)) != 0)
    }

    /// Whether there is a condition on files.
    #[must_use]
    pub const fn has_paths(&self) -> bool {
        self.paths[0] != 0
    }

    /// Whether `path`, absolute and without `.` and `..`, is or lies below one of the rule's.
    #[must_use]
    pub fn wants_path(&self, path: &[u8]) -> bool {
        self.paths
            .split(|byte| *byte == 0)
            .take_while(|wanted| !wanted.is_empty())
            .any(|wanted| {
                let wanted = wanted.strip_suffix(b"/").unwrap_or(wanted);
                path.strip_prefix(wanted)
                    .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
            })
    }

    /// Whether there is a condition on processes.
    #[must_use]
    pub const fn has_processes(&self) -> bool {
        self.processes[0] != 0
    }

    fn write(&self, to: &mut [u8]) {
        let words = self.calls.iter().chain(&self.errnos);
        for (place, word) in to.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let to = &mut to[8 * (FILTER_WORDS + ERRNO_WORDS)..];
        let words = [self.results, self.reserved];
        for (place, word) in to
            .chunks_exact_mut(4)
            .zip(words.iter().chain(&self.processes))
        {
            place.copy_from_slice(&word.to_le_bytes());
        }
        to[4 * (2 + MAX_PROCESSES)..].copy_from_slice(&self.paths);
    }

    fn read(from: &[u8]) -> Self {
        let words = 8 * FILTER_WORDS;
        let ints = words + 8 * ERRNO_WORDS;
        let mut paths = [0; PATHS_BYTES];
        paths.copy_from_slice(&from[size_of::<Self>() - PATHS_BYTES..size_of::<Self>()]);
        Self {
            calls: core::array::from_fn(|index| long(from, index * 8)),
            errnos: core::array::from_fn(|index| long(from, words + index * 8)),
            results: word(from, ints),
            reserved: word(from, ints + 4),
            processes: core::array::from_fn(|index| word(from, ints + 8 + index * 4)),
            paths,
        }
    }
}

impl RecordFilter {
    /// A filter without rules, which records nothing.
    #[must_use]
    pub const fn new(flags: u32) -> Self {
        Self {
            magic: FILTER_MAGIC,
            version: FILTER_VERSION,
            flags,
            generation: 0,
            rule_count: 0,
            reserved: 0,
            rules: [FilterRule::NONE; MAX_RULES],
        }
    }

    /// A filter that records every call.
    #[must_use]
    pub const fn everything(flags: u32) -> Self {
        let mut filter = Self::new(flags);
        filter.rules[0] = FilterRule::ALL;
        filter.rule_count = 1;
        filter
    }

    /// The rules in use.
    #[must_use]
    pub fn rules(&self) -> &[FilterRule] {
        let count = (self.rule_count as usize).min(MAX_RULES);
        &self.rules[..count]
    }

    /// Adds a rule; false if there is no room for it.
    #[must_use]
    pub const fn push(&mut self, rule: FilterRule) -> bool {
        let index = self.rule_count as usize;
        if index >= MAX_RULES {
            return false;
        }
        self.rules[index] = rule;
        self.rule_count += 1;
        true
    }

    /// The filter's bytes, as they lie in the page.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..8].copy_from_slice(&self.magic.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.rule_count.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.reserved.to_le_bytes());
        let places = bytes[32..].chunks_exact_mut(size_of::<FilterRule>());
        for (place, rule) in places.zip(&self.rules) {
            rule.write(place);
        }
        bytes
    }

    /// Reads what [`RecordFilter::to_bytes`] wrote; `None` for another magic or version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Option<Self> {
        let filter = Self {
            magic: long(bytes, 0),
            version: word(bytes, 8),
            flags: word(bytes, 12),
            generation: long(bytes, 16),
            rule_count: word(bytes, 24),
            reserved: word(bytes, 28),
            rules: core::array::from_fn(|index| {
                FilterRule::read(&bytes[32 + index * size_of::<FilterRule>()..])
            }),
        };
        (filter.magic == FILTER_MAGIC && filter.version == FILTER_VERSION).then_some(filter)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(long)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_bits() {
        let mut rule = FilterRule::NONE;
        for nr in [0, 63, 64, 257, 469] {
            assert!(!rule.has(nr));
            rule.add(nr);
            assert!(rule.has(nr));
        }
        assert!(!rule.has(1) && !rule.has(510));
        rule.add(1 << 40);
        assert!(rule.has(511) && rule.has(u64::MAX) && !rule.has(510));
        assert!((0..600).all(|nr| FilterRule::ALL.has(nr)));
    }

    #[test]
    fn every_number_of_the_table_has_its_own_bit() {
        const { assert!(crate::linux::syscalls::SYSCALL_LIMIT < FILTER_WORDS * 64) };
    }

    #[test]
    fn bytes_and_back() {
        let mut filter = RecordFilter::everything(FILTER_PAYLOADS);
        filter.generation = 4;
        let mut rule = FilterRule::NONE;
        rule.add(5);
        rule.errnos = [1, 2, 3];
        rule.results = RESULT_ERRNOS;
        rule.processes = [1, 2, 3, 4, 5, 6, 7, 8 | PROCESS_TREE];
        rule.paths[..5].copy_from_slice(b"/etc\0");
        rule.paths[PATHS_BYTES - 1] = 9;
        assert!(filter.push(rule));
        assert_eq!(filter.rules(), [FilterRule::ALL, rule]);
        assert_eq!(RecordFilter::from_bytes(&filter.to_bytes()), Some(filter));
        assert_eq!(
            RecordFilter::from_bytes(&[0; size_of::<RecordFilter>()]),
            None
        );
        for _ in 2..MAX_RULES {
            assert!(filter.push(rule));
        }
        assert!(!filter.push(rule));
        filter.rule_count = u32::MAX;
        assert_eq!(filter.rules().len(), MAX_RULES);
    }

    #[test]
    fn results() {
        let wants = |results, rax| {
            FilterRule {
                results,
                errnos: [1 << 2, 0, 0],
                ..FilterRule::NONE
            }
            .wants_result(rax)
        };
        for rax in [None, Some(0), Some(-1), Some(-4096)] {
            assert!(wants(0, rax));
        }
        assert!(!wants(RESULT_SUCCESS | RESULT_FAILURE, None));
        assert!(wants(RESULT_SUCCESS, Some(7)) && wants(RESULT_SUCCESS, Some(-4096)));
        assert!(!wants(RESULT_SUCCESS, Some(-2)) && !wants(RESULT_FAILURE, Some(0)));
        assert!(wants(RESULT_FAILURE, Some(-4095)));
        assert!(wants(RESULT_ERRNOS, Some(-2)) && !wants(RESULT_ERRNOS, Some(-3)));
        assert!(!wants(RESULT_ERRNOS, Some(0)) && !wants(RESULT_ERRNOS, Some(-512)));
    }

    #[test]
    fn paths() {
        let mut rule = FilterRule::NONE;
        assert!(!rule.has_paths());
        rule.paths[..10].copy_from_slice(b"/etc\0/a/\0/");
        for (path, is_in) in [
            (b"/etc".as_slice(), true),
            (b"/etc/passwd", true),
            (b"/etcetera", false),
            (b"/a", true),
            (b"/a/b", true),
            (b"/ab", false),
        ] {
            let mut rule = rule;
            rule.paths[9] = 0;
            assert_eq!(rule.wants_path(path), is_in, "{}", path.escape_ascii());
        }
        assert!(rule.wants_path(b"/anything"), "the root holds all");
        let full = FilterRule {
            paths: [b'x'; PATHS_BYTES],
            ..FilterRule::NONE
        };
        assert!(!full.wants_path(b"x"));
    }
}
