//! Staying with a container: its signals and its end.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::terminal::Relay;
use crate::oci::state::Container;
use crate::oci::{Error, lifecycle};

/// Waits for the end of `container`, whose process is this one's child, and passes signals on to it, and
/// changes of size to its `terminal`. Returns its
/// exit status as a shell has it.
///
/// # Errors
/// When it cannot be waited for.
pub fn wait(container: &Container, terminal: Option<&Relay>) -> Result<u8, Error> {
    let failed = |errno: Errno| Error::Host {
        what: "wait for the container".to_owned(),
        source: errno.into(),
    };
    let pid = container.record.init.map(|init| Pid::from_raw(init.pid));
    let mut signals = SigSet::all();
    // What this process brings upon itself stays its own.
    for own in [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGTRAP,
        Signal::SIGABRT,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGTSTP,
    ] {
        signals.remove(own);
    }
    signals.thread_block().map_err(failed)?;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => {
                return Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX));
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Ok(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            // The terminal tells the container itself.
            Ok(Signal::SIGWINCH) if terminal.is_some() => {
                terminal.into_iter().for_each(Relay::resize);
            }
            Ok(signal) => match lifecycle::kill(container, signal as i32, false) {
                Ok(()) | Err(Error::NotRunning) => {}
                Err(error) => tracing::warn!("{error}"),
            },
        }
    }
}
