//! One vCPU's ring of records: the guest's side.

use core::mem::offset_of;

use husk_abi::boundary::boot::GuestRange;
use husk_abi::boundary::doorbell;
use husk_abi::boundary::record::{
    HEADER_WORDS, KIND_LOST, KIND_SYSCALL, MAX_ARGS, MAX_RECORD_BYTES, MIN_RECORD_BYTES,
    RECORD_VERSION, RING_DATA, RING_MAGIC, RecordHeader, RingHeader,
};
use husk_hal::phys::{self, Frame};

use crate::sync::SpinLock;

/// A ring. Only its own vCPU writes it; the lock is for a thread that is moved while it does.
#[derive(Debug)]
pub(super) struct Ring {
    gpa: u64,
    /// Bytes for records; 0 if the VMM made no ring.
    data_bytes: u64,
    writer: SpinLock<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    /// Bytes ever written.
    head: u64,
    /// Where the next byte goes: `head` modulo the ring's size, which takes long to compute.
    at: u64,
    /// Number of the next record.
    sequence: u64,
    /// Records ever dropped.
    lost: u64,
    /// Dropped records no record of [`KIND_LOST`] has told yet.
    untold: u64,
}

impl Ring {
    /// The ring in `range`, if the VMM made one there.
    pub(super) fn new(range: GuestRange) -> Self {
        let mut ring = Self {
            gpa: range.gpa,
            data_bytes: 0,
            writer: SpinLock::new(Writer::default()),
        };
        if range.len > RING_DATA + MAX_RECORD_BYTES as u64
            && ring.load(offset_of!(RingHeader, magic)) == RING_MAGIC
            && ring.load(offset_of!(RingHeader, version)) == u64::from(RECORD_VERSION)
        {
            let bytes = ring.load(offset_of!(RingHeader, data_bytes));
            ring.data_bytes = bytes.min(range.len - RING_DATA) & !7;
        }
        ring
    }

    fn load(&self, field: usize) -> u64 {
        let at = self.gpa + field as u64;
        phys::load_u64(Frame::containing(at), (at % 4096) as usize)
    }

    fn store(&self, field: usize, value: u64) {
        let at = self.gpa + field as u64;
        phys::store_u64(Frame::containing(at), (at % 4096) as usize, value);
    }

    /// Where `offset` of the ring lies, and how many bytes go on from there without a gap.
    fn place(&self, offset: u64) -> (Frame, usize, u64) {
        let at = self.gpa + RING_DATA + offset;
        let run = (4096 - at % 4096).min(self.data_bytes - offset);
        (Frame::containing(at), (at % 4096) as usize, run)
    }

    /// Appends `bytes`, around the ring's end if need be.
    fn put(&self, writer: &mut Writer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (frame, offset, run) = self.place(writer.at);
            let run = bytes.len().min(run as usize);
            phys::write(frame, offset, &bytes[..run]);
            bytes = &bytes[run..];
            self.advance(writer, run as u64);
        }
    }

    /// Appends `words`, around the ring's end if need be.
    #[inline]
    fn put_words(&self, writer: &mut Writer, mut words: &[u64]) {
        while !words.is_empty() {
            let (frame, offset, run) = self.place(writer.at);
            let run = words.len().min((run / 8) as usize);
            phys::store_words(frame, offset, &words[..run]);
            words = &words[run..];
            self.advance(writer, 8 * run as u64);
        }
    }

    #[inline]
    fn advance(&self, writer: &mut Writer, bytes: u64) {
        writer.head += bytes;
        writer.at += bytes;
        if writer.at >= self.data_bytes {
            writer.at -= self.data_bytes;
        }
    }

    /// Bytes written and not yet drained.
    fn used(&self, writer: &Writer) -> u64 {
        writer
            .head
            .wrapping_sub(self.load(offset_of!(RingHeader, tail)))
    }

    fn append(&self, writer: &mut Writer, header: &RecordHeader, args: &[u64], payload: &[u8]) {
        let mut start = [0; HEADER_WORDS];
        header.write_words(&mut start);
        self.put_words(writer, &start);
        self.put_words(writer, args);
        self.put(writer, payload);
        self.store(offset_of!(RingHeader, sequence), writer.sequence);
        // Publishes: a release store, after everything above.
        self.store(offset_of!(RingHeader, head), writer.head);
    }

    /// Writes a record; `header`'s length, kind, sequence number and count of arguments are filled in here.
    ///
    /// A full ring is drained by the VMM first, unless records are to be dropped then: then the VMM drains beside the
    /// guest, from when the ring is half full. What does not fit after all is counted as lost.
    pub(super) fn write(
        &self,
        header: &mut RecordHeader,
        args: &[u64],
        payload: &[u8],
        drop_if_full: bool,
    ) {
        if self.data_bytes == 0 {
            return;
        }
        let args = &args[..args.len().min(MAX_ARGS)];
        let fixed = MIN_RECORD_BYTES + 8 * args.len();
        let payload = if fixed + payload.len() > MAX_RECORD_BYTES {
            &[]
        } else {
            payload
        };
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        let bytes = (fixed + payload.len()) as u32;
        let telling = u64::from(writer.untold > 0) * MIN_RECORD_BYTES as u64;
        let needed = u64::from(bytes) + telling;
        let mut used = self.used(writer);
        if self.data_bytes.saturating_sub(used) < needed && !drop_if_full {
            husk_hal::doorbell::ring(doorbell::RECORDS, u32::from(header.vcpu));
            used = self.used(writer);
        }
        let sequence = writer.sequence;
        writer.sequence += 1;
        if self.data_bytes.saturating_sub(used) < needed {
            writer.lost += 1;
            writer.untold += 1;
            self.store(offset_of!(RingHeader, sequence), writer.sequence);
            self.store(offset_of!(RingHeader, lost), writer.lost);
            return;
        }
        if writer.untold > 0 {
            let told = RecordHeader {
                bytes: MIN_RECORD_BYTES as u32,
                kind: KIND_LOST,
                sequence,
                time_ns: header.time_ns,
                result: writer.untold,
                vcpu: header.vcpu,
                ..RecordHeader::default()
            };
            writer.untold = 0;
            self.append(writer, &told, &[], &[]);
        }
        header.bytes = bytes;
        header.kind = KIND_SYSCALL;
        header.sequence = sequence;
        header.args = args.len() as u16;
        self.append(writer, header, args, payload);
        let half = self.data_bytes / 2;
        if drop_if_full && used < half && used + needed >= half {
            husk_hal::doorbell::ring(doorbell::RECORDS_WAITING, 0);
        }
    }
}
