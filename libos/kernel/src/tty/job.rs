//! Job control: whose terminal it is, and who may use it (`credentials(7)`, `setsid(2)`, `tcsetpgrp(3)`).

use alloc::sync::Arc;
use core::ptr;

use husk_abi::linux::general::{
    CAP_SYS_ADMIN, CAP_SYS_TTY_CONFIG, SIGCONT, SIGHUP, SIGTTIN, SIGTTOU,
};

use crate::fs::FileOps;
use crate::signal::{self, Info, action::SIG_IGN};
use crate::sync::SpinLock;
use crate::{Errno, Kernel, Process, Result, SysResult, Thread};

/// A terminal that can be the controlling one of a session.
pub trait Tty: Send + Sync + core::fmt::Debug {
    /// Whose it is.
    fn job(&self) -> &Job;

    /// Its device number.
    fn device(&self) -> u64;

    /// Opens it (`/dev/tty`).
    ///
    /// # Errors
    /// `EIO`, `ENXIO` if it is gone.
    fn open(self: Arc<Self>, t: &Thread) -> Result<Arc<dyn FileOps>>;

    /// The line is gone: it is of no more use to who has it open, and its session's leader is told.
    fn hang_up(&self, kernel: &Kernel) {
        leave_session(self.job(), kernel);
    }
}

/// A terminal.
pub type TtyRef = Arc<dyn Tty>;

/// Whose a terminal is.
#[derive(Debug, Default)]
pub struct Job {
    owner: SpinLock<Owner>,
}

/// Session, and process group in the foreground; 0 is none.
#[derive(Clone, Copy, Debug, Default)]
struct Owner {
    session: u32,
    foreground: u32,
}

impl Job {
    /// The session whose terminal it is; 0 for none.
    #[must_use]
    pub fn session(&self) -> u32 {
        self.owner.lock().session
    }

    /// The group in the foreground; 0 for none.
    #[must_use]
    pub fn foreground(&self) -> u32 {
        self.owner.lock().foreground
    }

    /// It becomes the terminal of a session, with a group of it in the foreground.
    pub fn belong_to(&self, session: u32, foreground: u32) {
        *self.owner.lock() = Owner {
            session,
            foreground,
        };
    }

    /// It is nobody's any more; gives session and group that were.
    fn leave(&self) -> (u32, u32) {
        let owner = core::mem::take(&mut *self.owner.lock());
        (owner.session, owner.foreground)
    }

    /// Sends a signal to the foreground.
    pub fn signal(&self, kernel: &Kernel, signo: u32) {
        signal_group(kernel, self.foreground(), signo);
    }
}

/// A process's controlling terminal.
#[derive(Debug, Default)]
pub struct Controlling {
    held: SpinLock<Held>,
}

#[derive(Clone, Debug, Default)]
struct Held {
    tty: Option<TtyRef>,
    /// The group that was in the foreground of a terminal that hung up; 0 for none.
    lost_foreground: u32,
}

impl Controlling {
    /// What a new process has of its parent.
    #[must_use]
    pub fn inherited(&self) -> Self {
        Self {
            held: SpinLock::new(Held {
                tty: self.get(),
                lost_foreground: 0,
            }),
        }
    }

    /// The terminal.
    #[must_use]
    pub fn get(&self) -> Option<TtyRef> {
        self.held.lock().tty.clone()
    }

    /// Makes it `tty`.
    pub fn set(&self, tty: Option<TtyRef>) {
        let old = core::mem::replace(
            &mut *self.held.lock(),
            Held {
                tty,
                lost_foreground: 0,
            },
        );
        drop(old);
    }

    /// Whether it is `tty`.
    #[must_use]
    pub fn is(&self, tty: &dyn Tty) -> bool {
        let held = self.held.lock();
        held.tty
            .as_ref()
            .is_some_and(|held| ptr::eq(held.job(), tty.job()))
    }

    /// It is lost, with this group in its foreground.
    fn lose(&self, foreground: u32) {
        let old = core::mem::replace(
            &mut *self.held.lock(),
            Held {
                tty: None,
                lost_foreground: foreground,
            },
        );
        drop(old);
    }

    fn take_lost_foreground(&self) -> u32 {
        core::mem::take(&mut self.held.lock().lost_foreground)
    }
}

fn signal_group(kernel: &Kernel, group: u32, signo: u32) {
    if group != 0 {
        // Nobody may be left in it.
        let _ = signal::send_group(kernel, group, &Info::kernel(signo.cast_signed()));
    }
}

fn leads(process: &Process) -> bool {
    process.sid() == process.pid
}

/// Whether `t` may do to `tty` what would get a background process `signo` (`SIGTTIN`, `SIGTTOU`).
///
/// # Errors
/// `EIO` if the signal would do nothing, `ERESTARTSYS` if it was sent.
pub fn check_foreground(t: &Thread, tty: &dyn Tty, signo: u32) -> Result<()> {
    let process = &t.process;
    let foreground = tty.job().foreground();
    if foreground == 0 || process.pgid() == foreground || !process.controlling.is(tty) {
        return Ok(());
    }
    let number = signo.cast_signed();
    let blocked = t.signals.mask().contains(number);
    if blocked || process.handlers().get(number).handler == SIG_IGN {
        return if signo == SIGTTIN {
            Err(Errno::EIO)
        } else {
            Ok(())
        };
    }
    if signal::is_orphaned(process) {
        return Err(Errno::EIO);
    }
    signal_group(t.kernel, process.pgid(), signo);
    Err(Errno::ERESTARTSYS)
}

/// Whether `t` may change something about `tty`.
///
/// # Errors
/// As [`check_foreground`].
pub fn check_change(t: &Thread, tty: &dyn Tty) -> Result<()> {
    check_foreground(t, tty, SIGTTOU)
}

/// `t` has opened `tty`, without `O_NOCTTY`: a session's leader without a terminal gets it, if it is nobody's.
pub fn opened(t: &Thread, tty: TtyRef, is_readable: bool) {
    let process = &t.process;
    let free = process.controlling.get().is_none() && tty.job().session() == 0;
    if free && leads(process) && is_readable {
        take(process, tty);
    }
}

fn take(process: &Process, tty: TtyRef) {
    tty.job().belong_to(process.sid(), process.pgid());
    process.controlling.set(Some(tty));
}

/// `TIOCSCTTY`; with `force` 1 it may be taken from another session.
///
/// # Errors
/// `EPERM`.
pub fn set_controlling(t: &Thread, tty: TtyRef, is_readable: bool, force: u64) -> Result<()> {
    let process = &t.process;
    let session = tty.job().session();
    if leads(process) && session == process.sid() {
        return Ok(());
    }
    if !leads(process) || process.controlling.get().is_some() {
        return Err(Errno::EPERM);
    }
    let privileged = t.is_capable(CAP_SYS_ADMIN);
    if session != 0 {
        if force != 1 || !privileged {
            return Err(Errno::EPERM);
        }
        clear_session(t.kernel, session);
    }
    if !is_readable && !privileged {
        return Err(Errno::EPERM);
    }
    take(process, tty);
    Ok(())
}

/// No process of `session` has a terminal any more.
fn clear_session(kernel: &Kernel, session: u32) {
    for process in kernel.tasks.processes() {
        if process.sid() == session {
            process.controlling.set(None);
        }
    }
}

/// `TIOCNOTTY`: the process gives its terminal up; if it leads the session, for all of it.
///
/// # Errors
/// `ENOTTY` if it is another.
pub fn give_up(t: &Thread, tty: &dyn Tty) -> Result<()> {
    let process = &t.process;
    if !process.controlling.is(tty) {
        return Err(Errno::ENOTTY);
    }
    if leads(process) {
        let (session, foreground) = tty.job().leave();
        signal_group(t.kernel, foreground, SIGHUP);
        signal_group(t.kernel, foreground, SIGCONT);
        clear_session(t.kernel, session);
    }
    process.controlling.set(None);
    Ok(())
}

/// `process` ends: if it leads a session, that loses its terminal, which those in the foreground are told. Who has it open can
/// still use it.
pub fn process_ends(process: &Process) {
    if !leads(process) {
        return;
    }
    let kernel = process.kernel;
    if let Some(tty) = process.controlling.get() {
        let (session, foreground) = tty.job().leave();
        signal_group(kernel, foreground, SIGHUP);
        clear_session(kernel, session);
    } else {
        let foreground = process.controlling.take_lost_foreground();
        signal_group(kernel, foreground, SIGHUP);
        signal_group(kernel, foreground, SIGCONT);
    }
}

/// A terminal hung up: its session loses it, whose leader is told.
pub fn leave_session(job: &Job, kernel: &Kernel) {
    let (session, foreground) = job.leave();
    if session == 0 {
        return;
    }
    for process in kernel.tasks.processes() {
        if process.sid() != session {
            continue;
        }
        let held = process.controlling.get();
        let is_this = held.is_some_and(|held| ptr::eq(held.job(), job));
        if leads(&process) {
            for signo in [SIGHUP, SIGCONT] {
                // A standard signal is always accepted.
                let _ = signal::send_process(&process, &Info::kernel(signo.cast_signed()));
            }
        }
        if is_this {
            process
                .controlling
                .lose(if leads(&process) { foreground } else { 0 });
        }
    }
}

/// `vhangup(2)`.
///
/// # Errors
/// `EPERM`.
pub fn vhangup(t: &Thread) -> SysResult {
    if !t.is_capable(CAP_SYS_TTY_CONFIG) {
        return Err(Errno::EPERM);
    }
    if let Some(tty) = t.process.controlling.get() {
        tty.hang_up(t.kernel);
    }
    Ok(0)
}

/// `TIOCGPGRP`.
///
/// # Errors
/// `ENOTTY` if it is not the caller's, unless asked of its other side.
pub fn foreground(t: &Thread, tty: &dyn Tty, is_other_side: bool) -> Result<u32> {
    if !is_other_side && !t.process.controlling.is(tty) {
        return Err(Errno::ENOTTY);
    }
    Ok(tty.job().foreground())
}

/// `TIOCGSID`.
///
/// # Errors
/// `ENOTTY` if it is not the caller's or nobody's.
pub fn session(t: &Thread, tty: &dyn Tty, is_other_side: bool) -> Result<u32> {
    let session = tty.job().session();
    if session == 0 || !is_other_side && !t.process.controlling.is(tty) {
        return Err(Errno::ENOTTY);
    }
    Ok(session)
}

/// `TIOCSPGRP`; `group` is read after it is known whose the terminal is.
///
/// # Errors
/// `ENOTTY` if it is not the caller's; `EINVAL`, `ESRCH` and `EPERM` for groups that cannot be, are not there, or are of
/// another session; as [`check_foreground`].
pub fn set_foreground(
    t: &Thread,
    tty: &dyn Tty,
    group: impl FnOnce() -> Result<i32>,
) -> Result<()> {
    match check_change(t, tty) {
        Err(Errno::EIO) => return Err(Errno::ENOTTY),
        checked => checked?,
    }
    let process = &t.process;
    let sid = process.sid();
    if !process.controlling.is(tty) || tty.job().session() != sid {
        return Err(Errno::ENOTTY);
    }
    let group = u32::try_from(group()?).map_err(|_| Errno::EINVAL)?;
    let processes = t.kernel.tasks.processes();
    let mut members = processes.iter().filter(|member| member.pgid() == group);
    let member = members.next().ok_or(Errno::ESRCH)?;
    if member.sid() != sid {
        return Err(Errno::EPERM);
    }
    tty.job().belong_to(sid, group);
    Ok(())
}
