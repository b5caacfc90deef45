//! `mlock(2)` and its family. Nothing is ever paged out, so locking is populating, and keeping account.

use husk_abi::linux::general as g;

use crate::mm::map::user_range;
use crate::mm::space::{AddressSpace, page_down, page_up};
use crate::syscall::{Addr, Int, Len};
use crate::{Errno, Result, SysResult, Thread};

/// Whether the process may lock `bytes` more.
///
/// # Errors
/// `EPERM` if it may not lock at all, `EAGAIN` over the limit.
pub(super) fn may_lock(t: &Thread, mm: &AddressSpace, bytes: u64) -> Result<()> {
    if t.is_capable(g::CAP_IPC_LOCK) {
        return Ok(());
    }
    let limit = t.process.limit(g::RLIMIT_MEMLOCK)?.rlim_cur;
    if limit == 0 {
        Err(Errno::EPERM)
    } else if mm.totals().locked.saturating_add(bytes) > limit {
        Err(Errno::EAGAIN)
    } else {
        Ok(())
    }
}

fn lock(t: &Thread, addr: u64, length: usize, on_fault: bool) -> SysResult {
    let start = page_down(addr);
    let len = page_up(length as u64 + (addr - start)).ok_or(Errno::EINVAL)?;
    let range = user_range(start, len).ok_or(Errno::ENOMEM)?;
    let mm = t.mm();
    may_lock(t, &mm, len).map_err(|errno| {
        if errno == Errno::EAGAIN {
            Errno::ENOMEM
        } else {
            errno
        }
    })?;
    if range.is_empty() {
        return Ok(0);
    }
    mm.set_locked(range.clone(), true)?;
    if !on_fault {
        mm.populate_locked(range)?;
    }
    Ok(0)
}

/// `mlock(2)`.
///
/// # Errors
/// `ENOMEM`, `EPERM`, `EINVAL`.
pub fn mlock(t: &Thread, addr: Addr, length: Len) -> SysResult {
    lock(t, addr, length, false)
}

/// `mlock2(2)`.
///
/// # Errors
/// As [`mlock`]; `EINVAL` for unknown flags.
pub fn mlock2(t: &Thread, addr: Addr, length: Len, flags: Int) -> SysResult {
    const ONFAULT: i32 = 1;
    if flags & !ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    lock(t, addr, length, flags & ONFAULT != 0)
}

/// `munlock(2)`.
///
/// # Errors
/// `ENOMEM`, `EINVAL`.
pub fn munlock(t: &Thread, addr: Addr, length: Len) -> SysResult {
    let start = page_down(addr);
    let len = page_up(length as u64 + (addr - start)).ok_or(Errno::EINVAL)?;
    let range = user_range(start, len).ok_or(Errno::ENOMEM)?;
    t.mm().set_locked(range, false).map(|()| 0)
}

/// `mlockall(2)`. `MCL_FUTURE` is refused: areas made later would not be counted.
///
/// # Errors
/// `EINVAL`, `EPERM`, `ENOMEM`.
pub fn mlockall(t: &Thread, flags: Int) -> SysResult {
    const CURRENT: i32 = 1;
    const ONFAULT: i32 = 4;
    if flags != CURRENT && flags != CURRENT | ONFAULT {
        return Err(Errno::EINVAL);
    }
    let mm = t.mm();
    let totals = mm.totals();
    may_lock(t, &mm, totals.size - totals.locked).map_err(|errno| {
        if errno == Errno::EAGAIN {
            Errno::ENOMEM
        } else {
            errno
        }
    })?;
    for line in mm.maps(false) {
        let range = line.start..line.end;
        mm.set_locked(range.clone(), true)?;
        if flags & ONFAULT == 0 && !line.prot.is_empty() {
            // As on Linux: what cannot be populated is no error of mlockall.
            let _ = mm.populate_locked(range);
        }
    }
    Ok(0)
}

/// `munlockall(2)`.
///
/// # Errors
/// None.
pub fn munlockall(t: &Thread) -> SysResult {
    let mm = t.mm();
    for line in mm.maps(false) {
        mm.set_locked(line.start..line.end, false)?;
    }
    Ok(0)
}
