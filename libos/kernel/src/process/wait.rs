//! Waiting for children: `wait4(2)`, `waitid(2)`.

use alloc::sync::Arc;

use husk_abi::linux::general::{
    self, __WALL, __WCLONE, __WNOTHREAD, CLD_TRAPPED, P_ALL, P_PGID, P_PID, P_PIDFD, SIGCHLD,
    WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WSTOPPED, WUNTRACED,
};

use super::ptrace::{self, TraceeEvent};
use super::thread::Life;
use super::{Process, Thread, exit};
use crate::fs::pidfd;
use crate::signal::Info;
use crate::sync::Interruptible;
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult};

/// Wait status of a continued child.
const CONTINUED: i32 = 0xffff;

/// Which children a call is about.
#[derive(Clone, Copy, Debug)]
enum Which {
    Any,
    Pid(u32),
    Group(u32),
}

impl Which {
    fn matches(self, child: &Process) -> bool {
        match self {
            Which::Any => true,
            Which::Pid(pid) => child.pid == pid,
            Which::Group(pgid) => child.pgid() == pgid,
        }
    }

    fn matches_tracee(self, tracee: &Thread) -> bool {
        match self {
            Which::Pid(id) => tracee.tid() == id,
            Which::Any | Which::Group(_) => self.matches(&tracee.process),
        }
    }
}

/// What a child or a tracee did.
struct Event {
    /// Process id, or a tracee's thread id.
    id: u32,
    process: Arc<Process>,
    status: i32,
    /// The stop of a tracee, reported by its thread.
    trap: Option<Arc<Thread>>,
}

impl Event {
    /// As `siginfo_t` of `waitid(2)`.
    fn info(&self) -> Info {
        let signo = SIGCHLD.cast_signed();
        match &self.trap {
            Some(tracee) => Info::tracee(signo, CLD_TRAPPED, tracee, self.status >> 8),
            None if self.id != self.process.pid => {
                Info::ended(signo, self.id, &self.process, self.status)
            }
            None => Info::child_exit(signo, &self.process, self.status),
        }
    }
}

/// Looks for an event; `Some(None)` means that there are children or tracees but nothing has happened.
fn look(t: &Thread, which: Which, options: u32) -> Option<Option<Event>> {
    let children = look_at_children(t, which, options);
    if let Some(Some(_)) = children {
        return children;
    }
    let mut any = children.is_some();
    let consume = options & WNOWAIT == 0;
    let tracers = if options & __WNOTHREAD != 0 {
        alloc::vec![t.arc()]
    } else {
        t.process.threads()
    };
    for tracer in tracers {
        let matches = |tracee: &Thread| which.matches_tracee(tracee);
        match ptrace::look(&tracer, matches, options & WEXITED != 0, consume) {
            Some(Some(TraceeEvent {
                tracee,
                status,
                stopped,
            })) => {
                return Some(Some(Event {
                    id: tracee.tid(),
                    process: tracee.process.clone(),
                    status,
                    trap: stopped.then_some(tracee),
                }));
            }
            Some(None) => any = true,
            None => {}
        }
    }
    any.then_some(None)
}

fn look_at_children(t: &Thread, which: Which, options: u32) -> Option<Option<Event>> {
    let process = &t.process;
    let children = process.family.lock().children.clone();
    let mut any = false;
    for child in children {
        let is_traced = child.is_traced_by_parent();
        if !which.matches(&child) || !is_traced && !kind_matches(&child, options) {
            continue;
        }
        any = true;
        let is_others = child.foreign_tracer().is_some() || child.end_to_tell().is_none();
        let status = {
            let mut family = child.family.lock();
            match (family.life, family.job_event) {
                // Its tracer waits for it first.
                (Life::Zombie(_), _) if is_others => None,
                (Life::Zombie(status), _) if options & WEXITED != 0 => Some((status, true)),
                // A tracer sees the stops of threads instead.
                (Life::Alive, Some(status)) if is_traced && status != CONTINUED => None,
                (Life::Alive, Some(status)) => {
                    let wanted = if status == CONTINUED {
                        WCONTINUED
                    } else {
                        WSTOPPED
                    };
                    (options & wanted != 0).then(|| {
                        if options & WNOWAIT == 0 {
                            family.job_event = None;
                        }
                        (status, false)
                    })
                }
                _ => None,
            }
        };
        if let Some((status, ended)) = status {
            if ended && options & WNOWAIT == 0 {
                exit::reap(&child, process);
            }
            return Some(Some(Event {
                id: child.pid,
                process: child,
                status,
                trap: None,
            }));
        }
    }
    any.then_some(None)
}

/// "Clone" children, which end with another signal than `SIGCHLD`, are only for `__WALL` and `__WCLONE`.
fn kind_matches(child: &Process, options: u32) -> bool {
    let signo = child
        .exit_signal
        .load(core::sync::atomic::Ordering::Relaxed);
    options & __WALL != 0 || (signo != SIGCHLD) == (options & __WCLONE != 0)
}

fn wait(t: &Thread, which: Which, options: u32) -> Result<Option<Event>> {
    let mut result = None;
    let outcome = t
        .process
        .child_events
        .wait(t, Interruptible::Yes, None, || {
            match look(t, which, options) {
                None => result = Some(Err(Errno::ECHILD)),
                Some(Some(event)) => result = Some(Ok(Some(event))),
                Some(None) if options & WNOHANG != 0 => result = Some(Ok(None)),
                Some(None) => return None,
            }
            Some(())
        });
    match outcome {
        Ok(()) => result.unwrap_or(Ok(None)),
        Err(_) => Err(Errno::ERESTARTSYS),
    }
}

/// `wait4(2)`.
///
/// # Errors
/// `ECHILD`, `EINVAL`, `EFAULT`, `EINTR`.
pub fn wait4(t: &Thread, pid: i32, status: UserAddr, options: u64, rusage: UserAddr) -> SysResult {
    let options = options as u32;
    if options & !(WNOHANG | WUNTRACED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL) != 0 {
        return Err(Errno::EINVAL);
    }
    let which = match pid {
        -1 => Which::Any,
        0 => Which::Group(t.process.pgid()),
        i32::MIN => return Err(Errno::ESRCH),
        pid if pid < 0 => Which::Group(pid.unsigned_abs()),
        pid => Which::Pid(pid.unsigned_abs()),
    };
    let Some(event) = wait(t, which, options | WEXITED)? else {
        return Ok(0);
    };
    status.write_opt(&event.status)?;
    write_rusage(&event.process, rusage)?;
    Ok(event.id as usize)
}

/// `waitid(2)`.
///
/// # Errors
/// `ECHILD`, `EINVAL`, `EFAULT`, `EINTR`.
pub fn waitid(
    t: &Thread,
    id_type: i32,
    id: i32,
    info: UserAddr,
    options: u64,
    rusage: UserAddr,
) -> SysResult {
    let options = options as u32;
    let known =
        WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL;
    if options & !known != 0 || options & (WEXITED | WSTOPPED | WCONTINUED) == 0 {
        return Err(Errno::EINVAL);
    }
    let mut options = options;
    let mut is_nonblocking = false;
    let which = match id_type.unsigned_abs() {
        P_ALL => Which::Any,
        P_PID if id > 0 => Which::Pid(id.unsigned_abs()),
        P_PGID if id == 0 => Which::Group(t.process.pgid()),
        P_PGID if id > 0 => Which::Group(id.unsigned_abs()),
        P_PIDFD if id >= 0 => {
            let (process, file) = pidfd::process_of(t, id)?;
            // Its own flag makes a difference only where the call would wait.
            is_nonblocking = file.is_nonblocking() && options & WNOHANG == 0;
            if is_nonblocking {
                options |= WNOHANG;
            }
            Which::Pid(process.pid)
        }
        _ => return Err(Errno::EINVAL),
    };
    let event = wait(t, which, options)?;
    if event.is_none() && is_nonblocking {
        return Err(Errno::EAGAIN);
    }
    let bytes = match &event {
        Some(event) => event.info().to_bytes(),
        None => [0; 128],
    };
    if !info.is_null() {
        info.write_bytes(&bytes)?;
    }
    if let Some(event) = event {
        write_rusage(&event.process, rusage)?;
    }
    Ok(0)
}

fn write_rusage(child: &Process, to: UserAddr) -> Result<()> {
    if to.is_null() {
        return Ok(());
    }
    to.write(&crate::time::rusage_of(
        child.times() + child.children_times(),
        0,
    ))
}

const _: () = assert!(general::WSTOPPED == general::WUNTRACED);
