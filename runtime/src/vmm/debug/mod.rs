//! Looking into a machine from outside: stopping vCPUs, reading the guest's memory by its own page tables, symbols,
//! backtraces, the table of threads.
//!
//! Everything read is the guest's word: bounded, checked, never believed. Crash reports ([`Inspector::report`]) and the
//! debugger ([`crate::gdb`]) are built on it.
//!
//! `KVM_SET_GUEST_DEBUG` is not used. PVM accepts it and then neither stops at `int3` or a debug register nor keeps a
//! single-step trap from the guest. So breakpoints are `int3` written into the libOS's text, a step is TF in the
//! vCPU's flags, and the libOS itself reports both with a doorbell (`husk_abi::boundary::doorbell::DEBUG`). That is
//! the same on every KVM.

mod backtrace;
mod breakpoints;
mod control;
mod inspector;
mod registers;
mod report;
mod space;
mod symbols;
mod threads;

pub use breakpoints::Refused;
pub use control::{Control, Debug, Reason, Resume, Stop};
pub use inspector::Inspector;
pub use registers::{Registers, TF};
pub use space::{GuestSpace, MappedRange};
pub use symbols::Symbols;
pub use threads::{Thread, ThreadState};
