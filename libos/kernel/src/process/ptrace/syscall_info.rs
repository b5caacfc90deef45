//! `PTRACE_GET_SYSCALL_INFO`: `struct ptrace_syscall_info`.

use husk_abi::linux::ptrace::{
    PTRACE_EVENT_SECCOMP, PTRACE_EVENTMSG_SYSCALL_ENTRY, PTRACE_EVENTMSG_SYSCALL_EXIT,
    PTRACE_SYSCALL_INFO_ENTRY, PTRACE_SYSCALL_INFO_EXIT, PTRACE_SYSCALL_INFO_NONE,
    PTRACE_SYSCALL_INFO_SECCOMP,
};

use super::state::{Stopped, event_code};
use crate::process::Thread;
use crate::signal::set::SIGTRAP;
use crate::user::UserAddr;
use crate::{Errno, SysResult};

/// Bytes of the struct.
const BYTES: usize = 88;
/// Where the part that depends on the kind of stop starts.
const PART: usize = 24;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// The lowest result that is no error.
const FIRST_ERROR: u64 = -4095_i64 as u64;

/// The struct for a stop with event message `message`, and how many bytes of it count.
fn describe(stopped: &Stopped, message: u64) -> ([u8; BYTES], usize) {
    let mut bytes = [0; BYTES];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let words = stopped.registers.words();
    let [nr, ip, sp, result] = [words[15], words[16], words[19], words[10]];
    let args = [14, 13, 12, 7, 9, 8].map(|index: usize| words[index]);
    let code = stopped.info.map_or(0, |info| info.code);
    let is_call = code == SIGTRAP | 0x80;
    let op = match u32::try_from(message) {
        Ok(PTRACE_EVENTMSG_SYSCALL_ENTRY) if is_call => PTRACE_SYSCALL_INFO_ENTRY,
        Ok(PTRACE_EVENTMSG_SYSCALL_EXIT) if is_call => PTRACE_SYSCALL_INFO_EXIT,
        _ if code == event_code(PTRACE_EVENT_SECCOMP, SIGTRAP) => PTRACE_SYSCALL_INFO_SECCOMP,
        _ => PTRACE_SYSCALL_INFO_NONE,
    };
    put(0, &[op as u8]);
    put(4, &AUDIT_ARCH_X86_64.to_le_bytes());
    put(8, &ip.to_le_bytes());
    put(16, &sp.to_le_bytes());
    let len = match op {
        PTRACE_SYSCALL_INFO_ENTRY | PTRACE_SYSCALL_INFO_SECCOMP => {
            put(PART, &nr.to_le_bytes());
            for (index, arg) in args.into_iter().enumerate() {
                put(PART + 8 + index * 8, &arg.to_le_bytes());
            }
            if op == PTRACE_SYSCALL_INFO_SECCOMP {
                put(PART + 56, &(message as u32).to_le_bytes());
                PART + 60
            } else {
                PART + 56
            }
        }
        PTRACE_SYSCALL_INFO_EXIT => {
            put(PART, &result.to_le_bytes());
            put(PART + 8, &[u8::from(result >= FIRST_ERROR)]);
            PART + 9
        }
        _ => PART,
    };
    (bytes, len)
}

/// Writes as much of it as `size` has room for; returns how much there is.
pub(super) fn get(tracee: &Thread, size: u64, to: UserAddr) -> SysResult {
    let (bytes, len) = {
        let state = tracee.trace.state.lock();
        let stopped = state.stopped.as_ref().ok_or(Errno::ESRCH)?;
        describe(stopped, state.message)
    };
    let wanted = usize::try_from(size).unwrap_or(usize::MAX).min(len);
    to.write_bytes(&bytes[..wanted])?;
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::super::registers::Registers;
    use super::*;
    use crate::signal::Info;

    fn stopped(code: i32) -> Stopped {
        let mut registers = Registers::for_tests();
        for (index, value) in [
            (15, 1),
            (14, 11),
            (13, 12),
            (12, 13),
            (7, 14),
            (9, 15),
            (8, 16),
        ] {
            registers.set_word(index, value).unwrap();
        }
        registers.set_word(10, -22_i64 as u64).unwrap();
        Stopped {
            code,
            info: Some(Info::notice(SIGTRAP, code, 5, 0)),
            registers,
        }
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn entry_and_exit() {
        let (bytes, len) = describe(&stopped(SIGTRAP | 0x80), 1);
        assert_eq!((bytes[0], len), (1, 80));
        assert_eq!(bytes[4..8], [0x3e, 0, 0, 0xc0]);
        assert_eq!((word(&bytes, 8), word(&bytes, 16)), (0x4000, 0x8000));
        let shown: Vec<u64> = (0..7).map(|index| word(&bytes, 24 + index * 8)).collect();
        assert_eq!(shown, [1, 11, 12, 13, 14, 15, 16]);
        let (bytes, len) = describe(&stopped(SIGTRAP | 0x80), 2);
        assert_eq!((bytes[0], len), (2, 33));
        assert_eq!((word(&bytes, 24) as i64, bytes[32]), (-22, 1));
    }

    #[test]
    fn other_stops() {
        // Without PTRACE_O_TRACESYSGOOD nobody can tell.
        let (bytes, len) = describe(&stopped(SIGTRAP), 1);
        assert_eq!((bytes[0], len), (0, 24));
        let (bytes, len) = describe(&stopped(event_code(PTRACE_EVENT_SECCOMP, SIGTRAP)), 7);
        assert_eq!((bytes[0], len, bytes[80]), (3, 84, 7));
    }
}
