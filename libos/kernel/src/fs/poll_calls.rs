//! `poll(2)` and `ppoll(2)`.

use alloc::vec::Vec;

use husk_abi::linux::general::{RLIMIT_NOFILE, pollfd};

use super::deadline::Deadline;
use super::poll::{PollEvents, PollTable};
use super::sigmask::TemporaryMask;
use crate::signal::RestartBlock;
use crate::sync::{Interruptible, WaitError, Waiter, park_until};
use crate::syscall::{Int, Len, Ptr};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// Repeats `scan` until it finds something or `deadline` passes (0 then). `scan` counts what is ready, and
/// registers at the files' queues when it is given a table.
///
/// # Errors
/// `ERESTARTNOHAND` when a signal comes first, and what `scan` gives.
pub(super) fn wait_ready(
    t: &Thread,
    deadline: Deadline,
    mut scan: impl FnMut(Option<&mut PollTable<'_>>) -> SysResult,
) -> SysResult {
    // Without a table first: a call that finds something ready allocates nothing.
    let ready = scan(None)?;
    if ready > 0 || deadline == Deadline::Now {
        return Ok(ready);
    }
    let waiter = Waiter::new(t);
    let mut table = PollTable::new(&waiter);
    scan(Some(&mut table))?;
    let found = park_until(
        t,
        &waiter,
        Interruptible::Yes,
        deadline.wait_until(),
        || match scan(None) {
            Ok(0) => None,
            result => Some(result),
        },
    );
    match found {
        Ok(result) => result,
        Err(WaitError::TimedOut) => Ok(0),
        Err(WaitError::Interrupted) => Err(Errno::ERESTARTNOHAND),
    }
}

/// Readiness of descriptor `fd`, cut to what is asked for and what is always told; `NVAL` if it is not open.
pub(super) fn poll_fd(
    t: &Thread,
    fd: i32,
    wanted: PollEvents,
    table: Option<&mut PollTable<'_>>,
) -> PollEvents {
    match t.file(fd) {
        Ok(file) => file.ops.poll(t, &file, table) & (wanted | PollEvents::ERR | PollEvents::HUP),
        Err(_) => PollEvents::NVAL,
    }
}

fn scan(t: &Thread, entries: &mut [pollfd], mut table: Option<&mut PollTable<'_>>) -> usize {
    let mut ready = 0;
    for entry in entries {
        let events = if entry.fd < 0 {
            PollEvents::empty()
        } else {
            let wanted = PollEvents::from_bits_retain(u32::from(entry.events as u16));
            poll_fd(t, entry.fd, wanted, table.as_deref_mut())
        };
        entry.revents = events.bits() as i16;
        ready += usize::from(!events.is_empty());
    }
    ready
}

/// The program's array, and where it lies.
struct Entries {
    address: UserAddr,
    entries: Vec<pollfd>,
}

impl Entries {
    fn read(t: &Thread, address: Ptr, count: Len) -> Result<Self> {
        // The argument is an unsigned int.
        let count = count as u32;
        if u64::from(count) > t.process.limit(RLIMIT_NOFILE)?.rlim_cur {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            address,
            entries: address.read_array(count as usize)?,
        })
    }

    fn poll(mut self, t: &Thread, deadline: Deadline) -> SysResult {
        let result = wait_ready(t, deadline, |table| Ok(scan(t, &mut self.entries, table)));
        for (index, entry) in self.entries.iter().enumerate() {
            let revents = index * size_of::<pollfd>() + core::mem::offset_of!(pollfd, revents);
            self.address.add(revents as u64).write(&entry.revents)?;
        }
        result
    }
}

/// `poll(2)`.
///
/// # Errors
/// `EINVAL` for more entries than descriptors are allowed; `EFAULT`; `EINTR`.
pub fn poll(t: &Thread, fds: Ptr, nfds: Len, timeout: Int) -> SysResult {
    poll_until(t, fds, nfds, Deadline::after_ms(timeout))
}

/// [`poll`] with its deadline fixed, for going on after a signal that had no handler.
fn poll_until(t: &Thread, fds: Ptr, nfds: Len, deadline: Deadline) -> SysResult {
    match Entries::read(t, fds, nfds)?.poll(t, deadline) {
        Err(Errno::ERESTARTNOHAND) => {
            let resume = RestartBlock::new(move |t| poll_until(t, fds, nfds, deadline));
            *t.signals.restart_block.lock() = Some(resume);
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
        result => result,
    }
}

/// `ppoll(2)`; as on Linux the time that is left is written to `timeout`.
///
/// # Errors
/// As [`poll`]; `EINVAL` for a bad timeout or signal set size.
pub fn ppoll(t: &Thread, fds: Ptr, nfds: Len, timeout: Ptr, sigmask: Ptr, size: Len) -> SysResult {
    let deadline = Deadline::from_timespec(timeout)?;
    let mask = TemporaryMask::install(t, sigmask, size)?;
    let result = Entries::read(t, fds, nfds).and_then(|entries| entries.poll(t, deadline));
    finish(mask, result, |_| deadline.write_timespec(timeout))
}

/// Ends a call with a temporary signal mask and a timeout that is written back by `write`. A call that is
/// interrupted cannot be restarted if the rest of the timeout has no place to go.
pub(super) fn finish(
    mask: TemporaryMask<'_>,
    result: SysResult,
    write: impl FnOnce(&SysResult) -> Result<()>,
) -> SysResult {
    mask.finish(result == Err(Errno::ERESTARTNOHAND));
    match (write(&result), result) {
        (Err(_), Err(Errno::ERESTARTNOHAND)) => Err(Errno::EINTR),
        (_, result) => result,
    }
}
