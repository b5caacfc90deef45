//! A tracee's registers: what `PTRACE_GETREGS`, `PTRACE_PEEKUSER` and the register sets show and change.
//!
//! A thread that stops copies its registers here and takes them back when it goes on, so a tracer never touches a
//! stack or vector state another vCPU may be using.

use alloc::vec::Vec;

use husk_abi::boundary::layout::{USER_END, selector};
use husk_hal::trap::{EXIT_FULL, TrapFrame};
use husk_hal::{fpu, thread as hal_thread};

use super::state::{FORCED_TF, STEP};
use super::watch;
use crate::signal::fault::TRAP_FLAG;
use crate::signal::frame;
use crate::{Errno, Result, Thread, signal};

/// Words of `struct user_regs_struct`.
pub(super) const WORDS: usize = 27;
/// Flags a tracer may change (`FLAG_MASK`): CF, PF, AF, ZF, SF, TF, DF, OF, NT, RF, AC.
const CHANGEABLE_FLAGS: u64 = 0x5_4dd5;

const ORIG_RAX: usize = 15;
const RIP: usize = 16;
const CS: usize = 17;
const EFLAGS: usize = 18;
const SS: usize = 20;
const FS_BASE: usize = 21;
const GS_BASE: usize = 22;

/// All registers of a standing thread.
#[derive(Debug)]
pub(super) struct Registers {
    pub frame: TrapFrame,
    fs_base: u64,
    gs_base: u64,
    vector: fpu::State,
    vector_changed: bool,
    /// The frame is no system call's any more, but on Linux still shows that it was this one's.
    shown_call: Option<u64>,
}

impl Registers {
    /// The running thread's.
    pub fn of_running(t: &Thread, shown_call: Option<u64>) -> Self {
        let mut frame = t.frame().get();
        if frame.is_syscall() && frame.code & EXIT_FULL == 0 {
            // As `syscall` leaves them.
            frame.rcx = frame.rip;
            frame.r11 = frame.rflags;
        }
        if t.trace.take(FORCED_TF) {
            frame.rflags &= !TRAP_FLAG;
        }
        Self {
            frame,
            fs_base: hal_thread::live_fs_base(),
            gs_base: hal_thread::live_gs_base(),
            vector: fpu::State::of_running(),
            vector_changed: false,
            shown_call: shown_call.filter(|_| !frame.is_syscall()),
        }
    }

    /// Gives them back to the running thread, which goes on.
    pub fn apply(mut self, t: &Thread) {
        let frame = &mut self.frame;
        if t.trace.flags() & STEP != 0 && frame.rflags & TRAP_FLAG == 0 {
            frame.rflags |= TRAP_FLAG;
            t.trace.raise(FORCED_TF);
        }
        frame.code |= EXIT_FULL;
        if !frame::is_code_address(frame.rip) {
            // As if it had jumped there.
            frame.rip = t.frame().rip();
            signal::force(t, &signal::Info::kernel(signal::set::SIGSEGV));
        }
        t.frame().set(frame);
        if hal_thread::live_fs_base() != self.fs_base {
            hal_thread::set_live_fs_base(self.fs_base);
        }
        if hal_thread::live_gs_base() != self.gs_base {
            hal_thread::set_live_gs_base(self.gs_base);
        }
        if self.vector_changed {
            self.vector.restore();
        }
        watch::arm(t);
    }

    /// As `struct user_regs_struct`.
    pub fn words(&self) -> [u64; WORDS] {
        let f = &self.frame;
        [
            f.r15,
            f.r14,
            f.r13,
            f.r12,
            f.rbp,
            f.rbx,
            f.r11,
            f.r10,
            f.r9,
            f.r8,
            f.rax,
            f.rcx,
            f.rdx,
            f.rsi,
            f.rdi,
            self.shown_call.unwrap_or(f.orig_rax),
            f.rip,
            f.cs,
            f.rflags,
            f.rsp,
            f.ss,
            self.fs_base,
            self.gs_base,
            // ds, es, fs, gs
            0,
            0,
            0,
            0,
        ]
    }

    /// Changes word `index` of `struct user_regs_struct`.
    ///
    /// # Errors
    /// `EIO` for a value no program can have there.
    pub fn set_word(&mut self, index: usize, value: u64) -> Result<()> {
        let f = &mut self.frame;
        let place = match index {
            0 => &mut f.r15,
            1 => &mut f.r14,
            2 => &mut f.r13,
            3 => &mut f.r12,
            4 => &mut f.rbp,
            5 => &mut f.rbx,
            6 => &mut f.r11,
            7 => &mut f.r10,
            8 => &mut f.r9,
            9 => &mut f.r8,
            10 => &mut f.rax,
            11 => &mut f.rcx,
            12 => &mut f.rdx,
            13 => &mut f.rsi,
            14 => &mut f.rdi,
            ORIG_RAX => {
                // Written back as it was shown: the call stays over.
                if self.shown_call != Some(value) {
                    self.shown_call = None;
                    f.orig_rax = value;
                }
                return Ok(());
            }
            RIP => &mut f.rip,
            EFLAGS => {
                f.rflags = f.rflags & !CHANGEABLE_FLAGS | value & CHANGEABLE_FLAGS;
                return Ok(());
            }
            19 => &mut f.rsp,
            FS_BASE if value < USER_END => &mut self.fs_base,
            GS_BASE if value < USER_END => &mut self.gs_base,
            CS if value as u16 == selector::USER_CODE => return Ok(()),
            SS if value as u16 == selector::USER_DATA => return Ok(()),
            // There are no other segments.
            23..WORDS if value as u16 == 0 => return Ok(()),
            _ => return Err(Errno::EIO),
        };
        *place = value;
        Ok(())
    }

    /// The vector state as `NT_X86_XSTATE` shows it: an XSAVE area that names its features in the software bytes.
    pub fn xstate(&self) -> Vec<u8> {
        let mut area = self.vector.bytes().to_vec();
        if let Some(software) = area.get_mut(XSTATE_SOFTWARE..frame::FXSAVE_BYTES) {
            software.fill(0);
            software[..8].copy_from_slice(&fpu::features().to_le_bytes());
        }
        area
    }

    /// The x87 and SSE state in FXSAVE's format.
    pub fn fxsave(&self) -> Vec<u8> {
        let mut image = self.vector.bytes()[..frame::FXSAVE_BYTES].to_vec();
        image[XSTATE_SOFTWARE..].fill(0);
        image
    }

    /// Replaces the vector state by what `PTRACE_SETREGSET` of `NT_X86_XSTATE` brings.
    ///
    /// # Errors
    /// `EFAULT` if it is not a whole area, `EINVAL` for bits the vCPU has not.
    pub fn set_xstate(&mut self, area: &[u8]) -> Result<()> {
        if area.len() != fpu::size_bytes() {
            return Err(Errno::EFAULT);
        }
        let mut area = area.to_vec();
        if !frame::is_loadable(
            &mut area,
            fpu::features(),
            fpu::features(),
            self.vector.bytes(),
        ) {
            return Err(Errno::EINVAL);
        }
        self.vector.set(&area);
        self.vector_changed = true;
        Ok(())
    }

    /// Replaces the x87 and SSE state by an FXSAVE image, which may be cut short; the rest stays.
    ///
    /// # Errors
    /// `EINVAL` for MXCSR bits the vCPU has not.
    pub fn set_fxsave(&mut self, image: &[u8]) -> Result<()> {
        let mut area = self.vector.bytes().to_vec();
        let len = image.len().min(XSTATE_SOFTWARE);
        area[..len].copy_from_slice(&image[..len]);
        // Both are valid now, whatever they were.
        area[frame::FXSAVE_BYTES] |= 3;
        self.set_xstate(&area)
    }

    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self {
            frame: TrapFrame::user_entry(0x4000, 0x8000),
            fs_base: 0x1000,
            gs_base: 0,
            vector: fpu::State::initial(),
            vector_changed: false,
            shown_call: None,
        }
    }
}

/// Where the bytes that programs may use start in an FXSAVE image.
const XSTATE_SOFTWARE: usize = 464;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_user_regs_struct() {
        let mut registers = Registers::for_tests();
        for index in 0..15 {
            registers.set_word(index, 100 + index as u64).unwrap();
        }
        registers.set_word(ORIG_RAX, 39).unwrap();
        registers.set_word(RIP, 0x5000).unwrap();
        registers.set_word(19, 0x9000).unwrap();
        registers.set_word(GS_BASE, 0x2000).unwrap();
        let words = registers.words();
        assert_eq!(words[..4], [100, 101, 102, 103]);
        assert_eq!((words[10], words[14]), (110, 114));
        assert_eq!((registers.frame.rax, registers.frame.rdi), (110, 114));
        assert_eq!(words[15..20], [39, 0x5000, 0x33, 0x202, 0x9000]);
        assert_eq!(words[20..], [0x2b, 0x1000, 0x2000, 0, 0, 0, 0]);
        assert!(registers.frame.is_syscall());
    }

    #[test]
    fn what_no_program_can_have_is_refused() {
        let mut registers = Registers::for_tests();
        assert_eq!(registers.set_word(CS, 0x10), Err(Errno::EIO));
        assert_eq!(registers.set_word(SS, 0), Err(Errno::EIO));
        assert_eq!(registers.set_word(FS_BASE, 1 << 47), Err(Errno::EIO));
        assert_eq!(registers.set_word(23, 0x2b), Err(Errno::EIO));
        assert_eq!(registers.set_word(WORDS, 0), Err(Errno::EIO));
        for index in CS..WORDS {
            let shown = registers.words()[index];
            assert_eq!(registers.set_word(index, shown), Ok(()), "{index}");
        }
        registers.set_word(EFLAGS, u64::MAX).unwrap();
        assert_eq!(registers.frame.rflags, 0x202 | CHANGEABLE_FLAGS);
        registers.set_word(EFLAGS, 0).unwrap();
        assert_eq!(registers.frame.rflags, 0x202);
    }

    #[test]
    fn a_call_that_is_over_stays_over() {
        let mut registers = Registers {
            shown_call: Some(59),
            ..Registers::for_tests()
        };
        assert_eq!(registers.words()[ORIG_RAX], 59);
        registers.set_word(ORIG_RAX, 59).unwrap();
        assert!(!registers.frame.is_syscall());
        registers.set_word(ORIG_RAX, 1).unwrap();
        assert_eq!(registers.words()[ORIG_RAX], 1);
    }
}
