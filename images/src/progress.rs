//! How long work tells how far it is. This crate prints nothing: the command line draws.

/// Receives the steps of [`crate::Store::prepare`]: one `begin`, any number of `advance`, one `end`
/// per step. A step that fails has no `end`.
pub trait Progress {
    /// A step starts. `what` is a short phrase such as `layer 2 of 3`; `total` is the number of
    /// bytes expected, where known.
    fn begin(&mut self, what: &str, total: Option<u64>);
    /// `bytes` more were done since the last call.
    fn advance(&mut self, bytes: u64);
    /// The step is complete.
    fn end(&mut self);
}

/// Draws nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&mut self, _what: &str, _total: Option<u64>) {}
    fn advance(&mut self, _bytes: u64) {}
    fn end(&mut self) {}
}
