//! What comes with a signal: `siginfo_t` (`sigaction(2)`).

use husk_abi::linux::general;

use crate::sched::CpuTimes;
use crate::user::UserAddr;
use crate::{Errno, Process, Result};

use super::set::{self, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS};

/// Bytes of `siginfo_t`.
pub const SIGINFO_BYTES: usize = general::SI_MAX_SIZE as usize;
/// Where the fields that depend on the code start.
const FIELDS: usize = 16;
/// Bytes of them any code uses; the rest of `siginfo_t` is zero.
const FIELD_BYTES: usize = 32;

/// Nanoseconds in a clock tick, the unit of times in `siginfo_t`.
const TICK_NS: u64 = 10_000_000;
/// What `wait(2)` reports for a process that goes on.
pub(super) const STATUS_CONTINUED: i32 = 0xffff;

/// Sent by `kill(2)`.
pub const SI_USER: i32 = general::SI_USER as i32;
/// Sent by the kernel.
pub const SI_KERNEL: i32 = general::SI_KERNEL as i32;

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A program of the container.
    Program,
    /// The kernel itself.
    Kernel,
    /// The host, from outside the container.
    Host,
}

/// A signal and what is known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its number, valid.
    pub signo: i32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    /// Who sent it.
    pub origin: Origin,
    fields: [u8; FIELD_BYTES],
}

impl Info {
    fn new(signo: i32, code: i32, origin: Origin) -> Self {
        Self {
            signo,
            errno: 0,
            code,
            origin,
            fields: [0; FIELD_BYTES],
        }
    }

    fn put<const N: usize>(mut self, offset: usize, bytes: [u8; N]) -> Self {
        self.fields[offset - FIELDS..offset - FIELDS + N].copy_from_slice(&bytes);
        self
    }

    fn sender(self, pid: u32, uid: u32) -> Self {
        self.put(16, pid.to_le_bytes()).put(20, uid.to_le_bytes())
    }

    /// `kill(2)` by process `pid` of user `uid`.
    #[must_use]
    pub fn kill(signo: i32, pid: u32, uid: u32) -> Self {
        Self::new(signo, SI_USER, Origin::Program).sender(pid, uid)
    }

    /// `tkill(2)` by process `pid` of user `uid`.
    #[must_use]
    pub fn tkill(signo: i32, pid: u32, uid: u32) -> Self {
        Self::new(signo, general::SI_TKILL, Origin::Program).sender(pid, uid)
    }

    /// From outside the container: reaches init even if it has no handler, as far as `SIGKILL` and `SIGSTOP`
    /// are concerned (`pid_namespaces(7)`).
    #[must_use]
    pub fn from_host(signo: i32) -> Self {
        Self::new(signo, SI_USER, Origin::Host)
    }

    /// From the kernel, without details (terminals, `SIGPIPE`).
    #[must_use]
    pub fn kernel(signo: i32) -> Self {
        Self::new(signo, SI_KERNEL, Origin::Kernel)
    }

    /// A fault of the thread itself at `addr`.
    #[must_use]
    pub fn fault(signo: i32, code: i32, addr: u64) -> Self {
        Self::new(signo, code, Origin::Kernel).put(16, addr.to_le_bytes())
    }

    /// A seccomp filter forbids call `nr` made at `at`, with `data` (`si_call_addr`, `si_syscall`, `si_arch`, `si_errno`).
    #[must_use]
    pub fn seccomp(at: u64, nr: u64, data: u32) -> Self {
        const SYS_SECCOMP: i32 = 1;
        const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
        let mut info = Self::new(SIGSYS, SYS_SECCOMP, Origin::Kernel)
            .put(16, at.to_le_bytes())
            .put(24, (nr as u32).to_le_bytes())
            .put(28, AUDIT_ARCH_X86_64.to_le_bytes());
        info.errno = data.cast_signed();
        info
    }

    /// Child `child` changed state as `wait_status` says, in the encoding of `wait(2)`; for signal `signo`
    /// (`SIGCHLD`, or what the child was cloned with).
    #[must_use]
    pub fn child_exit(signo: i32, child: &Process, wait_status: i32) -> Self {
        let uid = child.signals.uid();
        Self::child(signo, child.pid, uid, wait_status, child.times())
    }

    /// `si_utime` and `si_stime`.
    fn times(self, times: CpuTimes) -> Self {
        self.put(32, (times.user_ns() / TICK_NS).to_le_bytes())
            .put(40, (times.system_ns / TICK_NS).to_le_bytes())
    }

    /// [`Info::child_exit`] of process `pid` of user `uid` that has used that much vCPU time.
    fn child(signo: i32, pid: u32, uid: u32, wait_status: i32, times: CpuTimes) -> Self {
        let (code, status) = decode_wait_status(wait_status);
        Self::new(signo, code.cast_signed(), Origin::Kernel)
            .sender(pid, uid)
            .put(24, status.to_le_bytes())
            .times(times)
    }

    /// What a ptrace-stop that is no signal's shows: `code` is the stop's, `tid` and `uid` the tracee's.
    #[must_use]
    pub fn notice(signo: i32, code: i32, tid: u32, uid: u32) -> Self {
        Self::new(signo, code, Origin::Kernel).sender(tid, uid)
    }

    /// For a tracer: `tracee` has stopped, `why` is `CLD_TRAPPED` or `CLD_STOPPED`.
    #[must_use]
    pub fn tracee(signo: i32, why: u32, tracee: &crate::Thread, status: i32) -> Self {
        Self::new(signo, why.cast_signed(), Origin::Kernel)
            .sender(tracee.tid(), tracee.credentials().uid)
            .put(24, status.to_le_bytes())
            .times(tracee.sched.times())
    }

    /// For a tracer: thread `tracee` has ended as `wait_status` says.
    #[must_use]
    pub fn thread_end(signo: i32, tracee: &crate::Thread, wait_status: i32) -> Self {
        let uid = tracee.credentials().uid;
        let times = tracee.sched.times();
        Self::child(signo, tracee.tid(), uid, wait_status, times)
    }

    /// [`Info::child_exit`] of thread `tid` of `process`.
    #[must_use]
    pub fn ended(signo: i32, tid: u32, process: &Process, wait_status: i32) -> Self {
        Self::child(
            signo,
            tid,
            process.signals.uid(),
            wait_status,
            CpuTimes::default(),
        )
    }

    /// A POSIX timer expired `overrun` times more than once.
    #[must_use]
    pub fn timer(signo: i32, timer: i32, overrun: i32, value: u64) -> Self {
        Self::new(signo, general::SI_TIMER, Origin::Kernel)
            .put(16, timer.to_le_bytes())
            .put(20, overrun.to_le_bytes())
            .put(24, value.to_le_bytes())
    }

    /// A message has come into an empty queue, from process `pid` of user `uid` (`mq_notify(3)`).
    #[must_use]
    pub fn message(signo: i32, pid: u32, uid: u32, value: u64) -> Self {
        Self::new(signo, general::SI_MESGQ, Origin::Kernel)
            .put(16, pid.to_le_bytes())
            .put(20, uid.to_le_bytes())
            .put(24, value.to_le_bytes())
    }

    /// Descriptor `fd` can do what `code` (`POLL_*`) and `band` (`POLL*` bits) say (`F_SETSIG`).
    #[must_use]
    pub fn io(signo: i32, code: u32, band: u64, fd: i32) -> Self {
        // Codes above 0 mean something else for signals that have codes of their own.
        let own_codes = [
            SIGILL,
            SIGFPE,
            SIGSEGV,
            SIGBUS,
            set::SIGTRAP,
            set::SIGCHLD,
            SIGSYS,
        ];
        let code = if own_codes.contains(&signo) {
            general::SI_SIGIO
        } else {
            code.cast_signed()
        };
        Self::new(signo, code, Origin::Kernel)
            .put(16, band.to_le_bytes())
            .put(24, fd.to_le_bytes())
    }

    /// The POSIX timer whose signal it is (`si_timerid`).
    #[must_use]
    pub fn timer_id(&self) -> Option<i32> {
        let [a, b, c, d, ..] = self.fields;
        let is_timer = self.origin == Origin::Kernel && self.code == general::SI_TIMER;
        is_timer.then_some(i32::from_le_bytes([a, b, c, d]))
    }

    /// The same with the overrun its timer has by now: to be called when it is taken from the queue.
    #[must_use]
    pub(super) fn taken_by(self, process: &crate::Process) -> Self {
        match self.timer_id() {
            Some(timer) => {
                let overrun = crate::time::signal_taken(process, timer);
                self.put(20, overrun.to_le_bytes())
            }
            None => self,
        }
    }

    /// A signal whose details were lost because its user's queue was full.
    #[must_use]
    pub fn lost(signo: i32) -> Self {
        Self::new(signo, SI_USER, Origin::Program)
    }

    /// Whether a program sent it, so that the rules for programs hold.
    #[must_use]
    pub fn is_from_program(&self) -> bool {
        self.origin == Origin::Program
    }

    /// The sender's process id (`si_pid`), for the codes that have one.
    #[must_use]
    pub fn pid(&self) -> u32 {
        u32::from_le_bytes([
            self.fields[0],
            self.fields[1],
            self.fields[2],
            self.fields[3],
        ])
    }

    /// As `siginfo_t`.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SIGINFO_BYTES] {
        let mut bytes = [0; SIGINFO_BYTES];
        bytes[..4].copy_from_slice(&self.signo.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.errno.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.code.to_le_bytes());
        bytes[FIELDS..FIELDS + FIELD_BYTES].copy_from_slice(&self.fields);
        bytes
    }

    /// What a program made (`rt_sigqueueinfo(2)`); the number in it is replaced by `signo`.
    ///
    /// # Errors
    /// `E2BIG` if the code is unknown and uses more of `siginfo_t` than any known one.
    pub fn from_program(signo: i32, bytes: &[u8; SIGINFO_BYTES]) -> Result<Self> {
        let word = |at: usize| {
            i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let code = word(8);
        let used = FIELDS + FIELD_BYTES;
        if !is_known(signo, code) && bytes[used..].iter().any(|byte| *byte != 0) {
            return Err(Errno::E2BIG);
        }
        let mut info = Self::new(signo, code, Origin::Program);
        info.errno = word(4);
        info.fields.copy_from_slice(&bytes[FIELDS..used]);
        Ok(info)
    }

    /// What a tracer made (`PTRACE_SETSIGINFO`), its number included.
    ///
    /// # Errors
    /// As [`Info::from_program`].
    pub fn from_tracer(bytes: &[u8; SIGINFO_BYTES]) -> Result<Self> {
        let [a, b, c, d, ..] = *bytes;
        Self::from_program(i32::from_le_bytes([a, b, c, d]), bytes)
    }

    /// Reads a program's `siginfo_t`, see [`Info::from_program`].
    ///
    /// # Errors
    /// `EFAULT`, `E2BIG`.
    pub fn read(signo: i32, at: UserAddr) -> Result<Self> {
        Self::from_program(signo, &at.read::<[u8; SIGINFO_BYTES]>()?)
    }
}

/// `si_code` and `si_status` for a status of `wait(2)`.
fn decode_wait_status(wait_status: i32) -> (u32, i32) {
    let (high, signo) = (wait_status >> 8 & 0xff, wait_status & 0x7f);
    match wait_status & 0xff {
        _ if wait_status == STATUS_CONTINUED => (general::CLD_CONTINUED, set::SIGCONT),
        0 => (general::CLD_EXITED, high),
        0x7f => (general::CLD_STOPPED, high),
        low if low & 0x80 != 0 => (general::CLD_DUMPED, signo),
        _ => (general::CLD_KILLED, signo),
    }
}

/// Whether the layout of `code`'s fields is known (Linux's `known_siginfo_layout`).
fn is_known(signo: i32, code: i32) -> bool {
    if code == SI_KERNEL {
        return true;
    }
    if code > SI_USER {
        // The highest code Linux 6 has for each of these signals.
        let limit = match signo {
            SIGILL => 11,
            SIGFPE => 15,
            SIGSEGV => 10,
            SIGBUS => 5,
            SIGSYS => 2,
            // SIGTRAP, SIGCHLD, SIGIO, and `POLL_*` for the rest.
            _ => 6,
        };
        return code <= limit;
    }
    code >= general::SI_DETHREAD || code == general::SI_ASYNCNL
}

const _: () = assert!(set::NSIG as u32 == general::_NSIG);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_match_libc() {
        use core::mem::offset_of;
        use husk_abi::linux::general as raw;
        assert_eq!(size_of::<raw::siginfo_t>(), SIGINFO_BYTES);
        assert_eq!(
            offset_of!(raw::siginfo__bindgen_ty_1__bindgen_ty_1, _sifields),
            FIELDS
        );
        assert_eq!(
            offset_of!(raw::__sifields__bindgen_ty_4, _status) + FIELDS,
            24
        );
        assert_eq!(
            offset_of!(raw::__sifields__bindgen_ty_4, _utime) + FIELDS,
            32
        );
        assert_eq!(
            offset_of!(raw::__sifields__bindgen_ty_4, _stime) + FIELDS,
            40
        );
        assert_eq!(
            offset_of!(raw::__sifields__bindgen_ty_2, _sigval) + FIELDS,
            24
        );
        assert_eq!(
            offset_of!(raw::__sifields__bindgen_ty_3, _sigval) + FIELDS,
            24
        );
    }

    #[test]
    fn bytes_of_a_child() {
        let times = CpuTimes {
            all_ns: 7 * TICK_NS,
            system_ns: 2 * TICK_NS,
        };
        let bytes = Info::child(17, 77, 1000, 3 << 8, times).to_bytes();
        assert_eq!(bytes[0], 17);
        assert_eq!(bytes[8], 1);
        assert_eq!(bytes[16], 77);
        assert_eq!(bytes[20..22], [0xe8, 3]);
        assert_eq!((bytes[24], bytes[32], bytes[40]), (3, 5, 2));
    }

    #[test]
    fn wait_statuses() {
        use general::{CLD_CONTINUED, CLD_DUMPED, CLD_EXITED, CLD_KILLED, CLD_STOPPED};
        for (status, expected) in [
            (0, (CLD_EXITED, 0)),
            (0x700, (CLD_EXITED, 7)),
            (9, (CLD_KILLED, 9)),
            (11 | 0x80, (CLD_DUMPED, 11)),
            (20 << 8 | 0x7f, (CLD_STOPPED, 20)),
            (0xffff, (CLD_CONTINUED, 18)),
        ] {
            assert_eq!(decode_wait_status(status), expected, "{status:#x}");
        }
    }

    #[test]
    fn programs_infos() {
        let mut bytes = [0u8; SIGINFO_BYTES];
        bytes[0] = 99;
        bytes[8..12].copy_from_slice(&general::SI_QUEUE.to_le_bytes());
        bytes[24] = 5;
        let info = Info::from_program(35, &bytes).unwrap();
        assert_eq!((info.signo, info.code), (35, -1));
        assert_eq!(info.to_bytes()[24], 5);
        // Known code: what lies beyond its fields is dropped. Unknown code: refused.
        bytes[100] = 1;
        assert_eq!(Info::from_program(35, &bytes).unwrap().to_bytes()[100], 0);
        bytes[8..12].copy_from_slice(&(-20i32).to_le_bytes());
        assert_eq!(Info::from_program(35, &bytes), Err(Errno::E2BIG));
    }
}
