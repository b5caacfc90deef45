//! Clocks.

/// Clocks and the vDSO.
#[derive(Debug)]
pub struct Clocks;

impl Clocks {
    /// `vdso` is the vDSO's ELF image.
    #[must_use]
    pub fn new(_vdso: &'static [u8]) -> Self {
        Self
    }
}

/// A process's timers.
#[derive(Debug, Default)]
pub struct ProcessTimers;
