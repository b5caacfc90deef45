//! What a thread's exit does to futexes: robust lists and the cleared thread id.

use alloc::sync::Arc;

use husk_abi::linux::general::{
    CAP_SYS_PTRACE, FUTEX_BITSET_MATCH_ANY, FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS,
    robust_list_head,
};

use super::key::Scope;
use super::{ops, pi};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// The most entries an exit walks: a list may be circular or endless (`ROBUST_LIST_LIMIT`).
const LIMIT: usize = 2048;

/// `set_robust_list(2)`.
///
/// # Errors
/// `EINVAL` unless `len` is the size of the head.
pub fn set_robust_list(t: &Thread, head: u64, len: usize) -> SysResult {
    if len != size_of::<robust_list_head>() {
        return Err(Errno::EINVAL);
    }
    *t.robust_list.lock() = UserAddr(head);
    Ok(0)
}

/// `get_robust_list(2)`.
///
/// # Errors
/// `ESRCH`, `EPERM`, `EFAULT`.
pub fn get_robust_list(t: &Thread, pid: i32, head: UserAddr, len: UserAddr) -> SysResult {
    let list = if pid == 0 {
        *t.robust_list.lock()
    } else {
        let tid = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
        let other = t.kernel.tasks.thread(tid).ok_or(Errno::ESRCH)?;
        if !may_inspect(t, &other) {
            return Err(Errno::EPERM);
        }
        *other.robust_list.lock()
    };
    len.write(&(size_of::<robust_list_head>() as u64))?;
    head.write(&list.0)?;
    Ok(0)
}

/// `ptrace(2)`'s access check with real ids.
fn may_inspect(t: &Thread, other: &Thread) -> bool {
    if Arc::ptr_eq(&t.process, &other.process) {
        return true;
    }
    let (mine, theirs) = (t.credentials(), other.credentials());
    let same_user = [theirs.uid, theirs.euid, theirs.suid] == [mine.uid; 3]
        && [theirs.gid, theirs.egid, theirs.sgid] == [mine.gid; 3];
    same_user || mine.has(CAP_SYS_PTRACE)
}

/// `set_tid_address(2)`.
///
/// # Errors
/// None.
pub fn set_tid_address(t: &Thread, tidptr: UserAddr) -> SysResult {
    *t.clear_child_tid.lock() = tidptr;
    Ok(t.tid() as usize)
}

/// Tells who waits for the end of `t` (`CLONE_CHILD_CLEARTID`): writes 0 and wakes one waiter. To be called by
/// the exiting thread while it has its memory, and at exec; later calls do nothing.
pub fn clear_child_tid(t: &Thread) {
    let address = core::mem::replace(&mut *t.clear_child_tid.lock(), UserAddr(0));
    if address.is_null() {
        return;
    }
    // One reference is the thread's and one is here: if there are no others, nobody can look, and the write
    // would only cost a page fault.
    if t.mm_opt().is_none_or(|mm| Arc::strong_count(&mm) <= 2) {
        return;
    }
    // As on Linux, a bad address is the program's problem.
    if address.write(&0u32).is_ok() {
        let _ = ops::wake(t, address, Scope::Shared, 1, FUTEX_BITSET_MATCH_ANY);
    }
}

/// An entry of a robust list: the address, and in bit 0 whether it is a PI futex.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ListEntry {
    address: UserAddr,
    is_pi: bool,
}

impl ListEntry {
    fn read(at: UserAddr) -> Result<Self> {
        let raw: u64 = at.read()?;
        Ok(Self {
            address: UserAddr(raw & !1),
            is_pi: raw & 1 == 1,
        })
    }
}

/// Marks the futexes `t` still owns as left by a dead owner, and wakes a waiter of each. To be called by the
/// exiting thread while it has its memory, and at exec.
pub fn exit_robust_list(t: &Thread) {
    let head = core::mem::replace(&mut *t.robust_list.lock(), UserAddr(0));
    if !head.is_null() {
        // A broken list ends the walk; there is nobody to tell.
        let _ = walk(head, t.tid(), &mut |address, tid, is_pi, is_pending| {
            let wake = bury(address, tid, is_pi, is_pending)?;
            if wake {
                ops::wake(t, address, Scope::Shared, 1, FUTEX_BITSET_MATCH_ANY)?;
            }
            Ok(())
        });
    }
    pi::exit(t);
}

/// Calls `dead(address of the futex, tid, is PI, is pending)` for each entry of the list at `head`.
fn walk(
    head: UserAddr,
    tid: u32,
    dead: &mut dyn FnMut(UserAddr, u32, bool, bool) -> Result<()>,
) -> Result<()> {
    let mut entry = ListEntry::read(head)?;
    let offset: u64 = head.add(8).read()?;
    let pending = ListEntry::read(head.add(16))?;
    for _ in 0..LIMIT {
        if entry.address == head {
            break;
        }
        // The entry may be gone once its futex is released, so the next is read first.
        let next = ListEntry::read(entry.address);
        if entry.address != pending.address {
            dead(entry.address.add(offset), tid, entry.is_pi, false)?;
        }
        entry = next?;
    }
    if !pending.address.is_null() {
        dead(pending.address.add(offset), tid, pending.is_pi, true)?;
    }
    Ok(())
}

/// Marks the futex at `address` if thread `tid` owns it; says whether a waiter is to be woken.
fn bury(address: UserAddr, tid: u32, is_pi: bool, is_pending: bool) -> Result<bool> {
    if !address.0.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let old = address.fetch_update_u32(|word| {
        (word & FUTEX_TID_MASK == tid).then_some(word & FUTEX_WAITERS | FUTEX_OWNER_DIED)
    })?;
    let owner = old & FUTEX_TID_MASK;
    // The thread died between unlocking and waking: the word says free, and nobody else will wake.
    let lost_wake = is_pending && !is_pi && owner == 0;
    Ok(lost_wake || (owner == tid && !is_pi && old & FUTEX_WAITERS != 0))
}

#[cfg(test)]
mod tests {
    use super::{bury, walk};
    use crate::user::UserAddr;
    use core::sync::atomic::AtomicU32;
    use husk_abi::linux::general::{FUTEX_OWNER_DIED, FUTEX_WAITERS};

    /// `robust_list_head`, and nodes whose futex lies 16 bytes behind the link.
    #[repr(C)]
    struct Head {
        next: u64,
        offset: u64,
        pending: u64,
    }
    #[repr(C)]
    struct Lock {
        next: u64,
        pad: u64,
        word: u32,
    }

    fn address<T>(of: &T) -> u64 {
        std::ptr::from_ref(of) as u64
    }

    fn visited(head: &Head) -> Vec<(u64, bool, bool)> {
        let mut seen = Vec::new();
        let _ = walk(UserAddr(address(head)), 7, &mut |at, _, pi, pending| {
            seen.push((at.0, pi, pending));
            Ok(())
        });
        seen
    }

    #[test]
    fn walks_the_list_and_the_pending_entry_last() {
        let mut locks = [const {
            Lock {
                next: 0,
                pad: 0,
                word: 0,
            }
        }; 3];
        let mut head = Head {
            next: address(&locks[0]),
            offset: 16,
            pending: address(&locks[2]),
        };
        locks[0].next = address(&locks[1]) | 1;
        locks[1].next = address(&head);
        assert_eq!(
            visited(&head),
            [
                (address(&locks[0]) + 16, false, false),
                (address(&locks[1]) + 16, true, false),
                (address(&locks[2]) + 16, false, true),
            ]
        );
        // Pending and in the list: handled once.
        head.pending = address(&locks[0]);
        assert_eq!(visited(&head).len(), 2);
    }

    #[test]
    fn a_circular_list_ends() {
        let mut lock = Lock {
            next: 0,
            pad: 0,
            word: 0,
        };
        lock.next = address(&lock);
        let head = Head {
            next: address(&lock),
            offset: 16,
            pending: 0,
        };
        assert_eq!(visited(&head).len(), super::LIMIT);
    }

    #[test]
    fn a_bad_link_stops_the_walk() {
        let mut head = Head {
            next: 8,
            offset: 16,
            pending: 0,
        };
        assert_eq!(visited(&head).len(), 1);
        head.next = address(&head);
        assert_eq!(visited(&head), []);
    }

    #[test]
    fn owner_died() {
        let word = |value: u32, pi, pending| {
            let word = AtomicU32::new(value);
            let wake = bury(UserAddr(address(&word)), 7, pi, pending);
            (word.into_inner(), wake)
        };
        assert_eq!(word(7, false, false), (FUTEX_OWNER_DIED, Ok(false)));
        assert_eq!(
            word(7 | FUTEX_WAITERS, false, false),
            (FUTEX_OWNER_DIED | FUTEX_WAITERS, Ok(true))
        );
        assert_eq!(word(8 | FUTEX_WAITERS, false, false).1, Ok(false));
        assert_eq!(word(0, false, true).1, Ok(true));
        assert_eq!(word(0, false, false).1, Ok(false));
        assert_eq!(word(7 | FUTEX_WAITERS, true, false).1, Ok(false));
    }
}
