//! The container's seccomp profile (`seccomp(2)`): which calls are served.
//!
//! It holds for every thread from the first program on, beside the filters threads put on themselves ([`super::filters`]). Calls the profile allows without conditions cost a bit
//! test.

use alloc::vec::Vec;

use husk_abi::boundary::config::{Seccomp, SeccompAction, SeccompArg, SeccompOp};
use husk_abi::linux::Errno;
use husk_abi::linux::ptrace::{
    PTRACE_EVENT_SECCOMP, SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW, SECCOMP_RET_DATA,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF,
};
use husk_abi::linux::syscalls::SYSCALL_LIMIT;
use husk_hal::trap::LiveFrame;

use super::filters;
use crate::process::ptrace;
use crate::signal::{self, Info};
use crate::{Thread, log, process, translate};

const SIGKILL: i32 = 9;
const SIGSYS: i32 = 31;
const WORDS: usize = SYSCALL_LIMIT.div_ceil(64);

/// A rule's conditions, all of which must hold, and what follows.
#[derive(Debug)]
struct Rule {
    args: Vec<SeccompArg>,
    action: SeccompAction,
}

/// A profile, arranged by number.
#[derive(Debug)]
pub struct Filter {
    /// Bit set: allowed, whatever the arguments.
    allowed: [u64; WORDS],
    /// Rules by number.
    rules: Vec<Vec<Rule>>,
    default_action: SeccompAction,
    newest: u64,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is served.
    Serve,
    /// It is not served, and gives 0.
    Succeed,
    /// It fails.
    Fail(Errno),
    /// It was rolled back: a signal handler sees it as not made.
    Undone,
}

fn holds(condition: &SeccompArg, args: &[u64; 6]) -> bool {
    let Some(arg) = args.get(usize::from(condition.index)).copied() else {
        return false;
    };
    let value = condition.value;
    match condition.op {
        SeccompOp::NotEqual => arg != value,
        SeccompOp::Less => arg < value,
        SeccompOp::LessOrEqual => arg <= value,
        SeccompOp::Equal => arg == value,
        SeccompOp::GreaterOrEqual => arg >= value,
        SeccompOp::Greater => arg > value,
        SeccompOp::MaskedEqual => arg & condition.mask == value,
    }
}

impl Filter {
    /// Arranges a profile.
    #[must_use]
    pub fn new(profile: &Seccomp) -> Self {
        let mut rules: Vec<Vec<Rule>> = Vec::new();
        rules.resize_with(SYSCALL_LIMIT, Vec::new);
        for rule in &profile.rules {
            for nr in &rule.syscalls {
                let Some(of_call) = rules.get_mut(*nr as usize) else {
                    continue;
                };
                let entry = Rule {
                    args: rule.args.clone(),
                    action: rule.action,
                };
                // One without conditions decides before all others.
                match of_call.first() {
                    Some(first) if first.args.is_empty() => {}
                    _ if entry.args.is_empty() => of_call.insert(0, entry),
                    _ => of_call.push(entry),
                }
            }
        }
        let mut filter = Self {
            allowed: [0; WORDS],
            rules,
            default_action: profile.default_action,
            newest: u64::from(profile.newest),
        };
        for nr in 0..SYSCALL_LIMIT {
            let decided = match filter.rules[nr].as_slice() {
                [] => (nr as u64 <= filter.newest).then_some(filter.default_action),
                [first, ..] if first.args.is_empty() => Some(first.action),
                _ => None,
            };
            if decided == Some(SeccompAction::Allow) {
                filter.allowed[nr / 64] |= 1 << (nr % 64);
            }
        }
        filter
    }

    /// Whether call `nr` is served whatever its arguments.
    #[inline]
    #[must_use]
    pub fn allows(&self, nr: u64) -> bool {
        let word = usize::try_from(nr / 64).ok();
        word.and_then(|word| self.allowed.get(word))
            .is_some_and(|word| word >> (nr % 64) & 1 != 0)
    }

    /// What the profile says of call `nr` with `args`.
    #[must_use]
    pub fn action(&self, nr: u64, args: &[u64; 6]) -> SeccompAction {
        let rules = usize::try_from(nr).ok().and_then(|nr| self.rules.get(nr));
        let found = rules
            .into_iter()
            .flatten()
            .find(|rule| rule.args.iter().all(|condition| holds(condition, args)));
        match found {
            Some(rule) => rule.action,
            None if nr > self.newest => SeccompAction::Errno(Errno::ENOSYS.code() as u16),
            None => self.default_action,
        }
    }
}

/// An action of a profile as filters have it.
fn answer(action: SeccompAction) -> u32 {
    match action {
        SeccompAction::Allow => SECCOMP_RET_ALLOW,
        SeccompAction::Log => SECCOMP_RET_LOG,
        SeccompAction::Errno(errno) => SECCOMP_RET_ERRNO | u32::from(errno),
        SeccompAction::Trace => SECCOMP_RET_TRACE,
        SeccompAction::Trap => SECCOMP_RET_TRAP,
        SeccompAction::KillThread => SECCOMP_RET_KILL_THREAD,
        SeccompAction::KillProcess => SECCOMP_RET_KILL_PROCESS,
    }
}

/// What the profile and the thread's own filters say of call `nr`; `None` if the strict mode forbids it.
fn ask(t: &Thread, nr: u64, frame: &LiveFrame) -> Option<u32> {
    let args = frame.args();
    let at = translate::original_rip(t, frame.rip());
    let own = if t.filters.is_active() {
        t.filters.ask(nr, at, &args)?
    } else {
        SECCOMP_RET_ALLOW
    };
    let profile = t.kernel.seccomp.as_ref();
    let general = profile.map_or(SECCOMP_RET_ALLOW, |profile| {
        answer(profile.action(nr, &args))
    });
    Some(filters::stricter(own, general))
}

/// Carries out what the profile and the thread's filters say of the call in `frame`.
#[cold]
pub fn judge(t: &Thread, nr: u64, frame: &LiveFrame) -> Verdict {
    let Some(said) = ask(t, nr, frame) else {
        crate::trace::ended(t, nr, &frame.args());
        process::exit::exit_thread(t, SIGKILL)
    };
    let data = said & SECCOMP_RET_DATA;
    match said & SECCOMP_RET_ACTION_FULL {
        SECCOMP_RET_ALLOW => Verdict::Serve,
        SECCOMP_RET_LOG => {
            log!(Info, "syscall", "process {}: call {nr}", t.process.pid);
            Verdict::Serve
        }
        SECCOMP_RET_ERRNO => fail(data),
        SECCOMP_RET_TRACE if t.trace.wants(PTRACE_EVENT_SECCOMP) => traced(t, data, frame),
        // Without a tracer, or somebody who listens, the call is as if it were not there.
        SECCOMP_RET_TRACE | SECCOMP_RET_USER_NOTIF => Verdict::Fail(Errno::ENOSYS),
        SECCOMP_RET_TRAP => {
            crate::trace::ended(t, nr, &frame.args());
            let at = translate::original_rip(t, frame.rip());
            frame.update(|registers| {
                registers.rax = nr;
                registers.orig_rax = u64::MAX;
            });
            signal::force(t, &Info::seccomp(at, nr, data));
            Verdict::Undone
        }
        SECCOMP_RET_KILL_THREAD if t.process.threads().len() > 1 => {
            crate::trace::ended(t, nr, &frame.args());
            process::exit::exit_thread(t, SIGSYS)
        }
        // To kill the process, or the last thread of it; and what is no action.
        _ => {
            crate::trace::ended(t, nr, &frame.args());
            process::exit::exit_group_signal(t, SIGSYS, false)
        }
    }
}

/// The call fails by `errno`, which may be none.
fn fail(errno: u32) -> Verdict {
    const MAX_ERRNO: u32 = 4095;
    match errno.min(MAX_ERRNO) {
        0 => Verdict::Succeed,
        errno => Verdict::Fail(Errno::from_code(errno.cast_signed())),
    }
}

/// Lets the tracer see the call and change it; what it is then is asked about again.
fn traced(t: &Thread, data: u32, frame: &LiveFrame) -> Verdict {
    ptrace::event(t, PTRACE_EVENT_SECCOMP, u64::from(data));
    let nr = frame.nr();
    if nr == u64::MAX {
        // The tracer has put the result in place.
        return Verdict::Undone;
    }
    let Some(said) = ask(t, nr, frame) else {
        process::exit::exit_thread(t, SIGKILL)
    };
    match said & SECCOMP_RET_ACTION_FULL {
        SECCOMP_RET_ALLOW | SECCOMP_RET_LOG | SECCOMP_RET_TRACE => Verdict::Serve,
        SECCOMP_RET_ERRNO => fail(said & SECCOMP_RET_DATA),
        _ => {
            crate::trace::ended(t, nr, &frame.args());
            process::exit::exit_group_signal(t, SIGSYS, false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use husk_abi::boundary::config::SeccompRule;

    fn arg(op: SeccompOp, value: u64, mask: u64) -> SeccompArg {
        SeccompArg {
            index: 1,
            op,
            value,
            mask,
        }
    }

    #[test]
    fn comparisons() {
        let args = [0, 5, 0, 0, 0, 0];
        for (op, value, mask, expected) in [
            (SeccompOp::Equal, 5, 0, true),
            (SeccompOp::NotEqual, 5, 0, false),
            (SeccompOp::Less, 6, 0, true),
            (SeccompOp::LessOrEqual, 5, 0, true),
            (SeccompOp::Greater, 5, 0, false),
            (SeccompOp::GreaterOrEqual, 5, 0, true),
            (SeccompOp::MaskedEqual, 4, 6, true),
            (SeccompOp::MaskedEqual, 5, 6, false),
        ] {
            assert_eq!(holds(&arg(op, value, mask), &args), expected, "{op:?}");
        }
        assert!(!holds(
            &SeccompArg {
                index: 9,
                ..arg(SeccompOp::Equal, 0, 0)
            },
            &args
        ));
    }

    #[test]
    fn rules_and_default() {
        let filter = Filter::new(&Seccomp {
            default_action: SeccompAction::Errno(1),
            newest: 100,
            rules: vec![
                SeccompRule {
                    syscalls: vec![0, 1],
                    args: vec![],
                    action: SeccompAction::Allow,
                },
                SeccompRule {
                    syscalls: vec![56],
                    args: vec![arg(SeccompOp::Equal, 5, 0)],
                    action: SeccompAction::Allow,
                },
                SeccompRule {
                    syscalls: vec![1],
                    args: vec![arg(SeccompOp::Equal, 5, 0)],
                    action: SeccompAction::KillProcess,
                },
            ],
        });
        let five = [0, 5, 0, 0, 0, 0];
        assert!(filter.allows(0) && filter.allows(1) && !filter.allows(56) && !filter.allows(2));
        assert!(!filter.allows(u64::MAX) && !filter.allows(1 << 40));
        assert_eq!(filter.action(56, &five), SeccompAction::Allow);
        assert_eq!(filter.action(56, &[0; 6]), SeccompAction::Errno(1));
        assert_eq!(filter.action(1, &five), SeccompAction::Allow);
        assert_eq!(filter.action(101, &five), SeccompAction::Errno(38));
        assert_eq!(filter.action(u64::MAX - 1, &five), SeccompAction::Errno(38));
    }
}
