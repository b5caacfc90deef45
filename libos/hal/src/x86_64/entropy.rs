//! Entropy from the CPU.

use core::arch::x86_64::{_rdrand64_step, _rdtsc};

/// CPUID.1:ECX bit of `rdrand`.
const RDRAND: u32 = 1 << 30;

#[target_feature(enable = "rdrand")]
fn rdrand() -> Option<u64> {
    let mut value = 0;
    // The manual asks for ten tries before giving up.
    (0..10)
        .any(|_| _rdrand64_step(&mut value) == 1)
        .then_some(value)
}

fn has_rdrand() -> bool {
    super::cpu::cpuid(1, 0)[2] & RDRAND != 0
}

fn tsc() -> u64 {
    // SAFETY: reads a counter.
    unsafe { _rdtsc() }
}

/// 256 bits to seed a generator with: `rdrand` if the CPU has it, always mixed with the counter's jitter.
#[must_use]
pub fn seed() -> [u64; 4] {
    let has_rdrand = has_rdrand();
    let mut seed = [0; 4];
    for word in &mut seed {
        // The time each step takes varies with caches, exits and the host's interrupts.
        for _ in 0..64 {
            *word = u64::rotate_left(*word, 7) ^ tsc().wrapping_mul(0x9e37_79b9_7f4a_7c15);
            core::hint::spin_loop();
        }
        if has_rdrand {
            // SAFETY: CPUID says that the instruction exists.
            *word ^= unsafe { rdrand() }.unwrap_or(0);
        }
    }
    seed
}
