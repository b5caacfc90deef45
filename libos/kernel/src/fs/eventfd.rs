//! Event counters (`eventfd(2)`).

use alloc::sync::Arc;

use husk_abi::linux::general;

use super::anon::{self, PlainAnonInode};
use super::poll::PollTable;
use super::{File, FileOps, PollEvents};
use crate::sync::{Interruptible, SpinLock, WaitQueue};
use crate::syscall::{Hex, Uint};
use crate::user::IoBuf;
use crate::{Errno, Result, SysResult, Thread};

/// The largest value the counter takes; a write that would exceed it waits.
const MAX: u64 = u64::MAX - 1;

/// An event counter.
#[derive(Debug)]
pub struct EventFd {
    count: SpinLock<u64>,
    /// Reads take 1 instead of all.
    semaphore: bool,
    queue: Arc<WaitQueue>,
    id: u64,
}

impl EventFd {
    fn new(count: u64, semaphore: bool) -> Self {
        Self {
            count: SpinLock::new(count),
            semaphore,
            queue: Arc::new(WaitQueue::new()),
            id: anon::next_ino(),
        }
    }

    /// What a read takes, or `None` if it has to wait.
    fn take(&self) -> Option<u64> {
        let mut count = self.count.lock();
        let taken = match *count {
            0 => return None,
            _ if self.semaphore => 1,
            all => all,
        };
        *count -= taken;
        Some(taken)
    }

    /// Adds `value`; `None` if there is no room for it yet.
    fn add(&self, value: u64) -> Option<()> {
        let mut count = self.count.lock();
        if value > MAX - *count {
            return None;
        }
        *count += value;
        Some(())
    }

    /// Adds `value` as the kernel does: up to the limit, never waiting.
    pub fn signal(&self, value: u64) {
        {
            let mut count = self.count.lock();
            *count = count.saturating_add(value);
        }
        self.queue.wake_all();
    }

    fn ready(&self) -> PollEvents {
        let count = *self.count.lock();
        let mut events = PollEvents::empty();
        if count > 0 {
            events |= PollEvents::IN | PollEvents::RDNORM;
        }
        if count == u64::MAX {
            events |= PollEvents::ERR;
        }
        if count < MAX {
            events |= PollEvents::OUT | PollEvents::WRNORM;
        }
        events
    }

    /// The lines it adds to `/proc/*/fdinfo`.
    #[must_use]
    pub fn fdinfo(&self) -> alloc::string::String {
        alloc::format!(
            "eventfd-count: {:>16x}\neventfd-id: {}\neventfd-semaphore: {}\n",
            *self.count.lock(),
            self.id,
            u8::from(self.semaphore)
        )
    }
}

impl FileOps for EventFd {
    fn read(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        if buf.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let taken = match self.take() {
            Some(taken) => taken,
            None if file.is_nonblocking() => return Err(Errno::EAGAIN),
            None => self
                .queue
                .wait(t, Interruptible::Yes, None, || self.take())
                .map_err(|error| error.errno(Errno::ERESTARTSYS))?,
        };
        self.queue.wake_all();
        if buf.put(&taken.to_ne_bytes())? < 8 {
            return Err(Errno::EFAULT);
        }
        Ok(8)
    }

    fn write(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        if buf.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut value = [0; 8];
        if buf.take(&mut value)? < 8 {
            return Err(Errno::EFAULT);
        }
        let value = u64::from_ne_bytes(value);
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        match self.add(value) {
            Some(()) => {}
            None if file.is_nonblocking() => return Err(Errno::EAGAIN),
            None => self
                .queue
                .wait(t, Interruptible::Yes, None, || self.add(value))
                .map_err(|error| error.errno(Errno::ERESTARTSYS))?,
        }
        self.queue.wake_all();
        Ok(8)
    }

    fn poll(&self, _t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.queue);
        }
        self.ready()
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// `eventfd(2)`, the call without flags.
///
/// # Errors
/// As [`eventfd2`].
pub fn eventfd(t: &Thread, count: Uint) -> SysResult {
    eventfd2(t, count, 0)
}

/// `eventfd2(2)`.
///
/// # Errors
/// `EINVAL` for unknown flags; `EMFILE`.
pub fn eventfd2(t: &Thread, count: Uint, flags: Hex) -> SysResult {
    let flags = flags as u32;
    if flags & !(general::EFD_SEMAPHORE | general::EFD_CLOEXEC | general::EFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = File::new(
        Arc::new(EventFd::new(
            u64::from(count),
            flags & general::EFD_SEMAPHORE != 0,
        )),
        PlainAnonInode::new(t),
        b"anon_inode:[eventfd]".to_vec(),
        general::O_RDWR | flags & general::EFD_NONBLOCK,
    );
    let fd = t
        .files()
        .alloc(t, file, flags & general::EFD_CLOEXEC != 0)?;
    Ok(fd as usize)
}

#[cfg(test)]
mod tests {
    use super::{EventFd, MAX};
    use crate::fs::PollEvents;

    #[test]
    fn counts_and_limits() {
        let event = EventFd::new(3, false);
        assert_eq!(event.take(), Some(3));
        assert_eq!(event.take(), None);
        assert!(!event.ready().contains(PollEvents::IN));
        assert_eq!(event.add(MAX), Some(()));
        assert_eq!(event.add(1), None);
        assert_eq!(event.ready(), PollEvents::IN | PollEvents::RDNORM);
        event.signal(1);
        assert!(event.ready().contains(PollEvents::ERR));
    }

    #[test]
    fn semaphores_go_down_by_one() {
        let event = EventFd::new(2, true);
        assert_eq!(event.take(), Some(1));
        assert_eq!(event.take(), Some(1));
        assert_eq!(event.take(), None);
    }
}
