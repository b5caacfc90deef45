//! The system call on a thread that does not block: arguments, errors, words.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};

use husk_abi::linux::general::{
    __kernel_timespec, FUTEX_CMP_REQUEUE, FUTEX_LOCK_PI, FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE,
    FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI,
    FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP,
};

use super::*;
use crate::process::testing::{new_thread, test_thread};
use crate::{Errno, SysResult, Thread};

/// A private operation.
fn call(t: &Thread, word: &AtomicU32, op: u32, val: u32, timeout: u64, val3: u32) -> SysResult {
    let address = core::ptr::from_ref(word) as u64;
    let op = (op | FUTEX_PRIVATE_FLAG).cast_signed();
    futex(t, address, op, val, timeout, address, val3)
}

fn address<T>(of: &T) -> u64 {
    core::ptr::from_ref(of) as u64
}

#[test]
fn arguments() {
    let t = test_thread();
    let word = AtomicU32::new(5);
    let call = |op, val, timeout, val3| call(&t, &word, op, val, timeout, val3);
    assert_eq!(call(FUTEX_WAIT, 6, 0, 0), Err(Errno::EAGAIN));
    assert_eq!(call(FUTEX_WAIT_BITSET, 5, 0, 0), Err(Errno::EINVAL));
    assert_eq!(call(FUTEX_WAKE_BITSET, 5, 0, 0), Err(Errno::EINVAL));
    assert_eq!(call(FUTEX_WAKE, 9, 0, 0), Ok(0));
    assert_eq!(call(2, 0, 0, 0), Err(Errno::ENOSYS));
    assert_eq!(call(FUTEX_WAIT_REQUEUE_PI, 0, 0, 0), Err(Errno::EINVAL));
    assert_eq!(
        call(FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 0, 0, 0),
        Err(Errno::ENOSYS)
    );
    assert_eq!(call(FUTEX_CMP_REQUEUE, 1, 1, 4), Err(Errno::EAGAIN));
    assert_eq!(call(FUTEX_CMP_REQUEUE, 1, 1, 5), Ok(0));
    assert_eq!(call(FUTEX_REQUEUE, u32::MAX, 1, 0), Err(Errno::EINVAL));
    let wrong = __kernel_timespec {
        tv_sec: 0,
        tv_nsec: -1,
    };
    assert_eq!(call(FUTEX_WAIT, 5, address(&wrong), 0), Err(Errno::EINVAL));
    assert_eq!(call(FUTEX_WAIT, 5, 8, 0), Err(Errno::EFAULT));
    let op = FUTEX_WAKE.cast_signed();
    let at = address(&word);
    assert_eq!(futex(&t, at + 1, op, 1, 0, 0, 0), Err(Errno::EINVAL));
    assert_eq!(futex(&t, 1 << 63, op, 1, 0, 0, 0), Err(Errno::EFAULT));
    // Nothing is mapped in the test's address space, so no shared futex can be there.
    assert_eq!(futex(&t, at, op, 1, 0, 0, 0), Err(Errno::EFAULT));
}

#[test]
fn wake_op_changes_the_word() {
    let t = test_thread();
    let word = AtomicU32::new(5);
    // Add 3; compare with 5.
    let encoded = 1 << 28 | 3 << 12 | 5;
    assert_eq!(call(&t, &word, FUTEX_WAKE_OP, 1, 1, encoded), Ok(0));
    assert_eq!(word.load(Ordering::Relaxed), 8);
}

#[test]
fn pi_without_contention() {
    let t = test_thread();
    let other = new_thread(&t);
    let word = AtomicU32::new(0);
    let on = |t: &Thread, op| call(t, &word, op, 0, 0, 0);
    assert_eq!(on(&t, FUTEX_LOCK_PI), Ok(0));
    assert_eq!(word.load(Ordering::Relaxed), t.tid());
    assert_eq!(on(&t, FUTEX_LOCK_PI), Err(Errno::EDEADLK));
    assert_eq!(on(&other, FUTEX_TRYLOCK_PI), Err(Errno::EAGAIN));
    assert_eq!(on(&other, FUTEX_UNLOCK_PI), Err(Errno::EPERM));
    assert_eq!(on(&t, FUTEX_UNLOCK_PI), Ok(0));
    assert_eq!(word.load(Ordering::Relaxed), 0);
    word.store(12_345, Ordering::Relaxed);
    assert_eq!(on(&t, FUTEX_LOCK_PI), Err(Errno::ESRCH));
}

#[test]
fn thread_ids_and_lists() {
    let t = test_thread();
    assert_eq!(set_tid_address(&t, UserAddr(64)), Ok(t.tid() as usize));
    assert_eq!(*t.clear_child_tid.lock(), UserAddr(64));
    assert_eq!(set_robust_list(&t, 0x1000, 23), Err(Errno::EINVAL));
    assert_eq!(set_robust_list(&t, 0x1000, 24), Ok(0));
    let (head, len) = (Cell::new(0u64), Cell::new(0u64));
    let get = |pid, head| get_robust_list(&t, pid, UserAddr(head), UserAddr(address(&len)));
    assert_eq!(get(0, address(&head)), Ok(0));
    assert_eq!((head.get(), len.get()), (0x1000, 24));
    assert_eq!(get(4_000_000, address(&head)), Err(Errno::ESRCH));
    assert_eq!(get(0, 8), Err(Errno::EFAULT));
}
