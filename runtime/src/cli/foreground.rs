//! Staying with a container: its signals and its end.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::terminal::Relay;
use crate::oci::state::Container;
use crate::oci::{Error, death, lifecycle};
use crate::sandbox::signals;

/// The terminal of a container in the foreground.
#[derive(Debug)]
pub enum Foreground {
    /// It has none, or is not told of this one's signals.
    None,
    /// The caller's own.
    Shared,
    /// One of its own, joined to the caller's.
    Relayed(Relay),
}

/// Signals that a process brings upon itself, or that are a terminal's way to stop it.
const OWN: [Signal; 9] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGTSTP,
];

/// Waits for the end of `container`, whose process is this one's child, and passes signals on to it, and
/// changes of size to its `terminal`. Returns its
/// exit status as a shell has it.
///
/// # Errors
/// When it cannot be waited for.
pub fn wait(container: &Container, terminal: &Foreground) -> Result<u8, Error> {
    let failed = |errno: Errno| Error::Host {
        what: "wait for the container".to_owned(),
        source: errno.into(),
    };
    let pid = container.record.init.map(|init| Pid::from_raw(init.pid));
    let mut signals = SigSet::all();
    OWN.into_iter().for_each(|own| signals.remove(own));
    let is_shared = matches!(terminal, Foreground::Shared);
    if is_shared {
        signals.add(Signal::SIGTSTP);
    }
    signals.thread_block().map_err(failed)?;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => {
                return Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX));
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                let cgroup = container.cgroup().ok();
                let status = ExitStatus::from_raw(signal as i32);
                if let Some(line) = death::unasked(status, cgroup.as_ref()) {
                    super::report(&line);
                }
                return Ok(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let passed = match (signals::next(&signals), terminal) {
            (Ok((Signal::SIGCHLD, _)) | Err(_), _) => Ok(()),
            // The terminal tells the container itself.
            (Ok((Signal::SIGWINCH, _)), Foreground::Relayed(relay)) => {
                relay.resize();
                Ok(())
            }
            // The container is in no job of the caller's shell: it is stopped and continued as this process is.
            (Ok((Signal::SIGTSTP, _)), _) if is_shared => {
                let stopped = lifecycle::signal_vmm(container, Signal::SIGSTOP);
                let _ = nix::sys::signal::raise(Signal::SIGSTOP);
                stopped
            }
            (Ok((Signal::SIGCONT, _)), _) if is_shared => {
                lifecycle::signal_vmm(container, Signal::SIGCONT)
            }
            (Ok((signal, true)), Foreground::Shared) => {
                lifecycle::signal_foreground(container, signal as i32)
            }
            (Ok((signal, _)), _) => lifecycle::kill(container, signal as i32, false),
        };
        match passed {
            Ok(()) | Err(Error::NotRunning) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }
}
