//! Exceptions of user code, as signals (`arch/x86/kernel/traps.c`).

use husk_abi::boundary::layout::USER_END;
use husk_abi::linux::general;
use husk_hal::fpu;

use crate::process::{cpuid, ptrace};
use crate::user::UserAddr;
use crate::{Thread, translate};

use super::info::{Info, SI_KERNEL};
use super::send::force;
use super::set::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
use super::state::LastFault;

/// Error code bit of a page fault: the page was there.
const ERROR_PRESENT: u64 = 1;

/// TF in rflags.
pub const TRAP_FLAG: u64 = 1 << 8;

const DIVIDE: u64 = 0;
const DEBUG: u64 = 1;
const BREAKPOINT: u64 = 3;
const INVALID_OPCODE: u64 = 6;
const COPROCESSOR_OVERRUN: u64 = 9;
const SEGMENT_NOT_PRESENT: u64 = 11;
const STACK_SEGMENT: u64 = 12;
const PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;
const SPURIOUS: u64 = 15;
const X87: u64 = 16;
const ALIGNMENT: u64 = 17;
const SIMD: u64 = 19;
const CONTROL_PROTECTION: u64 = 21;

/// What `si_addr` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// Not set.
    Nowhere,
    /// The instruction.
    Instruction,
}

/// Signal, code and address of an exception that is no page fault and no floating-point error.
fn classify(vector: u64) -> (i32, i32, Where) {
    use Where::{Instruction, Nowhere};
    let (signo, code, address) = match vector {
        DIVIDE => (SIGFPE, general::FPE_INTDIV, Instruction),
        DEBUG => (SIGTRAP, general::TRAP_TRACE, Instruction),
        BREAKPOINT => (SIGTRAP, general::SI_KERNEL, Nowhere),
        INVALID_OPCODE => (SIGILL, general::ILL_ILLOPN, Instruction),
        COPROCESSOR_OVERRUN => (SIGFPE, general::SI_KERNEL, Nowhere),
        SEGMENT_NOT_PRESENT | STACK_SEGMENT => (SIGBUS, general::SI_KERNEL, Nowhere),
        ALIGNMENT => (SIGBUS, general::BUS_ADRALN, Nowhere),
        CONTROL_PROTECTION => (SIGSEGV, general::SEGV_CPERR, Nowhere),
        // #OF, #BR, #NM, #DF, #TS, #GP and what no CPU should send.
        _ => (SIGSEGV, general::SI_KERNEL, Nowhere),
    };
    (signo, code.cast_signed(), address)
}

/// `si_code` of a floating-point error from its unmasked exception bits (`IE DE ZE OE UE PE`); `None` if there
/// are none.
fn float_code(errors: u32) -> Option<i32> {
    let code = if errors & 0x01 != 0 {
        general::FPE_FLTINV
    } else if errors & 0x04 != 0 {
        general::FPE_FLTDIV
    } else if errors & 0x08 != 0 {
        general::FPE_FLTOVF
    } else if errors & 0x12 != 0 {
        general::FPE_FLTUND
    } else if errors & 0x20 != 0 {
        general::FPE_FLTRES
    } else {
        return None;
    };
    Some(code.cast_signed())
}

/// The unmasked exceptions in an FXSAVE image: of the x87 unit or of SSE.
fn float_errors(vector: u64, state: &[u8]) -> u32 {
    let half = |at: usize| u32::from(state[at]) | u32::from(state[at + 1]) << 8;
    if vector == X87 {
        let (control, status) = (half(0), half(2));
        status & !control & 0x3f
    } else {
        let mxcsr = half(24);
        mxcsr & !(mxcsr >> 7) & 0x3f
    }
}

/// Exception `vector` of the running thread's user code, with the CPU's `error` code; `address` is CR2 for a page
/// fault. Handles what memory management can, and otherwise raises the signal.
pub fn user_exception(t: &Thread, vector: u64, address: u64, error: u64) {
    let is_translations = match vector {
        DEBUG => translate::is_extra_step(t) || ptrace::stepped(t),
        // A jump between instructions that a jump to a thunk has replaced.
        INVALID_OPCODE => translate::enter(t),
        _ => false,
    };
    if is_translations {
        return;
    }
    let info = match vector {
        PAGE_FAULT => match t.sched.in_libos(|| t.mm().fault(address, error)) {
            Ok(()) => return,
            Err(fault) => Info::fault(fault.signo, fault.code, address),
        },
        X87 | SIMD => {
            let errors = float_errors(vector, fpu::State::of_running().bytes());
            // Spurious ones go away by trying again.
            let Some(code) = float_code(errors) else {
                return;
            };
            Info::fault(SIGFPE, code, instruction(t))
        }
        SPURIOUS => return,
        PROTECTION if error == 0 && cpuid::emulate(t) => {
            if t.frame().get().rflags & TRAP_FLAG != 0 {
                stepped(t);
            }
            return;
        }
        // PVM reports `int n` as an invalid opcode; hardware and Linux as a protection fault.
        INVALID_OPCODE if is_software_interrupt(t) => Info::kernel(SIGSEGV),
        _ => match classify(vector) {
            (signo, code, Where::Instruction) => Info::fault(signo, code, instruction(t)),
            (signo, SI_KERNEL, Where::Nowhere) => Info::kernel(signo),
            (signo, code, Where::Nowhere) => Info::fault(signo, code, 0),
        },
    };
    {
        let mut last = t.signals.last_fault.lock();
        last.vector = vector;
        last.error = error;
        if vector == PAGE_FAULT {
            last.address = address;
            // What exists up there is not a program's business.
            if address >= USER_END {
                last.error |= ERROR_PRESENT;
            }
        }
    }
    crate::log!(
        Debug,
        "signal",
        "{} ({}): exception {vector} error {error:#x} address {address:#x} at {:#x}, stack {:#x}",
        t.process.executable().escape_ascii(),
        t.tid(),
        instruction(t),
        t.frame().get().rsp
    );
    force(t, &info);
}

/// The thread, which single-steps, has gone past an instruction that was done for it.
pub fn stepped(t: &Thread) {
    if ptrace::stepped(t) {
        return;
    }
    let code = general::TRAP_TRACE.cast_signed();
    force(t, &Info::fault(SIGTRAP, code, instruction(t)));
}

/// Whether the program stands at an `int n`.
fn is_software_interrupt(t: &Thread) -> bool {
    const INT_N: u8 = 0xcd;
    UserAddr(t.frame().rip()).read::<u8>() == Ok(INT_N)
}

/// Where the program sees itself.
fn instruction(t: &Thread) -> u64 {
    translate::original_rip(t, t.frame().rip())
}

const _: () = assert!(size_of::<LastFault>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions() {
        use Where::*;
        let kernel = SI_KERNEL;
        for (vector, expected) in [
            (0, (SIGFPE, 1, Instruction)),
            (1, (SIGTRAP, 2, Instruction)),
            (3, (SIGTRAP, kernel, Nowhere)),
            (4, (SIGSEGV, kernel, Nowhere)),
            (5, (SIGSEGV, kernel, Nowhere)),
            (6, (SIGILL, 2, Instruction)),
            (11, (SIGBUS, kernel, Nowhere)),
            (12, (SIGBUS, kernel, Nowhere)),
            (13, (SIGSEGV, kernel, Nowhere)),
            (17, (SIGBUS, 1, Nowhere)),
        ] {
            assert_eq!(classify(vector), expected, "vector {vector}");
        }
    }

    #[test]
    fn floating_point() {
        let mut state = [0u8; 512];
        // Control word: all masked but zero divide; status: zero divide and precision.
        state[0] = 0x3b;
        state[2] = 0x24;
        assert_eq!(float_code(float_errors(X87, &state)), Some(3));
        // MXCSR: overflow unmasked and raised, precision raised and masked.
        state[24..26].copy_from_slice(&(0x1f80u16 & !(1 << 10) | 0x28).to_le_bytes());
        assert_eq!(float_code(float_errors(SIMD, &state)), Some(4));
        state[24..26].copy_from_slice(&0x1fbfu16.to_le_bytes());
        assert_eq!(float_code(float_errors(SIMD, &state)), None);
        for (errors, code) in [(1, 7), (2, 5), (4, 3), (8, 4), (16, 5), (32, 6), (33, 7)] {
            assert_eq!(float_code(errors), Some(code));
        }
    }
}
