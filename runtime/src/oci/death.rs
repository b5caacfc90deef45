//! How a container's process ended, for a command that is not its parent.
//!
//! `start` waits for a report of the VMM and sees only that there will be none. The wait status belongs to the parent,
//! an engine's shim as a rule. But the kernel shows it: in `/proc/PID/stat` until the parent has taken it, and through a
//! pidfd afterwards (`PIDFD_GET_INFO`, Linux 6.15 and later).
#![allow(unsafe_code, reason = "an ioctl that nix does not offer")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::state::Init;
use super::{figures, pidfd, state};
use crate::oci::cgroup::Cgroup;

/// `struct pidfd_info` (linux/pidfd.h), its first version.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}
const _: () = assert!(size_of::<Info>() == 64);

/// `PIDFD_INFO_EXIT`.
const INFO_EXIT: u64 = 1 << 3;

/// `PIDFD_GET_INFO`.
const GET_INFO: libc::c_ulong = nix::request_code_readwrite!(0xff, 11, size_of::<Info>());

/// How long an exit may take once the process has closed its files, in milliseconds: it frees the guest's memory then.
const PATIENCE_MS: u16 = 10_000;

/// A process whose end will be of interest.
#[derive(Debug)]
pub struct Watched {
    init: Init,
    /// None where the process is gone already, or the kernel has no pidfds.
    pidfd: Option<OwnedFd>,
}

impl Watched {
    /// To be called while the process lives.
    pub fn new(init: Init) -> Self {
        let pidfd = pidfd::open(init.pid).ok().filter(|_| init.is_alive());
        Self { init, pidfd }
    }

    /// Waits until it has ended, which is to be soon, and returns its wait status; `None` if its parent took that
    /// and the kernel does not tell any more.
    pub fn end(&self) -> Option<ExitStatus> {
        let pidfd = self.pidfd.as_ref()?;
        let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ended, PollTimeout::from(PATIENCE_MS));
        let status = state::exit_code(&self.init).or_else(|| told_by(pidfd))?;
        Some(ExitStatus::from_raw(status))
    }
}

fn told_by(pidfd: &OwnedFd) -> Option<i32> {
    let mut info = Info {
        mask: INFO_EXIT,
        ..Info::default()
    };
    // SAFETY: the kernel fills in a structure of the size that the number of the ioctl names.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    (result == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

/// What to say about a VMM that ended with `status`, before its guest said anything, in the container's `cgroup`.
pub fn before_the_program(status: Option<ExitStatus>, cgroup: Option<&Cgroup>) -> String {
    let oom_kills = cgroup.map_or(0, figures::oom_kills);
    format!(
        "its VMM {} before the program ran{}",
        how(status),
        advice(status, oom_kills)
    )
}

/// What to say about a VMM that its own or the kernel's doing ended while the program ran; `None` for ends that a user asks for.
pub fn unasked(status: ExitStatus, cgroup: Option<&Cgroup>) -> Option<String> {
    let oom_kills = cgroup.map_or(0, figures::oom_kills);
    let signal = status.signal()?;
    if signal == libc::SIGKILL && oom_kills == 0 {
        return None;
    }
    let (how, advice) = (how(Some(status)), advice(Some(status), oom_kills));
    Some(format!("the container's VMM {how}{advice}"))
}

fn how(status: Option<ExitStatus>) -> String {
    let Some(status) = status else {
        return "died".to_owned();
    };
    match (status.signal(), status.code()) {
        (Some(number), _) => match Signal::try_from(number) {
            Ok(signal) => format!("was killed by {signal}"),
            Err(_) => format!("was killed by signal {number}"),
        },
        (None, code) => format!("ended with status {}", code.unwrap_or(-1)),
    }
}

fn advice(status: Option<ExitStatus>, oom_kills: u64) -> &'static str {
    match status.and_then(|status| status.signal()) {
        Some(libc::SIGKILL) if oom_kills > 0 => {
            ": the container's cgroup on the host ran out of memory; give it a higher memory limit"
        }
        Some(libc::SIGKILL) => {
            ": somebody killed it, or the host ran out of memory (its kernel log tells)"
        }
        Some(libc::SIGSYS) => {
            ": its own system call filter refused a call, a bug in husk (the host's kernel log has the call's number: \
             dmesg | grep seccomp)"
        }
        Some(_) => ": a bug in husk; its log (--debug --log FILE) may tell more",
        None => "; its log (--debug --log FILE) may tell more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_end_is_seen_before_and_after_the_parent_takes_it() {
        for (script, raw) in [("exit 7", 7 << 8), ("kill -KILL $$", libc::SIGKILL)] {
            let mut child = Command::new("sh")
                .args(["-c", &format!("read x; {script}")])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let watched = Watched::new(Init::of(child.id().cast_signed()).unwrap());
            drop(child.stdin.take());
            assert_eq!(watched.end(), Some(ExitStatus::from_raw(raw)), "{script}");
            let taken = child.wait().unwrap();
            let later = watched.end();
            assert!(later.is_none_or(|status| status == taken), "{later:?}");
        }
    }

    #[test]
    fn what_is_said() {
        let say = |raw| before_the_program(Some(ExitStatus::from_raw(raw)), None);
        assert!(say(libc::SIGSYS).starts_with(
            "its VMM was killed by SIGSYS before the program ran: its own system call filter"
        ));
        assert!(
            say(libc::SIGSEGV | 0x80).contains("SIGSEGV") && say(libc::SIGSEGV).contains("bug")
        );
        assert!(say(3 << 8).starts_with("its VMM ended with status 3 before"));
        assert!(before_the_program(None, None).starts_with("its VMM died before"));
        assert!(
            advice(Some(ExitStatus::from_raw(libc::SIGKILL)), 1).contains("higher memory limit")
        );
        let unasked = |raw| unasked(ExitStatus::from_raw(raw), None);
        assert_eq!(unasked(libc::SIGKILL), None);
        assert_eq!(unasked(7 << 8), None);
        assert!(unasked(libc::SIGSYS).is_some_and(|text| text.contains("SIGSYS")));
    }
}
