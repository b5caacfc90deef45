//! What a thread asks of the scheduler (`sched(7)`).

use husk_abi::boundary::boot::MAX_VCPUS;
use husk_abi::linux::general::SCHED_NORMAL;

/// One bit a vCPU; `affinity` is a single word.
const _: () = assert!(MAX_VCPUS <= 64);

/// Scheduling parameters of a thread. Every vCPU serves its threads in turn, so policies and nice values are
/// kept and reported, not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedParams {
    /// `SCHED_OTHER`, `SCHED_BATCH` or `SCHED_IDLE`.
    pub policy: u32,
    /// `SCHED_RESET_ON_FORK`.
    pub reset_on_fork: bool,
    /// Nice value, -20 to 19.
    pub nice: i32,
    /// vCPUs it may run on, one bit each; bits of vCPUs that do not exist are clear.
    pub affinity: u64,
    /// `ioprio_set(2)`'s value.
    pub io_priority: u32,
}

impl SchedParams {
    /// What the first thread starts with.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            policy: SCHED_NORMAL,
            reset_on_fork: false,
            nice: 0,
            affinity: u64::MAX,
            io_priority: 0,
        }
    }

    /// What a thread that this one makes starts with.
    #[must_use]
    pub fn of_child(self) -> Self {
        if self.reset_on_fork {
            Self {
                policy: SCHED_NORMAL,
                reset_on_fork: false,
                nice: self.nice.max(0),
                affinity: self.affinity,
                io_priority: self.io_priority,
            }
        } else {
            self
        }
    }
}

impl Default for SchedParams {
    fn default() -> Self {
        Self::new()
    }
}

/// The bits of the vCPUs there are.
#[must_use]
pub fn cpu_mask(count: usize) -> u64 {
    if count >= 64 {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::{SchedParams, cpu_mask};

    #[test]
    fn masks() {
        assert_eq!(cpu_mask(1), 1);
        assert_eq!(cpu_mask(6), 0x3f);
        assert_eq!(cpu_mask(64), u64::MAX);
    }

    #[test]
    fn children_inherit_unless_told_otherwise() {
        let mut params = SchedParams {
            policy: 3,
            nice: -5,
            ..SchedParams::new()
        };
        assert_eq!(params.of_child(), params);
        params.reset_on_fork = true;
        assert_eq!(params.of_child(), SchedParams::new());
        params.nice = 7;
        assert_eq!(params.of_child().nice, 7);
    }
}
