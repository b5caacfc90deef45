//! Signal numbers, sets of them, and what signals do by default (`signal(7)`).

use core::ops::{BitAnd, BitOr, Not};

use husk_abi::linux::general;

/// The highest signal number.
pub const NSIG: i32 = 64;
/// The first real-time signal: these queue, the ones below coalesce.
pub const SIGRTMIN: i32 = 32;

macro_rules! numbers {
    ($($name:ident)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`, `signal(7)`.")]
            pub const $name: i32 = general::$name as i32;
        )*
    };
}

numbers! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE
    SIGALRM SIGTERM SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM
    SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
}

/// Whether `signo` is a signal's number.
#[must_use]
pub const fn is_valid(signo: i32) -> bool {
    signo >= 1 && signo <= NSIG
}

/// A set of signals, in the kernel's 64-bit `sigset_t`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Signals nobody blocks, catches or ignores.
    pub const UNBLOCKABLE: Self = Self::of(SIGKILL).with(SIGSTOP);
    /// Signals that an instruction of the thread itself raises.
    pub const SYNCHRONOUS: Self = Self::of(SIGSEGV)
        .with(SIGBUS)
        .with(SIGILL)
        .with(SIGTRAP)
        .with(SIGFPE)
        .with(SIGSYS);
    /// Signals that stop the process by default.
    pub const STOP: Self = Self::of(SIGSTOP).with(SIGTSTP).with(SIGTTIN).with(SIGTTOU);
    /// Signals that do nothing by default (`SIGCONT` has done its work when it was sent).
    pub const IGNORED_BY_DEFAULT: Self =
        Self::of(SIGCONT).with(SIGCHLD).with(SIGWINCH).with(SIGURG);
    /// Signals that dump core by default.
    pub const CORE_DUMP: Self = Self::of(SIGQUIT)
        .with(SIGILL)
        .with(SIGTRAP)
        .with(SIGABRT)
        .with(SIGFPE)
        .with(SIGSEGV)
        .with(SIGBUS)
        .with(SIGSYS)
        .with(SIGXCPU)
        .with(SIGXFSZ);

    /// The set of one valid signal.
    #[must_use]
    pub const fn of(signo: i32) -> Self {
        Self(1 << (signo - 1))
    }

    /// The set and `signo`.
    #[must_use]
    pub const fn with(self, signo: i32) -> Self {
        Self(self.0 | Self::of(signo).0)
    }

    /// The set without the members of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether `signo` is a member.
    #[must_use]
    pub const fn contains(self, signo: i32) -> bool {
        self.0 & Self::of(signo).0 != 0
    }

    /// Whether it has no members.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The member to deliver first: synchronous signals, then the lowest number.
    #[must_use]
    pub fn first(self) -> Option<i32> {
        let synchronous = self & Self::SYNCHRONOUS;
        let among = if synchronous.is_empty() {
            self
        } else {
            synchronous
        };
        (!among.is_empty()).then(|| among.0.trailing_zeros().cast_signed() + 1)
    }
}

impl BitOr for SigSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for SigSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for SigSet {
    type Output = Self;

    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl core::fmt::Debug for SigSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set()
            .entries((1..=NSIG).filter(|signo| self.contains(*signo)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic() {
        let set = SigSet::of(SIGHUP).with(SIGTERM).with(64);
        assert!(set.contains(64) && set.contains(1) && !set.contains(2));
        assert_eq!(set.0, 1 | 1 << 14 | 1 << 63);
        assert_eq!(set.without(SigSet::of(SIGTERM)).0, 1 | 1 << 63);
        assert_eq!((!SigSet::EMPTY & set), set);
        assert_eq!(SigSet::UNBLOCKABLE.0, 1 << 8 | 1 << 18);
        assert!(is_valid(64) && !is_valid(65) && !is_valid(0) && !is_valid(-1));
    }

    #[test]
    fn first_is_synchronous_then_lowest() {
        assert_eq!(SigSet::EMPTY.first(), None);
        assert_eq!(SigSet::of(40).with(33).first(), Some(33));
        assert_eq!(SigSet::of(SIGHUP).with(SIGSEGV).first(), Some(SIGSEGV));
        assert_eq!(SigSet::of(SIGBUS).with(SIGSEGV).first(), Some(SIGBUS));
        assert_eq!(SigSet::of(64).first(), Some(64));
    }
}
