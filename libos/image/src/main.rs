//! The libOS ELF: entry, heap, and the hooks that join `husk-hal`'s assembly to the kernel.
//!
//! Built for `x86_64-unknown-none` by `runtime/build.rs` and embedded in the husk binary.
#![no_std]
#![no_main]
#![allow(
    unsafe_code,
    reason = "entry points called from assembly; the global allocator"
)]

extern crate alloc;

mod entry;
mod heap;
mod hooks;
mod memory;
mod panic;
