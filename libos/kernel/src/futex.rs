//! Futexes.

/// Wait queues by futex.
#[derive(Debug, Default)]
pub struct Futexes;

impl Futexes {
    /// No waiters.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}
