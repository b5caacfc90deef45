//! What identifies a futex.

use alloc::sync::Arc;

use husk_abi::boundary::layout::USER_END;

use crate::user::UserAddr;
use crate::{Errno, Result, Thread};

/// Identity of a futex word: the memory object it lies in and where.
///
/// Objects are named by their address in the kernel's heap. A waiter does not keep its object alive: if the
/// memory is unmapped and the address used again, a waiter may be woken by a stranger, which futex(2) allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The address space, or what a shared mapping shows.
    pub object: usize,
    /// Address in the address space, or offset in the object, in bytes.
    pub offset: u64,
}

/// How the words of one futex operation are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// By threads of one address space (`FUTEX_PRIVATE_FLAG`).
    Private,
    /// By whoever maps the same memory.
    Shared,
}

impl Key {
    pub(super) const MIN: Self = Self {
        object: 0,
        offset: 0,
    };
    pub(super) const MAX: Self = Self {
        object: usize::MAX,
        offset: u64::MAX,
    };

    /// The key of the word at `address` in `t`'s memory.
    ///
    /// # Errors
    /// `EINVAL` if `address` is not aligned, `EFAULT` if it cannot be user memory.
    pub(super) fn of(t: &Thread, address: UserAddr, scope: Scope) -> Result<Self> {
        if !address.0.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if address.0 >= USER_END {
            return Err(Errno::EFAULT);
        }
        let mm = t.mm_opt().ok_or(Errno::EFAULT)?;
        match scope {
            Scope::Private | Scope::Shared => Ok(Self {
                object: Arc::as_ptr(&mm).addr(),
                offset: address.0,
            }),
        }
    }

    /// Which of `count` (a power of two) buckets it belongs to.
    pub(super) fn bucket(self, count: usize) -> usize {
        // Fibonacci hashing: the high half of the product depends on all bits.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (self.object as u64 ^ self.offset.rotate_left(29)).wrapping_mul(GOLDEN);
        (mixed >> 32) as usize & (count - 1)
    }
}
