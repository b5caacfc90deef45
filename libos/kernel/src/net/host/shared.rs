//! What the guest and the VMM tell each other about all sockets: what comes by itself, and that there is something to send.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::{self, offset_of};
use core::sync::atomic::{AtomicU32, Ordering};

use husk_abi::boundary::fuse::InHeader;
use husk_abi::boundary::net::{
    DELIVERED_BYTES, DELIVERED_OFFSET, DeliveredOut, HAND_IN, MAX_SOCKET_DATA, NO_SOCKET, NetIn,
    ReceiveOut, SHARED_OFFSET, SendOne, Shared, op, wanted,
};
use husk_hal::phys;

use super::datagrams::{Arrived, MAX_KEPT};
use super::stream::{MAX_UNSENT, Stream};
use super::{HostSockets, place};
use crate::fs::PollEvents;
use crate::host::{Ask, BULK_BYTES};
use crate::sync::SpinLock;
use crate::{Errno, Kernel, Result};

/// Sockets in one message, which has room for all they may have.
const MAX_TOGETHER: usize = 15;
/// Pieces in one message: they are named in a page.
const MAX_PIECES: usize = 80;
const _: () = assert!(
    MAX_KEPT <= MAX_PIECES
        && InHeader::BYTES + NetIn::BYTES + MAX_PIECES * (SendOne::BYTES + MAX_INET_ADDRESS)
            <= 4096
);
/// Bytes of the longest address that datagrams are kept for: a `sockaddr_in6`'s.
pub const MAX_INET_ADDRESS: usize = 28;
const _: () =
    assert!(MAX_TOGETHER * MAX_UNSENT <= MAX_SOCKET_DATA && MAX_SOCKET_DATA <= BULK_BYTES);
/// After the VMM had to ask for what was kept, so many sends go at once.
const PAUSE: u32 = 64;

/// Sockets with something to send.
#[derive(Debug, Default)]
pub struct Unsent {
    streams: SpinLock<Vec<Arc<Stream>>>,
    /// What was last told, not 0.
    told: AtomicU32,
    /// Sends that are not to be put off.
    pause: AtomicU32,
}

/// A word of [`Shared`].
fn word(area: u64, offset: usize) -> (phys::Frame, usize) {
    place(area + SHARED_OFFSET + offset as u64)
}

impl HostSockets {
    /// Whether bytes may be kept to be sent later: somebody makes sure that they are.
    pub(super) fn may_keep(&self) -> bool {
        let Some(area) = self.area_gpa else {
            return false;
        };
        let pause = &self.unsent.pause;
        if pause.load(Ordering::Relaxed) > 0 {
            pause.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let (frame, watched) = word(area, offset_of!(Shared, watched));
        phys::load_u32(frame, watched) != 0
    }

    /// `stream` has something to send. False if it has to be handed in now: nobody watches any longer.
    pub(super) fn list(&self, stream: &Arc<Stream>) -> bool {
        let Some(area) = self.area_gpa else {
            return false;
        };
        self.unsent.streams.lock().push(stream.clone());
        let next = self.unsent.told.fetch_add(2, Ordering::Relaxed) | 1;
        let (frame, unsent) = word(area, offset_of!(Shared, unsent));
        phys::swap_u32(frame, unsent, next);
        let (frame, watched) = word(area, offset_of!(Shared, watched));
        phys::load_u32(frame, watched) != 0
    }

    /// `stream` has something left to send, and there is room now.
    pub(super) fn list_again(&self, stream: &Arc<Stream>) {
        if stream.list() {
            self.list(stream);
        }
    }

    /// Queues what is to be sent; the VMM sees it when the vCPU leaves next. True if anything is queued.
    pub fn flush(&self, kernel: &'static Kernel) -> bool {
        let mut queued = false;
        loop {
            let mut listed = mem::take(&mut *self.unsent.streams.lock());
            if listed.is_empty() {
                return queued;
            }
            if let Some(area) = self.area_gpa {
                let (frame, unsent) = word(area, offset_of!(Shared, unsent));
                phys::swap_u32(frame, unsent, 0);
            }
            let mut pieces = 0;
            let fits = |stream: &Arc<Stream>| {
                pieces += stream.pieces();
                pieces <= MAX_PIECES
            };
            let count = listed
                .iter()
                .map(fits)
                .take(MAX_TOGETHER)
                .take_while(|fits| *fits);
            let rest = listed.split_off(count.count().max(1));
            self.unsent.streams.lock().splice(..0, rest);
            queued |= send_together(kernel, listed);
        }
    }

    /// As [`HostSockets::flush`], if the VMM asks for it: the vCPU has not left for long.
    pub fn flush_late(&self, kernel: &'static Kernel) {
        let Some(area) = self.area_gpa else { return };
        let (frame, watched) = word(area, offset_of!(Shared, watched));
        if phys::load_u32(frame, watched) == HAND_IN && !self.unsent.streams.lock().is_empty() {
            self.unsent.pause.store(PAUSE, Ordering::Relaxed);
            self.flush(kernel);
            kernel.host.files.ring();
        }
    }

    /// Takes the bytes that came by themselves.
    pub(super) fn take_delivered(&self) {
        let Some(area) = self.area_gpa else { return };
        let (frame, delivered) = word(area, offset_of!(Shared, delivered));
        let (_, taken) = word(area, offset_of!(Shared, taken));
        let end = phys::load_u32(frame, delivered);
        let mut at = phys::load_u32(frame, taken);
        if at == end {
            return;
        }
        let ring = area + DELIVERED_OFFSET;
        while at != end {
            let begin = ring + u64::from(at % DELIVERED_BYTES);
            let mut head = [0; DeliveredOut::BYTES];
            phys::read_gpa(begin, &mut head);
            let Some((head, _)) = DeliveredOut::take(&head) else {
                break;
            };
            let len = head.bytes.min(DELIVERED_BYTES);
            if head.socket != NO_SOCKET {
                self.delivered_to(&head, begin + DeliveredOut::BYTES as u64, len);
            }
            at = at.wrapping_add(DeliveredOut::BYTES as u32 + len.next_multiple_of(16));
        }
        phys::swap_u32(frame, taken, end);
    }

    fn delivered_to(&self, head: &DeliveredOut, at: u64, len: u32) {
        let found = self.open.lock().get(&head.socket).cloned();
        // Who closed it does not read it any more.
        let Some(socket) = found.and_then(|socket| socket.upgrade()) else {
            return;
        };
        socket.stream.delivered();
        if head.error != 0 {
            socket.stream.set_error(Errno::from_code(head.error));
        }
        if len > 0 {
            let mut data = alloc::vec![0; len as usize];
            phys::read_gpa(at, &mut data);
            let tail = (head.tail as usize).min(data.len());
            if tail == 0 {
                socket.stream.push(data);
            } else if let Some(arrived) = datagram(data, tail) {
                socket.stream.datagrams.push(arrived);
            }
        }
        socket.wake();
    }
}

/// The datagram in what was delivered, the last `tail` bytes of which tell of it.
fn datagram(mut data: Vec<u8>, tail: usize) -> Option<Arrived> {
    let tail = data.split_off(data.len() - tail);
    let (out, rest) = ReceiveOut::take(&tail)?;
    let (address, rest) = rest.split_at_checked(out.address_bytes as usize)?;
    let control = rest.get(..out.control_bytes as usize)?;
    Some(Arrived {
        data,
        flags: out.flags,
        address: address.to_vec(),
        control: control.to_vec(),
    })
}

/// What is sent together.
#[derive(Debug, Default)]
pub struct Pieces {
    ones: Vec<u8>,
    addresses: Vec<u8>,
    data: Vec<u8>,
}

impl Pieces {
    /// Adds `data` that socket `number` sends to `address`, or to its peer.
    pub fn add(&mut self, number: u32, address: &[u8], data: &[u8]) {
        SendOne {
            socket: number,
            bytes: data.len() as u32,
            address_bytes: address.len() as u32,
            padding: 0,
        }
        .put(&mut self.ones);
        self.addresses.extend_from_slice(address);
        self.data.extend_from_slice(data);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ones.len() / SendOne::BYTES
    }

    /// The data of all.
    pub fn data(&self) -> &[u8] {
        &self.data
    }
}

/// Queues one message for all of `streams`.
fn send_together(kernel: &'static Kernel, streams: Vec<Arc<Stream>>) -> bool {
    let mut pieces = Pieces::default();
    let mut sending = Vec::with_capacity(streams.len());
    for stream in streams {
        stream.unlist();
        let count = stream.begin(&mut pieces);
        if count > 0 {
            sending.push((stream, count));
        }
    }
    if sending.is_empty() {
        return false;
    }
    let heads = NetIn::BYTES + pieces.ones.len() + pieces.addresses.len();
    let mut body = Vec::with_capacity(heads);
    NetIn {
        socket: NO_SOCKET,
        argument: pieces.count() as u32,
    }
    .put(&mut body);
    body.extend_from_slice(&pieces.ones);
    body.extend_from_slice(&pieces.addresses);
    let ask = Ask {
        opcode: op::SEND_MANY,
        body: &body,
        ..Ask::default()
    };
    let done = move |answer: Result<Vec<u8>>| {
        let (results, failed) = match answer {
            Ok(results) => (results, Errno::EIO),
            // There was no memory to ask with.
            Err(Errno::ENOMEM) => (Vec::new(), Errno::EAGAIN),
            Err(errno) => (Vec::new(), errno),
        };
        let mut results = results
            .chunks_exact(4)
            .filter_map(|bytes| bytes.first_chunk());
        for (stream, count) in sending {
            let result = || {
                let value = i32::from_le_bytes(*results.next().ok_or(failed)?);
                usize::try_from(value).map_err(|_| Errno::from_code(value.saturating_neg()))
            };
            let ended: Vec<Result<usize>> = core::iter::repeat_with(result).take(count).collect();
            stream.ended(&ended);
            // What the host had no room for goes when it tells of room.
            if stream.has_unsent() && stream.look(wanted::EVENT).contains(PollEvents::OUT) {
                kernel.net.host.list_again(&stream);
            }
        }
    };
    let files = &kernel.host.files;
    files.post_with_data(&kernel.frames, &ask, pieces.data(), Box::new(done));
    true
}
