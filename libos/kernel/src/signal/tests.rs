//! Whole threads and processes, as far as that goes without running any.

use alloc::sync::Arc;

use husk_hal::cpu;

use super::deliver::take_next;
use super::kill::{kill, rt_sigqueueinfo, tgkill};
use super::mask::{rt_sigpending, rt_sigprocmask, set_mask};
use super::set::*;
use super::wait::rt_sigtimedwait;
use super::*;
use crate::process::testing::{adopt, new_process, new_thread, test_thread, user_credentials};
use crate::user::UserAddr;
use crate::{Errno, Kernel, Thread};

fn catch(t: &Thread, signo: i32) {
    t.process.handlers().set(
        signo,
        Action {
            handler: 0x4000,
            ..Action::default()
        },
    );
}

fn ignore(t: &Thread, signo: i32) {
    t.process.handlers().set(
        signo,
        Action {
            handler: 1,
            ..Action::default()
        },
    );
}

fn taken(t: &Thread) -> Vec<i32> {
    core::iter::from_fn(|| take_next(t).map(|info| info.signo)).collect()
}

fn address<T>(value: &mut T) -> UserAddr {
    UserAddr(core::ptr::from_mut(value) as u64)
}

/// The thread of a new process of user `uid`, without capabilities.
fn process(kernel: &'static Kernel, uid: u32) -> Arc<Thread> {
    new_process(kernel, user_credentials(uid, 0)).unwrap()
}

/// The thread of a process that is not init.
fn ordinary() -> Arc<Thread> {
    process(test_thread().kernel, 0)
}

#[test]
fn a_caught_signal_is_pending_until_it_is_taken() {
    let t = ordinary();
    catch(&t, SIGUSR1);
    send_process(&t.process, &Info::kernel(SIGUSR1)).unwrap();
    assert!(t.signals.is_pending() && !t.signals.is_killed());
    assert_eq!(taken(&t), [SIGUSR1]);
    assert!(!t.signals.is_pending());
}

#[test]
fn ignored_signals_go_nowhere_unless_blocked() {
    let t = ordinary();
    ignore(&t, SIGUSR1);
    for signo in [SIGUSR1, SIGCHLD, SIGWINCH] {
        send_thread(&t, &Info::kernel(signo)).unwrap();
    }
    assert!(!t.signals.is_pending() && t.signals.pending().is_empty());
    set_mask(&t, SigSet::of(SIGUSR1));
    send_thread(&t, &Info::kernel(SIGUSR1)).unwrap();
    assert!(!t.signals.is_pending() && t.signals.pending().contains(SIGUSR1));
}

#[test]
fn a_blocked_signal_waits_for_the_mask() {
    let t = ordinary();
    catch(&t, SIGUSR1);
    let mut set = SigSet::of(SIGUSR1).0;
    let mut old = 7u64;
    assert_eq!(
        rt_sigprocmask(&t, 0, address(&mut set), address(&mut old), 8),
        Ok(0)
    );
    assert_eq!(old, 0);
    send_process(&t.process, &Info::kernel(SIGUSR1)).unwrap();
    assert!(!t.signals.is_pending());
    let mut pending = 0u64;
    assert_eq!(rt_sigpending(&t, address(&mut pending), 8), Ok(0));
    assert_eq!(pending, set);
    let _ = cpu::take_work();
    assert_eq!(
        rt_sigprocmask(&t, 1, address(&mut set), address(&mut old), 8),
        Ok(0)
    );
    assert_eq!(old, set);
    assert!(t.signals.is_pending());
    assert_eq!(taken(&t), [SIGUSR1]);
    assert_eq!(
        rt_sigprocmask(&t, 9, address(&mut set), UserAddr(0), 8),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        rt_sigprocmask(&t, 0, UserAddr(0), UserAddr(0), 4),
        Err(Errno::EINVAL)
    );
}

#[test]
fn faults_come_first_then_own_then_the_processs() {
    let t = ordinary();
    for signo in [SIGUSR1, SIGTERM, SIGSEGV, SIGHUP] {
        catch(&t, signo);
    }
    send_process(&t.process, &Info::kernel(SIGHUP)).unwrap();
    send_thread(&t, &Info::kernel(SIGTERM)).unwrap();
    send_thread(&t, &Info::kernel(SIGUSR1)).unwrap();
    force(&t, &Info::fault(SIGSEGV, 1, 0x10));
    assert_eq!(taken(&t), [SIGSEGV, SIGUSR1, SIGTERM, SIGHUP]);
}

#[test]
fn a_fatal_signal_marks_all_threads_at_once() {
    let t = ordinary();
    let other = new_thread(&t);
    send_process(&t.process, &Info::kernel(SIGTERM)).unwrap();
    assert_eq!(t.process.signals.fatal_signal(), Some(SIGTERM));
    assert!(t.signals.is_killed() && other.signals.is_killed());
    // A thread that joins a dying process dies with it; further signals are dropped.
    assert!(new_thread(&t).signals.is_killed());
    send_process(&t.process, &Info::kernel(SIGUSR1)).unwrap();
    assert!(t.process.signals.pending().contains(SIGTERM));
    assert!(!t.process.signals.pending().contains(SIGUSR1));
}

#[test]
fn signals_that_dump_core_are_left_to_the_thread() {
    let t = ordinary();
    send_process(&t.process, &Info::kernel(SIGQUIT)).unwrap();
    assert_eq!(t.process.signals.fatal_signal(), None);
    assert!(t.signals.is_pending() && !t.signals.is_killed());
}

#[test]
fn the_process_finds_a_thread_that_does_not_block() {
    let t = ordinary();
    let other = new_thread(&t);
    catch(&t, SIGUSR1);
    set_mask(&t, SigSet::of(SIGUSR1));
    send_process(&t.process, &Info::kernel(SIGUSR1)).unwrap();
    assert!(!t.signals.is_pending() && other.signals.is_pending());
    // It blocks the signal before it takes it: the next one gets it.
    let third = new_thread(&other);
    set_mask(&other, SigSet::of(SIGUSR1));
    assert!(!other.signals.is_pending() && third.signals.is_pending());
    // That one ends: it comes back to whoever unblocks it.
    set_mask(&t, SigSet::EMPTY);
    thread_exits(&third);
    assert!(t.signals.is_pending());
    assert_eq!(taken(&t), [SIGUSR1]);
}

#[test]
fn init_gets_only_what_it_handles() {
    let init = test_thread();
    assert_eq!(init.process.pid, 1);
    for signo in [SIGTERM, SIGKILL, SIGSTOP] {
        send_process(&init.process, &Info::kill(signo, 5, 0)).unwrap();
        assert!(!init.signals.is_pending(), "{signo}");
    }
    send_process(&init.process, &Info::from_host(SIGTERM)).unwrap();
    assert!(!init.signals.is_pending());
    catch(&init, SIGTERM);
    send_process(&init.process, &Info::kill(SIGTERM, 5, 0)).unwrap();
    assert_eq!(taken(&init), [SIGTERM]);
    send_process(&init.process, &Info::from_host(SIGKILL)).unwrap();
    assert!(init.signals.is_killed());
}

#[test]
fn inits_own_faults_kill_it() {
    let init = test_thread();
    ignore(&init, SIGSEGV);
    set_mask(&init, SigSet::of(SIGSEGV));
    force(&init, &Info::fault(SIGSEGV, 1, 0));
    assert_eq!(init.process.handlers().get(SIGSEGV).handler, 0);
    assert!(!init.signals.mask().contains(SIGSEGV));
    assert!(init.signals.is_pending());
    assert!(!init.process.signals.is_protected(1));
}

#[test]
fn stopping_and_continuing() {
    let kernel = test_thread().kernel;
    let shell = process(kernel, 0);
    catch(&shell, SIGCHLD);
    let t = process(kernel, 0);
    adopt(&shell.process, &t.process);
    let other = new_thread(&t);
    send_process(&t.process, &Info::kernel(SIGTSTP)).unwrap();
    assert_eq!(taken(&t), [SIGTSTP]);
    stop::begin(&t, SIGTSTP);
    assert!(t.signals.is_pending() && other.signals.is_pending());
    // One thread stands still, the other ends: then all do.
    t.signals.raise(state::STOPPED);
    stop::complete(&t);
    assert!(!t.process.signals.is_stopped() && taken(&shell).is_empty());
    thread_exits(&other);
    assert!(t.process.signals.is_stopped());
    let info = take_next(&shell).unwrap();
    assert_eq!(
        (info.signo, info.code, info.pid()),
        (SIGCHLD, 5, t.process.pid)
    );

    // SIGCONT ends it even if it is blocked, and discards stop signals.
    set_mask(&t, SigSet::of(SIGCONT).with(SIGTTIN));
    send_process(&t.process, &Info::kernel(SIGTTIN)).unwrap();
    send_process(&t.process, &Info::kernel(SIGCONT)).unwrap();
    assert!(!t.process.signals.is_stopped());
    assert_eq!(t.process.signals.pending(), SigSet::of(SIGCONT));
    assert!(t.signals.take(state::REPORT));
    stop::report_end(&t);
    let info = take_next(&shell).unwrap();
    assert_eq!((info.signo, info.code), (SIGCHLD, 6));
    // And a stop signal discards SIGCONT.
    send_process(&t.process, &Info::kernel(SIGTTIN)).unwrap();
    assert_eq!(t.process.signals.pending(), SigSet::of(SIGTTIN));
}

#[test]
fn terminal_stops_do_nothing_in_orphaned_groups() {
    let t = ordinary();
    send_process(&t.process, &Info::kernel(SIGTSTP)).unwrap();
    assert_eq!(taken(&t), [SIGTSTP]);
    stop::begin(&t, SIGTSTP);
    assert!(!t.signals.is_pending());
    send_process(&t.process, &Info::kernel(SIGSTOP)).unwrap();
    assert_eq!(taken(&t), [SIGSTOP]);
    stop::begin(&t, SIGSTOP);
    assert!(t.signals.is_pending());
    // A stopped process still dies.
    send_process(&t.process, &Info::kernel(SIGKILL)).unwrap();
    assert!(t.signals.is_killed());
}

#[test]
fn waiting_for_what_is_there() {
    let t = ordinary();
    let wanted = SigSet::of(40).with(SIGUSR1);
    set_mask(&t, wanted);
    send_process(&t.process, &Info::kernel(40)).unwrap();
    send_thread(&t, &Info::tkill(SIGUSR1, 9, 8)).unwrap();
    let mut set = wanted.0;
    let mut info = [0u8; 128];
    let mut zero = [0i64; 2];
    let mut wait =
        |info: UserAddr| rt_sigtimedwait(&t, address(&mut set), info, address(&mut zero), 8);
    assert_eq!(wait(address(&mut info)), Ok(SIGUSR1 as usize));
    assert_eq!(info, Info::tkill(SIGUSR1, 9, 8).to_bytes());
    assert_eq!(wait(UserAddr(0)), Ok(40));
    assert_eq!(wait(UserAddr(0)), Err(Errno::EAGAIN));
}

#[test]
fn programs_errors() {
    let init = test_thread();
    let kernel = init.kernel;
    let a = process(kernel, 1000);
    let b = process(kernel, 1001);
    let pid = |t: &Thread| t.process.pid.cast_signed();
    assert_eq!(kill(&a, 999, SIGTERM), Err(Errno::ESRCH));
    assert_eq!(kill(&a, pid(&b), 65), Err(Errno::EINVAL));
    assert_eq!(kill(&a, pid(&b), 0), Err(Errno::EPERM));
    assert_eq!(kill(&a, pid(&init), SIGTERM), Err(Errno::EPERM));
    assert_eq!(kill(&a, pid(&a), 0), Ok(0));
    assert_eq!(kill(&a, i32::MIN, 0), Err(Errno::ESRCH));
    assert_eq!(kill(&a, -999, 0), Err(Errno::ESRCH));
    assert_eq!(kill(&a, -pid(&a), 0), Ok(0));
    assert_eq!(kill(&a, 0, 0), Ok(0));
    assert_eq!(tgkill(&a, pid(&a), 0, SIGTERM), Err(Errno::EINVAL));
    assert_eq!(tgkill(&a, pid(&b), pid(&a), SIGTERM), Err(Errno::ESRCH));
    assert_eq!(tgkill(&a, pid(&a), pid(&a), 0), Ok(0));
    let mut info = Info::kill(40, 1, 1).to_bytes();
    assert_eq!(
        rt_sigqueueinfo(&a, pid(&b), 40, address(&mut info)),
        Err(Errno::EPERM)
    );
    set_mask(&a, SigSet::of(40));
    assert_eq!(rt_sigqueueinfo(&a, pid(&a), 40, address(&mut info)), Ok(0));
    assert!(a.process.signals.pending().contains(40));
    // kill(-1): all but init and the caller, as far as permitted.
    catch(&b, SIGUSR1);
    assert_eq!(kill(&b, -1, SIGUSR1), Ok(0));
    assert!(!b.signals.is_pending());
    let root = new_process(kernel, user_credentials(0, u64::MAX)).unwrap();
    assert_eq!(kill(&root, -1, SIGUSR1), Ok(0));
    assert!(b.signals.is_pending() && a.signals.is_killed());
    assert!(!init.signals.is_killed() && !root.signals.is_pending());
}

#[test]
fn a_temporary_mask_comes_back() {
    let t = ordinary();
    catch(&t, SIGUSR1);
    set_mask(&t, SigSet::of(SIGUSR1));
    set_temporary_mask(&t, SigSet::of(SIGKILL).with(SIGHUP));
    assert_eq!(t.signals.mask(), SigSet::of(SIGHUP));
    assert!(t.signals.has_temporary_mask());
    restore_mask_unless(&t, true);
    assert_eq!(t.signals.mask(), SigSet::of(SIGHUP));
    restore_mask_unless(&t, false);
    assert_eq!(t.signals.mask(), SigSet::of(SIGUSR1));
    assert!(!t.signals.has_temporary_mask());
    // A second time there is nothing to restore.
    set_mask(&t, SigSet::EMPTY);
    restore_mask_unless(&t, false);
    assert_eq!(t.signals.mask(), SigSet::EMPTY);
}

/// Two host threads send while a third takes: nothing is lost, nothing is left over.
#[test]
fn senders_and_taker_at_once() {
    const EACH: usize = 20_000;
    let t = ordinary();
    catch(&t, 40);
    catch(&t, 41);
    let sender = |signo: i32| {
        let t = t.clone();
        std::thread::spawn(move || {
            for _ in 0..EACH {
                while send_thread(&t, &Info::tkill(signo, 1, 0)).is_err() {
                    std::hint::spin_loop();
                }
            }
        })
    };
    let senders = [sender(40), sender(41)];
    let mut got = [0usize; 2];
    let mut toggled = false;
    while got != [EACH; 2] {
        // Masks change all the time, as in a program that protects its sections.
        toggled = !toggled;
        set_mask(
            &t,
            if toggled {
                SigSet::of(40)
            } else {
                SigSet::EMPTY
            },
        );
        if t.signals.is_pending()
            && let Some(info) = take_next(&t)
        {
            got[info.signo as usize - 40] += 1;
        }
    }
    for sender in senders {
        sender.join().unwrap();
    }
    set_mask(&t, SigSet::EMPTY);
    assert!(!t.signals.is_pending() && t.signals.pending().is_empty());
    assert_eq!(t.kernel.queued_signals.count(0), 0);
}
