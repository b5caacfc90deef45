//! Linux's x86-64 contract: numbers, errno, structs and flags.
//!
//! Constants and struct layouts are `linux-raw-sys`'s bindings of the kernel's own UAPI headers.

pub mod arguments;
pub mod errno;
pub mod pod;
pub mod syscalls;
pub mod timex;

pub use errno::Errno;
pub use linux_raw_sys::{auxvec, elf, general, ioctl, net, prctl, ptrace, system};
pub use pod::Pod;
