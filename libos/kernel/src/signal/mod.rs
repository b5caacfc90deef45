//! Signals (`signal(7)`).
//!
//! | module | what |
//! | --- | --- |
//! | `set` | numbers, sets, default actions |
//! | `info` | `siginfo_t` |
//! | `action` | the table of handlers, `rt_sigaction` |
//! | `queue` | pending signals and their limit |
//! | `state` | what a thread and a process know; the signal lock |
//! | `mask` | blocking, temporary masks |
//! | `send`, `kill` | sending, from the kernel and from programs |
//! | `deliver`, `frame` | handlers and their frames, `rt_sigreturn` |
//! | `restart` | what becomes of interrupted system calls |
//! | `stop` | job control |
//! | `fault` | exceptions of user code |
//! | `tracing` | what `ptrace(2)` needs |
//! | `wait` | `pause`, `sigsuspend`, `sigtimedwait` |
//! | `altstack` | `sigaltstack` |
//!
//! Whoever sends marks the receiver and wakes it; the receiver does the rest on its way back to user code
//! ([`deliver()`]). A handler that waits gives up when [`ThreadSignals::is_pending`], with an `ERESTART*` code.
//!
//! # Locks
//! The signal lock (one per process) is taken before the queues in it and never while another process's is
//! held. Lists of threads are made before it is taken. Waking comes after it.

pub mod action;
pub mod altstack;
pub mod deliver;
pub mod fault;
pub mod frame;
pub mod info;
pub mod kill;
pub mod mask;
mod queue;
pub mod restart;
pub mod send;
pub mod set;
mod state;
mod stop;
pub mod tracing;
pub mod wait;

pub use action::{Action, ActionFlags, ChildPolicy, Handlers};
pub use altstack::AltStack;
pub use deliver::deliver;
pub use info::{Info, Origin};
pub use mask::{restore_mask_unless, set_temporary_mask, set_user_mask};
pub use queue::QueuedByUser;
pub use restart::{RestartBlock, restart_with};
pub use send::{
    force, kill_thread, raise_sigpipe, raise_sigxfsz, send_group, send_process, send_thread,
    thread_exits, thread_joined,
};
pub use set::SigSet;
pub use state::{
    LastFault, ProcessSignals, ThreadSignals, exec, is_timer_queued, parent_death_signal,
    set_parent_death_signal,
};

pub use stop::{is_orphaned, leave_orphans};
pub use wait::take_pending;

#[cfg(test)]
mod tests;
