//! `cpuid` of programs, answered from memory.
//!
//! In a guest each `cpuid` leaves it (more than 40 us on PVM), and glibc's start-up executes some eighty. Where KVM can
//! make `cpuid` fault at CPL 3, the libOS asks once for each leaf and answers itself; where it can, it patches the
//! `cpuid` into a jump as it does with system calls (`crate::translate`).

use alloc::collections::BTreeMap;

use husk_hal::cpu;
use husk_hal::trap::TrapFrame;

use crate::Thread;
use crate::signal::fault;
use crate::sync::SpinLock;
use crate::translate;
use crate::user::UserAddr;

/// The instruction.
const CPUID: u16 = u16::from_le_bytes([0x0f, 0xa2]);
/// Answers kept; a program that asks for more gets them from the CPU.
const MAX_ANSWERS: usize = 512;

/// What was asked (vCPU, leaf, subleaf) and eax, ebx, ecx, edx.
type Answers = BTreeMap<(usize, u32, u32), [u32; 4]>;

static ANSWERS: SpinLock<Answers> = SpinLock::new(BTreeMap::new());

/// Whether the leaf's answer depends on ecx (Intel's and AMD's manuals, CPUID).
fn has_subleaves(leaf: u32) -> bool {
    matches!(
        leaf,
        4 | 7 | 0xb | 0xd | 0xf | 0x10 | 0x12 | 0x14 | 0x17 | 0x18 | 0x1a
            ..=0x24 | 0x8000_001d | 0x8000_0020 | 0x8000_0026
    ) || (0x29..0x8000_0000).contains(&leaf)
        || leaf > 0x8000_0026
}

/// eax, ebx, ecx and edx as `cpuid` gives them.
#[must_use]
pub fn answer(leaf: u32, subleaf: u32) -> [u32; 4] {
    let subleaf = if has_subleaves(leaf) { subleaf } else { 0 };
    let key = (cpu::index(), leaf, subleaf);
    if let Some(known) = ANSWERS.lock().get(&key) {
        return *known;
    }
    let found = cpu::cpuid(leaf, subleaf);
    let mut answers = ANSWERS.lock();
    if answers.len() < MAX_ANSWERS {
        answers.insert(key, found);
    }
    found
}

/// Does what the `cpuid` does the thread stands at; false if it stands at something else.
pub fn emulate(t: &Thread) -> bool {
    let frame = t.frame();
    let rip = frame.rip();
    if UserAddr(rip).read::<u16>() != Ok(CPUID) {
        return false;
    }
    frame.update(|frame| {
        give(frame);
        frame.rip = rip + size_of_val(&CPUID) as u64;
    });
    translate::consider_cpuid(t, rip);
    true
}

/// A translated `cpuid`: the frame goes on behind it.
pub fn translated(t: &Thread) {
    t.frame().update(give);
    if t.frame().get().rflags & fault::TRAP_FLAG != 0 {
        fault::stepped(t);
    }
}

/// Puts the answer into the registers.
fn give(frame: &mut TrapFrame) {
    let [eax, ebx, ecx, edx] = answer(frame.rax as u32, frame.rcx as u32);
    frame.rax = u64::from(eax);
    frame.rbx = u64::from(ebx);
    frame.rcx = u64::from(ecx);
    frame.rdx = u64::from(edx);
}

#[cfg(test)]
mod tests {
    use super::{answer, has_subleaves};

    #[test]
    fn answers_are_the_cpus() {
        for _ in 0..2 {
            assert_eq!(answer(0, 0), husk_hal::cpu::cpuid(0, 0));
            assert_eq!(answer(7, 0), husk_hal::cpu::cpuid(7, 0));
            assert_eq!(answer(0, 99), answer(0, 0), "ecx does not matter");
        }
        assert!(has_subleaves(4) && has_subleaves(0x8000_001d));
        assert!(!has_subleaves(2) && !has_subleaves(0x8000_0002));
    }
}
