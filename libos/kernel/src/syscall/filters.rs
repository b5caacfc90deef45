//! The filters threads put on themselves: `seccomp(2)`, and `prctl(2)`'s `PR_SET_SECCOMP`.
//!
//! They hold beside the container's profile ([`super::seccomp`]): all are asked, and the strictest answer counts.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use husk_abi::linux::general::CAP_SYS_ADMIN;
use husk_abi::linux::ptrace::{
    SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_FILTER_FLAG_TSYNC,
    SECCOMP_FILTER_FLAG_TSYNC_ESRCH, SECCOMP_GET_ACTION_AVAIL, SECCOMP_MODE_DISABLED,
    SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT, SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_SET_MODE_FILTER, SECCOMP_SET_MODE_STRICT,
};

use super::bpf::{DATA_BYTES, Instruction, MAX_INSTRUCTIONS, Program};
use super::{Hex, Ptr, Uint};
use crate::process::Credentials;
use crate::sync::SpinLock;
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// `AUDIT_ARCH_X86_64`.
const ARCH: u32 = 0xc000_003e;
/// Instructions of all filters of a thread, each counted as so many more (`MAX_INSNS_PER_PATH`).
const MAX_IN_ALL: usize = 32768;
const PENALTY: usize = 4;
/// `read`, `write`, `_exit`, `sigreturn`: all that is left in the strict mode.
const STRICT_CALLS: [u64; 4] = [0, 1, 60, 15];

/// A filter, and those that were there before it.
#[derive(Debug)]
pub struct Filter {
    program: Program,
    before: Option<Arc<Filter>>,
    /// Instructions of all of them, and how many they are.
    instructions: usize,
    count: usize,
}

impl Drop for Filter {
    fn drop(&mut self) {
        // One after the other, however many there are.
        let mut next = self.before.take();
        while let Some(filter) = next {
            next = Arc::into_inner(filter).and_then(|mut filter| filter.before.take());
        }
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    strict: bool,
    filter: Option<Arc<Filter>>,
}

/// A thread's filters.
#[derive(Debug, Default)]
pub struct Filters {
    /// There is something to ask.
    active: AtomicBool,
    state: SpinLock<State>,
}

impl Filters {
    /// The same for a new thread.
    #[must_use]
    pub fn inherited(&self) -> Self {
        let state = self.state.lock().clone();
        Self {
            active: AtomicBool::new(self.is_active()),
            state: SpinLock::new(state),
        }
    }

    /// Whether any call must be asked about.
    #[inline]
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// `SECCOMP_MODE_*`, and how many filters there are.
    #[must_use]
    pub fn mode(&self) -> (u32, usize) {
        let state = self.state.lock();
        match &state.filter {
            _ if state.strict => (SECCOMP_MODE_STRICT, 0),
            Some(filter) => (SECCOMP_MODE_FILTER, filter.count),
            None => (SECCOMP_MODE_DISABLED, 0),
        }
    }

    /// What is to become of call `nr`, made at `at`: an action and its data (`SECCOMP_RET_*`); `None` if the strict mode forbids
    /// it.
    #[must_use]
    pub fn ask(&self, nr: u64, at: u64, args: &[u64; 6]) -> Option<u32> {
        let state = self.state.lock().clone();
        if state.strict {
            return STRICT_CALLS.contains(&nr).then_some(SECCOMP_RET_ALLOW);
        }
        let mut data = [0; DATA_BYTES / 4];
        let words = |value: u64| [value as u32, (value >> 32) as u32];
        (data[0], data[1]) = (nr as u32, ARCH);
        data[2..4].copy_from_slice(&words(at));
        for (place, arg) in data[4..].chunks_exact_mut(2).zip(args) {
            place.copy_from_slice(&words(*arg));
        }
        let mut verdict = SECCOMP_RET_ALLOW;
        let mut next = state.filter.as_ref();
        while let Some(filter) = next {
            verdict = stricter(verdict, filter.program.run(&data));
            next = filter.before.as_ref();
        }
        Some(verdict)
    }

    fn set(&self, state: State) {
        let old = core::mem::replace(&mut *self.state.lock(), state);
        self.active.store(true, Ordering::Relaxed);
        drop(old);
    }

    /// Whether its newest filter is one of `newest` or those before that.
    fn is_below(&self, newest: Option<&Arc<Filter>>) -> bool {
        let state = self.state.lock();
        if state.strict {
            return false;
        }
        let Some(own) = &state.filter else {
            return true;
        };
        let mut next = newest;
        while let Some(filter) = next {
            if Arc::ptr_eq(filter, own) {
                return true;
            }
            next = filter.before.as_ref();
        }
        false
    }
}

/// The stricter of two answers, the first if they are equally strict.
#[must_use]
pub fn stricter(one: u32, other: u32) -> u32 {
    // Actions are ordered as signed numbers.
    let order = |answer: u32| (answer & SECCOMP_RET_ACTION_FULL).cast_signed();
    if order(other) < order(one) {
        other
    } else {
        one
    }
}

/// `seccomp(2)`.
///
/// # Errors
/// `EACCES`, `EFAULT`, `EINVAL`, `ENOMEM`, `EOPNOTSUPP`, `ESRCH`.
pub fn seccomp(t: &Thread, operation: Uint, flags: Hex, args: Ptr) -> SysResult {
    let flags = u32::try_from(flags & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    match operation {
        SECCOMP_SET_MODE_STRICT if flags == 0 && args.is_null() => set_strict(t),
        SECCOMP_SET_MODE_FILTER => set_filter(t, flags, args),
        SECCOMP_GET_ACTION_AVAIL if flags == 0 => match args.read::<u32>()? {
            SECCOMP_RET_KILL_PROCESS
            | SECCOMP_RET_KILL_THREAD
            | SECCOMP_RET_TRAP
            | SECCOMP_RET_ERRNO
            | SECCOMP_RET_TRACE
            | SECCOMP_RET_LOG
            | SECCOMP_RET_ALLOW => Ok(0),
            _ => Err(Errno::EOPNOTSUPP),
        },
        _ => Err(Errno::EINVAL),
    }
}

/// `PR_SET_SECCOMP`.
///
/// # Errors
/// As [`seccomp`].
pub fn set_mode(t: &Thread, mode: u64, filter: u64) -> SysResult {
    match u32::try_from(mode) {
        Ok(SECCOMP_MODE_STRICT) => set_strict(t),
        Ok(SECCOMP_MODE_FILTER) => set_filter(t, 0, UserAddr(filter)),
        _ => Err(Errno::EINVAL),
    }
}

/// `PR_GET_SECCOMP`.
#[must_use]
pub fn mode(t: &Thread) -> u32 {
    match t.filters.mode().0 {
        SECCOMP_MODE_DISABLED if t.kernel.seccomp.is_some() => SECCOMP_MODE_FILTER,
        mode => mode,
    }
}

fn set_strict(t: &Thread) -> SysResult {
    // The profile is a filter, too.
    if mode(t) == SECCOMP_MODE_FILTER {
        return Err(Errno::EINVAL);
    }
    t.filters.set(State {
        strict: true,
        filter: None,
    });
    Ok(0)
}

/// Where the instructions of a `struct sock_fprog` are, and how many.
fn read_program(at: UserAddr) -> Result<(UserAddr, usize)> {
    let [words, instructions] = at.read::<[u64; 2]>()?;
    let len = usize::from(words as u16);
    if len == 0 || len > MAX_INSTRUCTIONS {
        return Err(Errno::EINVAL);
    }
    Ok((UserAddr(instructions), len))
}

fn set_filter(t: &Thread, flags: u32, at: UserAddr) -> SysResult {
    const KNOWN: u32 = SECCOMP_FILTER_FLAG_TSYNC
        | SECCOMP_FILTER_FLAG_LOG
        | SECCOMP_FILTER_FLAG_SPEC_ALLOW
        | SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let (instructions, len) = read_program(at)?;
    let credentials = t.credentials();
    if !credentials.no_new_privileges && !credentials.has(CAP_SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    if instructions.is_null() {
        return Err(Errno::EINVAL);
    }
    let instructions = instructions.read_array::<[u8; 8]>(len)?;
    let instructions = instructions.into_iter().map(Instruction::from_bytes);
    let program = Program::check(instructions.collect())?;
    let state = t.filters.state.lock().clone();
    if state.strict {
        return Err(Errno::EINVAL);
    }
    let before = state.filter;
    let others: Vec<_> = if flags & SECCOMP_FILTER_FLAG_TSYNC != 0 {
        let all = t.process.threads().into_iter();
        all.filter(|other| other.tid() != t.tid()).collect()
    } else {
        Vec::new()
    };
    if let Some(other) = others
        .iter()
        .find(|other| !other.filters.is_below(before.as_ref()))
    {
        return if flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH != 0 {
            Err(Errno::ESRCH)
        } else {
            Ok(other.tid() as usize)
        };
    }
    let (earlier, count) = before
        .as_ref()
        .map_or((0, 0), |before| (before.instructions, before.count));
    let all = earlier + program.len() + PENALTY;
    if all > MAX_IN_ALL + PENALTY {
        return Err(Errno::ENOMEM);
    }
    let filter = Arc::new(Filter {
        program,
        before,
        instructions: all,
        count: count + 1,
    });
    let state = State {
        strict: false,
        filter: Some(filter),
    };
    for other in others {
        other.filters.set(state.clone());
        if credentials.no_new_privileges {
            other.set_credentials(Credentials {
                no_new_privileges: true,
                ..(*other.credentials()).clone()
            });
        }
    }
    t.filters.set(state);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strictness() {
        let from_strict = [
            SECCOMP_RET_KILL_PROCESS,
            SECCOMP_RET_KILL_THREAD,
            SECCOMP_RET_TRAP,
            SECCOMP_RET_ERRNO | 1,
            SECCOMP_RET_TRACE,
            SECCOMP_RET_LOG,
            SECCOMP_RET_ALLOW,
        ];
        for pair in from_strict.windows(2) {
            assert_eq!(stricter(pair[0], pair[1]), pair[0]);
            assert_eq!(stricter(pair[1], pair[0]), pair[0]);
        }
        let (first, second) = (SECCOMP_RET_ERRNO | 1, SECCOMP_RET_ERRNO | 2);
        assert_eq!(stricter(first, second), first);
    }
}
