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
    MAX_RECORD_BYTES, RECORD_VERSION, RING_DATA, RING_MAGIC, RingHeader,
};
use vm_memory::{Bytes, GuestAddress};

use super::parse::{self, Record};
use crate::vmm::GuestMemory;

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
    Record(#[from] parse::Malformed),
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

    /// Appends the ring's records to `records` and frees their room.
    ///
    /// # Errors
    /// [`Nonsense`], once; records before it are good, and later calls read nothing.
    pub fn drain(
        &mut self,
        memory: &GuestMemory,
        records: &mut Vec<Record>,
    ) -> Result<(), Nonsense> {
        let head = self.load(memory, offset_of!(RingHeader, head));
        let result = if self.broken {
            Ok(())
        } else {
            self.read(memory, head)
                .and_then(|()| Ok(parse::records(&self.copy, records)?))
        };
        self.broken |= result.is_err();
        self.tail = head;
        let tail = self.field(offset_of!(RingHeader, tail));
        let _ = memory.store(head, tail, Ordering::Release);
        result
    }

    /// Copies what lies between `tail` and `head` out.
    fn read(&mut self, memory: &GuestMemory, head: u64) -> Result<(), Nonsense> {
        let bytes = head
            .checked_sub(self.tail)
            .filter(|bytes| *bytes <= self.data_bytes && bytes % 8 == 0)
            .ok_or(Nonsense::Head {
                head,
                tail: self.tail,
                data_bytes: self.data_bytes,
            })?;
        let offset = self.tail % self.data_bytes;
        let first = bytes.min(self.data_bytes - offset);
        let size = |bytes: u64| usize::try_from(bytes).map_err(|_| Nonsense::Unreadable);
        self.copy.clear();
        self.copy.resize(size(bytes)?, 0);
        let data = self.gpa + RING_DATA;
        let (start, rest) = self.copy.split_at_mut(size(first)?);
        memory
            .read_slice(start, GuestAddress(data + offset))
            .and_then(|()| memory.read_slice(rest, GuestAddress(data)))
            .map_err(|_| Nonsense::Unreadable)
    }
}
