//! Bytes of streams, and datagrams, that the guest gets without asking (`abi::boundary::net`).

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use husk_abi::boundary::net::{
    DELIVERED_BYTES, DELIVERED_OFFSET, DeliveredOut, MAX_DELIVERED, NO_SOCKET, RECEIVE_HEAD,
    SHARED_OFFSET, Shared,
};
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress};

use super::raw::{self, Address};
use crate::vmm::GuestMemory;

/// Places of deliveries are multiples of this.
const STEP: u32 = 16;
const HEAD: u32 = DeliveredOut::BYTES as u32;
/// With less room than this at the ring's end a stream goes on at its beginning.
const LITTLE: u32 = 2 << 10;
const _: () = assert!(DELIVERED_BYTES.is_multiple_of(STEP) && HEAD.is_multiple_of(STEP));

/// What was delivered.
pub enum Delivered {
    /// So many bytes, of a datagram from this address.
    Bytes(usize, Address),
    /// The error that receiving gave.
    Failed(Errno),
    /// There is nothing, or no room.
    Nothing,
}

/// The ring.
pub struct Delivery {
    memory: GuestMemory,
    area: u64,
    /// Bytes ever put into it. Never read back from the guest.
    put: Mutex<u32>,
}

impl Delivery {
    /// In the area at `area`, which is guest memory.
    pub fn new(memory: GuestMemory, area: u64) -> Self {
        Self {
            memory,
            area,
            put: Mutex::default(),
        }
    }

    fn word(&self, offset: usize) -> GuestAddress {
        GuestAddress(self.area + SHARED_OFFSET + offset as u64)
    }

    /// Where the next delivery goes that should have `wanted` bytes, and how many in one piece there are; 0 if the guest has to
    /// take some first. A guest that says it took more than it was given gets nothing.
    fn place(&self, put: u32, wanted: u32) -> (u32, u32) {
        let taken = self
            .memory
            .load::<u32>(
                self.word(std::mem::offset_of!(Shared, taken)),
                Ordering::SeqCst,
            )
            .unwrap_or(put.wrapping_add(1));
        let free = DELIVERED_BYTES.saturating_sub(put.wrapping_sub(taken)) / STEP * STEP;
        let to_end = DELIVERED_BYTES - put % DELIVERED_BYTES;
        if to_end >= wanted || free <= to_end {
            return (put, free.min(to_end));
        }
        (put.wrapping_add(to_end), free - to_end)
    }

    /// Receives what `socket`, whose number is `number`, has now: what of a stream there is room for, or the next datagram if
    /// there is room for all of it.
    pub fn deliver(&self, number: u32, socket: impl AsFd, is_stream: bool) -> Delivered {
        let mut put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
        let (least, wanted) = if is_stream {
            (HEAD + 1, LITTLE)
        } else {
            // One without bytes looks as if there were none, and stays to be asked for.
            match raw::next_datagram(&socket) {
                Ok(bytes @ 1..=MAX_DELIVERED) => {
                    let all = HEAD + bytes as u32 + RECEIVE_HEAD as u32;
                    (all, all)
                }
                _ => return Delivered::Nothing,
            }
        };
        let (place, room) = self.place(*put, wanted);
        if room < least {
            return Delivered::Nothing;
        }
        let at = self.area + DELIVERED_OFFSET + u64::from(place % DELIVERED_BYTES);
        let mut room = (room - HEAD) as usize;
        if !is_stream {
            room -= RECEIVE_HEAD;
        }
        let data = vec![(at + u64::from(HEAD), room.min(MAX_DELIVERED))];
        let received = raw::receive(&self.memory, socket, libc::MSG_DONTWAIT, &data);
        let mut tail = Vec::new();
        let head = match &received {
            Ok(received) if received.bytes > 0 => {
                if !is_stream {
                    received.out().put(&mut tail);
                    tail.extend_from_slice(received.address.as_bytes());
                    tail.extend_from_slice(&received.control);
                }
                DeliveredOut {
                    socket: number,
                    bytes: (received.bytes + tail.len()) as u32,
                    error: 0,
                    tail: tail.len() as u32,
                }
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::FAULT) => return Delivered::Nothing,
            Err(errno) => DeliveredOut {
                socket: number,
                error: errno.raw_os_error(),
                ..DeliveredOut::default()
            },
        };
        if place != *put {
            // What was left at the end is nobody's.
            self.write_head(
                *put,
                &DeliveredOut {
                    socket: NO_SOCKET,
                    bytes: place.wrapping_sub(*put) - HEAD,
                    ..DeliveredOut::default()
                },
            );
        }
        self.write_head(place, &head);
        if !tail.is_empty() {
            let data = head.bytes - head.tail;
            let at = GuestAddress(at + u64::from(HEAD + data));
            // As below.
            let _ = self.memory.write_slice(&tail, at);
        }
        let end = place.wrapping_add(HEAD + head.bytes.next_multiple_of(STEP));
        *put = end;
        let told = self.word(std::mem::offset_of!(Shared, delivered));
        // It lies in guest memory, as was seen when the area was taken.
        let _ = self.memory.store(end, told, Ordering::SeqCst);
        match received {
            Ok(received) => Delivered::Bytes(received.bytes, received.address),
            Err(errno) => Delivered::Failed(errno),
        }
    }

    fn write_head(&self, place: u32, head: &DeliveredOut) {
        let mut bytes = Vec::with_capacity(DeliveredOut::BYTES);
        head.put(&mut bytes);
        let at = self.area + DELIVERED_OFFSET + u64::from(place % DELIVERED_BYTES);
        let _ = self.memory.write_slice(&bytes, GuestAddress(at));
    }
}
