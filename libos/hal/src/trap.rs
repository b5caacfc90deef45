//! The register frame every way into the libOS leaves on the thread's stack.

use core::cell::UnsafeCell;

pub use husk_abi::boundary::frame::{EXIT_FULL, TrapFrame};

/// `TrapFrame::code` of a system call that came through a thunk.
pub const ENTRY_TRANSLATED: u64 = 0;
/// `TrapFrame::code` of a system call that trapped to `MSR_LSTAR`.
pub const ENTRY_TRAPPED: u64 = 1;
/// The frame at the top of the running thread's stack, which handlers, signal code and the assembly all
/// read and write: accessed by copies, never borrowed.
#[repr(transparent)]
#[derive(Debug)]
pub struct LiveFrame(UnsafeCell<TrapFrame>);

impl LiveFrame {
    /// A frame that is not on a stack, for tests and for building one.
    #[must_use]
    pub fn new(frame: TrapFrame) -> Self {
        Self(UnsafeCell::new(frame))
    }

    /// Copies the frame.
    #[must_use]
    pub fn get(&self) -> TrapFrame {
        // SAFETY: `LiveFrame` is not `Sync` and hands out no references, so nothing else accesses it now.
        unsafe { *self.0.get() }
    }

    /// Replaces the frame.
    pub fn set(&self, frame: &TrapFrame) {
        // SAFETY: as in `get`.
        unsafe { *self.0.get() = *frame }
    }

    /// Changes the frame in place.
    pub fn update(&self, change: impl FnOnce(&mut TrapFrame)) {
        let mut frame = self.get();
        change(&mut frame);
        self.set(&frame);
    }

    /// The system call's number; `u64::MAX` if it is not one (any more).
    #[must_use]
    pub fn nr(&self) -> u64 {
        // SAFETY: as in `get`.
        unsafe { (*self.0.get()).orig_rax }
    }

    /// How the libOS was entered and how it will return.
    #[must_use]
    pub fn code(&self) -> u64 {
        // SAFETY: as in `get`.
        unsafe { (*self.0.get()).code }
    }

    /// The user's instruction pointer.
    #[must_use]
    pub fn rip(&self) -> u64 {
        // SAFETY: as in `get`.
        unsafe { (*self.0.get()).rip }
    }

    /// The system call's arguments.
    #[must_use]
    pub fn args(&self) -> [u64; 6] {
        // SAFETY: as in `get`.
        let frame = unsafe { &*self.0.get() };
        [
            frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9,
        ]
    }

    /// Sets the system call's result.
    pub fn set_rax(&self, value: u64) {
        // SAFETY: as in `get`.
        unsafe { (*self.0.get()).rax = value }
    }
}
