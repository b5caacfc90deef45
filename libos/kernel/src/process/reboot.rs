//! `reboot(2)` in a PID namespace that is not the host's: it ends the namespace's first process, and with it the container.

use husk_abi::linux::general::{CAP_SYS_BOOT, SIGHUP, SIGINT};

use super::{Thread, begin_group_exit, exit};
use crate::syscall::{Addr, Hex};
use crate::{Errno, SysResult};

const MAGIC1: u64 = 0xfee1_dead;
/// Birthdays, all of which are taken.
const MAGIC2: [u64; 4] = [0x2812_1969, 0x0512_1996, 0x1604_1998, 0x2011_2000];

const RESTART: u64 = 0x0123_4567;
const RESTART2: u64 = 0xa1b2_c3d4;
const HALT: u64 = 0xcdef_0123;
const POWER_OFF: u64 = 0x4321_fedc;

/// The signal that the first process seems to die of.
fn signal(magic: u64, magic2: u64, command: u64) -> Option<u32> {
    if magic & 0xffff_ffff != MAGIC1 || !MAGIC2.contains(&(magic2 & 0xffff_ffff)) {
        return None;
    }
    match command & 0xffff_ffff {
        RESTART | RESTART2 => Some(SIGHUP),
        HALT | POWER_OFF => Some(SIGINT),
        _ => None,
    }
}

/// `reboot(2)`.
///
/// # Errors
/// `EPERM`, `EINVAL`; otherwise it does not return.
pub fn reboot(t: &Thread, magic: Hex, magic2: Hex, command: Hex, _argument: Addr) -> SysResult {
    if !t.credentials().has(CAP_SYS_BOOT) {
        return Err(Errno::EPERM);
    }
    let signal = signal(magic, magic2, command).ok_or(Errno::EINVAL)?;
    if let Some(init) = t.kernel.tasks.process(1) {
        begin_group_exit(&init, signal.cast_signed());
    }
    exit::exit_thread(t, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_looks_like() {
        for (words, seen) in [
            ([MAGIC1, MAGIC2[0], RESTART], Some(SIGHUP)),
            // Programs pass what the C library made an int.
            (
                [u64::MAX << 32 | MAGIC1, MAGIC2[3], POWER_OFF],
                Some(SIGINT),
            ),
            ([MAGIC1, MAGIC2[1], HALT], Some(SIGINT)),
            ([MAGIC1, 5, HALT], None),
            ([5, MAGIC2[1], HALT], None),
            // Whether Ctrl-Alt-Del restarts is the host's.
            ([MAGIC1, MAGIC2[1], 0x89ab_cdef], None),
        ] {
            assert_eq!(signal(words[0], words[1], words[2]), seen, "{words:x?}");
        }
    }
}
