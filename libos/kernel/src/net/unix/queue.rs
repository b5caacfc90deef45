//! Messages in a socket's queue, and what their sender pays for them.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use spin::Once;

use super::names::Name;
use super::rights::Rights;
use crate::net::control::Ucred;
use crate::net::{BUFFER_BYTES, Base};
use crate::sync::WaitQueue;

/// What Linux keeps beside a message's bytes: programs notice it in how much a nonblocking socket takes.
const RECORD: usize = 256;
/// What lies at the end of the area of the first bytes.
const TAIL: usize = 320;
const PAGE: usize = 4096;
/// The most of a stream's bytes in the first area, and in pages beside it.
const STREAM_AREA: usize = PAGE - TAIL;
const STREAM_PAGES: usize = 32 * 1024;
/// The most bytes of a stream that are sent as one message.
pub const MAX_PIECE: usize = STREAM_AREA + STREAM_PAGES;
/// The same for packets; a larger packet has a larger first area.
const PACKET_AREA: usize = 4 * PAGE - TAIL;
const PACKET_PAGES: usize = 17 * PAGE;

/// What a message with `first` bytes in its first area and `rest` in pages counts.
fn cost(first: usize, rest: usize) -> usize {
    let area = (first.next_multiple_of(64) + TAIL).next_power_of_two();
    area + RECORD + rest.next_multiple_of(PAGE)
}

/// What a piece of a stream of `len` bytes counts against its sender's `SO_SNDBUF`.
#[must_use]
pub fn stream_cost(len: usize) -> usize {
    let rest = len
        .saturating_sub(STREAM_AREA)
        .next_multiple_of(PAGE)
        .min(len);
    cost(len - rest, rest)
}

/// What a packet of `len` bytes counts against its sender's `SO_SNDBUF`.
#[must_use]
pub fn packet_cost(len: usize) -> usize {
    let rest = len
        .saturating_sub(PACKET_AREA)
        .min(PACKET_PAGES)
        .next_multiple_of(PAGE);
    cost(len - rest, rest)
}

/// The sending side of a socket as its messages know it, which may outlive the socket.
#[derive(Debug)]
pub struct Outlet {
    name: Once<Name>,
    /// What its messages that nobody has read yet cost, in bytes.
    used: AtomicUsize,
    /// `SO_SNDBUF`.
    limit: AtomicUsize,
    writers: Arc<WaitQueue>,
}

impl Outlet {
    /// Of a new socket.
    #[must_use]
    pub fn new(base: &Base) -> Arc<Self> {
        Arc::new(Self {
            name: Once::new(),
            used: AtomicUsize::new(0),
            limit: AtomicUsize::new(BUFFER_BYTES as usize),
            writers: base.writers.clone(),
        })
    }

    /// The socket's name, once it has one.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        self.name.get().cloned()
    }

    /// Gives the name, which stays.
    pub fn set_name(&self, name: Name) {
        self.name.call_once(|| name);
    }

    /// Cost of what is under way, in bytes.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// `SO_SNDBUF`, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets [`Outlet::limit`].
    pub fn set_limit(&self, bytes: usize) {
        if self.limit.swap(bytes, Ordering::Relaxed) != bytes {
            self.writers.wake_all();
        }
    }

    /// Whether another message may be made; it may then be of any size.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.used() < self.limit()
    }

    /// Whether pollers are told that there is room: that is less than until writers must wait.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.used() * 4 <= self.limit()
    }

    /// Pays `bytes` for a message.
    #[must_use]
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.used.fetch_add(bytes, Ordering::SeqCst);
        Charge {
            outlet: self.clone(),
            bytes,
        }
    }
}

/// A message's payment, given back when it goes.
#[derive(Debug)]
pub struct Charge {
    outlet: Arc<Outlet>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.outlet.used.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.outlet.is_writable() {
            self.outlet.writers.wake_all();
        }
    }
}

/// A message, or a piece of a stream that was sent at once.
#[derive(Debug)]
pub struct Message {
    /// Number in its queue.
    pub number: u64,
    /// The bytes; a reader that copies them has taken them out meanwhile.
    pub data: Vec<u8>,
    /// How many bytes of `data` were read.
    pub start: usize,
    /// Length of `data`.
    pub end: usize,
    /// Who sent it, if that was asked for.
    pub credentials: Option<Ucred>,
    /// Descriptors it carries.
    pub rights: Option<Rights>,
    charge: Charge,
}

impl Message {
    /// A message paid by `charge`.
    #[must_use]
    pub fn new(data: Vec<u8>, charge: Charge) -> Self {
        Self {
            number: 0,
            start: 0,
            end: data.len(),
            data,
            credentials: None,
            rights: None,
            charge,
        }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// The name of the sender.
    #[must_use]
    pub fn sender(&self) -> Option<Name> {
        self.charge.outlet.name()
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_PIECE, packet_cost, stream_cost};

    /// As measured on Linux 6.18 with `TIOCOUTQ`.
    #[test]
    fn costs() {
        for (len, stream, packet) in [
            (1, 768, 768),
            (100, 768, 768),
            (384, 1280, 1280),
            (1000, 2304, 2304),
            (2000, 4352, 4352),
            (4000, 4864, 8448),
            (10000, 12544, 16640),
        ] {
            assert_eq!(
                (stream_cost(len), packet_cost(len)),
                (stream, packet),
                "{len}"
            );
        }
        assert_eq!(
            stream_cost(MAX_PIECE) + stream_cost(40000 - MAX_PIECE),
            41472
        );
        assert_eq!(packet_cost(40000), 41216);
        assert_eq!(packet_cost(100_000), 102_656);
    }
}
