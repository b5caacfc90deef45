//! Timers as programs set them, from the system call to the pending signal.
//!
//! The clock of host-side tests is one for all tests and only goes forward, so later times are bounds.

use alloc::sync::Arc;
use core::cell::Cell;

use husk_abi::linux::general::{
    __kernel_itimerspec, __kernel_old_itimerval, __kernel_old_timeval, CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_RAW, CLOCK_REALTIME, ITIMER_REAL, SIG_BLOCK, SIGALRM, SIGEV_NONE, SIGEV_SIGNAL,
    SIGEV_THREAD_ID, TIMER_ABSTIME,
};
use husk_hal::clock;

use super::*;
use crate::process::testing::{new_thread, test_thread};
use crate::signal::SigSet;
use crate::signal::mask::rt_sigprocmask;
use crate::user::UserAddr;
use crate::{Errno, Thread};

const MS: u64 = 1_000_000;
const SIGNO: i32 = 40;

fn at<T>(value: &T) -> UserAddr {
    UserAddr(core::ptr::from_ref(value) as u64)
}

fn pass(t: &Thread, ns: u64) {
    clock::advance_ns(ns);
    t.kernel.timers.run_due(clock::now_ns());
}

/// A thread whose process has `SIGNO` and `SIGALRM` blocked, so that they stay pending.
fn thread() -> Arc<Thread> {
    let t = test_thread();
    let set = SigSet::of(SIGNO) | SigSet::of(SIGALRM.cast_signed());
    rt_sigprocmask(&t, SIG_BLOCK.cast_signed(), at(&set.0), UserAddr(0), 8).unwrap();
    t
}

fn create(t: &Thread, clock: u32, signo: i32, notify: u32, tid: u32) -> crate::Result<i32> {
    let mut event = [0u32; 16];
    event[..5].copy_from_slice(&[7, 0, signo.cast_unsigned(), notify, tid]);
    let id = Cell::new(-1);
    timer_create(t, clock.cast_signed(), at(&event), at(&id))?;
    Ok(id.get())
}

fn set(t: &Thread, id: i32, flags: u32, value: u64, interval: u64) -> crate::Result<usize> {
    let new = __kernel_itimerspec {
        it_interval: timespec_of(interval),
        it_value: timespec_of(value),
    };
    timer_settime(t, id, u64::from(flags), at(&new), UserAddr(0))
}

fn get(t: &Thread, id: i32) -> (u64, u64) {
    let setting = Cell::new(__kernel_itimerspec {
        it_interval: timespec_of(0),
        it_value: timespec_of(0),
    });
    timer_gettime(t, id, at(&setting)).unwrap();
    itimerspec_ns(&setting.get()).unwrap()
}

fn is_pending(t: &Thread, signo: i32) -> bool {
    t.process.signals.pending().contains(signo)
}

#[test]
fn a_timer_has_one_signal_queued_and_counts_the_rest() {
    let t = thread();
    let id = create(&t, CLOCK_MONOTONIC, SIGNO, SIGEV_SIGNAL, 0).unwrap();
    set(&t, id, 0, 10 * MS, 10 * MS).unwrap();
    assert!(!is_pending(&t, SIGNO));
    pass(&t, 10 * MS);
    assert!(is_pending(&t, SIGNO));
    assert_eq!(timer_getoverrun(&t, id), Ok(0));
    pass(&t, 50 * MS);
    // The program takes the signal now: five more have passed.
    let overrun = signal_taken(&t.process, id);
    assert!(overrun >= 5, "{overrun}");
    assert_eq!(
        timer_getoverrun(&t, id),
        Ok(usize::try_from(overrun).unwrap())
    );
    let (value, interval) = get(&t, id);
    assert!(interval == 10 * MS && (1..=10 * MS).contains(&value));
    assert_eq!(timer_delete(&t, id), Ok(0));
    assert_eq!(timer_delete(&t, id), Err(Errno::EINVAL));
}

#[test]
fn settings_are_checked() {
    let t = thread();
    let create = |clock, signo, notify, tid| create(&t, clock, signo, notify, tid);
    assert_eq!(
        create(CLOCK_MONOTONIC_RAW, SIGNO, SIGEV_SIGNAL, 0),
        Err(Errno::EOPNOTSUPP)
    );
    assert_eq!(create(99, SIGNO, SIGEV_SIGNAL, 0), Err(Errno::EINVAL));
    assert_eq!(
        create(CLOCK_REALTIME, 65, SIGEV_SIGNAL, 0),
        Err(Errno::EINVAL)
    );
    assert_eq!(create(CLOCK_REALTIME, SIGNO, 77, 0), Err(Errno::EINVAL));
    assert_eq!(
        create(CLOCK_REALTIME, SIGNO, SIGEV_THREAD_ID, 9999),
        Err(Errno::EINVAL)
    );
    assert_eq!(set(&t, 5, 0, 1, 0), Err(Errno::EINVAL));
    let ids: Vec<_> = (0..3)
        .map(|_| create(CLOCK_REALTIME, SIGNO, SIGEV_SIGNAL, 0).unwrap())
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn a_thread_can_be_the_target() {
    let t = thread();
    let other = new_thread(&t);
    let id = create(&t, CLOCK_MONOTONIC, SIGNO, SIGEV_THREAD_ID, other.tid()).unwrap();
    set(&t, id, 0, MS, 0).unwrap();
    pass(&t, MS);
    assert!(other.signals.pending().contains(SIGNO) && !is_pending(&t, SIGNO));
    assert_eq!(get(&t, id).0, 0);
}

#[test]
fn silent_timers_only_count() {
    let t = thread();
    let id = create(&t, CLOCK_MONOTONIC, 0, SIGEV_NONE, 0).unwrap();
    set(&t, id, 0, 10 * MS, 30 * MS).unwrap();
    pass(&t, 15 * MS);
    let (value, interval) = get(&t, id);
    assert!(interval == 30 * MS && (1..=30 * MS).contains(&value));
    assert!(t.process.signals.pending().is_empty());
}

#[test]
fn wall_clock_times() {
    let t = thread();
    let id = create(&t, CLOCK_REALTIME, SIGNO, SIGEV_SIGNAL, 0).unwrap();
    set(&t, id, TIMER_ABSTIME, realtime_ns() + 20 * MS, 0).unwrap();
    let left = get(&t, id).0;
    assert!(left <= 20 * MS, "{left}");
    pass(&t, 20 * MS);
    assert!(is_pending(&t, SIGNO));
    // A time in the past expires at once.
    signal_taken(&t.process, id);
    set(&t, id, TIMER_ABSTIME, 1, 0).unwrap();
    pass(&t, 0);
    assert_eq!(get(&t, id).0, 0);
}

#[test]
fn an_ignored_timer_goes_on_slowly() {
    let t = test_thread();
    // SIGURG is ignored by default.
    let id = create(&t, CLOCK_MONOTONIC, 23, SIGEV_SIGNAL, 0).unwrap();
    set(&t, id, 0, 1, 1).unwrap();
    pass(&t, MS);
    let next = t.kernel.timers.next_deadline();
    assert!(next >= clock::now_ns().saturating_sub(100 * MS) && next != u64::MAX);
    assert!(!is_pending(&t, 23));
    assert_eq!(get(&t, id).1, 1);
}

#[test]
fn interval_timer() {
    let t = thread();
    let time = |tv_usec| __kernel_old_timeval { tv_sec: 0, tv_usec };
    let new = __kernel_old_itimerval {
        it_interval: time(0),
        it_value: time(5_000),
    };
    let real = ITIMER_REAL.cast_signed();
    assert_eq!(setitimer(&t, real, at(&new), UserAddr(0)), Ok(0));
    pass(&t, 5 * MS);
    assert!(is_pending(&t, SIGALRM.cast_signed()));
    let left = alarm(&t, 0).unwrap();
    assert_eq!(left, 0);
    assert_eq!(alarm(&t, 100), Ok(0));
    assert!((1..=100).contains(&alarm(&t, 0).unwrap()));
    assert_eq!(setitimer(&t, 3, at(&new), UserAddr(0)), Err(Errno::EINVAL));
    let bad = __kernel_old_itimerval {
        it_interval: time(0),
        it_value: time(1_000_000),
    };
    assert_eq!(
        setitimer(&t, real, at(&bad), UserAddr(0)),
        Err(Errno::EINVAL)
    );
    assert_eq!(getitimer(&t, real, UserAddr(8)), Err(Errno::EFAULT));
}

#[test]
fn exec_and_exit_stop_timers() {
    let t = thread();
    let id = create(&t, CLOCK_MONOTONIC, SIGNO, SIGEV_SIGNAL, 0).unwrap();
    set(&t, id, 0, MS, MS).unwrap();
    alarm(&t, 1).unwrap();
    t.process.timers.on_exec(t.kernel);
    assert_eq!(timer_getoverrun(&t, id), Err(Errno::EINVAL));
    t.process.timers.on_exit(t.kernel);
    pass(&t, 2000 * MS);
    assert!(t.process.signals.pending().is_empty());
}

#[test]
fn clocks_refuse_to_be_set() {
    let t = test_thread();
    let now = Cell::new(timespec_of(5));
    let set = |clock: u32| clock_settime(&t, clock.cast_signed(), at(&now));
    assert_eq!(set(CLOCK_REALTIME), Err(Errno::EPERM));
    assert_eq!(set(CLOCK_MONOTONIC), Err(Errno::EINVAL));
    assert_eq!(clock_settime(&t, 0, UserAddr(8)), Err(Errno::EFAULT));
    assert_eq!(clock_gettime(&t, 77, at(&now)), Err(Errno::EINVAL));
    assert_eq!(clock_gettime(&t, 1, UserAddr(8)), Err(Errno::EFAULT));
}
