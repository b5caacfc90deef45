//! A vCPU's registers as a debugger wants them.

use husk_abi::boundary::frame::TrapFrame;
use kvm_bindings::{kvm_regs, kvm_sregs};

/// Trap flag: an exception after the next instruction.
pub const TF: u64 = 0x100;

/// General registers and what goes with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 to r15: the order of gdb.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Code segment.
    pub cs: u16,
    /// Stack segment.
    pub ss: u16,
    /// FS base.
    pub fs_base: u64,
    /// GS base.
    pub gs_base: u64,
    /// CR3: guest physical address of the PML4.
    pub root: u64,
}

impl Registers {
    /// What KVM says.
    #[must_use]
    pub fn of_vcpu(regs: &kvm_regs, sregs: &kvm_sregs) -> Self {
        Self {
            general: [
                regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp,
                regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
            ],
            rip: regs.rip,
            rflags: regs.rflags,
            cs: sregs.cs.selector,
            ss: sregs.ss.selector,
            fs_base: sregs.fs.base,
            gs_base: sregs.gs.base,
            root: sregs.cr3,
        }
    }

    /// For KVM.
    #[must_use]
    pub fn to_vcpu(&self) -> kvm_regs {
        let [
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = self.general;
        kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip: self.rip,
            rflags: self.rflags,
        }
    }

    /// What a frame the libOS left says; `rest` gives what is not in a frame.
    #[must_use]
    pub fn of_frame(frame: &TrapFrame, rest: &Self) -> Self {
        Self {
            general: [
                frame.rax, frame.rbx, frame.rcx, frame.rdx, frame.rsi, frame.rdi, frame.rbp,
                frame.rsp, frame.r8, frame.r9, frame.r10, frame.r11, frame.r12, frame.r13,
                frame.r14, frame.r15,
            ],
            rip: frame.rip,
            rflags: frame.rflags,
            cs: frame.cs as u16,
            ss: frame.ss as u16,
            ..*rest
        }
    }

    /// Puts the general registers, instruction pointer and flags into `frame`.
    pub fn put_into(&self, frame: &mut TrapFrame) {
        let [
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = self.general;
        *frame = TrapFrame {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip: self.rip,
            rflags: self.rflags,
            ..*frame
        };
    }

    /// Frame pointer.
    #[must_use]
    pub fn rbp(&self) -> u64 {
        self.general[6]
    }

    /// Stack pointer.
    #[must_use]
    pub fn rsp(&self) -> u64 {
        self.general[7]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_registers_agree() {
        let words: [u64; 22] = std::array::from_fn(|index| 100 + index as u64);
        let frame = TrapFrame::from_words(&words);
        assert_eq!(frame.to_words(), words);
        let rest = Registers {
            root: 7,
            ..Registers::default()
        };
        let registers = Registers::of_frame(&frame, &rest);
        assert_eq!((registers.rip, registers.root), (frame.rip, 7));
        let mut copy = TrapFrame {
            orig_rax: frame.orig_rax,
            code: frame.code,
            cs: frame.cs,
            ss: frame.ss,
            ..TrapFrame::default()
        };
        registers.put_into(&mut copy);
        assert_eq!(copy, frame);
        let regs = registers.to_vcpu();
        let back = Registers::of_vcpu(&regs, &kvm_sregs::default());
        assert_eq!(back.general, registers.general);
    }
}
