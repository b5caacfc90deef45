//! Signals.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::sync::SpinLock;
use crate::{Process, Result, SysResult, Thread};

/// A thread's signals.
#[derive(Debug, Default)]
pub struct ThreadSignals {
    /// How `restart_syscall(2)` goes on.
    pub restart_block: SpinLock<Option<RestartBlock>>,
}

/// How an interrupted call goes on.
pub struct RestartBlock(#[expect(dead_code)] Box<dyn FnOnce(&Thread) -> SysResult + Send>);

impl RestartBlock {
    /// `resume` serves the call from where it was interrupted.
    #[must_use]
    pub fn new(resume: impl FnOnce(&Thread) -> SysResult + Send + 'static) -> Self {
        Self(Box::new(resume))
    }
}

impl core::fmt::Debug for RestartBlock {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RestartBlock")
    }
}

/// A signal and what is known about it.
#[derive(Debug)]
pub struct Info;

impl Info {
    /// From the kernel, without details.
    #[must_use]
    pub fn kernel(_signo: i32) -> Self {
        Self
    }

    /// A POSIX timer expired.
    #[must_use]
    pub fn timer(_signo: i32, _timer: i32, _overrun: i32, _value: u64) -> Self {
        Self
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// `EAGAIN` if a program queued a real-time signal and its user's queue is full.
pub fn send_process(_process: &Arc<Process>, _info: &Info) -> Result<()> {
    Ok(())
}

/// Sends a signal to a thread.
///
/// # Errors
/// As [`send_process`].
pub fn send_thread(_thread: &Arc<Thread>, _info: &Info) -> Result<()> {
    Ok(())
}

impl ThreadSignals {
    /// Whether a signal that is not blocked waits to be delivered.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        false
    }

    /// Whether the thread is to die.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        false
    }
}

/// Signals pending for a process as a whole.
#[derive(Debug, Default)]
pub struct ProcessSignals;

/// The table of signal actions, shared by the threads of a process.
#[derive(Debug, Default)]
pub struct Handlers;
