//! Where a shared mapping's memory really is, for futexes.

use super::space::AddressSpace;
use crate::{Errno, Result};

/// A place in an object that address spaces share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedPlace {
    /// Device and inode number of the object.
    pub identity: (u64, u64),
    /// Offset in the object, in bytes.
    pub offset: u64,
}

impl AddressSpace {
    /// What `address` shows if it is mapped shared; `None` for private memory.
    ///
    /// # Errors
    /// `EFAULT` if nothing is mapped there.
    pub fn shared_place(&self, address: u64) -> Result<Option<SharedPlace>> {
        self.with(|state| {
            let vma = state.vmas.find(address).ok_or(Errno::EFAULT)?;
            let object = vma.object().filter(|_| vma.is_shared());
            Ok(object.map(|object| SharedPlace {
                identity: object.mappable.identity(),
                offset: object.offset + (address - vma.start),
            }))
        })
    }
}
