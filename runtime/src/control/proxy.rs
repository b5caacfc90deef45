//! The process that stands for one in the container: signals for it go there, and its end is this one's.
#![allow(unsafe_code, reason = "ioctls for a terminal's size")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use husk_abi::boundary::config::WindowSize;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::client::Client;
use super::wire::{Answer, Ask};

/// `si_code` of a signal the kernel sent: a terminal's.
const SI_KERNEL: i32 = 0x80;

/// Signals for the process in the container, held until they are passed on.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Holds all signals but those this process brings upon itself, and those that stop it where `stops` says so.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn hold(stops: bool) -> io::Result<Self> {
        let mut set = SigSet::all();
        for own in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGTRAP,
            Signal::SIGABRT,
        ] {
            set.remove(own);
        }
        if stops {
            for stop in [
                Signal::SIGTSTP,
                Signal::SIGTTIN,
                Signal::SIGTTOU,
                Signal::SIGCONT,
            ] {
                set.remove(stop);
            }
        }
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next one: its number, and whether the terminal sent it.
    ///
    /// # Errors
    /// What reading gives.
    pub fn next(&self) -> io::Result<Option<(i32, bool)>> {
        Ok(self.0.read_signal()?.map(|info| {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            (number, info.ssi_code == SI_KERNEL)
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The size of `terminal`, if it has one.
#[must_use]
pub fn window(terminal: BorrowedFd<'_>) -> Option<WindowSize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request fills a `winsize`.
    let known = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) } == 0;
    (known && size.ws_row != 0 && size.ws_col != 0).then_some(WindowSize {
        rows: size.ws_row,
        columns: size.ws_col,
        x_pixels: size.ws_xpixel,
        y_pixels: size.ws_ypixel,
    })
}

/// Passes signals, and sizes of `terminal`, to the process that `client` runs until that ends; gives its wait status. One
/// that ends with its container was killed.
///
/// # Errors
/// When the VMM does not speak as it should.
pub fn stay(
    mut client: Client,
    signals: &Signals,
    terminal: Option<BorrowedFd<'_>>,
) -> io::Result<i32> {
    loop {
        while let Some(answer) = client.received()? {
            match answer {
                Answer::Ended(status) => return Ok(status),
                Answer::Refused(why) => return Err(io::Error::other(why)),
                _ => {}
            }
        }
        let mut fds =
            [client.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let [answered, signalled] = fds.map(|fd| fd.any().unwrap_or(true));
        if signalled && let Some((number, from_terminal)) = signals.next()? {
            let ask = match (number, terminal) {
                (libc::SIGCHLD, _) => None,
                (libc::SIGWINCH, Some(terminal)) => window(terminal).map(Ask::Resize),
                (libc::SIGHUP, _) => Some(Ask::Signal(number)),
                (_, Some(_)) if from_terminal => Some(Ask::TerminalSignal(number)),
                _ => Some(Ask::Signal(number)),
            };
            // A VMM that is gone shows below.
            let _ = ask.map(|ask| client.ask(&ask, &[]));
        }
        if answered && !client.receive()? {
            return Ok(libc::SIGKILL);
        }
    }
}

/// Ends this process by the signal in `status`, if it is one's, without a core file. Returns for an exit, with the code.
#[must_use]
pub fn mirror(status: i32) -> u8 {
    if let Ok(signal) = Signal::try_from(status & 0x7f) {
        // SAFETY: no pointers.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: the default action runs no code of ours.
        let _ = unsafe { sigaction(signal, &default) };
        let _ = SigSet::from(signal).thread_unblock();
        let _ = raise(signal);
    }
    exit_status(status)
}

/// A wait status as a shell has it.
#[must_use]
pub fn exit_status(status: i32) -> u8 {
    match status & 0x7f {
        0 => u8::try_from(status >> 8 & 0xff).unwrap_or(u8::MAX),
        signal => 128 + u8::try_from(signal).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::exit_status;

    #[test]
    fn statuses() {
        assert_eq!(exit_status(0), 0);
        assert_eq!(exit_status(7 << 8), 7);
        assert_eq!(exit_status(9), 137);
        assert_eq!(exit_status(15 | 0x80), 143);
    }
}
