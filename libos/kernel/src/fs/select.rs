//! `select(2)` and `pselect6(2)`.

use alloc::vec::Vec;

use husk_abi::linux::general::RLIMIT_NOFILE;

use super::deadline::Deadline;
use super::poll::{PollEvents, PollTable};
use super::poll_calls::{finish, poll_fd, wait_ready};
use super::sigmask::TemporaryMask;
use crate::syscall::{Int, Ptr};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

const BITS: usize = u64::BITS as usize;
/// `fs.nr_open`: no descriptor is larger, whatever the resource limit.
const NR_OPEN: usize = 1 << 20;

/// What select(2) calls readable.
const READABLE: PollEvents = PollEvents::IN
    .union(PollEvents::RDNORM)
    .union(PollEvents::HUP)
    .union(PollEvents::ERR);
/// What it calls writable.
const WRITABLE: PollEvents = PollEvents::OUT
    .union(PollEvents::WRNORM)
    .union(PollEvents::ERR);
/// What it calls exceptional.
const EXCEPTIONAL: PollEvents = PollEvents::PRI;

/// One of the program's three sets: which descriptors it asks for, which are ready.
struct Set {
    address: UserAddr,
    meaning: PollEvents,
    asked: Vec<u64>,
    ready: Vec<u64>,
}

impl Set {
    fn read(address: Ptr, words: usize, meaning: PollEvents) -> Result<Self> {
        let asked = if address.is_null() {
            alloc::vec![0; words]
        } else {
            address.read_array(words)?
        };
        Ok(Self {
            address,
            meaning,
            asked,
            ready: alloc::vec![0; words],
        })
    }

    fn asks(&self, word: usize, bit: u64) -> bool {
        self.asked[word] & bit != 0
    }

    /// Marks the descriptor if `events` are what this set is about; 1 if so.
    fn mark(&mut self, word: usize, bit: u64, events: PollEvents) -> usize {
        if self.asks(word, bit) && events.intersects(self.meaning) {
            self.ready[word] |= bit;
            1
        } else {
            0
        }
    }

    fn write(&self) -> Result<()> {
        if self.address.is_null() {
            return Ok(());
        }
        for (index, word) in self.ready.iter().enumerate() {
            self.address.add(index as u64 * 8).write(word)?;
        }
        Ok(())
    }
}

struct Sets {
    count: usize,
    sets: [Set; 3],
}

impl Sets {
    fn read(t: &Thread, nfds: Int, addresses: [Ptr; 3]) -> Result<Self> {
        let count = usize::try_from(nfds).map_err(|_| Errno::EINVAL)?;
        // No descriptor lies past the limit, and Linux does not look there either.
        let limit = t.process.limit(RLIMIT_NOFILE)?.rlim_cur as usize;
        let count = count.min(limit.min(NR_OPEN).next_multiple_of(BITS));
        let words = count.div_ceil(BITS);
        let [read, write, except] = addresses;
        Ok(Self {
            count,
            sets: [
                Set::read(read, words, READABLE)?,
                Set::read(write, words, WRITABLE)?,
                Set::read(except, words, EXCEPTIONAL)?,
            ],
        })
    }

    /// Counts ready bits; `EBADF` if a descriptor that is asked for is not open.
    fn scan(&mut self, t: &Thread, mut table: Option<&mut PollTable<'_>>) -> SysResult {
        let mut ready = 0;
        for fd in 0..self.count {
            let (word, bit) = (fd / BITS, 1 << (fd % BITS));
            let wanted = self
                .sets
                .iter()
                .filter(|set| set.asks(word, bit))
                .fold(PollEvents::empty(), |all, set| all | set.meaning);
            if wanted.is_empty() {
                continue;
            }
            let events = poll_fd(t, fd as i32, wanted, table.as_deref_mut());
            if events.contains(PollEvents::NVAL) {
                return Err(Errno::EBADF);
            }
            ready += self.mark(word, bit, events);
        }
        Ok(ready)
    }

    fn mark(&mut self, word: usize, bit: u64, events: PollEvents) -> usize {
        self.sets
            .iter_mut()
            .map(|set| set.mark(word, bit, events))
            .sum()
    }

    fn select(mut self, t: &Thread, deadline: Deadline) -> SysResult {
        let ready = wait_ready(t, deadline, |table| self.scan(t, table))?;
        for set in &self.sets {
            set.write()?;
        }
        Ok(ready)
    }
}

/// `select(2)`; as on Linux the time that is left is written to `timeout`.
///
/// # Errors
/// `EBADF`, `EINVAL`, `EFAULT`, `EINTR`.
pub fn select(
    t: &Thread,
    nfds: Int,
    readfds: Ptr,
    writefds: Ptr,
    exceptfds: Ptr,
    timeout: Ptr,
) -> SysResult {
    let deadline = Deadline::from_timeval(timeout)?;
    let result = Sets::read(t, nfds, [readfds, writefds, exceptfds])
        .and_then(|sets| sets.select(t, deadline));
    finish(TemporaryMask::none(t), result, |_| {
        deadline.write_timeval(timeout)
    })
}

/// `pselect6(2)`: `sigmask` points to the address and the size of a signal set.
///
/// # Errors
/// As [`select`].
pub fn pselect6(
    t: &Thread,
    nfds: Int,
    readfds: Ptr,
    writefds: Ptr,
    exceptfds: Ptr,
    timeout: Ptr,
    sigmask: Ptr,
) -> SysResult {
    let [mask, size] = sigmask.read_opt::<[u64; 2]>()?.unwrap_or_default();
    let deadline = Deadline::from_timespec(timeout)?;
    let mask = TemporaryMask::install(t, UserAddr(mask), size as usize)?;
    let result = Sets::read(t, nfds, [readfds, writefds, exceptfds])
        .and_then(|sets| sets.select(t, deadline));
    finish(mask, result, |_| deadline.write_timespec(timeout))
}

#[cfg(test)]
mod tests {
    use super::{EXCEPTIONAL, READABLE, Set, WRITABLE};
    use crate::fs::PollEvents;
    use crate::user::UserAddr;

    fn set(asked: u64, meaning: PollEvents) -> Set {
        let address = UserAddr(core::ptr::from_ref(&asked) as u64);
        Set::read(address, 1, meaning).unwrap()
    }

    #[test]
    fn events_mark_only_what_was_asked() {
        let mut read = set(0b101, READABLE);
        let mut write = set(0b100, WRITABLE);
        let mut except = set(0b111, EXCEPTIONAL);
        // A hang-up is readable, not writable; an error is both.
        assert_eq!(read.mark(0, 1, PollEvents::HUP), 1);
        assert_eq!(read.mark(0, 2, PollEvents::IN), 0);
        assert_eq!(write.mark(0, 4, PollEvents::HUP), 0);
        assert_eq!(write.mark(0, 4, PollEvents::ERR), 1);
        assert_eq!(except.mark(0, 1, PollEvents::ERR), 0);
        assert_eq!(except.mark(0, 1, PollEvents::PRI), 1);
        assert_eq!((read.ready[0], write.ready[0], except.ready[0]), (1, 4, 1));
    }
}
