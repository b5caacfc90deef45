//! The libOS's hardware layer, and its room for `unsafe`.
//!
//! The kernel proper is safe Rust; what it cannot say safely it asks for here: physical frames, page
//! tables, copies to and from user memory, the entry paths, context switch, vector state, doorbells and
//! the clock. Everything that names a register or an instruction is under `x86_64/`; `hosted/` gives the same
//! interface to host-side unit tests of the kernel (frames in a heap arena, user addresses as host
//! pointers, no vCPU).
//!
//! Invariants the assembly relies on (kvm-facts.md gives the reasons):
//! - libOS and processes run at CPL 3; CPL 0 runs only the IDT stubs and the first lines of `lstar`.
//! - IF is set whenever the vCPU runs at CPL 3. Interrupts are not masked: an interrupt that finds the
//!   libOS running only raises [`cpu::WORK_INTERRUPT`], which every way back to user code tests.
//! - The kernel never touches vector registers: the process's stay live while it serves a syscall.
#![cfg_attr(target_os = "none", no_std)]
#![allow(unsafe_code, reason = "this crate is the libOS's room for unsafe")]

extern crate alloc;

pub mod lock;
pub mod phys;
pub mod shared;
pub mod trap;

#[cfg(target_os = "none")]
#[path = "x86_64/mod.rs"]
mod arch;
#[cfg(not(target_os = "none"))]
#[path = "hosted/mod.rs"]
mod arch;

pub use arch::{boot, clock, cpu, cpuid, doorbell, entropy, fpu, mmu, thread, user};

pub use user::Fault;
