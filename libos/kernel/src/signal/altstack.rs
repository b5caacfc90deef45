//! The alternate signal stack: `sigaltstack(2)`.

use husk_abi::linux::general;

use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

const SS_ONSTACK: u32 = general::SS_ONSTACK;
const SS_DISABLE: u32 = general::SS_DISABLE;
const SS_AUTODISARM: u32 = general::SS_AUTODISARM;
/// `SS_FLAG_BITS`: what may stand beside the mode.
const FLAG_BITS: u32 = general::SS_FLAG_BITS;
/// `MINSIGSTKSZ`.
const MIN_BYTES: u64 = 2048;

/// A thread's alternate stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    /// Lowest address.
    pub base: u64,
    /// Bytes; 0 if there is none.
    pub size: u64,
    /// `SS_*` as set.
    pub flags: u32,
}

impl AltStack {
    /// No alternate stack.
    pub const DISABLED: Self = Self {
        base: 0,
        size: 0,
        flags: SS_DISABLE,
    };

    /// From the words of a `stack_t`.
    #[expect(clippy::cast_possible_truncation, reason = "the upper half is padding")]
    pub(super) fn from_words([base, flags, size]: [u64; 3]) -> Self {
        Self {
            base,
            size,
            flags: flags as u32,
        }
    }

    /// As a `stack_t`.
    pub(super) fn to_words(self) -> [u64; 3] {
        [self.base, u64::from(self.flags), self.size]
    }

    /// Whether `rsp` lies in the range, whatever the flags.
    #[must_use]
    pub fn covers(&self, rsp: u64) -> bool {
        rsp > self.base && rsp - self.base <= self.size
    }

    /// Whether a program with stack pointer `rsp` runs on it.
    #[must_use]
    pub fn is_active(&self, rsp: u64) -> bool {
        self.flags & SS_AUTODISARM == 0 && self.covers(rsp)
    }

    /// Whether it is taken out of use while a handler runs on it.
    #[must_use]
    pub fn is_auto_disarmed(&self) -> bool {
        self.flags & SS_AUTODISARM != 0
    }

    /// What `sigaltstack(2)` reports: the state for `rsp` in place of the mode.
    fn report(&self, rsp: u64) -> Self {
        let state = if self.size == 0 {
            SS_DISABLE
        } else if self.is_active(rsp) {
            SS_ONSTACK
        } else {
            0
        };
        Self {
            flags: state | self.flags & FLAG_BITS,
            ..*self
        }
    }

    /// The stack in use after a program with stack pointer `rsp` asked for `new`.
    ///
    /// # Errors
    /// `EPERM` while running on the current one, `EINVAL` for bad flags, `ENOMEM` if it is too small.
    pub fn replaced(&self, new: Self, rsp: u64) -> Result<Self> {
        if self.is_active(rsp) {
            return Err(Errno::EPERM);
        }
        match new.flags & !FLAG_BITS {
            SS_DISABLE => Ok(Self {
                base: 0,
                size: 0,
                flags: new.flags,
            }),
            0 | SS_ONSTACK if new == *self || new.size >= MIN_BYTES => Ok(new),
            0 | SS_ONSTACK => Err(Errno::ENOMEM),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// `sigaltstack(2)`.
///
/// # Errors
/// `EFAULT`, `EPERM`, `EINVAL`, `ENOMEM`.
pub fn sigaltstack(t: &Thread, ss: UserAddr, old_ss: UserAddr) -> SysResult {
    let new = ss.read_opt::<[u64; 3]>()?.map(AltStack::from_words);
    let rsp = t.frame().get().rsp;
    let old = t.signals.altstack();
    if let Some(new) = new {
        t.signals.set_altstack(old.replaced(new, rsp)?);
    }
    old_ss.write_opt(&old.report(rsp).to_words())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: AltStack = AltStack {
        base: 0x10000,
        size: 0x4000,
        flags: 0,
    };

    #[test]
    fn active_only_inside() {
        assert!(!STACK.is_active(0x10000));
        assert!(STACK.is_active(0x10001) && STACK.is_active(0x14000));
        assert!(!STACK.is_active(0x14001));
        let disarmed = AltStack {
            flags: SS_AUTODISARM,
            ..STACK
        };
        assert!(!disarmed.is_active(0x12000));
    }

    #[test]
    fn reports() {
        assert_eq!(AltStack::DISABLED.report(5).flags, SS_DISABLE);
        assert_eq!(STACK.report(5).flags, 0);
        assert_eq!(STACK.report(0x12000).flags, SS_ONSTACK);
        let disarmed = AltStack {
            flags: SS_AUTODISARM | SS_ONSTACK,
            ..STACK
        };
        assert_eq!(disarmed.report(0x12000).flags, SS_AUTODISARM);
    }

    #[test]
    fn replacing() {
        let none = AltStack::DISABLED;
        assert_eq!(none.replaced(STACK, 5), Ok(STACK));
        assert_eq!(STACK.replaced(none, 0x12000), Err(Errno::EPERM));
        assert_eq!(STACK.replaced(none, 5), Ok(none));
        let with = |flags, size| AltStack {
            flags,
            size,
            ..STACK
        };
        assert_eq!(none.replaced(with(4, 0x4000), 5), Err(Errno::EINVAL));
        assert_eq!(none.replaced(with(3, 0x4000), 5), Err(Errno::EINVAL));
        assert_eq!(none.replaced(with(0, 2047), 5), Err(Errno::ENOMEM));
        assert_eq!(none.replaced(with(SS_DISABLE, 9), 5), Ok(none));
    }
}
