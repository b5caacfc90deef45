//! The VMM's side of the guest's control queues (`abi::boundary::control`).

use std::collections::VecDeque;
use std::io::{Read, Write};

use husk_abi::boundary::boot::Virtqueue;
use husk_abi::boundary::control::{
    self, CHUNK_BYTES, ChunkHeader, MAX_MESSAGE_BYTES, Report, Request,
};
use virtio_queue::{Queue, QueueT};

use crate::gate::{Error, queue};
use crate::vmm::GuestMemory;

/// Requests under way at most, in buffers: a guest that takes none gets no more.
const MAX_PENDING: usize = 4 * MAX_MESSAGE_BYTES / CHUNK_BYTES;

/// Requests to the guest, and its reports.
pub struct GuestQueues {
    memory: GuestMemory,
    requests: Queue,
    reports: Queue,
    /// Parts of requests that wait for buffers of the guest.
    pending: VecDeque<Vec<u8>>,
    /// What has come of a report.
    partial: Vec<u8>,
}

impl GuestQueues {
    /// Over the rings for requests and for reports.
    pub fn new(memory: GuestMemory, rings: [&Virtqueue; 2]) -> Result<Self, Error> {
        Ok(Self {
            requests: queue::open(&memory, rings[0], "control")?,
            reports: queue::open(&memory, rings[1], "control")?,
            memory,
            pending: VecDeque::new(),
            partial: Vec::new(),
        })
    }

    /// Queues a request; it goes with [`GuestQueues::push`]. False if the guest does not take any.
    #[must_use]
    pub fn ask(&mut self, request: &Request) -> bool {
        let Ok(bytes) = control::encode(request) else {
            return false;
        };
        let parts: Vec<_> = bytes.chunks(CHUNK_BYTES - ChunkHeader::BYTES).collect();
        if bytes.len() > MAX_MESSAGE_BYTES || self.pending.len() + parts.len() > MAX_PENDING {
            return false;
        }
        tracing::trace!(parts = parts.len(), "request: {request:?}");
        for (at, part) in (1..).zip(&parts) {
            let header = ChunkHeader {
                len: u32::try_from(part.len()).unwrap_or(0),
                more: u32::from(at < parts.len()),
            };
            self.pending
                .push_back([&header.to_bytes()[..], part].concat());
        }
        true
    }

    /// Gives the guest what it has buffers for; true if anything.
    pub fn push(&mut self) -> bool {
        let memory = self.memory.clone();
        let mut any = false;
        while let Some(part) = self.pending.front() {
            let Some(chain) = self.requests.pop_descriptor_chain(&*memory) else {
                break;
            };
            let head = chain.head_index();
            let written = chain
                .writer(&*memory)
                .ok()
                .and_then(|mut writer| writer.write_all(part).ok());
            // One that is too small is the guest's loss: it cannot make sense of what follows.
            let len = written.map_or(0, |()| u32::try_from(part.len()).unwrap_or(0));
            tracing::trace!(head, len, "request goes");
            any |= self.requests.add_used(&*memory, head, len).is_ok();
            self.pending.pop_front();
        }
        any
    }

    /// Takes the guest's reports; what is none is skipped.
    pub fn reports(&mut self) -> Vec<Report> {
        let memory = self.memory.clone();
        let mut reports = Vec::new();
        while let Some(chain) = self.reports.pop_descriptor_chain(&*memory) {
            let head = chain.head_index();
            let mut part = Vec::new();
            let read = chain.reader(&*memory).ok().and_then(|reader| {
                let mut reader = reader.take(CHUNK_BYTES as u64);
                reader.read_to_end(&mut part).ok()
            });
            if self.reports.add_used(&*memory, head, 0).is_err() {
                break;
            }
            if read.is_some() {
                reports.extend(self.add(&part));
            }
        }
        reports
    }

    /// Adds a part to the report that is coming; gives that when it is complete.
    fn add(&mut self, part: &[u8]) -> Option<Report> {
        let (header, rest) = part.split_first_chunk::<{ ChunkHeader::BYTES }>()?;
        let header = ChunkHeader::from_bytes(*header);
        let bytes = rest.get(..header.len as usize);
        let fits = |bytes: &&[u8]| self.partial.len() + bytes.len() <= MAX_MESSAGE_BYTES;
        let Some(bytes) = bytes.filter(fits) else {
            self.partial.clear();
            return None;
        };
        self.partial.extend_from_slice(bytes);
        if header.more != 0 {
            return None;
        }
        let whole = std::mem::take(&mut self.partial);
        match control::decode(&whole) {
            Ok(report) => {
                tracing::trace!("report: {report:?}");
                Some(report)
            }
            Err(error) => {
                tracing::warn!("a report of the guest makes no sense: {error}");
                None
            }
        }
    }
}
