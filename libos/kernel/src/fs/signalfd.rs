//! Signals read from a descriptor (`signalfd(2)`).
//!
//! A read takes what waits for the reading thread or its process, whoever made the descriptor; so does readiness.

use alloc::string::String;
use alloc::sync::Arc;

use husk_abi::linux::general;

use super::anon::PlainAnonInode;
use super::poll::PollTable;
use super::{File, FileOps, PollEvents};
use crate::signal::{self, Info, SigSet};
use crate::sync::{Interruptible, SpinLock};
use crate::syscall::{Fd, Hex, Len, Ptr};
use crate::user::IoBuf;
use crate::{Errno, Result, SysResult, Thread};

/// Bytes of a `struct signalfd_siginfo`.
const RECORD_BYTES: usize = 128;

/// A set of signals to read.
#[derive(Debug)]
pub struct SignalFd {
    wanted: SpinLock<SigSet>,
}

impl SignalFd {
    fn wanted(&self) -> SigSet {
        *self.wanted.lock()
    }

    /// The line it adds to `/proc/*/fdinfo`.
    #[must_use]
    pub fn fdinfo(&self) -> String {
        alloc::format!("sigmask:\t{:016x}\n", self.wanted().0)
    }
}

impl FileOps for SignalFd {
    fn read(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        if buf.remaining() < RECORD_BYTES {
            return Err(Errno::EINVAL);
        }
        let take = || signal::take_pending(t, self.wanted());
        let mut next = match take() {
            None if file.is_nonblocking() => return Err(Errno::EAGAIN),
            None => Some(
                t.process
                    .signals
                    .arrivals
                    .wait(t, Interruptible::Yes, None, take)
                    .map_err(|error| error.errno(Errno::ERESTARTSYS))?,
            ),
            taken => taken,
        };
        let mut bytes = 0;
        while let Some(info) = next {
            if buf.put(&record(&info))? < RECORD_BYTES {
                // What was taken is lost, as on Linux.
                return if bytes > 0 {
                    Ok(bytes)
                } else {
                    Err(Errno::EFAULT)
                };
            }
            bytes += RECORD_BYTES;
            next = if buf.remaining() < RECORD_BYTES {
                None
            } else {
                take()
            };
        }
        Ok(bytes)
    }

    fn poll(&self, t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&t.process.signals.arrivals);
        }
        let pending = SigSet(t.signals.pending().0 | t.process.signals.pending().0);
        if SigSet(pending.0 & self.wanted().0).is_empty() {
            PollEvents::empty()
        } else {
            PollEvents::IN
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// Which fields of `siginfo_t` mean something (Linux's `siginfo_layout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fields {
    Sender,
    Queued,
    Timer,
    Poll,
    Fault,
    Child,
    Call,
}

impl Fields {
    fn of(signo: i32, code: i32) -> Self {
        if code > signal::info::SI_USER && code < signal::info::SI_KERNEL {
            return match signo.cast_unsigned() {
                general::SIGCHLD => Self::Child,
                general::SIGILL
                | general::SIGFPE
                | general::SIGSEGV
                | general::SIGBUS
                | general::SIGTRAP => Self::Fault,
                general::SIGSYS => Self::Call,
                _ => Self::Poll,
            };
        }
        match code {
            general::SI_TIMER => Self::Timer,
            general::SI_SIGIO => Self::Poll,
            _ if code < 0 => Self::Queued,
            _ => Self::Sender,
        }
    }
}

/// Copies parts of a `siginfo_t` to where a `signalfd_siginfo` has them.
fn record(info: &Info) -> [u8; RECORD_BYTES] {
    let from = info.to_bytes();
    let mut to = [0; RECORD_BYTES];
    let mut copy = |at: usize, source: usize, bytes: usize| {
        to[at..at + bytes].copy_from_slice(&from[source..source + bytes]);
    };
    // ssi_signo, ssi_errno, ssi_code.
    copy(0, 0, 12);
    match Fields::of(info.signo, info.code) {
        // ssi_pid, ssi_uid.
        Fields::Sender => copy(12, 16, 8),
        Fields::Queued => {
            copy(12, 16, 8);
            // ssi_int, ssi_ptr.
            copy(44, 24, 4);
            copy(48, 24, 8);
        }
        Fields::Timer => {
            // ssi_tid, ssi_overrun.
            copy(24, 16, 4);
            copy(32, 20, 4);
            copy(44, 24, 4);
            copy(48, 24, 8);
        }
        Fields::Poll => {
            // ssi_band, ssi_fd.
            copy(28, 16, 4);
            copy(20, 24, 4);
        }
        // ssi_addr.
        Fields::Fault => copy(72, 16, 8),
        Fields::Child => {
            copy(12, 16, 8);
            // ssi_status, ssi_utime, ssi_stime.
            copy(40, 24, 4);
            copy(56, 32, 16);
        }
        Fields::Call => {
            // ssi_call_addr, ssi_syscall, ssi_arch.
            copy(88, 16, 8);
            copy(84, 24, 4);
            copy(96, 28, 4);
        }
    }
    to
}

/// `signalfd(2)`, the call without flags.
///
/// # Errors
/// As [`signalfd4`].
pub fn signalfd(t: &Thread, fd: Fd, mask: Ptr, sizemask: Len) -> SysResult {
    signalfd4(t, fd, mask, sizemask, 0)
}

/// `signalfd4(2)`.
///
/// # Errors
/// `EINVAL` for a bad size, unknown flags or a descriptor of another kind; `EFAULT`, `EBADF`, `EMFILE`.
pub fn signalfd4(t: &Thread, fd: Fd, mask: Ptr, sizemask: Len, flags: Hex) -> SysResult {
    if sizemask != size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    let wanted = SigSet(mask.read()?).without(SigSet::UNBLOCKABLE);
    let flags = flags as u32;
    if flags & !(general::O_CLOEXEC | general::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    if fd != -1 {
        let file = t.files().get(fd)?;
        let ops = file.ops.as_any();
        let existing = ops.downcast_ref::<SignalFd>().ok_or(Errno::EINVAL)?;
        *existing.wanted.lock() = wanted;
        // Who waits may have something to read now.
        t.process.signals.arrivals.wake_all();
        return Ok(fd.cast_unsigned() as usize);
    }
    let file = File::new(
        Arc::new(SignalFd {
            wanted: SpinLock::new(wanted),
        }),
        PlainAnonInode::new(t),
        b"anon_inode:[signalfd]".to_vec(),
        general::O_RDWR | flags & general::O_NONBLOCK,
    );
    let fd = t.files().alloc(t, file, flags & general::O_CLOEXEC != 0)?;
    Ok(fd as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8; RECORD_BYTES], at: usize) -> u32 {
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    #[test]
    fn records_of_senders_timers_and_faults() {
        let kill = record(&Info::kill(10, 77, 1000));
        assert_eq!((word(&kill, 0), word(&kill, 8)), (10, 0));
        assert_eq!((word(&kill, 12), word(&kill, 16)), (77, 1000));
        let timer = record(&Info::timer(14, 3, 2, 0x1_0000_0005));
        assert_eq!((word(&timer, 24), word(&timer, 32)), (3, 2));
        assert_eq!(
            (word(&timer, 44), word(&timer, 48), word(&timer, 52)),
            (5, 5, 1)
        );
        assert_eq!(word(&timer, 12), 0);
        let fault = record(&Info::fault(11, 1, 0xabc0));
        assert_eq!((word(&fault, 72), word(&fault, 12)), (0xabc0, 0));
    }

    #[test]
    fn which_fields_count() {
        assert_eq!(Fields::of(17, 1), Fields::Child);
        assert_eq!(Fields::of(17, 0), Fields::Sender);
        assert_eq!(Fields::of(35, -1), Fields::Queued);
        assert_eq!(Fields::of(35, general::SI_TKILL), Fields::Queued);
        assert_eq!(Fields::of(29, 1), Fields::Poll);
        assert_eq!(Fields::of(11, signal::info::SI_KERNEL), Fields::Sender);
    }
}
