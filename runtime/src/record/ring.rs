//! The VMM's side of a record ring.
//!
//! The guest can write anything anywhere in it at any time. So positions are kept here, what the header
//! says is only compared with them, and records are copied out once and parsed from the copy. A ring that
//! makes no sense is not read again; its room is still freed, so that the guest is not stopped by its own
//! recording.

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use husk_abi::boundary::boot::GuestRange;
use husk_abi::boundary::record::{
    MAX_RECORD_BYTES, MIN_RECORD_BYTES, RECORD_VERSION, RING_DATA, RING_MAGIC, RingHeader,
};
use vm_memory::{Bytes, GuestAddress};

use super::parse::{self, Malformed, Record};
use crate::vmm::GuestMemory;

/// Bytes copied out at once; more than a record has.
const CHUNK_BYTES: usize = 64 << 10;

/// What is wrong with a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// More was written than fits, or less than was read.
    #[error("it has {head} bytes written and {tail} read of {data_bytes}")]
    Head {
        /// Bytes ever written, as the guest says.
        head: u64,
        /// Bytes ever read.
        tail: u64,
        /// Bytes for records.
        data_bytes: u64,
    },
    /// The ring is not in guest memory.
    #[error("it cannot be read")]
    Unreadable,
    /// A record is malformed.
    #[error("{0}")]
    Record(#[from] Malformed),
}

/// One vCPU's ring.
#[derive(Debug)]
pub struct Ring {
    gpa: u64,
    data_bytes: u64,
    tail: u64,
    broken: bool,
    copy: Vec<u8>,
}

impl Ring {
    /// Writes an empty ring's header into `range`; `None` if that is not guest memory or too small.
    pub fn create(memory: &GuestMemory, range: GuestRange) -> Option<Self> {
        let data_bytes = range.len.checked_sub(RING_DATA)? & !7;
        if data_bytes < MAX_RECORD_BYTES as u64 {
            return None;
        }
        let ring = Self {
            gpa: range.gpa,
            data_bytes,
            tail: 0,
            broken: false,
            copy: Vec::new(),
        };
        let last = range.gpa.checked_add(range.len)?.checked_sub(8)?;
        memory.read_obj::<u64>(GuestAddress(last)).ok()?;
        let fields = [
            (offset_of!(RingHeader, magic), RING_MAGIC),
            (offset_of!(RingHeader, version), u64::from(RECORD_VERSION)),
            (offset_of!(RingHeader, data_bytes), data_bytes),
            (offset_of!(RingHeader, head), 0),
            (offset_of!(RingHeader, sequence), 0),
            (offset_of!(RingHeader, lost), 0),
            (offset_of!(RingHeader, tail), 0),
        ];
        for (field, value) in fields {
            memory
                .store(value, ring.field(field), Ordering::SeqCst)
                .ok()?;
        }
        Some(ring)
    }

    fn field(&self, offset: usize) -> GuestAddress {
        GuestAddress(self.gpa + offset as u64)
    }

    fn load(&self, memory: &GuestMemory, offset: usize) -> u64 {
        memory
            .load(self.field(offset), Ordering::Acquire)
            .unwrap_or(0)
    }

    /// Records the guest says it dropped, and the number of its next one.
    pub fn totals(&self, memory: &GuestMemory) -> (u64, u64) {
        (
            self.load(memory, offset_of!(RingHeader, lost)),
            self.load(memory, offset_of!(RingHeader, sequence)),
        )
    }

    /// Hands the ring's records to `take` and frees their room.
    ///
    /// # Errors
    /// [`Nonsense`], once; records before it are good, and later calls read nothing.
    pub fn drain(
        &mut self,
        memory: &GuestMemory,
        mut take: impl FnMut(Record<'_>),
    ) -> Result<(), Nonsense> {
        let head = self.load(memory, offset_of!(RingHeader, head));
        let result = if self.broken {
            Ok(())
        } else {
            self.read_to(memory, head, &mut take)
        };
        self.broken |= result.is_err();
        self.free(memory, head);
        result
    }

    /// Tells the guest that everything before `position` is read.
    fn free(&mut self, memory: &GuestMemory, position: u64) {
        self.tail = position;
        let tail = self.field(offset_of!(RingHeader, tail));
        let _ = memory.store(position, tail, Ordering::Release);
    }

    fn read_to(
        &mut self,
        memory: &GuestMemory,
        head: u64,
        take: &mut impl FnMut(Record<'_>),
    ) -> Result<(), Nonsense> {
        let bytes = head
            .checked_sub(self.tail)
            .filter(|bytes| *bytes <= self.data_bytes && bytes % 8 == 0)
            .ok_or(Nonsense::Head {
                head,
                tail: self.tail,
                data_bytes: self.data_bytes,
            })?;
        let mut left = usize::try_from(bytes).map_err(|_| Nonsense::Unreadable)?;
        while left > 0 {
            let mut copy = std::mem::take(&mut self.copy);
            copy.resize(left.min(CHUNK_BYTES), 0);
            let read = self.copy_out(memory, &mut copy).and_then(|()| {
                let mut rest = copy.as_slice();
                while !rest.is_empty() {
                    match parse::record(rest) {
                        Ok((record, after)) => {
                            take(record);
                            rest = after;
                        }
                        // A record that goes on after the chunk: of its length only, and not all of the chunk.
                        Err(Malformed::Length { bytes, .. })
                            if left > copy.len()
                                && rest.len() < copy.len()
                                && (rest.len() < MIN_RECORD_BYTES
                                    || usize::try_from(bytes).is_ok_and(parse::is_length)) =>
                        {
                            break;
                        }
                        Err(malformed) => return Err(malformed.into()),
                    }
                }
                Ok(copy.len() - rest.len())
            });
            self.copy = copy;
            let read = read?;
            left -= read;
            self.free(memory, self.tail + read as u64);
        }
        Ok(())
    }

    /// Copies what lies at the tail out.
    fn copy_out(&self, memory: &GuestMemory, to: &mut [u8]) -> Result<(), Nonsense> {
        let offset = self.tail % self.data_bytes;
        let first = usize::try_from(self.data_bytes - offset).map_err(|_| Nonsense::Unreadable)?;
        let (start, rest) = to.split_at_mut(first.min(to.len()));
        let data = self.gpa + RING_DATA;
        memory
            .read_slice(start, GuestAddress(data + offset))
            .and_then(|()| memory.read_slice(rest, GuestAddress(data)))
            .map_err(|_| Nonsense::Unreadable)
    }
}
