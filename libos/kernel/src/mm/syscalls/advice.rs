//! `madvise(2)`, `mincore(2)`, `msync(2)`.

use husk_abi::boundary::layout::{PAGE_SIZE, USER_END};
use husk_abi::linux::general as g;

use crate::mm::map::user_range;
use crate::syscall::{Addr, Hex, Int, Len, Ptr};
use crate::{Errno, SysResult, Thread};

/// Bytes of result `mincore` makes at a time.
const MINCORE_CHUNK: u64 = PAGE_SIZE;

/// `madvise(2)`.
///
/// # Errors
/// `EINVAL`, `ENOMEM`, `EFAULT`, `EOPNOTSUPP`.
pub fn madvise(t: &Thread, addr: Addr, length: Len, advice: Int) -> SysResult {
    let advice = u32::try_from(advice).map_err(|_| Errno::EINVAL)?;
    t.mm().advise(addr, length as u64, advice).map(|()| 0)
}

/// `mincore(2)`.
///
/// # Errors
/// `EINVAL`, `ENOMEM`, `EFAULT`.
pub fn mincore(t: &Thread, addr: Addr, length: Len, vec: Ptr) -> SysResult {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let len = length as u64;
    if addr > USER_END || len > USER_END - addr {
        return Err(Errno::ENOMEM);
    }
    let range = user_range(addr, len).ok_or(Errno::ENOMEM)?;
    let pages = ((range.end - range.start) / PAGE_SIZE) as usize;
    if !husk_hal::user::range_ok(vec.0, pages) && pages > 0 {
        return Err(Errno::EFAULT);
    }
    let mm = t.mm();
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + MINCORE_CHUNK * PAGE_SIZE);
        let resident = mm.resident(at..end)?;
        vec.add((at - range.start) / PAGE_SIZE)
            .write_bytes(&resident)?;
        at = end;
    }
    Ok(0)
}

/// `msync(2)`. A shared mapping shows the pages of the file itself, so there is nothing to copy.
///
/// # Errors
/// `EINVAL`, `ENOMEM`, `EBUSY`.
pub fn msync(t: &Thread, addr: Addr, length: Len, flags: Hex) -> SysResult {
    const KNOWN: u64 = (g::MS_ASYNC | g::MS_INVALIDATE | g::MS_SYNC) as u64;
    const EITHER: u64 = (g::MS_ASYNC | g::MS_SYNC) as u64;
    if flags & !KNOWN != 0 || !addr.is_multiple_of(PAGE_SIZE) || flags & EITHER == EITHER {
        return Err(Errno::EINVAL);
    }
    let range = user_range(addr, length as u64).ok_or(Errno::ENOMEM)?;
    let mm = t.mm();
    if flags & u64::from(g::MS_INVALIDATE) != 0 && mm.is_locked(range.clone()) {
        return Err(Errno::EBUSY);
    }
    if mm.is_mapped(range) {
        Ok(0)
    } else {
        Err(Errno::ENOMEM)
    }
}
