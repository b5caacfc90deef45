//! The register frame every way into the libOS leaves at the top of the thread's libOS stack; a debugger reads it from
//! outside.

/// `TrapFrame::code` bit of a system call that must return by `iretq`, restoring every register.
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
// x86_64/entry.rs of the hardware layer knows the offsets.
super::assert_size!(TrapFrame, 22 * 8);

impl TrapFrame {
    /// A frame that enters user code at `rip` with stack `rsp`, everything else 0.
    #[must_use]
    pub fn user_entry(rip: u64, rsp: u64) -> Self {
        use super::layout::selector;
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

/// Words of a [`TrapFrame`].
pub const FRAME_WORDS: usize = size_of::<TrapFrame>() / 8;

impl TrapFrame {
    /// The frame whose memory holds `words`.
    #[must_use]
    pub fn from_words(words: &[u64; FRAME_WORDS]) -> Self {
        let [
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            orig_rax,
            code,
            rip,
            cs,
            rflags,
            rsp,
            ss,
        ] = *words;
        Self {
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            orig_rax,
            code,
            rip,
            cs,
            rflags,
            rsp,
            ss,
        }
    }

    /// The words its memory holds.
    #[must_use]
    pub fn to_words(&self) -> [u64; FRAME_WORDS] {
        [
            self.r15,
            self.r14,
            self.r13,
            self.r12,
            self.rbp,
            self.rbx,
            self.r11,
            self.r10,
            self.r9,
            self.r8,
            self.rax,
            self.rcx,
            self.rdx,
            self.rsi,
            self.rdi,
            self.orig_rax,
            self.code,
            self.rip,
            self.cs,
            self.rflags,
            self.rsp,
            self.ss,
        ]
    }
}
