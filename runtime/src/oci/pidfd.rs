//! Processes by descriptor, and signals to one that cannot become another one in between (`pidfd_open(2)`).
#![allow(unsafe_code, reason = "two system calls that nix does not offer")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::state::Init;

/// What `siginfo_t` holds of a signal that `sigqueue(3)` sent.
#[repr(C)]
struct Queued {
    number: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}
const _: () = assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>());

/// A descriptor of process `pid`.
///
/// # Errors
/// What `pidfd_open(2)` gives.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made it for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends signal `number` to `init`, with `value` if there is one. False if it is dead.
///
/// # Errors
/// What `pidfd_send_signal(2)` gives.
pub fn send(init: &Init, number: i32, value: Option<u64>) -> io::Result<bool> {
    let fd = match open(init.pid) {
        Ok(fd) => fd,
        Err(error) => return not_found(error),
    };
    // Now the number cannot be given away; was it before?
    if !init.is_alive() {
        return Ok(false);
    }
    let queued = value.map(|value| Queued {
        number,
        errno: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        pid: std::process::id().cast_signed(),
        uid: nix::unistd::getuid().as_raw(),
        value,
        rest: [0; 12],
    });
    let info = queued.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the kernel makes the siginfo itself where none is given; one that is has its size and lives through the call.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), number, info, 0) } {
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
        assert!(!send(&other, libc::SIGKILL, None).unwrap());
        assert!(send(&init, libc::SIGKILL, None).unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(!send(&init, libc::SIGKILL, None).unwrap());
    }
}
