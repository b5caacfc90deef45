//! Signals to a process that cannot become another one in between (`pidfd_open(2)`).
#![allow(unsafe_code, reason = "two system calls that nix does not offer")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::state::Init;

/// Sends signal `number` to `init`. False if it is dead.
///
/// # Errors
/// What `pidfd_send_signal(2)` gives.
pub fn send(init: &Init, number: i32) -> io::Result<bool> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, init.pid, 0) };
    let fd = match i32::try_from(fd) {
        // SAFETY: the kernel has just made it for us.
        Ok(fd) if fd >= 0 => unsafe { OwnedFd::from_raw_fd(fd) },
        _ => return not_found(io::Error::last_os_error()),
    };
    // Now the number cannot be given away; was it before?
    if !init.is_alive() {
        return Ok(false);
    }
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the kernel makes the siginfo itself where none is given.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), number, none, 0) } {
        0 => Ok(true),
        _ => not_found(io::Error::last_os_error()),
    }
}

fn not_found(error: io::Error) -> io::Result<bool> {
    match error.raw_os_error() {
        Some(libc::ESRCH) => Ok(false),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn only_the_one_that_is_meant() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let init = Init::of(child.id().cast_signed()).unwrap();
        let other = Init {
            started: init.started + 1,
            ..init
        };
        assert!(!send(&other, libc::SIGKILL).unwrap());
        assert!(send(&init, libc::SIGKILL).unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(!send(&init, libc::SIGKILL).unwrap());
    }
}
