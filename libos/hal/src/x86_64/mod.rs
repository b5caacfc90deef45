//! The x86-64 guest: everything that names a register or an instruction.

pub mod boot;
pub mod clock;
pub mod cpu;
pub mod cpuid;
pub mod doorbell;
pub mod entropy;
mod entry;
pub mod fpu;
pub mod mmu;
pub mod thread;
mod upcall;
pub mod user;
