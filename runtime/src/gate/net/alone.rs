//! The socket service without a machine, for what tries it with any bytes a guest may write (`fuzz/fuzz_targets/sockets.rs`).

use std::io;
use std::sync::Arc;

use husk_abi::boundary::boot::GuestRange;
use husk_abi::boundary::net::AREA_BYTES;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::Sockets;
use super::readiness::Readiness;
use crate::gate::Interrupt;
use crate::gate::requests::Service;
use crate::gate::requests::message::Request;
use crate::vmm::GuestMemory;

/// Where requests are put, and answers.
const REQUEST: u64 = 1 << 20;
const ANSWER: u64 = 2 << 20;
const MEMORY: usize = 4 << 20;
/// Room for an answer.
const ROOM: usize = 300 << 10;

struct Nobody;

impl Interrupt for Nobody {
    fn interrupt(&self) {}

    fn wake(&self) -> bool {
        true
    }
}

/// The service, its sockets in this process's network namespace, and a guest's memory.
pub struct Alone {
    memory: GuestMemory,
    sockets: Arc<Sockets>,
}

impl Alone {
    /// Without any sockets.
    ///
    /// # Errors
    /// When the host refuses memory, or what the service needs.
    pub fn new() -> io::Result<Self> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]);
        let memory: GuestMemory = Arc::new(memory.map_err(io::Error::other)?);
        let area = GuestRange {
            gpa: 0,
            len: AREA_BYTES,
        };
        let readiness = Readiness::new(memory.clone(), area, Arc::new(Nobody))?;
        let sockets = Sockets::new(memory.clone(), readiness, Arc::default(), false, None)?;
        Ok(Self {
            memory,
            sockets: Arc::new(sockets),
        })
    }

    /// Writes `bytes` at `offset` of what both sides know of sockets.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let _ = self
            .memory
            .write_slice(bytes, GuestAddress(offset % AREA_BYTES));
    }

    /// Serves `request`, with its header, whose answer has room; gives the answer's length. `cut` is where the request is in
    /// two pieces.
    pub fn serve(&self, request: &[u8], cut: usize) -> u32 {
        let request = &request[..request.len().min((ANSWER - REQUEST) as usize)];
        let _ = self.memory.write_slice(request, GuestAddress(REQUEST));
        let cut = cut.min(request.len());
        let readable = vec![(REQUEST, cut), (REQUEST + cut as u64, request.len() - cut)];
        let answer = vec![(ANSWER, ROOM)];
        self.sockets.visit(|| {
            let request = Request::from_ranges(&self.memory, readable, answer);
            request.map_or(0, |request| {
                request.answer(&self.memory, self.sockets.serve(&request))
            })
        })
    }
}
