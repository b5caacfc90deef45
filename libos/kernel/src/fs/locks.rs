//! Advisory locks.

/// All advisory locks.
#[derive(Debug, Default)]
pub struct LockTable;

impl LockTable {
    /// No locks.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}
