//! What a process does about each signal: `rt_sigaction(2)`.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::linux::general;

use crate::sync::SpinLock;
use crate::user::UserAddr;
use crate::{Errno, SysResult, Thread};

use super::set::{NSIG, SIGCHLD, SigSet, is_valid};

/// `SIG_DFL`.
pub const SIG_DFL: u64 = 0;
/// `SIG_IGN`.
pub const SIG_IGN: u64 = 1;

bitflags::bitflags! {
    /// `SA_*` of `sigaction(2)`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ActionFlags: u64 {
        /// No `SIGCHLD` when children stop or continue.
        const NOCLDSTOP = general::SA_NOCLDSTOP as u64;
        /// Children leave no zombies.
        const NOCLDWAIT = general::SA_NOCLDWAIT as u64;
        /// The handler takes three arguments.
        const SIGINFO = general::SA_SIGINFO as u64;
        /// Keep tag bits in `si_addr`; x86 has none.
        const EXPOSE_TAGBITS = general::SA_EXPOSE_TAGBITS as u64;
        /// `restorer` is set; x86-64 needs it.
        const RESTORER = general::SA_RESTORER as u64;
        /// Run on the alternate stack.
        const ONSTACK = general::SA_ONSTACK as u64;
        /// Restart interrupted system calls.
        const RESTART = general::SA_RESTART as u64;
        /// Do not block the signal in its own handler.
        const NODEFER = general::SA_NODEFER as u64;
        /// Reset the handler when it is called.
        const RESETHAND = general::SA_RESETHAND as u64;
    }
}

/// What to do about one signal: the kernel's `struct sigaction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// [`SIG_DFL`], [`SIG_IGN`] or the handler's address.
    pub handler: u64,
    /// `SA_*`.
    pub flags: ActionFlags,
    /// Where a handler returns to.
    pub restorer: u64,
    /// What is blocked while the handler runs.
    pub mask: SigSet,
}

impl Action {
    /// From the words of `struct sigaction`: unknown flags are cleared, so that programs can see what is
    /// supported.
    fn from_words([handler, flags, restorer, mask]: [u64; 4]) -> Self {
        Self {
            handler,
            flags: ActionFlags::from_bits_truncate(flags),
            restorer,
            mask: SigSet(mask).without(SigSet::UNBLOCKABLE),
        }
    }

    fn to_words(self) -> [u64; 4] {
        [self.handler, self.flags.bits(), self.restorer, self.mask.0]
    }

    /// Whether signal `signo` does nothing.
    fn ignores(&self, signo: i32) -> bool {
        self.handler == SIG_IGN
            || self.handler == SIG_DFL && SigSet::IGNORED_BY_DEFAULT.contains(signo)
    }
}

/// What becomes of children that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildPolicy {
    /// They leave no zombie.
    pub auto_reap: bool,
    /// `SIGCHLD` is sent.
    pub notify: bool,
}

/// The table of actions: one for all threads of a process, and for processes made with `CLONE_SIGHAND`.
#[derive(Debug)]
pub struct Handlers {
    actions: SpinLock<[Action; NSIG as usize]>,
    /// Signals that do nothing, by default or by `SIG_IGN`.
    ignored: AtomicU64,
    /// Signals with `SIG_DFL`.
    default: AtomicU64,
}

impl Handlers {
    /// Everything at its default.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::from_actions([Action::default(); NSIG as usize])
    }

    fn from_actions(actions: [Action; NSIG as usize]) -> Arc<Self> {
        let handlers = Self {
            actions: SpinLock::new(actions),
            ignored: AtomicU64::new(0),
            default: AtomicU64::new(0),
        };
        for (signo, action) in (1..).zip(&actions) {
            handlers.summarize(signo, action);
        }
        Arc::new(handlers)
    }

    /// A copy, for a child process.
    #[must_use]
    pub fn fork(&self) -> Arc<Self> {
        Self::from_actions(*self.actions.lock())
    }

    /// What a new program starts with: handlers are gone, what was ignored stays so.
    #[must_use]
    pub fn reset_for_exec(&self) -> Arc<Self> {
        Self::from_actions(self.actions.lock().map(|action| Action {
            handler: if action.handler == SIG_IGN {
                SIG_IGN
            } else {
                SIG_DFL
            },
            ..Action::default()
        }))
    }

    fn summarize(&self, signo: i32, action: &Action) {
        let bit = SigSet::of(signo).0;
        let set = |summary: &AtomicU64, on: bool| {
            if on {
                summary.fetch_or(bit, Ordering::SeqCst);
            } else {
                summary.fetch_and(!bit, Ordering::SeqCst);
            }
        };
        set(&self.ignored, action.ignores(signo));
        set(&self.default, action.handler == SIG_DFL);
    }

    /// The action for a valid signal.
    #[must_use]
    pub fn get(&self, signo: i32) -> Action {
        self.actions.lock()[signo as usize - 1]
    }

    /// Replaces the action for a valid signal; returns the old one.
    pub fn set(&self, signo: i32, action: Action) -> Action {
        let mut actions = self.actions.lock();
        let old = core::mem::replace(&mut actions[signo as usize - 1], action);
        self.summarize(signo, &action);
        old
    }

    /// The action for a signal that is being delivered; `SA_RESETHAND` takes effect.
    pub(super) fn take(&self, signo: i32) -> Action {
        let mut actions = self.actions.lock();
        let action = actions[signo as usize - 1];
        if action.handler > SIG_IGN && action.flags.contains(ActionFlags::RESETHAND) {
            let reset = Action {
                handler: SIG_DFL,
                ..action
            };
            actions[signo as usize - 1] = reset;
            self.summarize(signo, &reset);
        }
        action
    }

    /// Makes `signo` do its default, keeping flags and mask.
    pub(super) fn set_default(&self, signo: i32) {
        let mut actions = self.actions.lock();
        let action = &mut actions[signo as usize - 1];
        action.handler = SIG_DFL;
        self.summarize(signo, action);
    }

    /// Signals that do nothing when they come.
    #[must_use]
    pub fn ignored(&self) -> SigSet {
        SigSet(self.ignored.load(Ordering::SeqCst))
    }

    /// Signals with `SIG_DFL`.
    #[must_use]
    pub fn default_set(&self) -> SigSet {
        SigSet(self.default.load(Ordering::SeqCst))
    }

    /// Signals with `SIG_IGN` and signals with handlers, for `/proc/*/status`.
    #[must_use]
    pub fn ignored_and_caught(&self) -> (SigSet, SigSet) {
        let actions = self.actions.lock();
        (1..).zip(actions.iter()).fold(
            (SigSet::EMPTY, SigSet::EMPTY),
            |(ignored, caught), (signo, action)| match action.handler {
                SIG_DFL => (ignored, caught),
                SIG_IGN => (ignored.with(signo), caught),
                _ => (ignored, caught.with(signo)),
            },
        )
    }

    /// What becomes of children of a process with these handlers.
    #[must_use]
    pub fn child_policy(&self) -> ChildPolicy {
        let action = self.get(SIGCHLD);
        let ignored = action.handler == SIG_IGN;
        ChildPolicy {
            auto_reap: ignored || action.flags.contains(ActionFlags::NOCLDWAIT),
            notify: !ignored,
        }
    }

    /// Whether children that end leave no zombie.
    #[must_use]
    pub fn child_exit_is_ignored(&self) -> bool {
        self.child_policy().auto_reap
    }

    /// Whether `SIGCHLD` is sent when children stop or continue.
    #[must_use]
    pub fn wants_child_stops(&self) -> bool {
        let action = self.get(SIGCHLD);
        action.handler != SIG_IGN && !action.flags.contains(ActionFlags::NOCLDSTOP)
    }
}

/// `rt_sigaction(2)`.
///
/// # Errors
/// `EINVAL` for a bad set size or signal, or a change of `SIGKILL` or `SIGSTOP`; `EFAULT`.
pub fn rt_sigaction(
    t: &Thread,
    signum: i32,
    act: UserAddr,
    oldact: UserAddr,
    sigsetsize: usize,
) -> SysResult {
    if sigsetsize != size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    let new = act.read_opt::<[u64; 4]>()?.map(Action::from_words);
    if !is_valid(signum) || new.is_some() && SigSet::UNBLOCKABLE.contains(signum) {
        return Err(Errno::EINVAL);
    }
    let handlers = t.process.handlers();
    let old = match new {
        Some(action) => handlers.set(signum, action),
        None => handlers.get(signum),
    };
    if new.is_some_and(|action| action.ignores(signum)) {
        // POSIX: a pending signal that becomes ignored is discarded, blocked or not.
        super::state::discard(&t.process, SigSet::of(signum));
    }
    oldact.write_opt(&old.to_words())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::super::set::*;
    use super::*;

    fn handler(flags: ActionFlags) -> Action {
        Action {
            handler: 0x4000,
            flags,
            restorer: 0x5000,
            mask: SigSet::of(SIGUSR2),
        }
    }

    #[test]
    fn exec_resets_handlers_and_keeps_ignored() {
        let handlers = Handlers::new();
        handlers.set(SIGUSR1, handler(ActionFlags::RESTART));
        handlers.set(
            SIGHUP,
            Action {
                handler: SIG_IGN,
                ..handler(ActionFlags::NODEFER)
            },
        );
        let forked = handlers.fork();
        assert_eq!(forked.get(SIGUSR1), handler(ActionFlags::RESTART));
        let fresh = forked.reset_for_exec();
        assert_eq!(fresh.get(SIGUSR1), Action::default());
        assert_eq!(
            fresh.get(SIGHUP),
            Action {
                handler: SIG_IGN,
                ..Action::default()
            }
        );
        assert!(fresh.ignored().contains(SIGHUP) && !fresh.ignored().contains(SIGUSR1));
        assert_eq!(forked.get(SIGUSR1).handler, 0x4000);
    }

    #[test]
    fn summaries() {
        let handlers = Handlers::new();
        assert_eq!(handlers.ignored(), SigSet::IGNORED_BY_DEFAULT);
        assert_eq!(handlers.default_set(), !SigSet::EMPTY);
        handlers.set(SIGCHLD, handler(ActionFlags::empty()));
        assert!(!handlers.ignored().contains(SIGCHLD));
        assert_eq!(
            handlers.ignored_and_caught(),
            (SigSet::EMPTY, SigSet::of(SIGCHLD))
        );
        handlers.set(SIGCHLD, Action::default());
        assert!(handlers.ignored().contains(SIGCHLD));
    }

    #[test]
    fn resethand_once() {
        let handlers = Handlers::new();
        handlers.set(SIGUSR1, handler(ActionFlags::RESETHAND));
        assert_eq!(handlers.take(SIGUSR1).handler, 0x4000);
        assert_eq!(handlers.take(SIGUSR1).handler, SIG_DFL);
        assert!(handlers.default_set().contains(SIGUSR1));
        assert_eq!(handlers.get(SIGUSR1).flags, ActionFlags::RESETHAND);
    }

    #[test]
    fn unknown_flags_and_unblockable_signals_are_cleared() {
        let action = Action::from_words([5, u64::MAX, 6, u64::MAX]);
        assert_eq!(action.flags.bits() & u64::from(general::SA_UNSUPPORTED), 0);
        assert_eq!(action.flags, ActionFlags::all());
        assert_eq!(action.mask, !SigSet::UNBLOCKABLE);
    }

    #[test]
    fn children() {
        let handlers = Handlers::new();
        let policy = |auto_reap, notify| ChildPolicy { auto_reap, notify };
        assert_eq!(handlers.child_policy(), policy(false, true));
        handlers.set(SIGCHLD, handler(ActionFlags::NOCLDWAIT));
        assert_eq!(handlers.child_policy(), policy(true, true));
        handlers.set(
            SIGCHLD,
            Action {
                handler: SIG_IGN,
                ..Action::default()
            },
        );
        assert_eq!(handlers.child_policy(), policy(true, false));
        assert!(!handlers.wants_child_stops());
    }
}
