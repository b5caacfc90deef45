//! What a datagram socket of the host's holds on this side: datagrams that came by themselves, and such as go with the next exit.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use husk_abi::boundary::net::DATAGRAM_COST;

use super::shared::Pieces;
use super::stream::MAX_UNSENT;
use crate::sync::SpinLock;
use crate::{Errno, Result};

/// Most datagrams that are kept to be sent later.
pub const MAX_KEPT: usize = 32;
/// Most destinations that are known to be reached.
const MAX_REACHED: usize = 16;

/// A datagram that has arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub data: Vec<u8>,
    /// `MSG_*`.
    pub flags: u32,
    /// The sender's address.
    pub address: Vec<u8>,
    /// Control messages, as `recvmsg(2)` has them.
    pub control: Vec<u8>,
}

/// One to be sent later.
#[derive(Debug)]
struct Kept {
    /// Where to; empty: to the peer.
    address: Vec<u8>,
    data: Vec<u8>,
}

#[derive(Debug, Default)]
struct Queues {
    arrived: VecDeque<Arrived>,
    kept: VecDeque<Kept>,
    /// So many of `kept` are in a message to the VMM.
    in_flight: usize,
    /// Destinations of which the host has told by a datagram that went at once that they can be sent to.
    reached: VecDeque<Vec<u8>>,
}

/// A socket's datagrams on this side.
#[derive(Debug, Default)]
pub struct Datagrams(SpinLock<Queues>);

impl Datagrams {
    /// Whether there is one to read.
    pub fn has_arrived(&self) -> bool {
        !self.0.lock().arrived.is_empty()
    }

    /// Bytes of the next one to read.
    pub fn next_bytes(&self) -> Option<usize> {
        let queues = self.0.lock();
        queues.arrived.front().map(|arrived| arrived.data.len())
    }

    /// One came.
    pub fn push(&self, arrived: Arrived) {
        self.0.lock().arrived.push_back(arrived);
    }

    /// The next one to read; it stays if it is only a `peek`.
    pub fn next(&self, peek: bool) -> Option<Arrived> {
        let mut queues = self.0.lock();
        if peek {
            queues.arrived.front().cloned()
        } else {
            queues.arrived.pop_front()
        }
    }

    /// How many are still to be sent.
    pub fn kept(&self) -> usize {
        self.0.lock().kept.len()
    }

    /// One went to `address` at once, without an error: others to it may go later.
    pub fn reached(&self, address: &[u8]) {
        let mut queues = self.0.lock();
        if queues.reached.iter().any(|known| known == address) {
            return;
        }
        queues.reached.truncate(MAX_REACHED - 1);
        queues.reached.push_front(address.to_vec());
    }

    /// What is known of destinations may no longer hold.
    pub fn forget_reached(&self) {
        self.0.lock().reached.clear();
    }

    /// Whether one to `address` may go later.
    pub fn may_go_later(&self, address: &[u8]) -> bool {
        let queues = self.0.lock();
        queues.reached.iter().any(|known| known == address)
    }

    /// Keeps one to be sent later, unless there is no `room` for all that are kept.
    pub fn keep(&self, address: &[u8], data: &[u8], room: usize) -> bool {
        let mut queues = self.0.lock();
        let bytes: usize = queues.kept.iter().map(|kept| kept.data.len()).sum();
        let all = bytes + data.len();
        let count = queues.kept.len() + 1;
        let fits = count <= MAX_KEPT && all <= MAX_UNSENT && all + count * DATAGRAM_COST <= room;
        if fits {
            queues.kept.push_back(Kept {
                address: address.to_vec(),
                data: data.to_vec(),
            });
        }
        fits
    }

    /// Adds what socket `number` has to send to `pieces`; how many that is, none if some are under way.
    pub fn begin(&self, number: u32, pieces: &mut Pieces) -> usize {
        let mut queues = self.0.lock();
        if queues.in_flight > 0 {
            return 0;
        }
        for kept in &queues.kept {
            pieces.add(number, &kept.address, &kept.data);
        }
        queues.in_flight = queues.kept.len();
        queues.in_flight
    }

    /// What sending those under way gave, one by one. Gives the error that is to be told.
    pub fn ended(&self, results: &[Result<usize>]) -> Option<Errno> {
        let mut queues = self.0.lock();
        let mut error = None;
        let count = mem::take(&mut queues.in_flight);
        let sent: Vec<_> = queues.kept.drain(..count).collect();
        for (at, kept) in sent.into_iter().enumerate().rev() {
            match results.get(at) {
                Some(Ok(_)) => continue,
                // There was no room, or what it was told is about an earlier one: it goes again.
                Some(Err(Errno::EAGAIN)) => queues.kept.push_front(kept),
                Some(Err(Errno::ECONNREFUSED)) => {
                    error = Some(Errno::ECONNREFUSED);
                    queues.kept.push_front(kept);
                }
                Some(Err(errno)) => error = Some(*errno),
                None => error = Some(Errno::EIO),
            }
        }
        if error.is_some() {
            queues.reached.clear();
        }
        error
    }

    /// Whether none are under way.
    pub fn is_settled(&self) -> bool {
        self.0.lock().in_flight == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_host_has_taken_before_goes_later() {
        let datagrams = Datagrams::default();
        assert!(!datagrams.may_go_later(b"a"));
        for address in [b"a", b"b", b"a"] {
            datagrams.reached(address);
        }
        assert!(datagrams.may_go_later(b"a") && datagrams.may_go_later(b"b"));
        for address in 0..MAX_REACHED as u8 {
            datagrams.reached(&[address]);
        }
        assert!(!datagrams.may_go_later(b"a"));
        datagrams.forget_reached();
        assert!(!datagrams.may_go_later(&[3]));
    }

    #[test]
    fn kept_datagrams_go_one_by_one() {
        let datagrams = Datagrams::default();
        let room = 3 * DATAGRAM_COST + 100;
        assert!(datagrams.keep(b"to", b"one", room) && datagrams.keep(b"", b"two", room));
        assert!(!datagrams.keep(b"", &[0; 95], room) && datagrams.keep(b"", b"three", room));
        let mut pieces = Pieces::default();
        assert_eq!((datagrams.begin(7, &mut pieces), pieces.count()), (3, 3));
        // What comes while others are under way goes after them.
        assert!(datagrams.keep(b"", b"four", usize::MAX));
        assert_eq!(datagrams.begin(7, &mut pieces), 0);
        datagrams.reached(b"to");
        let results = [Ok(3), Err(Errno::EAGAIN), Err(Errno::EPERM)];
        assert_eq!(datagrams.ended(&results), Some(Errno::EPERM));
        assert!(datagrams.is_settled() && !datagrams.may_go_later(b"to"));
        let mut pieces = Pieces::default();
        assert_eq!(datagrams.begin(7, &mut pieces), 2);
        // Of an earlier one nobody took: this one goes, and who sends next hears of it.
        let results = [Err(Errno::ECONNREFUSED), Ok(4)];
        assert_eq!(datagrams.ended(&results), Some(Errno::ECONNREFUSED));
        assert_eq!(datagrams.kept(), 1);
        let mut pieces = Pieces::default();
        assert_eq!(datagrams.begin(7, &mut pieces), 1);
        assert_eq!((datagrams.ended(&[Ok(3)]), datagrams.kept()), (None, 0));
    }

    #[test]
    fn no_more_than_a_message_holds() {
        let datagrams = Datagrams::default();
        let kept = (0..99).filter(|_| datagrams.keep(b"", b"x", usize::MAX));
        assert_eq!(kept.count(), MAX_KEPT);
    }
}
