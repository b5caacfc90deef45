//! The system calls.

use husk_abi::linux::general;
use husk_abi::linux::general::epoll_event;

use super::{EXCLUSIVE, EXCLUSIVE_OK, Epoll, Interest, MAX_EVENTS, nesting, of_file};
use crate::fs::File;
use crate::fs::anon::PlainAnonInode;
use crate::fs::deadline::Deadline;
use crate::fs::sigmask::TemporaryMask;
use crate::sync::Interruptible;
use crate::syscall::{Fd, Hex, Int, Len, Ptr};
use crate::user::UserAddr;
use crate::{Errno, SysResult, Thread};

/// `epoll_create(2)`; the size has been a dead letter since Linux 2.6.8, but must be positive.
///
/// # Errors
/// `EINVAL`, `EMFILE`.
pub fn epoll_create(t: &Thread, size: Int) -> SysResult {
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    epoll_create1(t, 0)
}

/// `epoll_create1(2)`.
///
/// # Errors
/// `EINVAL` for other flags than `EPOLL_CLOEXEC`; `EMFILE`.
pub fn epoll_create1(t: &Thread, flags: Hex) -> SysResult {
    let flags = flags as u32;
    if flags & !general::EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let file = File::new(
        Epoll::new(),
        PlainAnonInode::new(t),
        b"anon_inode:[eventpoll]".to_vec(),
        general::O_RDWR,
    );
    let fd = t
        .files()
        .alloc(t, file, flags & general::EPOLL_CLOEXEC != 0)?;
    Ok(fd as usize)
}

/// `epoll_ctl(2)`.
///
/// # Errors
/// `EFAULT`, `EBADF`, `EPERM` (the file cannot be waited for), `EINVAL`, `EEXIST`, `ENOENT`, `ELOOP`.
pub fn epoll_ctl(t: &Thread, epfd: Fd, op: Int, fd: Fd, event: Ptr) -> SysResult {
    let op = op as u32;
    let interest = if op == general::EPOLL_CTL_DEL {
        None
    } else {
        let event: epoll_event = event.read()?;
        Some(Interest {
            events: event.events,
            data: event.data,
        })
    };
    let files = t.files();
    let outer = files.get(epfd)?;
    let target = files.get(fd)?;
    if !super::is_pollable(&target) {
        return Err(Errno::EPERM);
    }
    let epoll = of_file(&outer).ok_or(Errno::EINVAL)?;
    if crate::fs::FileRef::ptr_eq(&outer, &target) {
        return Err(Errno::EINVAL);
    }
    let nested = of_file(&target).is_some();
    if let Some(interest) = interest
        && interest.events & EXCLUSIVE != 0
        && (op == general::EPOLL_CTL_MOD || nested || interest.events & !EXCLUSIVE_OK != 0)
    {
        return Err(Errno::EINVAL);
    }
    match (op, interest) {
        (general::EPOLL_CTL_ADD, Some(interest)) if nested => {
            let _nesting = nesting::NESTING.lock();
            nesting::check(epoll, &target)?;
            epoll.add(t, fd, &target, interest)?;
        }
        (general::EPOLL_CTL_ADD, Some(interest)) => epoll.add(t, fd, &target, interest)?,
        (general::EPOLL_CTL_MOD, Some(interest)) => epoll.modify(t, fd, &target, interest)?,
        (general::EPOLL_CTL_DEL, _) => epoll.delete(fd, &target)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn wait(t: &Thread, epfd: Fd, events: Ptr, max: Int, deadline: Deadline) -> SysResult {
    let max = usize::try_from(max).map_err(|_| Errno::EINVAL)?;
    if max == 0 || max > MAX_EVENTS {
        return Err(Errno::EINVAL);
    }
    if !husk_hal::user::range_ok(events.0, max * size_of::<epoll_event>()) {
        return Err(Errno::EFAULT);
    }
    let file = t.file(epfd)?;
    let epoll = of_file(&file).ok_or(Errno::EINVAL)?;
    // What the VMM says of sockets it says without an interrupt to those that look.
    t.kernel.net.host.poll();
    let collect = || -> Option<SysResult> {
        if !epoll.has_ready() {
            return None;
        }
        let mut at = events;
        let result = epoll.collect(t, max, |data, events| {
            at.write(&epoll_event { events, data })?;
            at = at.add(size_of::<epoll_event>() as u64);
            Ok(())
        });
        (result != Ok(0)).then_some(result)
    };
    match collect() {
        Some(result) => return result,
        None if deadline == Deadline::Now => return Ok(0),
        None => {}
    }
    match epoll
        .queue
        .wait(t, Interruptible::Yes, deadline.wait_until(), collect)
    {
        Ok(result) => result,
        Err(crate::sync::WaitError::TimedOut) => Ok(0),
        Err(crate::sync::WaitError::Interrupted) => Err(Errno::EINTR),
    }
}

/// `epoll_wait(2)`.
///
/// # Errors
/// `EBADF`, `EFAULT`, `EINVAL`, `EINTR`.
pub fn epoll_wait(t: &Thread, epfd: Fd, events: Ptr, maxevents: Int, timeout: Int) -> SysResult {
    wait(t, epfd, events, maxevents, Deadline::after_ms(timeout))
}

/// `epoll_pwait(2)`.
///
/// # Errors
/// As [`epoll_wait`]; `EINVAL` for a bad signal set size.
pub fn epoll_pwait(
    t: &Thread,
    epfd: Fd,
    events: Ptr,
    maxevents: Int,
    timeout: Int,
    sigmask: Ptr,
    size: Len,
) -> SysResult {
    let deadline = Deadline::after_ms(timeout);
    masked(t, sigmask, size, || {
        wait(t, epfd, events, maxevents, deadline)
    })
}

/// `epoll_pwait2(2)`: the timeout is a `timespec`.
///
/// # Errors
/// As [`epoll_pwait`]; `EINVAL` for a bad timeout.
pub fn epoll_pwait2(
    t: &Thread,
    epfd: Fd,
    events: Ptr,
    maxevents: Int,
    timeout: Ptr,
    sigmask: Ptr,
    size: Len,
) -> SysResult {
    let deadline = Deadline::from_timespec(timeout)?;
    masked(t, sigmask, size, || {
        wait(t, epfd, events, maxevents, deadline)
    })
}

fn masked(
    t: &Thread,
    sigmask: UserAddr,
    size: usize,
    call: impl FnOnce() -> SysResult,
) -> SysResult {
    let mask = TemporaryMask::install(t, sigmask, size)?;
    let result = call();
    mask.finish(result == Err(Errno::EINTR));
    result
}
