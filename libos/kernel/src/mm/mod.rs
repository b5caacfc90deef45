//! Memory: frames, page tables, address spaces.

mod mappable;

pub use mappable::Mappable;

use alloc::sync::Arc;

use husk_hal::phys::Frame;

use crate::{Errno, Kernel, Result};

/// Free frames and reference counts.
#[derive(Debug)]
pub struct Frames;

impl Frames {
    /// All RAM from `free_gpa` to `ram_bytes`, of which `limit_bytes` may be in use.
    #[must_use]
    pub fn new(_free_gpa: u64, _ram_bytes: u64, _limit_bytes: u64) -> Self {
        Self
    }

    /// A zeroed frame.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc_zeroed(&self) -> Result<Frame> {
        Err(Errno::ENOMEM)
    }

    /// Drops a reference.
    pub fn put(&self, _frame: Frame) {}
}

/// A private, read-only, executable mapping of a file.
#[derive(Clone, Debug)]
pub struct CodeRegion {
    /// The file.
    pub mappable: Arc<dyn Mappable>,
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// File offset mapped at `start`.
    pub file_offset: u64,
    /// Where its thunk area lies.
    pub thunk_base: Option<u64>,
}

/// A process's memory.
#[derive(Debug)]
pub struct AddressSpace;

impl AddressSpace {
    /// An empty address space.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(_kernel: &'static Kernel) -> Result<Arc<Self>> {
        Ok(Arc::new(Self))
    }

    /// Makes it the vCPU's.
    pub fn activate(&self) {}

    /// The code mapping at `address`.
    #[must_use]
    pub fn code_region(&self, _address: u64) -> Option<CodeRegion> {
        None
    }

    /// The code mapping whose thunk area holds `address`.
    #[must_use]
    pub fn thunk_region(&self, _address: u64) -> Option<CodeRegion> {
        None
    }

    /// Shows the current copy of the code page at `address`.
    pub fn refresh_code_page(&self, _address: u64) {}

    /// Maps the thunk page at `address`.
    pub fn map_thunk_page(&self, _address: u64) {}
}
