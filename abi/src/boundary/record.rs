//! Syscall records: the rings the guest writes. Which calls are recorded: [`super::record_filter`].
//!
//! *Ring*: one a vCPU, at `VcpuBoot::records`. [`RingHeader`], then from [`RING_DATA`] on `data_bytes` of
//! records that wrap around at the end wherever they are. `head` and `tail` count bytes ever written and
//! ever drained; a byte's place is its count modulo `data_bytes`. The guest publishes records by storing
//! `head`, the VMM frees their room by storing `tail`.
//!
//! *Record*: [`RecordHeader`], `args` argument registers of 8 bytes, then entries up to `bytes`: [`EntryHeader`]
//! and its bytes, padded to 8. Records are multiples of 8 bytes long, at most [`MAX_RECORD_BYTES`].
//!
//! *Overflow* is never silent. The policy is to block (the guest rings `doorbell::RECORDS`, which returns
//! when the VMM has drained the ring) or, with `record_filter::FILTER_DROP`, to drop: dropped records are counted in
//! `RingHeader::lost`, use up sequence numbers, and are told by a record of [`KIND_LOST`] as soon as one
//! fits. So that the VMM drains in time the guest rings `doorbell::RECORDS_WAITING`, which it does not wait for, when
//! a ring becomes half full.

use core::sync::atomic::AtomicU64;

/// `RingHeader::magic`.
pub const RING_MAGIC: u64 = u64::from_le_bytes(*b"huskring");
/// Version of rings and records.
pub const RECORD_VERSION: u32 = 2;

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
    /// Bytes of the whole record: header, arguments, entries. A multiple of 8.
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
    /// vCPU the call returned on.
    pub vcpu: u16,
    /// Argument registers that follow: those the call takes, all six of an unknown call.
    pub args: u16,
    /// Process id in the container.
    pub pid: u32,
    /// Thread id in the container.
    pub tid: u32,
    /// The thread's name (`comm`), with NULs up to the end.
    pub name: [u8; 16],
}
super::assert_size!(RecordHeader, 72);

/// Words of a [`RecordHeader`].
pub const HEADER_WORDS: usize = size_of::<RecordHeader>() / 8;
/// The most argument registers of a record.
pub const MAX_ARGS: usize = 6;
/// The shortest record.
pub const MIN_RECORD_BYTES: usize = size_of::<RecordHeader>();
/// The longest record.
pub const MAX_RECORD_BYTES: usize = 32 << 10;
/// The longest string of an entry, in bytes; longer ones are cut and marked.
pub const MAX_STRING_BYTES: usize = 4096;
/// The most bytes of an entry of [`ENTRY_BYTES`]; longer ones are cut and marked.
pub const MAX_STRUCT_BYTES: usize = 512;
/// The most bytes of an entry of [`ENTRY_STRINGS`].
pub const MAX_STRINGS_BYTES: usize = 8192;

/// `EntryHeader::kind`: bytes of one string, without NUL.
pub const ENTRY_STRING: u8 = 1;
/// `EntryHeader::kind`: strings, each ended by a NUL.
pub const ENTRY_STRINGS: u8 = 2;
/// `EntryHeader::kind`: bytes of a struct or an array.
pub const ENTRY_BYTES: u8 = 3;

/// `EntryHeader::flags`: there was more.
pub const ENTRY_TRUNCATED: u8 = 1;
/// `EntryHeader::flags`: the program's memory could not be read; there are no bytes.
pub const ENTRY_UNREADABLE: u8 = 2;
/// `EntryHeader::flags`: read after the call, not before.
pub const ENTRY_AFTER: u8 = 4;

/// Starts a payload entry: what one argument pointed to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryHeader {
    /// Index of the argument, 0 to 5.
    pub argument: u8,
    /// `ENTRY_*` kind.
    pub kind: u8,
    /// `ENTRY_TRUNCATED`, `ENTRY_UNREADABLE`, `ENTRY_AFTER`.
    pub flags: u8,
    /// Reserved, 0.
    pub reserved: u8,
    /// Bytes that follow, without the padding to 8.
    pub bytes: u32,
}
super::assert_size!(EntryHeader, 8);

#[inline]
fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[inline]
fn long(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(long)
}

impl RecordHeader {
    /// The header's bytes, as they lie in a ring.
    #[inline]
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
        put(44, &self.vcpu.to_le_bytes());
        put(46, &self.args.to_le_bytes());
        put(48, &self.pid.to_le_bytes());
        put(52, &self.tid.to_le_bytes());
        put(56, &self.name);
        bytes
    }

    /// The same as words, into `to`: a copy of bytes takes the libOS long, which has no vector registers.
    #[inline]
    pub fn write_words(&self, to: &mut [u64; HEADER_WORDS]) {
        to[0] = u64::from(self.bytes) | u64::from(self.kind) << 32 | u64::from(self.flags) << 48;
        to[1] = self.sequence;
        to[2] = self.time_ns;
        to[3] = self.duration_ns;
        to[4] = self.result;
        to[5] = u64::from(self.nr) | u64::from(self.vcpu) << 32 | u64::from(self.args) << 48;
        to[6] = u64::from(self.pid) | u64::from(self.tid) << 32;
        let (name, _) = self.name.as_chunks();
        to[7] = u64::from_le_bytes(name[0]);
        to[8] = u64::from_le_bytes(name[1]);
    }

    /// Reads what [`RecordHeader::to_bytes`] wrote; any bytes give a header.
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        let mut name = [0; 16];
        name.copy_from_slice(&bytes[56..]);
        Self {
            bytes: word(bytes, 0),
            kind: half(bytes, 4),
            flags: half(bytes, 6),
            sequence: long(bytes, 8),
            time_ns: long(bytes, 16),
            duration_ns: long(bytes, 24),
            result: long(bytes, 32),
            nr: word(bytes, 40),
            vcpu: half(bytes, 44),
            args: half(bytes, 46),
            pid: word(bytes, 48),
            tid: word(bytes, 52),
            name,
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
            vcpu: 11,
            args: 12,
            name: *b"0123456789abcdef",
        };
        let bytes = header.to_bytes();
        assert_eq!(RecordHeader::from_bytes(&bytes), header);
        let mut words = [0; HEADER_WORDS];
        header.write_words(&mut words);
        assert_eq!(words.map(u64::to_le_bytes).as_flattened(), bytes);
        assert_eq!(bytes[core::mem::offset_of!(RecordHeader, result)], 7);
        assert_eq!(bytes[core::mem::offset_of!(RecordHeader, args)], 12);
        assert_eq!(bytes[core::mem::offset_of!(RecordHeader, name)], b'0');
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
