//! Debug registers (`u_debugreg` of `struct user`): hardware breakpoints and watchpoints, done in software.
//!
//! Not every platform gives a guest debug registers (PVM does not), so a thread that has some enabled single-steps, and before
//! each instruction it is looked at what that is about to touch. What a system call stores is not seen, as on Linux.

use iced_x86::{
    Decoder, DecoderOptions, Instruction, InstructionInfoFactory, InstructionInfoOptions, OpAccess,
    Register,
};

use husk_abi::boundary::layout::USER_END;
use husk_abi::linux::general::{TRAP_HWBKPT, TRAP_TRACE};
use husk_hal::trap::{EXIT_FULL, TrapFrame};

use super::state::{DEBUG, FORCED_TF, STEP};
use crate::process::Thread;
use crate::signal::fault::TRAP_FLAG;
use crate::signal::set::SIGTRAP;
use crate::signal::{self, Info};
use crate::user::UserAddr;
use crate::{Errno, Result};

/// Registers with addresses.
const SLOTS: usize = 4;
/// DR6's bits that read as 1.
const STATUS_RESERVED: u64 = 0xffff_0ff0;
/// DR6: a single step.
const STATUS_STEP: u64 = 1 << 14;
/// DR7's bits that cannot be set.
const CONTROL_RESERVED: u64 = 0xffff_ffff_0000_fc00;
/// RF in rflags: the instruction's own breakpoint is passed over once.
const RESUME_FLAG: u64 = 1 << 16;
/// The longest instruction, by the architecture.
const LONGEST_INSTRUCTION: usize = 15;

/// What an enabled register waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Execute,
    Write,
    /// Reads and writes.
    Access,
}

/// A thread's debug registers.
#[derive(Debug, Default)]
pub(super) struct DebugRegisters {
    addresses: [u64; SLOTS],
    status: u64,
    control: u64,
    /// What lay at each watched address before the current instruction.
    before: [u64; SLOTS],
    /// Registers whose bytes the current instruction accesses.
    touched: u64,
}

impl DebugRegisters {
    /// Register `index`, as `PTRACE_PEEKUSER` shows it.
    pub fn get(&self, index: usize) -> u64 {
        match index {
            0..SLOTS => self.addresses[index],
            6 => self.status ^ STATUS_RESERVED,
            7 => self.control,
            _ => 0,
        }
    }

    /// Sets register `index`; whether any is enabled then.
    ///
    /// # Errors
    /// `EINVAL` for what no register can watch, `EIO` for registers there are not.
    pub fn set(&mut self, index: usize, value: u64) -> Result<bool> {
        match index {
            0..SLOTS if value >= USER_END => return Err(Errno::EINVAL),
            0..SLOTS => {
                let old = core::mem::replace(&mut self.addresses[index], value);
                if let Err(errno) = self.check(self.control) {
                    self.addresses[index] = old;
                    return Err(errno);
                }
            }
            6 => self.status = value ^ STATUS_RESERVED,
            7 => {
                let control = value & !CONTROL_RESERVED;
                self.check(control)?;
                self.control = control;
            }
            _ => return Err(Errno::EIO),
        }
        Ok((0..SLOTS).any(|slot| is_enabled(self.control, slot)))
    }

    /// Whether what `control` enables can be watched.
    fn check(&self, control: u64) -> Result<()> {
        for slot in (0..SLOTS).filter(|slot| is_enabled(control, *slot)) {
            let address = self.addresses[slot];
            let len = len_of(control, slot);
            match kind_of(control, slot) {
                Some(Kind::Execute) if len != 1 => return Err(Errno::EINVAL),
                Some(_) if address.is_multiple_of(len) => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(())
    }

    /// The enabled registers: slot, kind, address, bytes.
    fn enabled(&self) -> impl Iterator<Item = (usize, Kind, u64, u64)> {
        let control = self.control;
        self.addresses
            .into_iter()
            .enumerate()
            .filter_map(move |(slot, address)| {
                let kind = kind_of(control, slot).filter(|_| is_enabled(control, slot))?;
                Some((slot, kind, address, len_of(control, slot)))
            })
    }

    /// An instruction begins with registers `frame`: the breakpoints it has.
    fn begin(&mut self, frame: &TrapFrame) -> u64 {
        let instruction = decode(frame.rip);
        let mut breakpoints = 0;
        let mut touched = 0;
        let mut before = [0; SLOTS];
        for (slot, kind, address, len) in self.enabled() {
            match kind {
                Kind::Execute => {
                    let is_here = address == frame.rip && frame.rflags & RESUME_FLAG == 0;
                    breakpoints |= u64::from(is_here) << slot;
                    continue;
                }
                Kind::Access | Kind::Write => {
                    let is_touched = instruction
                        .as_ref()
                        .is_some_and(|instruction| touches(instruction, frame, kind, address, len));
                    touched |= u64::from(is_touched) << slot;
                }
            }
            before[slot] = load(address, len);
        }
        self.touched = touched;
        self.before = before;
        breakpoints
    }

    /// The instruction is over: the watchpoints it has met.
    fn end(&self) -> u64 {
        let changed = self
            .enabled()
            .filter(|(slot, kind, address, len)| {
                *kind != Kind::Execute && load(*address, *len) != self.before[*slot]
            })
            .fold(0, |met, (slot, ..)| met | 1 << slot);
        changed | self.touched
    }
}

fn is_enabled(control: u64, slot: usize) -> bool {
    control >> (slot * 2) & 3 != 0
}

fn kind_of(control: u64, slot: usize) -> Option<Kind> {
    match control >> (16 + slot * 4) & 3 {
        0 => Some(Kind::Execute),
        1 => Some(Kind::Write),
        3 => Some(Kind::Access),
        // Input and output.
        _ => None,
    }
}

fn len_of(control: u64, slot: usize) -> u64 {
    match control >> (18 + slot * 4) & 3 {
        0 => 1,
        1 => 2,
        2 => 8,
        _ => 4,
    }
}

/// The `len` bytes at `address`; 0 if there is nothing.
fn load(address: u64, len: u64) -> u64 {
    let mut bytes = [0; 8];
    match UserAddr(address).read_bytes(&mut bytes[..len as usize]) {
        Ok(_) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

fn decode(rip: u64) -> Option<Instruction> {
    let mut bytes = [0; LONGEST_INSTRUCTION];
    // The last instruction before a hole is shorter.
    let len = (1..=LONGEST_INSTRUCTION)
        .rev()
        .find(|len| UserAddr(rip).read_bytes(&mut bytes[..*len]).is_ok())?;
    let mut decoder = Decoder::with_ip(64, &bytes[..len], rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// Whether `instruction` accesses, as `kind` says, some of the `len` bytes at `address`.
fn touches(
    instruction: &Instruction,
    frame: &TrapFrame,
    kind: Kind,
    address: u64,
    len: u64,
) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info_options(instruction, InstructionInfoOptions::NO_REGISTER_USAGE);
    info.used_memory().iter().any(|memory| {
        let counts = match memory.access() {
            OpAccess::Write | OpAccess::ReadWrite | OpAccess::ReadCondWrite => true,
            OpAccess::Read => kind == Kind::Access,
            // A store that is not certain is known by what it changes.
            _ => false,
        };
        let bytes = (memory.memory_size().size() as u64).max(1);
        let at = memory.virtual_address(0, |register, _, _| value(register, frame));
        counts && at.is_some_and(|at| at < address + len && address < at.saturating_add(bytes))
    })
}

/// A register's value, for an address.
fn value(register: Register, frame: &TrapFrame) -> Option<u64> {
    let full = match register.full_register() {
        Register::RAX => frame.rax,
        Register::RBX => frame.rbx,
        Register::RCX => frame.rcx,
        Register::RDX => frame.rdx,
        Register::RSI => frame.rsi,
        Register::RDI => frame.rdi,
        Register::RBP => frame.rbp,
        Register::RSP => frame.rsp,
        Register::R8 => frame.r8,
        Register::R9 => frame.r9,
        Register::R10 => frame.r10,
        Register::R11 => frame.r11,
        Register::R12 => frame.r12,
        Register::R13 => frame.r13,
        Register::R14 => frame.r14,
        Register::R15 => frame.r15,
        Register::CS | Register::DS | Register::ES | Register::SS => return Some(0),
        Register::FS => return Some(husk_hal::thread::live_fs_base()),
        Register::GS => return Some(husk_hal::thread::live_gs_base()),
        // Gathers' index vectors.
        _ => return None,
    };
    Some(if register.size() == 4 {
        full & 0xffff_ffff
    } else {
        full
    })
}

/// The running thread goes on in user code at its frame's instruction: if it has debug registers enabled, it steps.
pub fn arm(t: &Thread) {
    if t.trace.flags() & DEBUG == 0 {
        return;
    }
    let mut frame = t.frame().get();
    let breakpoints = t.trace.debug.lock().begin(&frame);
    if frame.rflags & TRAP_FLAG == 0 {
        frame.rflags |= TRAP_FLAG;
        t.trace.raise(FORCED_TF);
    }
    frame.code |= EXIT_FULL;
    if breakpoints != 0 {
        frame.rflags |= RESUME_FLAG;
    }
    t.frame().set(&frame);
    if breakpoints != 0 {
        report(t, breakpoints, TRAP_HWBKPT);
    }
}

fn report(t: &Thread, status: u64, code: u32) {
    t.trace.debug.lock().status |= status;
    let at = t.frame().rip();
    signal::force(t, &Info::fault(SIGTRAP, code.cast_signed(), at));
}

/// The running thread has stepped over an instruction. Whether that was for debug registers, and everything about it is
/// done.
pub fn stepped(t: &Thread) -> bool {
    let flags = t.trace.flags();
    if flags & DEBUG == 0 {
        return false;
    }
    let met = t.trace.debug.lock().end();
    if flags & STEP != 0 {
        report(t, met | STATUS_STEP, TRAP_TRACE);
    } else if met != 0 {
        report(t, met, TRAP_HWBKPT);
    } else if flags & FORCED_TF != 0 {
        arm(t);
    } else {
        // The program steps itself.
        return false;
    }
    true
}

/// Forgets all debug registers: the program they were for is gone, or their tracer.
pub(super) fn clear(t: &Thread) {
    t.trace.lower(DEBUG);
    *t.trace.debug.lock() = DebugRegisters::default();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DR7 that enables `slot` with a kind's and a length's bits.
    fn control(slot: usize, kind: u64, len: u64) -> u64 {
        1 << (slot * 2) | kind << (16 + slot * 4) | len << (18 + slot * 4)
    }

    #[test]
    fn what_can_be_watched() {
        let mut registers = DebugRegisters::default();
        assert_eq!(registers.set(0, 0x1004), Ok(false));
        assert_eq!(
            registers.set(7, control(0, 1, 2)),
            Err(Errno::EINVAL),
            "8 bytes"
        );
        assert_eq!(
            registers.set(7, control(0, 2, 0)),
            Err(Errno::EINVAL),
            "ports"
        );
        assert_eq!(
            registers.set(7, control(0, 0, 3)),
            Err(Errno::EINVAL),
            "code"
        );
        assert_eq!(registers.set(7, control(0, 1, 3)), Ok(true));
        assert_eq!(
            registers.set(0, 0x1005),
            Err(Errno::EINVAL),
            "while it watches"
        );
        assert_eq!(
            (registers.get(0), registers.get(7)),
            (0x1004, control(0, 1, 3))
        );
        assert_eq!(registers.set(1, USER_END), Err(Errno::EINVAL));
        assert_eq!(registers.set(4, 0), Err(Errno::EIO));
        assert_eq!((registers.get(6), registers.get(4)), (STATUS_RESERVED, 0));
        assert_eq!(registers.set(7, 0), Ok(false));
    }

    #[test]
    fn watchpoints_are_met() {
        let mut word = 5u64;
        let at = core::ptr::from_mut(&mut word).expose_provenance() as u64;
        let mut registers = DebugRegisters::default();
        registers.set(2, at).unwrap();
        registers.set(7, control(2, 1, 2)).unwrap();
        // mov %rax, (%rdi)
        let code = [0x48u8, 0x89, 0x07, 0x90];
        let frame = TrapFrame {
            rip: code.as_ptr().expose_provenance() as u64,
            rdi: at,
            ..TrapFrame::default()
        };
        assert_eq!(registers.begin(&frame), 0);
        assert_eq!(registers.end(), 4, "a store counts, whatever it changes");
        let elsewhere = TrapFrame {
            rdi: at + 8,
            ..frame
        };
        registers.begin(&elsewhere);
        assert_eq!(registers.end(), 0);
        registers.begin(&elsewhere);
        word = 6;
        assert_eq!((registers.end(), word), (4, 6));
    }

    #[test]
    fn breakpoints_are_met_once() {
        let code = [0x90u8; 16];
        let rip = code.as_ptr().expose_provenance() as u64;
        let mut registers = DebugRegisters::default();
        registers.set(1, rip).unwrap();
        registers.set(7, control(1, 0, 0)).unwrap();
        let frame = TrapFrame {
            rip,
            ..TrapFrame::default()
        };
        assert_eq!(registers.begin(&frame), 2);
        let resumed = TrapFrame {
            rflags: RESUME_FLAG,
            ..frame
        };
        assert_eq!(registers.begin(&resumed), 0);
        assert_eq!(
            registers.begin(&TrapFrame {
                rip: rip + 1,
                ..frame
            }),
            0
        );
    }

    #[test]
    fn operands() {
        let frame = TrapFrame {
            rbx: 0x1000,
            rcx: 2,
            rsi: 0x3000,
            rsp: 0x5000,
            ..TrapFrame::default()
        };
        let decoded = |bytes: &[u8]| Decoder::with_ip(64, bytes, 0x400, 0).decode();
        // mov 8(%rbx,%rcx,4), %eax; lea the same; cmpb $1, 0x100(%rip); lodsb; push %rax; mov %eax, 8(%rbx,%rcx,4)
        let load = decoded(&[0x8b, 0x44, 0x8b, 0x08]);
        assert!(
            touches(&load, &frame, Kind::Access, 0x1010, 4)
                && touches(&load, &frame, Kind::Access, 0x1013, 1)
        );
        assert!(
            !touches(&load, &frame, Kind::Access, 0x1014, 4)
                && !touches(&load, &frame, Kind::Access, 0x100c, 4)
        );
        assert!(!touches(&load, &frame, Kind::Write, 0x1010, 4));
        let lea = decoded(&[0x8d, 0x44, 0x8b, 0x08]);
        assert!(!touches(&lea, &frame, Kind::Access, 0x1010, 4));
        let compare = decoded(&[0x80, 0x3d, 0x00, 0x01, 0x00, 0x00, 0x01]);
        assert!(
            touches(&compare, &frame, Kind::Access, 0x507, 1)
                && !touches(&compare, &frame, Kind::Access, 0x508, 1)
        );
        assert!(touches(&decoded(&[0xac]), &frame, Kind::Access, 0x3000, 1));
        let push = decoded(&[0x50]);
        assert!(touches(&push, &frame, Kind::Write, 0x4ff8, 8));
        assert!(!touches(&push, &frame, Kind::Access, 0x5000, 8));
        let store = decoded(&[0x89, 0x44, 0x8b, 0x08]);
        assert!(touches(&store, &frame, Kind::Write, 0x1012, 2));
    }
}
