//! Waiting for children: `wait4(2)`, `waitid(2)`.

use alloc::sync::Arc;

use husk_abi::linux::general::{
    self, __WALL, __WCLONE, __WNOTHREAD, P_ALL, P_PGID, P_PID, P_PIDFD, SIGCHLD, WCONTINUED,
    WEXITED, WNOHANG, WNOWAIT, WSTOPPED, WUNTRACED,
};

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
}

/// What a child did.
struct Event {
    child: Arc<Process>,
    status: i32,
}

/// Looks for an event; `Some(None)` means that there are children but nothing has happened.
fn look(t: &Thread, which: Which, options: u32) -> Option<Option<Event>> {
    let process = &t.process;
    let children = process.family.lock().children.clone();
    let mut any = false;
    for child in children {
        if !which.matches(&child) || !kind_matches(&child, options) {
            continue;
        }
        any = true;
        let status = {
            let mut family = child.family.lock();
            match (family.life, family.job_event) {
                (Life::Zombie(status), _) if options & WEXITED != 0 => Some((status, true)),
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
            return Some(Some(Event { child, status }));
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
    write_rusage(&event.child, rusage)?;
    Ok(event.child.pid as usize)
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
        Some(event) => {
            Info::child_exit(SIGCHLD.cast_signed(), &event.child, event.status).to_bytes()
        }
        None => [0; 128],
    };
    if !info.is_null() {
        info.write_bytes(&bytes)?;
    }
    if let Some(event) = event {
        write_rusage(&event.child, rusage)?;
    }
    Ok(0)
}

fn write_rusage(child: &Process, to: UserAddr) -> Result<()> {
    if to.is_null() {
        return Ok(());
    }
    to.write(&crate::time::rusage_of(
        child.cpu_ns() + child.children_cpu_ns(),
        0,
    ))
}

const _: () = assert!(general::WSTOPPED == general::WUNTRACED);
