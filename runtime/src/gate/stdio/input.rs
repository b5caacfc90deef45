//! Input: a thread that reads from the host when the guest asks, never ahead of it.
#![allow(
    unsafe_code,
    reason = "the process's own standard descriptors, borrowed by number"
)]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use husk_abi::boundary::boot::Virtqueue;
use husk_abi::boundary::stdio::{IN_READ, IN_WAIT, InReply, InRequest, MAX_PAYLOAD};
use nix::errno::Errno;
use nix::poll::PollFlags;
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::output::wait_for;
use crate::confine::{self, rules::Role};
use crate::gate::{Error, Interrupt, StreamObserver, Transfer, queue};
use crate::vmm::GuestMemory;

/// The input service. Its thread ends with the process: it may be asleep in a read.
#[derive(Debug)]
pub struct Input;

/// One of the process's standard descriptors.
pub(super) fn standard(fd: i32) -> BorrowedFd<'static> {
    assert!((0..=2).contains(&fd));
    // SAFETY: descriptors 0 to 2 are open for the life of the process; husk never closes them.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

impl Input {
    /// Starts the thread; `event` is the queue's doorbell.
    pub fn start(
        memory: GuestMemory,
        rings: &Virtqueue,
        event: EventFd,
        interrupt: Arc<dyn Interrupt>,
        observer: Option<Arc<dyn StreamObserver>>,
    ) -> Result<(), Error> {
        let mut queue = queue::open(&memory, rings, "stdio input")?;
        std::thread::Builder::new()
            .name("stdin".into())
            .spawn(move || {
                confine::enter_thread(Role::Input);
                while event.read().is_ok() {
                    serve(&memory, &mut queue, &*interrupt, observer.as_deref());
                }
            })
            .map_err(|source| Error::Start {
                service: "stdio",
                source,
            })?;
        Ok(())
    }
}

fn serve(
    memory: &GuestMemory,
    queue: &mut Queue,
    interrupt: &dyn Interrupt,
    observer: Option<&dyn StreamObserver>,
) {
    while let Some(chain) = queue.pop_descriptor_chain(&**memory) {
        let head = chain.head_index();
        let len = answer(memory, chain, observer).unwrap_or(0);
        if queue.add_used(&**memory, head, len).is_ok() {
            interrupt.interrupt();
        }
    }
}

/// Serves one request; returns the bytes written into the chain, or `None` if the chain is malformed.
fn answer(
    memory: &GuestMemory,
    chain: DescriptorChain<&GuestMemoryMmap>,
    observer: Option<&dyn StreamObserver>,
) -> Option<u32> {
    let mut reader = chain.clone().reader(memory).ok()?;
    let mut writer = chain.writer(memory).ok()?;
    let mut request = [0; size_of::<InRequest>()];
    io::Read::read_exact(&mut reader, &mut request).ok()?;
    let word = |at: usize| {
        u32::from_le_bytes([
            request[at],
            request[at + 1],
            request[at + 2],
            request[at + 3],
        ])
    };
    let (op, len) = (word(0), word(4));
    let room = writer.available_bytes().checked_sub(size_of::<InReply>())?;
    let begun = Instant::now();
    let outcome = match op {
        IN_WAIT => wait_for(standard(0), PollFlags::POLLIN).map(|()| Vec::new()),
        IN_READ => read((len as usize).min(room).min(MAX_PAYLOAD)),
        _ => Err(Errno::EINVAL),
    };
    let (error, bytes) = match outcome {
        Ok(bytes) => (0, bytes),
        Err(errno) => (errno as i32 as u32, Vec::new()),
    };
    if op == IN_READ
        && let Some(observer) = observer
    {
        observer.transferred(Transfer {
            stream: 0,
            bytes: bytes.len(),
            errno: error,
            duration: begun.elapsed(),
        });
    }
    let mut reply = error.to_le_bytes().to_vec();
    reply.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
    reply.extend_from_slice(&bytes);
    io::Write::write_all(&mut writer, &reply).ok()?;
    u32::try_from(reply.len()).ok()
}

fn read(len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; len];
    loop {
        match nix::unistd::read(standard(0), &mut bytes) {
            Ok(got) => {
                bytes.truncate(got);
                return Ok(bytes);
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait_for(standard(0), PollFlags::POLLIN)?,
            Err(errno) => return Err(errno),
        }
    }
}
