//! Syscall records: the rings the guest writes, and the filter the VMM writes.
//!
//! *Ring*: one a vCPU, at `VcpuBoot::records`. [`RingHeader`], then from [`RING_DATA`] on `data_bytes` of
//! records that wrap around at the end wherever they are. `head` and `tail` count bytes ever written and
//! ever drained; a byte's place is its count modulo `data_bytes`. The guest publishes records by storing
//! `head`, the VMM frees their room by storing `tail`.
//!
//! *Record*: [`RecordHeader`], the six argument registers (48 bytes; they and the rest of a call do not
//! fit one 64-byte header), then `payload_bytes` of entries: [`EntryHeader`] and its bytes, padded to 8.
//! Records are multiples of 8 bytes long, at most [`MAX_RECORD_BYTES`].
//!
//! *Overflow* is never silent. The policy is to block (the guest rings `doorbell::RECORDS`, which returns
//! when the VMM has drained the ring) or, with [`FILTER_DROP`], to drop: dropped records are counted in
//! `RingHeader::lost`, use up sequence numbers, and are told by a record of [`KIND_LOST`] as soon as one
//! fits.
//!
//! *Filter*: a [`RecordFilter`] at `BootInfo::record_filter_gpa`, applied in the guest: a call nobody
//! asked for costs a load and a bit test.

use core::sync::atomic::AtomicU64;

/// `RingHeader::magic`.
pub const RING_MAGIC: u64 = u64::from_le_bytes(*b"huskring");
/// `RecordFilter::magic`.
pub const FILTER_MAGIC: u64 = u64::from_le_bytes(*b"huskfilt");
/// Version of records and filter.
pub const RECORD_VERSION: u32 = 1;

/// Starts a ring. Who writes what has a cache line of its own.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct RingHeader {
    /// [`RING_MAGIC`], by the VMM.
    pub magic: AtomicU64,
    /// [`RECORD_VERSION`], by the VMM.
    pub version: AtomicU64,
    /// Bytes for records, a multiple of 8, by the VMM.
    pub data_bytes: AtomicU64,
    /// Reserved, 0.
    pub reserved: [u64; 5],
    /// Bytes ever written, by the guest.
    pub head: AtomicU64,
    /// Sequence number of the next record, by the guest.
    pub sequence: AtomicU64,
    /// Records ever dropped, by the guest.
    pub lost: AtomicU64,
    /// Reserved, 0.
    pub reserved_guest: [u64; 5],
    /// Bytes ever drained, by the VMM.
    pub tail: AtomicU64,
    /// Reserved, 0.
    pub reserved_vmm: [u64; 7],
}
super::assert_size!(RingHeader, 192);

/// Offset of the first record in a ring's range.
pub const RING_DATA: u64 = 256;

/// `RecordHeader::kind`: a system call.
pub const KIND_SYSCALL: u16 = 1;
/// `RecordHeader::kind`: `result` records were dropped before this one; it has no arguments worth reading.
pub const KIND_LOST: u16 = 2;

/// `RecordHeader::flags`: the call does not return (`exit`); `result` and `duration_ns` are 0.
pub const RECORD_NO_RETURN: u16 = 1;

/// Starts a record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record: header, arguments, payload. A multiple of 8.
    pub bytes: u32,
    /// `KIND_*`.
    pub kind: u16,
    /// `RECORD_*`.
    pub flags: u16,
    /// Number of the record on its vCPU; dropped records have numbers, too.
    pub sequence: u64,
    /// `CLOCK_REALTIME` at the call's entry, in nanoseconds.
    pub time_ns: u64,
    /// Time from entry to return, in nanoseconds.
    pub duration_ns: u64,
    /// What `rax` gets, as two's complement: the value, or the negative errno.
    pub result: u64,
    /// Number of the call; `u32::MAX` for any larger.
    pub nr: u32,
    /// Process id in the container.
    pub pid: u32,
    /// Thread id in the container.
    pub tid: u32,
    /// Bytes of entries after the arguments. A multiple of 8.
    pub payload_bytes: u32,
    /// vCPU the call returned on.
    pub vcpu: u32,
    /// Reserved, 0.
    pub reserved: u32,
}
super::assert_size!(RecordHeader, 64);

/// Bytes of the argument block behind a [`RecordHeader`].
pub const ARGS_BYTES: usize = 48;
/// The shortest record.
pub const MIN_RECORD_BYTES: usize = size_of::<RecordHeader>() + ARGS_BYTES;
/// The longest record.
pub const MAX_RECORD_BYTES: usize = 32 << 10;
/// The longest string of an entry, in bytes; longer ones are cut and marked.
pub const MAX_STRING_BYTES: usize = 4096;
/// The most bytes of an entry of [`ENTRY_STRINGS`].
pub const MAX_STRINGS_BYTES: usize = 8192;

/// `EntryHeader::kind`: bytes of one string, without NUL.
pub const ENTRY_STRING: u8 = 1;
/// `EntryHeader::kind`: strings, each ended by a NUL.
pub const ENTRY_STRINGS: u8 = 2;

/// `EntryHeader::flags`: there was more.
pub const ENTRY_TRUNCATED: u8 = 1;
/// `EntryHeader::flags`: the program's memory could not be read; there are no bytes.
pub const ENTRY_UNREADABLE: u8 = 2;

/// Starts a payload entry: what one argument pointed to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryHeader {
    /// Index of the argument, 0 to 5.
    pub argument: u8,
    /// `ENTRY_*` kind.
    pub kind: u8,
    /// `ENTRY_TRUNCATED`, `ENTRY_UNREADABLE`.
    pub flags: u8,
    /// Reserved, 0.
    pub reserved: u8,
    /// Bytes that follow, without the padding to 8.
    pub bytes: u32,
}
super::assert_size!(EntryHeader, 8);

/// `RecordFilter::flags`: capture what arguments point to.
pub const FILTER_PAYLOADS: u32 = 1;
/// `RecordFilter::flags`: only calls that fail (and calls that do not return).
pub const FILTER_FAILURES: u32 = 2;
/// `RecordFilter::flags`: drop and count when a ring is full, instead of waiting.
pub const FILTER_DROP: u32 = 4;

/// Words of the bitmap.
pub const FILTER_WORDS: usize = 8;

/// Which calls are recorded and how. All zero records nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// [`FILTER_MAGIC`].
    pub magic: u64,
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// `FILTER_*`.
    pub flags: u32,
    /// Only this process, or 0 for all.
    pub pid: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// Bit `nr % 64` of word `nr / 64` for call `nr`; the last bit stands for all numbers from there on.
    pub calls: [u64; FILTER_WORDS],
}
super::assert_size!(RecordFilter, 88);

/// Word and bit of call `nr` in [`RecordFilter::calls`].
#[inline]
#[must_use]
pub const fn filter_bit(nr: u64) -> (usize, u64) {
    let last = FILTER_WORDS as u64 * 64 - 1;
    let nr = if nr < last { nr } else { last };
    ((nr / 64) as usize, 1 << (nr % 64))
}

impl RecordFilter {
    /// A filter that records nothing yet.
    #[must_use]
    pub const fn new(flags: u32) -> Self {
        Self {
            magic: FILTER_MAGIC,
            version: RECORD_VERSION,
            flags,
            pid: 0,
            reserved: 0,
            calls: [0; FILTER_WORDS],
        }
    }

    /// Adds call `nr`.
    pub const fn add(&mut self, nr: u64) {
        let (word, bit) = filter_bit(nr);
        self.calls[word] |= bit;
    }

    /// Adds every call.
    pub const fn add_all(&mut self) {
        self.calls = [u64::MAX; FILTER_WORDS];
    }

    /// Whether call `nr` is in.
    #[must_use]
    pub const fn has(&self, nr: u64) -> bool {
        let (word, bit) = filter_bit(nr);
        self.calls[word] & bit != 0
    }

    /// The filter's bytes, as they lie in the page.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..8].copy_from_slice(&self.magic.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.pid.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.reserved.to_le_bytes());
        for (place, word) in bytes[24..].chunks_exact_mut(8).zip(self.calls) {
            place.copy_from_slice(&word.to_le_bytes());
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
            pid: word(bytes, 16),
            reserved: word(bytes, 20),
            calls: core::array::from_fn(|index| long(bytes, 24 + index * 8)),
        };
        (filter.magic == FILTER_MAGIC && filter.version == RECORD_VERSION).then_some(filter)
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

impl RecordHeader {
    /// The header's bytes, as they lie in a ring.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.bytes.to_le_bytes());
        put(4, &self.kind.to_le_bytes());
        put(6, &self.flags.to_le_bytes());
        put(8, &self.sequence.to_le_bytes());
        put(16, &self.time_ns.to_le_bytes());
        put(24, &self.duration_ns.to_le_bytes());
        put(32, &self.result.to_le_bytes());
        put(40, &self.nr.to_le_bytes());
        put(44, &self.pid.to_le_bytes());
        put(48, &self.tid.to_le_bytes());
        put(52, &self.payload_bytes.to_le_bytes());
        put(56, &self.vcpu.to_le_bytes());
        put(60, &self.reserved.to_le_bytes());
        bytes
    }

    /// Reads what [`RecordHeader::to_bytes`] wrote; any bytes give a header.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        Self {
            bytes: word(bytes, 0),
            kind: u16::from_le_bytes([bytes[4], bytes[5]]),
            flags: u16::from_le_bytes([bytes[6], bytes[7]]),
            sequence: long(bytes, 8),
            time_ns: long(bytes, 16),
            duration_ns: long(bytes, 24),
            result: long(bytes, 32),
            nr: word(bytes, 40),
            pid: word(bytes, 44),
            tid: word(bytes, 48),
            payload_bytes: word(bytes, 52),
            vcpu: word(bytes, 56),
            reserved: word(bytes, 60),
        }
    }
}

impl EntryHeader {
    /// The header's bytes, as they lie in a ring.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
        let [a, b, c, d] = self.bytes.to_le_bytes();
        [
            self.argument,
            self.kind,
            self.flags,
            self.reserved,
            a,
            b,
            c,
            d,
        ]
    }

    /// Reads what [`EntryHeader::to_bytes`] wrote; any bytes give a header.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        Self {
            argument: bytes[0],
            kind: bytes[1],
            flags: bytes[2],
            reserved: bytes[3],
            bytes: word(bytes, 4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_bits() {
        let mut filter = RecordFilter::new(FILTER_PAYLOADS);
        for nr in [0, 63, 64, 257, 469] {
            assert!(!filter.has(nr));
            filter.add(nr);
            assert!(filter.has(nr));
        }
        assert!(!filter.has(1) && !filter.has(510));
        filter.add(1 << 40);
        assert!(filter.has(511) && filter.has(u64::MAX) && !filter.has(510));
        assert_eq!(RecordFilter::from_bytes(&filter.to_bytes()), Some(filter));
        assert_eq!(RecordFilter::from_bytes(&[0; 88]), None);
        filter.add_all();
        assert!((0..600).all(|nr| filter.has(nr)));
    }

    #[test]
    fn every_number_of_the_table_has_its_own_bit() {
        const { assert!(crate::linux::syscalls::SYSCALL_LIMIT < FILTER_WORDS * 64) };
    }

    #[test]
    fn headers_as_bytes() {
        let header = RecordHeader {
            bytes: 1,
            kind: 2,
            flags: 3,
            sequence: 4,
            time_ns: 5,
            duration_ns: 6,
            result: 7,
            nr: 8,
            pid: 9,
            tid: 10,
            payload_bytes: 11,
            vcpu: 12,
            reserved: 0,
        };
        let bytes = header.to_bytes();
        assert_eq!(RecordHeader::from_bytes(&bytes), header);
        assert_eq!(bytes[core::mem::offset_of!(RecordHeader, result)], 7);
        assert_eq!(bytes[core::mem::offset_of!(RecordHeader, vcpu)], 12);
        let entry = EntryHeader {
            argument: 1,
            kind: 2,
            flags: 3,
            reserved: 0,
            bytes: 0x0102_0304,
        };
        assert_eq!(EntryHeader::from_bytes(&entry.to_bytes()), entry);
    }

    #[test]
    fn header_lines() {
        assert_eq!(core::mem::offset_of!(RingHeader, head), 64);
        assert_eq!(core::mem::offset_of!(RingHeader, tail), 128);
        assert!(size_of::<RingHeader>() as u64 <= RING_DATA);
    }
}
