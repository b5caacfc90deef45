//! The compact binary form of a recording; `docs/records.md` is its description.
//!
//! A file is a header and frames. A frame can be read without those before it. Records in a frame stand as differences
//! to the one before, in numbers of as many bytes as they need (LEB128), so that writing them costs little.

use std::io::{self, Read};

use husk_abi::boundary::record::{MAX_ARGS, MAX_RECORD_BYTES, RECORD_NO_RETURN, RecordHeader};

use super::Labels;
use super::parse::{Call, Record};

/// First bytes of a file.
pub const MAGIC: [u8; 8] = *b"huskrec\0";
/// Version of the form.
pub const VERSION: u32 = 1;
/// Bytes before the labels.
const FILE_HEADER_BYTES: usize = 16;
/// Bytes before a frame's payload.
pub const FRAME_HEADER_BYTES: usize = 16;
/// A frame's payload is closed when it has this many bytes.
pub const FRAME_BYTES: usize = 64 << 10;
/// The longest payload a reader takes.
const MAX_FRAME_BYTES: usize = FRAME_BYTES + 2 * MAX_RECORD_BYTES;
/// The longest labels a reader takes.
const MAX_LABELS_BYTES: usize = 64 << 10;

/// Frame kind: packed syscall records of one vCPU.
pub const FRAME_RECORDS: u16 = 1;
/// Frame kind: one event as a JSON object.
pub const FRAME_EVENT: u16 = 2;

/// Tag bit: the thread is another than the record's before.
const TAG_THREAD: u8 = 1;
/// Tag bit: it has a payload.
const TAG_PAYLOAD: u8 = 2;
/// Tag bit: the call never returns.
const TAG_NO_RETURN: u8 = 4;
/// Tag bit: its sequence number is not one more than that of the record before.
const TAG_SEQUENCE: u8 = 8;
/// Tag bit: not a call, but a count of lost records.
const TAG_LOST: u8 = 16;

/// What is wrong with a recording in binary form.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is none.
    #[error("it is no recording of husk's")]
    Magic,
    /// It is of another version.
    #[error("it is of version {0}, and this husk reads version {VERSION}")]
    Version(u32),
    /// It is damaged.
    #[error("frame {frame} is damaged: {what}")]
    Damaged {
        /// Which, from 0.
        frame: u64,
        /// How.
        what: &'static str,
    },
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// A file's first bytes.
pub fn file_header(labels: &Labels) -> Vec<u8> {
    // Serialising to memory fails for no labels.
    let labels = serde_json::to_vec(labels).unwrap_or_default();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(u32::try_from(labels.len()).unwrap_or(0).to_le_bytes());
    bytes.extend(labels);
    bytes
}

/// A frame's first bytes.
pub fn frame_header(
    kind: u16,
    vcpu: u16,
    records: u32,
    payload: usize,
) -> [u8; FRAME_HEADER_BYTES] {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    bytes[..4].copy_from_slice(&u32::try_from(payload).unwrap_or(0).to_le_bytes());
    bytes[4..6].copy_from_slice(&kind.to_le_bytes());
    bytes[6..8].copy_from_slice(&vcpu.to_le_bytes());
    bytes[8..12].copy_from_slice(&records.to_le_bytes());
    bytes
}

/// What the next record's differences are taken from.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    sequence: u64,
    time_ns: u64,
    pid: u32,
    tid: u32,
    name: [u8; 16],
}

/// Packs records into one frame's payload.
#[derive(Debug, Default)]
pub struct Packer {
    before: Before,
    records: u32,
    bytes: Vec<u8>,
}

impl Packer {
    /// Whether the frame is as long as frames get.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_BYTES
    }

    /// Adds a record.
    pub fn push(&mut self, record: &Record<'_>) {
        self.records += 1;
        match record {
            Record::Call(call) => self.call(call),
            Record::Lost { sequence, count } => {
                self.bytes.push(TAG_LOST);
                self.number(*sequence);
                self.number(*count);
                self.before.sequence = *sequence;
            }
        }
    }

    fn call(&mut self, call: &Call<'_>) {
        let header = &call.header;
        let before = self.before;
        let mut tag = 0;
        let same_thread =
            (before.pid, before.tid, before.name) == (header.pid, header.tid, header.name);
        if !same_thread {
            tag |= TAG_THREAD;
        }
        if !call.payload().is_empty() {
            tag |= TAG_PAYLOAD;
        }
        if header.sequence != before.sequence {
            tag |= TAG_SEQUENCE;
        }
        let result = call.result();
        if result.is_none() {
            tag |= TAG_NO_RETURN;
        }
        self.bytes.push(tag);
        if tag & TAG_SEQUENCE != 0 {
            self.number(header.sequence);
        }
        if tag & TAG_THREAD != 0 {
            self.number(u64::from(header.pid));
            self.number(u64::from(header.tid));
            self.bytes.extend_from_slice(&header.name);
        }
        self.number(u64::from(header.nr));
        self.signed(header.time_ns.wrapping_sub(before.time_ns).cast_signed());
        if let Some(result) = result {
            self.number(header.duration_ns);
            self.signed(result);
        }
        let args = call.args();
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_ARGS")]
        self.bytes.push(args.len() as u8);
        for arg in args {
            self.number(*arg);
        }
        if tag & TAG_PAYLOAD != 0 {
            self.number(call.payload().len() as u64);
            self.bytes.extend_from_slice(call.payload());
        }
        self.before = Before {
            // What the next one has if none is missing.
            sequence: header.sequence.wrapping_add(1),
            time_ns: header.time_ns,
            pid: header.pid,
            tid: header.tid,
            name: header.name,
        };
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Small numbers of either sign get small: 0, -1, 1, -2, ...
    #[inline]
    fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// The frame so far, with its header, if there is any; the next one starts empty.
    pub fn take_frame(&mut self, vcpu: u16, to: &mut Vec<u8>) {
        if self.records > 0 {
            to.extend(frame_header(
                FRAME_RECORDS,
                vcpu,
                self.records,
                self.bytes.len(),
            ));
            to.extend_from_slice(&self.bytes);
        }
        self.before = Before::default();
        self.records = 0;
        self.bytes.clear();
    }
}

/// Unpacks a frame's records.
struct Unpacker<'a> {
    before: Before,
    bytes: &'a [u8],
}

impl<'a> Unpacker<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.number()?;
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(bytes)
    }

    fn record(&mut self) -> Option<Record<'a>> {
        let tag = self.byte()?;
        if tag & TAG_LOST != 0 {
            let sequence = self.number()?;
            self.before.sequence = sequence;
            return Some(Record::Lost {
                sequence,
                count: self.number()?,
            });
        }
        let mut header = RecordHeader {
            sequence: self.before.sequence,
            pid: self.before.pid,
            tid: self.before.tid,
            name: self.before.name,
            ..RecordHeader::default()
        };
        if tag & TAG_SEQUENCE != 0 {
            header.sequence = self.number()?;
        }
        if tag & TAG_THREAD != 0 {
            header.pid = u32::try_from(self.number()?).ok()?;
            header.tid = u32::try_from(self.number()?).ok()?;
            header.name = self.take(16)?.try_into().ok()?;
        }
        header.nr = u32::try_from(self.number()?).ok()?;
        let later = self.signed()?;
        header.time_ns = self.before.time_ns.wrapping_add_signed(later);
        if tag & TAG_NO_RETURN == 0 {
            header.duration_ns = self.number()?;
            header.result = self.signed()?.cast_unsigned();
        } else {
            header.flags = RECORD_NO_RETURN;
        }
        let count = self.byte()?;
        let mut args = [0; MAX_ARGS];
        for arg in args.get_mut(..usize::from(count))? {
            *arg = self.number()?;
        }
        header.args = u16::from(count);
        let payload = if tag & TAG_PAYLOAD == 0 {
            &[]
        } else {
            let len = usize::try_from(self.number()?).ok()?;
            self.take(len)?
        };
        self.before = Before {
            sequence: header.sequence.wrapping_add(1),
            time_ns: header.time_ns,
            pid: header.pid,
            tid: header.tid,
            name: header.name,
        };
        Call::new(header, args, payload).ok().map(Record::Call)
    }
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A record of this vCPU.
    Record(u32, Record<'a>),
    /// An event as a JSON object.
    Event(&'a [u8]),
}

/// Reads a recording.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    /// Of the whole recording.
    labels: Labels,
    frame: u64,
    /// Bytes read of the next frame, which may not be there yet as a whole.
    partial: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Starts after the first eight bytes, which were [`MAGIC`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn after_magic(mut from: R) -> Result<Self, Error> {
        let mut head = [0; FILE_HEADER_BYTES - MAGIC.len()];
        from.read_exact(&mut head)?;
        let version = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= MAX_LABELS_BYTES)
            .ok_or(Error::Magic)?;
        let mut labels = vec![0; len];
        from.read_exact(&mut labels)?;
        let labels = serde_json::from_slice(&labels).map_err(|_| Error::Magic)?;
        Ok(Self {
            from,
            labels,
            frame: 0,
            partial: Vec::new(),
        })
    }

    /// What all records carry.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Whether there are bytes of a frame whose rest is missing.
    pub fn is_within_frame(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Reads up to `wanted` bytes of the next frame; false if they are not there (yet).
    fn fill(&mut self, wanted: usize) -> Result<bool, Error> {
        let missing = wanted.saturating_sub(self.partial.len());
        let taken = (&mut self.from)
            .take(missing as u64)
            .read_to_end(&mut self.partial)?;
        Ok(taken == missing)
    }

    /// Hands the next frame's contents to `take`; false if there is none (yet): another call goes on where this one
    /// stopped.
    ///
    /// # Errors
    /// [`Error`]; what was handed over before is good.
    pub fn next_frame(&mut self, mut take: impl FnMut(Content<'_>)) -> Result<bool, Error> {
        let damaged = |frame, what| Error::Damaged { frame, what };
        if !self.fill(FRAME_HEADER_BYTES)? {
            return Ok(false);
        }
        let word =
            |at: usize| -> [u8; 4] { self.partial[at..at + 4].try_into().unwrap_or_default() };
        let len = usize::try_from(u32::from_le_bytes(word(0)))
            .ok()
            .filter(|len| *len <= MAX_FRAME_BYTES)
            .ok_or(damaged(self.frame, "it is too long"))?;
        let [a, b, c, d] = word(4);
        let (kind, vcpu) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let count = u32::from_le_bytes(word(8));
        if !self.fill(FRAME_HEADER_BYTES + len)? {
            return Ok(false);
        }
        let frame = self.frame;
        self.frame += 1;
        let payload = &self.partial[FRAME_HEADER_BYTES..];
        match kind {
            FRAME_RECORDS => {
                let mut unpacker = Unpacker {
                    before: Before::default(),
                    bytes: payload,
                };
                for _ in 0..count {
                    let record = unpacker.record();
                    let record = record.ok_or(damaged(frame, "a record makes no sense"))?;
                    take(Content::Record(u32::from(vcpu), record));
                }
                if !unpacker.bytes.is_empty() {
                    return Err(damaged(frame, "there is more than its records"));
                }
            }
            FRAME_EVENT => take(Content::Event(payload)),
            // Of a later husk.
            _ => {}
        }
        self.partial.clear();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sequence: u64, tid: u32) -> RecordHeader {
        RecordHeader {
            sequence,
            time_ns: 1_700_000_000_000_000_000 + sequence * 7,
            duration_ns: 50,
            result: (-2i64).cast_unsigned(),
            nr: 257,
            args: 4,
            pid: 1,
            tid,
            name: *b"name\0\0\0\0\0\0\0\0\0\0\0\0",
            ..RecordHeader::default()
        }
    }

    fn labels() -> Labels {
        Labels {
            container: "c".into(),
            image: "i".into(),
            tenant: "t".into(),
        }
    }

    const PAYLOAD: &[u8] = b"\x01\x01\0\0\x02\0\0\0ab\0\0\0\0\0\0";

    fn records() -> Vec<Record<'static>> {
        let args = [u64::MAX, 1 << 40, 0, 127, 0, 0];
        let call = |header, payload| Record::Call(Call::new(header, args, payload).unwrap());
        let end = RecordHeader {
            flags: RECORD_NO_RETURN,
            duration_ns: 0,
            result: 0,
            ..header(9, 1)
        };
        vec![
            call(header(0, 1), PAYLOAD),
            call(header(1, 1), &[]),
            call(header(2, 2), &[]),
            Record::Lost {
                sequence: 7,
                count: 5,
            },
            call(header(7, 2), PAYLOAD),
            call(
                RecordHeader {
                    time_ns: 5,
                    ..header(8, 2)
                },
                &[],
            ),
            call(end, &[]),
        ]
    }

    fn file() -> Vec<u8> {
        let mut packer = Packer::default();
        let mut bytes = file_header(&labels());
        for record in records() {
            packer.push(&record);
        }
        packer.take_frame(3, &mut bytes);
        packer.take_frame(3, &mut bytes);
        bytes.extend(frame_header(99, 0, 1, 2));
        bytes.extend(b"??");
        bytes.extend(frame_header(FRAME_EVENT, 0, 1, 2));
        bytes.extend(b"{}");
        bytes
    }

    /// Everything readable of a file without its first eight bytes.
    fn read(bytes: &[u8]) -> Result<(usize, bool), Error> {
        let mut reader = Reader::after_magic(bytes)?;
        let mut count = 0;
        while reader.next_frame(|_| count += 1)? {}
        Ok((count, reader.is_within_frame()))
    }

    #[test]
    fn records_come_back() {
        let bytes = file();
        assert_eq!(bytes[..8], MAGIC);
        let mut reader = Reader::after_magic(&bytes[8..]).unwrap();
        assert_eq!(reader.labels(), &labels());
        let mut expected = records().into_iter();
        let take = |content: Content<'_>| {
            let expected = expected.next().unwrap();
            assert_eq!(content, Content::Record(3, expected));
        };
        assert!(reader.next_frame(take).unwrap());
        assert!(reader.next_frame(|_| panic!("an unknown frame")).unwrap());
        let take = |content: Content<'_>| assert_eq!(content, Content::Event(b"{}"));
        assert!(reader.next_frame(take).unwrap());
        assert!(!reader.next_frame(|_| ()).unwrap() && !reader.is_within_frame());
        assert_eq!(expected.next(), None);
    }

    #[test]
    fn frames_stand_alone() {
        let mut packer = Packer::default();
        let mut bytes = Vec::new();
        for record in records() {
            packer.push(&record);
            packer.take_frame(0, &mut bytes);
        }
        let whole = [&file_header(&labels())[8..], &bytes].concat();
        assert_eq!(read(&whole).unwrap(), (records().len(), false));
    }

    #[test]
    fn a_file_that_grows_is_followed() {
        let bytes = file();
        for cut in 8..bytes.len() {
            match read(&bytes[8..cut]) {
                Ok((count, _)) => assert!(count <= records().len()),
                Err(Error::Read(error)) => {
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                }
                Err(error) => panic!("{cut}: {error}"),
            }
        }
    }

    #[test]
    fn any_bytes_are_records_or_an_error() {
        let bytes = file();
        for at in 8..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                let _ = read(&bytes[8..]);
            }
        }
        let mut other = bytes;
        other[8] = 9;
        assert!(matches!(read(&other[8..]), Err(Error::Version(9))));
    }
}
