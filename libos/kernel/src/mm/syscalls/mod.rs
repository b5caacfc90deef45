//! The memory room's system calls.

mod advice;
mod barrier;
mod lock;
mod mapping;

pub use advice::{madvise, mincore, msync};
pub use barrier::membarrier;
pub use lock::{mlock, mlock2, mlockall, munlock, munlockall};
pub use mapping::{brk, mmap, mprotect, mremap, munmap};
