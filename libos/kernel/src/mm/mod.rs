//! Memory: frames, page tables, address spaces.

mod mappable;

pub use mappable::Mappable;

use alloc::sync::Arc;

use crate::{Kernel, Result};

/// Free frames and reference counts.
#[derive(Debug)]
pub struct Frames;

impl Frames {
    /// All RAM from `free_gpa` to `ram_bytes`, of which `limit_bytes` may be in use.
    #[must_use]
    pub fn new(_free_gpa: u64, _ram_bytes: u64, _limit_bytes: u64) -> Self {
        Self
    }
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
}
