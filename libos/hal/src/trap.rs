//! The register frame every way into the libOS leaves on the thread's stack.

use core::cell::UnsafeCell;

/// `TrapFrame::code` of a system call that came through a thunk.
pub const ENTRY_TRANSLATED: u64 = 0;
/// `TrapFrame::code` of a system call that trapped to `MSR_LSTAR`.
pub const ENTRY_TRAPPED: u64 = 1;
/// Bit in `TrapFrame::code` of a system call that must return by `iretq`, restoring every register.
pub const EXIT_FULL: u64 = 2;

/// All user registers, in the order the assembly pushes them. For a system call `orig_rax` is the number;
/// for exceptions and interrupts it is -1 and `code` is the CPU's error code.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the registers")]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}
const _: () = assert!(
    core::mem::size_of::<TrapFrame>() == 22 * 8,
    "x86_64/entry.rs knows the offsets"
);

impl TrapFrame {
    /// A frame that enters user code at `rip` with stack `rsp`, everything else 0.
    #[must_use]
    pub fn user_entry(rip: u64, rsp: u64) -> Self {
        use husk_abi::boundary::layout::selector;
        Self {
            rip,
            rsp,
            cs: u64::from(selector::USER_CODE),
            ss: u64::from(selector::USER_DATA),
            rflags: 0x202,
            orig_rax: u64::MAX,
            code: EXIT_FULL,
            ..Self::default()
        }
    }

    /// Whether the frame is a system call's (and may be restarted).
    #[must_use]
    pub fn is_syscall(&self) -> bool {
        self.orig_rax != u64::MAX
    }
}

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
