//! The vCPU's thread as the debugger's hand: it stops, shows and takes registers, steps.

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use husk_abi::boundary::frame::{FRAME_WORDS, TrapFrame};
use husk_abi::boundary::vcpu::{DEBUG_CONTINUE, DEBUG_NOT_OURS, DEBUG_STEP, VcpuShared};
use vm_memory::{Bytes, GuestAddress};

use super::{End, Vcpu};
use crate::vmm::debug::{Reason, Registers, Resume, Stop, TF};

/// Debug exception: a step.
const VECTOR_DB: u32 = 1;
/// Breakpoint exception.
const VECTOR_BP: u32 = 3;
const PUSHF: u8 = 0x9c;
/// The wait status of an init that `SIGKILL` ended.
const KILLED: u32 = 9;

/// A single step under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The instruction pushes the flags, with the TF that made it a step.
    pushes_flags: bool,
}

impl Vcpu {
    /// Whether somebody wants the vCPU to stop.
    pub(super) fn is_stop_wanted(&self) -> bool {
        self.inspector.debug.control(self.index).is_wanted()
    }

    /// Registers as KVM has them; `None` only if it refuses.
    fn registers(&self) -> Option<Registers> {
        let (regs, sregs) = (self.fd.get_regs().ok()?, self.fd.get_sregs().ok()?);
        Some(Registers::of_vcpu(&regs, &sregs))
    }

    /// Stops outside the guest until resumed. The end, if that is what came of it.
    pub(super) fn stop(&mut self, reason: Reason) -> Option<End> {
        // An exit that KVM has not completed would overwrite what is set now.
        self.fd.set_kvm_immediate_exit(1);
        let _ = self.fd.run();
        self.fd.set_kvm_immediate_exit(0);
        let mut registers = self.registers()?;
        if self.stepping.take().is_some() {
            registers.rflags &= !TF;
        }
        let resume = self.wait(reason, registers);
        if resume.kill {
            return Some(End::Shutdown(KILLED));
        }
        let mut registers = resume.registers;
        if resume.step {
            self.stepping = Some(self.step_at(&registers));
            registers.rflags |= TF;
        }
        if self.registers() != Some(registers) {
            let _ = self.fd.set_regs(&registers.to_vcpu());
        }
        None
    }

    fn wait(&self, reason: Reason, registers: Registers) -> Resume {
        let fpu = self.fd.get_fpu().unwrap_or_default();
        let stop = Stop {
            reason,
            registers,
            fpu,
        };
        let debug = &self.inspector.debug;
        debug.control(self.index).stop(stop, debug)
    }

    fn step_at(&self, registers: &Registers) -> Step {
        let mut opcode = [0];
        let space = &self.inspector.space;
        let read = space.read(registers.root, registers.rip, &mut opcode);
        self.inspector
            .hide_breakpoints(registers.rip, &mut opcode[..read]);
        Step {
            pushes_flags: opcode == [PUSHF],
        }
    }

    fn answer(&self, answer: u32) {
        let at = self.shared + offset_of!(VcpuShared, debug_answer) as u64;
        let _ = self
            .memory
            .store(answer, GuestAddress(at), Ordering::SeqCst);
    }

    /// The libOS shows a breakpoint or single-step trap.
    pub(super) fn trapped(&mut self, vector: u32) -> Option<End> {
        self.answer(DEBUG_NOT_OURS);
        let at = self.shared + offset_of!(VcpuShared, debug_frame) as u64;
        let at: u64 = self.memory.read_obj(GuestAddress(at)).ok()?;
        let rest = self.registers()?;
        let root = rest.root;
        let words = self.inspector.space.words::<FRAME_WORDS>(root, at)?;
        let mut frame = TrapFrame::from_words(&words);
        let reason = match vector {
            VECTOR_BP if self.inspector.debug.is_planted(frame.rip.wrapping_sub(1)) => {
                // The trap lies behind the breakpoint; the instruction is still to be executed.
                frame.rip -= 1;
                Reason::Breakpoint
            }
            VECTOR_DB if self.stepping.is_some() => Reason::Step,
            _ => return None,
        };
        if let Some(step) = self.stepping.take() {
            frame.rflags &= !TF;
            if step.pushes_flags
                && let Some([flags]) = self.inspector.space.words(root, frame.rsp)
            {
                let flags: u64 = flags & !TF;
                let space = &self.inspector.space;
                space.write(root, frame.rsp, &flags.to_le_bytes());
            }
        }
        let resume = self.wait(reason, Registers::of_frame(&frame, &rest));
        if resume.kill {
            return Some(End::Shutdown(KILLED));
        }
        resume.registers.put_into(&mut frame);
        if resume.step {
            self.stepping = Some(self.step_at(&resume.registers));
            frame.rflags |= TF;
        }
        let bytes: Vec<u8> = frame
            .to_words()
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        self.inspector.space.write(root, at, &bytes);
        self.answer(if resume.step {
            DEBUG_STEP
        } else {
            DEBUG_CONTINUE
        });
        None
    }

    /// The vCPU runs no more: keeps what it was doing for a report, and shows a crash to the debugger.
    pub(super) fn ended(&mut self, end: End) {
        let debug = self.inspector.debug.clone();
        let control = debug.control(self.index);
        if matches!(end, End::Shutdown(_)) {
            control.end(None);
            return;
        }
        if debug.is_attached()
            && let Some(registers) = self.registers()
        {
            let _ = self.wait(Reason::Crash, registers);
        }
        control.end(self.registers().map(|registers| Stop {
            reason: Reason::Crash,
            registers,
            fpu: self.fd.get_fpu().unwrap_or_default(),
        }));
    }
}
