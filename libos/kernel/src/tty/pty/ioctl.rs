//! `ioctl_tty(2)` of both sides. Settings, size and ownership are the pair's, whichever side is asked.

use alloc::sync::Arc;

use husk_abi::linux::general::{
    CAP_SYS_ADMIN, CLOCAL, O_CLOEXEC, SIGINT, SIGQUIT, SIGTSTP, TCIFLUSH, TCIOFF, TCIOFLUSH, TCION,
    TCOFLUSH, TCOOFF, TCOON, VSTART, VSTOP, termio, termios, termios2, winsize,
};
use husk_abi::linux::ioctl;

use super::{MASTER_READ_BYTES, Pair};
use crate::fs::{File, open};
use crate::tty::job;
use crate::tty::line::Driver as _;
use crate::tty::settings::{DISABLED, Settings};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// Which side is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Master,
    Slave,
}

/// Of the master.
pub(super) fn master(
    pair: &Arc<Pair>,
    t: &Thread,
    file: &File,
    request: u32,
    arg: u64,
) -> SysResult {
    let at = UserAddr(arg);
    match request {
        ioctl::TIOCGPTN => at.write(&pair.number)?,
        ioctl::TIOCSPTLCK => {
            let on = at.read::<i32>()? != 0;
            pair.state.lock().is_locked = on;
        }
        ioctl::TIOCGPTLCK => {
            let locked = pair.state.lock().is_locked;
            at.write(&i32::from(locked))?;
        }
        ioctl::TIOCPKT => {
            let on = at.read::<i32>()? != 0;
            let packet = &mut pair.state.lock().wire.packet;
            *packet = if on { packet.or(Some(0)) } else { None };
        }
        ioctl::TIOCGPKT => {
            let on = pair.state.lock().wire.packet.is_some();
            at.write(&i32::from(on))?;
        }
        ioctl::TIOCSIG => {
            // What a key could send.
            let signo = arg as u32;
            if !matches!(signo, SIGINT | SIGQUIT | SIGTSTP) {
                return Err(Errno::EINVAL);
            }
            pair.job.signal(t.kernel, signo);
        }
        ioctl::TIOCGPTPEER => return open_peer(pair, t, file, arg as u32),
        _ => return common(pair, t, file, Side::Master, request, arg),
    }
    Ok(0)
}

/// Of the slave.
pub(super) fn slave(
    pair: &Arc<Pair>,
    t: &Thread,
    file: &File,
    request: u32,
    arg: u64,
) -> SysResult {
    common(pair, t, file, Side::Slave, request, arg)
}

/// `TIOCGPTPEER`: opens the slave, wherever its devpts is mounted.
fn open_peer(pair: &Pair, t: &Thread, file: &File, flags: u32) -> SysResult {
    let location = pair.devpts.locate(t.kernel, pair.number, file)?;
    let files = t.files();
    files.check_room(t)?;
    let file = open::open_found(t, location, flags)?;
    // Unlike open(2) it shows this among the file's flags.
    let close_on_exec = flags & O_CLOEXEC;
    file.set_flags(file.flags() | close_on_exec);
    let fd = files.alloc(t, file, close_on_exec != 0)?;
    Ok(fd as usize)
}

fn common(
    pair: &Arc<Pair>,
    t: &Thread,
    file: &File,
    side: Side,
    request: u32,
    arg: u64,
) -> SysResult {
    let at = UserAddr(arg);
    let is_master = side == Side::Master;
    match request {
        ioctl::TCGETS | ioctl::TCGETS2 | ioctl::TCGETA => {
            let settings = *pair.state.lock().line.settings();
            match request {
                ioctl::TCGETS => at.write(&settings.to_termios())?,
                ioctl::TCGETS2 => at.write(&settings.to_termios2())?,
                _ => at.write(&settings.to_termio())?,
            }
        }
        ioctl::TCSETS
        | ioctl::TCSETSW
        | ioctl::TCSETSF
        | ioctl::TCSETS2
        | ioctl::TCSETSW2
        | ioctl::TCSETSF2
        | ioctl::TCSETA
        | ioctl::TCSETAW
        | ioctl::TCSETAF => set_settings(pair, t, request, at)?,
        ioctl::TIOCGSOFTCAR => {
            let control = pair.state.lock().line.settings().control;
            at.write(&i32::from(control & CLOCAL != 0))?;
        }
        ioctl::TIOCSSOFTCAR => {
            let on = at.read::<i32>()? != 0;
            pair.change(|state| {
                let mut settings = *state.line.settings();
                settings.control = settings.control & !CLOCAL | if on { CLOCAL } else { 0 };
                state.line.set_settings(settings, &mut state.wire);
            });
        }
        ioctl::TIOCGWINSZ => {
            let size = pair.state.lock().size;
            at.write(&size)?;
        }
        ioctl::TIOCSWINSZ => pair.resize(at.read::<winsize>()?),
        ioctl::TIOCGPGRP => at.write(&job::foreground(t, &**pair, is_master)?)?,
        ioctl::TIOCSPGRP => job::set_foreground(t, &**pair, || at.read::<i32>())?,
        ioctl::TIOCGSID => at.write(&job::session(t, &**pair, is_master)?)?,
        ioctl::TIOCSCTTY => job::set_controlling(t, pair.clone(), file.is_readable(), arg)?,
        // A master is nobody's terminal.
        ioctl::TIOCNOTTY if is_master => return Err(Errno::ENOTTY),
        ioctl::TIOCNOTTY => job::give_up(t, &**pair)?,
        ioctl::TIOCVHANGUP if !t.is_capable(CAP_SYS_ADMIN) => return Err(Errno::EPERM),
        ioctl::TIOCVHANGUP if !is_master => job::Tty::hang_up(&**pair, t.kernel),
        ioctl::FIONREAD => {
            let state = pair.state.lock();
            let bytes = if is_master {
                state.wire.queue.bytes.len().min(MASTER_READ_BYTES)
            } else {
                state.line.available()
            };
            drop(state);
            at.write(&i32::try_from(bytes).unwrap_or(i32::MAX))?;
        }
        // What was written has arrived: it waits at the other side.
        ioctl::TIOCOUTQ => at.write(&0i32)?,
        ioctl::TCFLSH => {
            check_change(pair, t, side)?;
            flush(pair, side, arg)?;
        }
        ioctl::TCXONC => {
            check_change(pair, t, side)?;
            flow(pair, side, arg)?;
        }
        ioctl::TCSBRK | ioctl::TCSBRKP | ioctl::TIOCSBRK | ioctl::TIOCCBRK => {
            check_change(pair, t, side)?;
        }
        ioctl::TIOCSTI => push_input(pair, t, side, at)?,
        ioctl::TIOCEXCL | ioctl::TIOCNXCL => {
            let mut state = pair.state.lock();
            let on = request == ioctl::TIOCEXCL;
            if is_master {
                state.is_master_exclusive = on;
            } else {
                state.is_exclusive = on;
            }
        }
        ioctl::TIOCGEXCL => {
            let state = pair.state.lock();
            let on = if is_master {
                state.is_master_exclusive
            } else {
                state.is_exclusive
            };
            drop(state);
            at.write(&i32::from(on))?;
        }
        ioctl::TIOCGDEV => {
            let device = u32::try_from(job::Tty::device(&**pair)).map_err(|_| Errno::EOVERFLOW)?;
            at.write(&device)?;
        }
        ioctl::TIOCGETD => at.write(&0i32)?,
        ioctl::TIOCSETD => {
            check_change(pair, t, side)?;
            // There is one line discipline.
            if at.read::<i32>()? != 0 {
                return Err(Errno::EINVAL);
            }
        }
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

/// Whether `t` may change the side it has open: the master is nobody's terminal.
fn check_change(pair: &Pair, t: &Thread, side: Side) -> Result<()> {
    match side {
        Side::Master => Ok(()),
        Side::Slave => job::check_change(t, pair),
    }
}

fn set_settings(pair: &Pair, t: &Thread, request: u32, at: UserAddr) -> Result<()> {
    job::check_change(t, pair)?;
    let old = *pair.state.lock().line.settings();
    let new: Settings = match request {
        ioctl::TCSETA | ioctl::TCSETAW | ioctl::TCSETAF => {
            old.changed_by_old(&at.read::<termio>()?)
        }
        ioctl::TCSETS2 | ioctl::TCSETSW2 | ioctl::TCSETSF2 => {
            old.changed_by_2(&at.read::<termios2>()?)
        }
        _ => old.changed_by(&at.read::<termios>()?),
    };
    let flushes = matches!(request, ioctl::TCSETSF | ioctl::TCSETSF2 | ioctl::TCSETAF);
    pair.change(|state| {
        if flushes {
            state.line.flush_input(&mut state.wire);
        }
        state
            .line
            .set_settings(new.for_pseudo_terminal(), &mut state.wire);
    });
    // Other settings may mean that there is something to read.
    pair.slave_input.wake_all();
    pair.slave_output.wake_all();
    Ok(())
}

/// `TCFLSH`.
fn flush(pair: &Pair, side: Side, what: u64) -> Result<()> {
    let what = u32::try_from(what).map_err(|_| Errno::EINVAL)?;
    if what > TCIOFLUSH {
        return Err(Errno::EINVAL);
    }
    let (input, output) = (what != TCOFLUSH, what != TCIFLUSH);
    pair.change(|state| match side {
        Side::Slave => {
            if input {
                state.line.flush_input(&mut state.wire);
            }
            if output {
                state.line.flush_output(&mut state.wire);
            }
        }
        Side::Master => {
            if input {
                let queue = &mut state.wire.queue;
                let len = queue.bytes.len().min(MASTER_READ_BYTES);
                queue.bytes.drain(..len);
                queue.shrunk();
            }
            if output {
                state.typed.bytes.clear();
                state.typed.shrunk();
            }
        }
    });
    Ok(())
}

/// `TCXONC`.
fn flow(pair: &Pair, side: Side, what: u64) -> Result<()> {
    let what = u32::try_from(what).map_err(|_| Errno::EINVAL)?;
    let is_master = side == Side::Master;
    pair.change(|state| {
        match what {
            TCOOFF | TCOON if is_master => state.is_master_stopped = what == TCOOFF,
            TCOOFF | TCOON => state.line.hold(what == TCOOFF, &mut state.wire),
            // The other side is asked, as a person would.
            TCIOFF | TCION => {
                let index = if what == TCIOFF { VSTOP } else { VSTART };
                let character = if is_master {
                    Settings::default().character(index)
                } else {
                    state.line.settings().character(index)
                };
                if character != DISABLED && is_master {
                    state.typed.push(&[character]);
                } else if character != DISABLED {
                    state.wire.send(&[character]);
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    })
}

/// `TIOCSTI`: as if it had been typed. Others' terminals are for the privileged.
fn push_input(pair: &Pair, t: &Thread, side: Side, at: UserAddr) -> Result<()> {
    let is_own = side == Side::Slave && t.process.controlling.is(pair);
    if !is_own && !t.is_capable(CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let byte = at.read::<u8>()?;
    pair.change(|state| match side {
        Side::Slave => {
            state.line.receive(&[byte], &mut state.wire);
        }
        Side::Master => state.wire.send(&[byte]),
    });
    Ok(())
}
