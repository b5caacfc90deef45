//! Recording.

use std::path::Path;

use crate::vmm::{GuestMemory, Layout};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[error("not yet")]
pub struct Error;

/// What every record carries.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Container id.
    pub container: String,
    /// Image digest.
    pub image: String,
}

/// How much was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records written.
    pub written: u64,
    /// Records lost.
    pub lost: u64,
}

/// A recording under way.
#[derive(Debug)]
pub struct Session;

impl Session {
    /// Starts.
    pub fn start(
        _memory: &GuestMemory,
        _layout: &Layout,
        _path: &Path,
        _labels: Labels,
    ) -> Result<Self, Error> {
        Err(Error)
    }
    /// Drains.
    pub fn drain(&mut self) {}
    /// Ends.
    pub fn finish(&mut self) -> Result<Summary, Error> {
        Err(Error)
    }
}
