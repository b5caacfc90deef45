//! The libOS's kernel proper: Linux's semantics in safe Rust.
//!
//! Rooms, each with its state, its rules and the system calls that are its own:
//!
//! | room | what |
//! | --- | --- |
//! | `syscall` | the dispatcher, generated from `husk_abi`'s table; argument types |
//! | `process` | threads, processes, fork, exec, exit, wait, credentials |
//! | `sched` | run queues, blocking, timers, preemption |
//! | `sync` | spin lock, sleeping mutex, wait queue |
//! | `mm` | frames, page tables, address spaces |
//! | `signal` | sending, queueing, delivering, sigreturn |
//! | `futex` | futexes |
//! | `time` | clocks, sleeps, interval timers, the vDSO |
//! | `fs` | VFS, file systems, descriptors, pipes, polling |
//! | `net` | sockets |
//! | `ipc` | System V objects, POSIX message queues |
//! | `tty` | terminals: line discipline, job control, pseudo-terminals |
//! | `translate` | patching syscall sites into jumps |
//! | `trace` | syscall records |
//! | `host` | queues to the VMM |
//! | `control` | what the host asks of the running container |
//! | `inspect` | what a debugger outside reads |
//!
//! A handler is `fn(t: &Thread, args...) -> SysResult`; `t` is the calling thread, and through it everything
//! else (`t.kernel`, `t.process`). Handlers reject bad arguments, call their room, and return.
//!
//! # Locks
//! [`sync::SpinLock`]: short sections that never sleep, never touch user memory and never take a
//! [`sync::Mutex`]. [`sync::Mutex`] may sleep and may be held over user copies. Order, outermost first:
//! process tree > signal > descriptor table > inode > pipe/file/socket > address space > frame allocator > run
//! queue > timers. Waking a thread takes the run-queue lock: do it last.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod boot;
mod control;
pub mod fs;
pub mod futex;
pub mod host;
pub mod inspect;
pub mod ipc;
mod kernel;
pub mod log;
pub mod mm;
pub mod net;
pub mod process;
pub mod sched;
pub mod signal;
pub mod sync;
pub mod syscall;
pub mod time;
pub mod trace;
pub mod translate;
pub mod tty;
pub mod user;

pub use boot::{exit_work, start, thread_started};
pub use husk_abi::linux::Errno;
pub use kernel::Kernel;
pub use process::{Process, Thread};

/// What a room's functions return.
pub type Result<T, E = Errno> = core::result::Result<T, E>;
/// What a system call returns: the value for `rax`, or the errno.
pub type SysResult = Result<usize>;
