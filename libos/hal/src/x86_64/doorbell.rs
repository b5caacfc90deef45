//! Telling the VMM something.

use husk_abi::boundary::doorbell;

/// Rings the doorbell at `port` with `value`. Returns when the VMM has served it (ports bound to an
/// ioeventfd: at once).
pub fn ring(port: u16, value: u32) {
    assert!((doorbell::FIRST..doorbell::END).contains(&port));
    // SAFETY: the TSS's I/O bitmap opens these ports to CPL 3; the VMM only reads the boundary's memory
    // and writes what the boundary says it may.
    unsafe {
        core::arch::asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags))
    }
}
