//! `membarrier(2)`.

use core::sync::atomic::{Ordering, fence};

use husk_abi::linux::general::membarrier_cmd as cmd;

use crate::syscall::{Hex, Int};
use crate::{Errno, SysResult, Thread};

/// `membarrier(2)`: with one vCPU every switch between threads orders their memory accesses already.
///
/// # Errors
/// `EINVAL` for unknown commands and flags; with several vCPUs for all but the query, which then offers nothing.
pub fn membarrier(t: &Thread, command: Int, flags: Hex, _cpu_id: Int) -> SysResult {
    const GLOBAL: u32 = cmd::MEMBARRIER_CMD_GLOBAL as u32
        | cmd::MEMBARRIER_CMD_GLOBAL_EXPEDITED as u32
        | cmd::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED as u32;
    const PRIVATE: u32 = cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED as u32
        | cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as u32
        | cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE as u32
        | cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE as u32;
    let offered = if t.kernel.sched.cpu_count() == 1 {
        GLOBAL | PRIVATE
    } else {
        0
    };
    let command = u32::try_from(command).map_err(|_| Errno::EINVAL)?;
    if flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    if command == cmd::MEMBARRIER_CMD_QUERY as u32 {
        return Ok(offered as usize);
    }
    if !command.is_power_of_two() || command & offered == 0 {
        return Err(Errno::EINVAL);
    }
    fence(Ordering::SeqCst);
    Ok(0)
}
