//! Syscall records.

use husk_abi::boundary::boot::BootInfo;

use crate::{SysResult, Thread};

/// Writes records.
#[derive(Debug)]
pub struct Recorder;

impl Recorder {
    /// The rings are in the boot info.
    #[must_use]
    pub fn new(_boot: &BootInfo) -> Self {
        Self
    }

    /// Whether the filter asks for calls of number `nr`.
    #[inline]
    #[must_use]
    pub fn wants(&self, _nr: u64) -> bool {
        false
    }

    /// Counts a call the libOS does not have; true the first time.
    pub fn count_missing(&self, _nr: u64) -> bool {
        true
    }
}

/// Runs `call` and records it.
pub fn recorded(
    thread: &Thread,
    nr: u64,
    args: [u64; 6],
    call: fn(&Thread, u64, [u64; 6]) -> SysResult,
) -> SysResult {
    call(thread, nr, args)
}
