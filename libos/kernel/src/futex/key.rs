//! What identifies a futex.

use alloc::sync::Arc;

use husk_abi::boundary::layout::USER_END;

use crate::user::UserAddr;
use crate::{Errno, Result, Thread};

/// Identity of a futex word: the memory it lies in and where.
///
/// A waiter does not keep the memory alive: if it is unmapped and its identity used again, a waiter may be woken by a
/// stranger, which futex(2) allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    memory: Memory,
    /// Address in the address space, or offset in the object, in bytes.
    offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Memory {
    /// Private memory of the address space at this address of the kernel's heap.
    Space(usize),
    /// The object with this device and inode number.
    Object(u64, u64),
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
    pub(super) const MIN: Self = Self::private(0, 0);
    pub(super) const MAX: Self = Self {
        memory: Memory::Object(u64::MAX, u64::MAX),
        offset: u64::MAX,
    };

    pub(super) const fn private(space: usize, address: u64) -> Self {
        Self {
            memory: Memory::Space(space),
            offset: address,
        }
    }

    /// The key of the word at `address` in `t`'s memory.
    ///
    /// # Errors
    /// `EINVAL` if `address` is not aligned, `EFAULT` if it cannot be user memory or, for a shared word, nothing is
    /// mapped there.
    pub(super) fn of(t: &Thread, address: UserAddr, scope: Scope) -> Result<Self> {
        if !address.0.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if address.0 >= USER_END {
            return Err(Errno::EFAULT);
        }
        let mm = t.mm_opt().ok_or(Errno::EFAULT)?;
        let private = Self::private(Arc::as_ptr(&mm).addr(), address.0);
        if scope == Scope::Private {
            return Ok(private);
        }
        Ok(match mm.shared_place(address.0)? {
            Some(place) => Self {
                memory: Memory::Object(place.identity.0, place.identity.1),
                offset: place.offset,
            },
            None => private,
        })
    }

    /// Which of `count` (a power of two) buckets it belongs to.
    pub(super) fn bucket(self, count: usize) -> usize {
        // Fibonacci hashing: the high half of the product depends on all bits.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let memory = match self.memory {
            Memory::Space(space) => space as u64,
            Memory::Object(device, inode) => inode ^ device << 32,
        };
        let mixed = (memory ^ self.offset.rotate_left(29)).wrapping_mul(GOLDEN);
        (mixed >> 32) as usize & (count - 1)
    }
}
