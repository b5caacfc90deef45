//! Signals.

/// A thread's signals.
#[derive(Debug, Default)]
pub struct ThreadSignals;

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
