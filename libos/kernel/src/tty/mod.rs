//! Terminals (`pts(4)`, `ioctl_tty(2)`, `termios(3)`).
//!
//! | module | what |
//! | --- | --- |
//! | `settings` | `struct termios` |
//! | `line` | the line discipline: editing, echo, signals from keys |
//! | `job` | sessions and process groups |
//! | `pty` | pseudo-terminals |
//! | `numbers` | their numbers, which the terminals of the host share |
//!
//! Terminals of the host that were passed in (`docker run -t`) are in `fs::stdio` and `fs::terminal`: the host's line
//! discipline serves them, but their job control is the guest's, and this one.
//!
//! # Locks
//! A pair's state, a terminal's owner and a process's controlling terminal are spin locks of their own; none is held while
//! another is taken, while signals are sent or while anybody is woken. A number is chosen under a lock that comes before the
//! lists of those that are taken.

pub mod job;
pub mod line;
pub mod numbers;
pub mod pty;
pub mod settings;

pub use job::{Controlling, Job, Tty, TtyRef};
pub use numbers::Numbers;

#[cfg(test)]
mod tests;
