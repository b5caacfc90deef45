//! What a socket of the host's holds on this side: bytes of a connected stream that came by themselves, and bytes that go with the
//! next exit, or datagrams (`abi::boundary::net`). Either saves an exit for each small message.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::{self, offset_of};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use husk_abi::boundary::net::{SocketState, wanted};
use husk_hal::phys;

use super::datagrams::Datagrams;
use super::place;
use super::shared::Pieces;
use crate::fs::PollEvents;
use crate::sync::{Mutex, MutexGuard, SpinLock, WaitQueue};
use crate::{Errno, Result};

/// Most bytes a stream keeps to send later.
pub const MAX_UNSENT: usize = 16 << 10;

#[derive(Debug, Default)]
struct Bytes {
    /// Received, and not yet read from `start` on.
    received: Vec<u8>,
    start: usize,
    /// Sent by the program, but not by the host. The first `in_flight` are in a message to the VMM.
    unsent: Vec<u8>,
    in_flight: usize,
    /// What sending them later gave: the next call's to tell.
    error: Option<Errno>,
    /// It is in the list of those with something to send.
    is_listed: bool,
}

/// A stream's bytes on this side.
#[derive(Debug)]
pub struct Stream {
    /// The socket's number.
    pub number: u32,
    state_gpa: u64,
    bytes: SpinLock<Bytes>,
    /// Of a datagram socket, instead of bytes.
    pub datagrams: Datagrams,
    /// Whether bytes may come by themselves, and go later.
    is_buffered: AtomicBool,
    /// Held while bytes are received: none come by themselves meanwhile.
    receiving: Mutex<()>,
    is_receiving: AtomicBool,
    /// How often bytes, or an error, came by themselves.
    deliveries: AtomicU32,
    /// Who waits for room to send.
    writers: Arc<WaitQueue>,
}

impl Stream {
    /// Of socket `number`, whose state is at `state_gpa`: nothing, and not buffered.
    pub fn new(number: u32, state_gpa: u64, writers: Arc<WaitQueue>) -> Arc<Self> {
        Arc::new(Self {
            number,
            state_gpa,
            bytes: SpinLock::default(),
            datagrams: Datagrams::default(),
            is_buffered: AtomicBool::new(false),
            receiving: Mutex::default(),
            is_receiving: AtomicBool::new(false),
            deliveries: AtomicU32::new(0),
            writers,
        })
    }

    /// Bytes may come by themselves and go later from now on, or no longer. What is there stays.
    pub fn set_buffered(&self, is_buffered: bool) {
        self.is_buffered.store(is_buffered, Ordering::Release);
    }

    /// Whether bytes may come by themselves, and go later.
    pub fn is_buffered(&self) -> bool {
        self.is_buffered.load(Ordering::Acquire)
    }

    /// What is ready at the host's end.
    pub fn now(&self) -> PollEvents {
        let (frame, ready) = place(self.state_gpa + offset_of!(SocketState, ready) as u64);
        PollEvents::from_bits_truncate(phys::load_u32(frame, ready))
    }

    /// As [`Stream::now`], and the next event is wanted (`abi::boundary::net::wanted`).
    pub fn look(&self, wanted: u32) -> PollEvents {
        let (frame, at) = place(self.state_gpa + offset_of!(SocketState, wanted) as u64);
        phys::swap_u32(frame, at, wanted);
        self.now()
    }

    /// As [`Stream::look`], for the next event, and bytes if they may come by themselves now.
    pub fn look_for_any(&self) -> PollEvents {
        let may_come = self.is_buffered()
            && !self.is_receiving.load(Ordering::Acquire)
            && self.received() == 0
            && !self.datagrams.has_arrived();
        self.look(if may_come {
            wanted::BYTES
        } else {
            wanted::EVENT
        })
    }

    /// Until the result is dropped nobody else receives, and no bytes come by themselves but those that have come
    /// ([`Stream::deliveries`]).
    pub fn receiving(&self) -> Receiving<'_> {
        let guard = self.receiving.lock();
        self.is_receiving.store(true, Ordering::Release);
        if self.is_buffered() {
            let _ = self.look(wanted::EVENT);
        }
        Receiving {
            stream: self,
            _guard: guard,
        }
    }

    /// How often bytes, or an error, came by themselves.
    pub fn deliveries(&self) -> u32 {
        self.deliveries.load(Ordering::Acquire)
    }

    /// They did once more.
    pub fn delivered(&self) {
        self.deliveries.fetch_add(1, Ordering::AcqRel);
    }

    /// How many bytes the host's end has room for.
    pub fn room(&self) -> usize {
        let (frame, room) = place(self.state_gpa + offset_of!(SocketState, room) as u64);
        phys::load_u32(frame, room) as usize
    }

    /// How many bytes can be read.
    pub fn received(&self) -> usize {
        let bytes = self.bytes.lock();
        bytes.received.len() - bytes.start
    }

    /// How many bytes are still to be sent.
    pub fn unsent(&self) -> usize {
        self.bytes.lock().unsent.len()
    }

    /// Whether anything is still to be sent.
    pub fn has_unsent(&self) -> bool {
        self.unsent() > 0 || self.datagrams.kept() > 0
    }

    /// Whether an error waits to be told.
    pub fn has_error(&self) -> bool {
        self.bytes.lock().error.is_some()
    }

    /// Takes the error that waits to be told.
    pub fn take_error(&self) -> Option<Errno> {
        self.bytes.lock().error.take()
    }

    /// An error came.
    pub fn set_error(&self, errno: Errno) {
        self.bytes.lock().error.get_or_insert(errno);
    }

    /// Adds what was received.
    pub fn push(&self, data: Vec<u8>) {
        let mut bytes = self.bytes.lock();
        if bytes.start == bytes.received.len() {
            (bytes.received, bytes.start) = (data, 0);
        } else {
            bytes.received.extend_from_slice(&data);
        }
    }

    /// The next bytes to read, at most `wanted`; they stay if it is only a `peek`.
    pub fn take(&self, wanted: usize, peek: bool) -> Vec<u8> {
        let mut bytes = self.bytes.lock();
        let (from, to) = (
            bytes.start,
            bytes.received.len().min(bytes.start.saturating_add(wanted)),
        );
        if peek {
            return bytes.received[from..to].to_vec();
        }
        if to == bytes.received.len() {
            let all = mem::take(&mut bytes.received);
            bytes.start = 0;
            return if from == 0 { all } else { all[from..].to_vec() };
        }
        bytes.start = to;
        bytes.received[from..to].to_vec()
    }

    /// Keeps `data` to be sent later, unless all that is kept would be more than `room`.
    pub fn keep(&self, data: &[u8], room: usize) -> bool {
        let mut bytes = self.bytes.lock();
        let fits = bytes.unsent.len() + data.len() <= room.min(MAX_UNSENT);
        if fits {
            bytes.unsent.extend_from_slice(data);
        }
        fits
    }

    /// It is no longer listed.
    pub fn unlist(&self) {
        self.bytes.lock().is_listed = false;
    }

    /// It is to be listed: true unless it is, or has nothing to send.
    pub fn list(&self) -> bool {
        let has_datagrams = self.datagrams.kept() > 0;
        let mut bytes = self.bytes.lock();
        (has_datagrams || !bytes.unsent.is_empty()) && !mem::replace(&mut bytes.is_listed, true)
    }

    /// Into how many pieces what is to be sent falls.
    pub fn pieces(&self) -> usize {
        self.datagrams.kept().max(1)
    }

    /// Adds what is to be sent to `pieces`; how many that is, none if some are under way.
    pub fn begin(&self, pieces: &mut Pieces) -> usize {
        let datagrams = self.datagrams.begin(self.number, pieces);
        let mut bytes = self.bytes.lock();
        if datagrams > 0 || bytes.in_flight > 0 || bytes.unsent.is_empty() {
            return datagrams;
        }
        pieces.add(self.number, &[], &bytes.unsent);
        bytes.in_flight = bytes.unsent.len();
        1
    }

    /// So many bytes of each piece under way were taken, or why none were. What was not stays, as far as there is hope for it.
    pub fn ended(&self, results: &[Result<usize>]) {
        let error = if self.datagrams.is_settled() {
            let sent = results.first().copied().unwrap_or(Err(Errno::EIO));
            let mut bytes = self.bytes.lock();
            let in_flight = mem::take(&mut bytes.in_flight);
            match sent {
                Ok(sent) => {
                    bytes.unsent.drain(..sent.min(in_flight));
                    None
                }
                Err(Errno::EAGAIN) => None,
                Err(errno) => {
                    bytes.unsent.clear();
                    // The host gives EPIPE for whatever is sent next, too.
                    (errno != Errno::EPIPE).then_some(errno)
                }
            }
        } else {
            self.datagrams.ended(results)
        };
        if let Some(errno) = error {
            self.set_error(errno);
        }
        self.writers.wake_all();
    }

    /// Whether nothing is under way.
    pub fn is_settled(&self) -> bool {
        self.bytes.lock().in_flight == 0 && self.datagrams.is_settled()
    }
}

/// Somebody receives from a stream.
#[derive(Debug)]
pub struct Receiving<'a> {
    stream: &'a Stream,
    _guard: MutexGuard<'a, ()>,
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.stream.is_receiving.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Arc<Stream> {
        Stream::new(1, 0, Arc::new(WaitQueue::new()))
    }

    #[test]
    fn received_bytes_in_order() {
        let stream = stream();
        stream.push(b"abc".to_vec());
        stream.push(b"def".to_vec());
        assert_eq!(stream.take(2, true), b"ab");
        assert_eq!(stream.take(2, false), b"ab");
        stream.push(b"g".to_vec());
        assert_eq!(
            (stream.received(), stream.take(99, true)),
            (5, b"cdefg".to_vec())
        );
        assert_eq!(stream.take(99, false), b"cdefg");
        assert_eq!((stream.received(), stream.take(1, false)), (0, Vec::new()));
    }

    #[test]
    fn unsent_bytes_stay_until_they_are_taken() {
        let stream = stream();
        let begin = |stream: &Stream| {
            let mut pieces = Pieces::default();
            (stream.begin(&mut pieces), pieces.data().to_vec())
        };
        assert!(stream.keep(b"abcd", 6) && stream.keep(b"ef", 6) && !stream.keep(b"g", 6));
        assert!(stream.list() && !stream.list());
        stream.unlist();
        assert_eq!(begin(&stream), (1, b"abcdef".to_vec()));
        assert!(!stream.is_settled());
        // What comes while others are under way goes after them.
        assert!(stream.keep(b"gh", 100) && stream.list());
        assert_eq!(begin(&stream), (0, Vec::new()));
        stream.ended(&[Ok(4)]);
        assert_eq!(begin(&stream), (1, b"efgh".to_vec()));
        stream.ended(&[Err(Errno::EAGAIN)]);
        assert_eq!(stream.unsent(), 4);
        begin(&stream);
        stream.ended(&[Err(Errno::ECONNRESET)]);
        assert_eq!(
            (stream.unsent(), stream.take_error()),
            (0, Some(Errno::ECONNRESET))
        );
    }
}
