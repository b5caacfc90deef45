//! The signal mask that the `p` forms of the polling calls set for as long as they wait.

use crate::signal::{self, SigSet};
use crate::user::UserAddr;
use crate::{Errno, Result, Thread};

/// A mask that goes away with the call that set it: [`TemporaryMask::finish`].
#[must_use]
pub(super) struct TemporaryMask<'a> {
    thread: &'a Thread,
    is_set: bool,
}

impl<'a> TemporaryMask<'a> {
    /// No mask of its own.
    pub fn none(thread: &'a Thread) -> Self {
        Self {
            thread,
            is_set: false,
        }
    }

    /// Sets the mask at `address`, of `size` bytes; none if `address` is NULL.
    ///
    /// # Errors
    /// `EINVAL` for another size than the kernel's, `EFAULT`.
    pub fn install(thread: &'a Thread, address: UserAddr, size: usize) -> Result<Self> {
        if address.is_null() {
            return Ok(Self::none(thread));
        }
        if size != size_of::<u64>() {
            return Err(Errno::EINVAL);
        }
        signal::set_temporary_mask(thread, SigSet(address.read()?));
        Ok(Self {
            thread,
            is_set: true,
        })
    }

    /// Brings the old mask back. After an `interrupted` call the signal is delivered first.
    pub fn finish(self, interrupted: bool) {
        if self.is_set {
            signal::restore_mask_unless(self.thread, interrupted);
        }
    }
}
