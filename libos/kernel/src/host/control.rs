//! Messages of the host and to it over the VMM's control queues (`abi::boundary::control`).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use husk_abi::boundary::boot::BootInfo;
use husk_abi::boundary::control::{
    self, CHUNK_BYTES, ChunkHeader, MAX_MESSAGE_BYTES, Report, Request,
};
use husk_abi::boundary::doorbell;
use husk_hal::doorbell as bell;
use husk_hal::phys::{self, Frame};

use super::virtqueue::{Buffer, Virtqueue};
use crate::mm::Frames;
use crate::sync::SpinLock;
use crate::{Errno, Result, log};

/// Buffers of each queue.
const BUFFERS: u64 = 4;
/// Bytes of a message in one buffer.
const PAYLOAD: usize = CHUNK_BYTES - ChunkHeader::BYTES;

/// The two queues.
#[derive(Debug)]
pub struct ControlQueue {
    state: SpinLock<State>,
}

#[derive(Debug)]
struct State {
    input: Virtqueue,
    output: Virtqueue,
    /// Buffers under way, by their chains.
    receiving: Vec<(u16, Frame)>,
    sending: Vec<(u16, Frame)>,
    /// Buffers for reports that are not in use.
    free: Vec<Frame>,
    /// What has come of a request.
    partial: Vec<u8>,
    /// Parts of reports that wait for buffers.
    backlog: VecDeque<Vec<u8>>,
}

impl ControlQueue {
    pub(super) fn new(boot: &BootInfo) -> Self {
        Self {
            state: SpinLock::new(State {
                input: Virtqueue::new(boot.control_in),
                output: Virtqueue::new(boot.control_out),
                receiving: Vec::new(),
                sending: Vec::new(),
                free: Vec::new(),
                partial: Vec::new(),
                backlog: VecDeque::new(),
            }),
        }
    }

    /// Makes the buffers; from now on there can be requests.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn open(&self, frames: &Frames) -> Result<()> {
        let first = frames.alloc_for_libos(2 * BUFFERS)?;
        let mut state = self.state.lock();
        state.free = (BUFFERS..2 * BUFFERS).map(|at| first.offset(at)).collect();
        for at in 0..BUFFERS {
            state.offer(first.offset(at));
        }
        drop(state);
        bell::ring(doorbell::CONTROL, 0);
        Ok(())
    }

    /// Takes the requests that have come.
    pub(super) fn take(&self) -> Vec<Request> {
        let mut state = self.state.lock();
        let mut requests = Vec::new();
        let mut moved = state.collect_sent();
        while let Some((chain, len)) = state.input.pop_used() {
            moved = true;
            let Some(at) = state.receiving.iter().position(|buffer| buffer.0 == chain) else {
                continue;
            };
            let (_, frame) = state.receiving.swap_remove(at);
            match state.receive(frame, len as usize) {
                Ok(request) => requests.extend(request),
                Err(errno) => log!(Warn, "host", "a request that is none: {errno}"),
            }
            state.offer(frame);
        }
        if moved {
            state.send_backlog();
            drop(state);
            bell::ring(doorbell::CONTROL, 0);
        }
        requests
    }

    /// Tells the host; never waits.
    pub fn report(&self, report: &Report) {
        let Ok(bytes) = control::encode(report) else {
            log!(Error, "host", "no memory for a report");
            return;
        };
        let mut state = self.state.lock();
        let parts = bytes.chunks(PAYLOAD).count();
        for (at, part) in (1..).zip(bytes.chunks(PAYLOAD)) {
            let header = ChunkHeader {
                len: part.len() as u32,
                more: u32::from(at < parts),
            };
            state
                .backlog
                .push_back([&header.to_bytes()[..], part].concat());
        }
        state.collect_sent();
        state.send_backlog();
        drop(state);
        bell::ring(doorbell::CONTROL, 0);
    }
}

impl State {
    /// Queues a buffer for requests.
    fn offer(&mut self, frame: Frame) {
        let buffer = Buffer {
            gpa: frame.gpa(),
            len: CHUNK_BYTES as u32,
            device_writes: true,
        };
        if let Some(chain) = self.input.push(&[buffer]) {
            self.receiving.push((chain, frame));
        }
    }

    /// Adds a part to the request that is coming; gives that when it is complete.
    fn receive(&mut self, frame: Frame, len: usize) -> Result<Option<Request>> {
        let mut header = [0; ChunkHeader::BYTES];
        phys::read(frame, 0, &mut header);
        let header = ChunkHeader::from_bytes(header);
        let bytes = header.len as usize;
        if len < ChunkHeader::BYTES
            || bytes > PAYLOAD
            || self.partial.len() + bytes > MAX_MESSAGE_BYTES
        {
            self.partial.clear();
            return Err(Errno::EMSGSIZE);
        }
        let start = self.partial.len();
        self.partial.resize(start + bytes, 0);
        phys::read(frame, ChunkHeader::BYTES, &mut self.partial[start..]);
        if header.more != 0 {
            return Ok(None);
        }
        let whole = core::mem::take(&mut self.partial);
        control::decode(&whole)
            .map(Some)
            .map_err(|_| Errno::EBADMSG)
    }

    /// Takes back the buffers of reports the VMM has read; true if there were any.
    fn collect_sent(&mut self) -> bool {
        let mut any = false;
        while let Some((chain, _)) = self.output.pop_used() {
            if let Some(at) = self.sending.iter().position(|buffer| buffer.0 == chain) {
                let (_, frame) = self.sending.swap_remove(at);
                self.free.push(frame);
                any = true;
            }
        }
        any
    }

    fn send_backlog(&mut self) {
        while let Some(frame) = self.free.pop() {
            let Some(part) = self.backlog.pop_front() else {
                self.free.push(frame);
                return;
            };
            phys::write(frame, 0, &part);
            let buffer = Buffer {
                gpa: frame.gpa(),
                len: part.len() as u32,
                device_writes: false,
            };
            match self.output.push(&[buffer]) {
                Some(chain) => self.sending.push((chain, frame)),
                None => {
                    self.free.push(frame);
                    return;
                }
            }
        }
    }
}
