//! Pending signals: a set, and a queue of what came with them.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::linux::general::rlimit64;

use crate::sync::SpinLock;
use crate::{Errno, Result};

use super::info::{Info, SI_USER};
use super::set::{SIGKILL, SIGRTMIN, SigSet};

/// Number of queued signals by the user they wait for (`RLIMIT_SIGPENDING`).
#[derive(Debug, Default)]
pub struct QueuedByUser(SpinLock<BTreeMap<u32, u64>>);

impl QueuedByUser {
    /// Nothing queued.
    #[must_use]
    pub const fn new() -> Self {
        Self(SpinLock::new(BTreeMap::new()))
    }

    /// Signals queued for processes of user `uid` (`SigQ` in `/proc/*/status`).
    #[must_use]
    pub fn count(&self, uid: u32) -> u64 {
        self.0.lock().get(&uid).copied().unwrap_or(0)
    }

    /// Takes a place in the queue of `uid`, or `None` if all `limit` are taken.
    fn charge(&'static self, uid: u32, limit: u64) -> Option<Charge> {
        let mut counts = self.0.lock();
        let count = counts.entry(uid).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Charge { counts: self, uid })
    }
}

/// A place in a user's queue; given back on drop.
#[derive(Debug)]
struct Charge {
    counts: &'static QueuedByUser,
    uid: u32,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock();
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

/// Whose queue a signal goes to, and how long that may get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub counts: &'static QueuedByUser,
    pub uid: u32,
    pub limit: rlimit64,
}

#[derive(Debug)]
struct Entry {
    info: Info,
    _charge: Charge,
}

#[derive(Debug, Default)]
struct Queue {
    set: SigSet,
    /// At most one of each, in order of arrival.
    standard: Vec<Entry>,
    real_time: BTreeMap<i32, VecDeque<Entry>>,
}

impl Queue {
    fn push(&mut self, info: &Info, account: &Account) -> Result<()> {
        let signo = info.signo;
        let real_time = signo >= SIGRTMIN;
        if !real_time && self.set.contains(signo) {
            return Ok(());
        }
        if signo != SIGKILL {
            // Standard signals that no program queued are not counted against the limit's room: they must
            // not get lost, and there is one of each at most.
            let limit = if !real_time && info.code >= 0 {
                u64::MAX
            } else {
                account.limit.rlim_cur
            };
            let entry = account
                .counts
                .charge(account.uid, limit)
                .map(|_charge| Entry {
                    info: *info,
                    _charge,
                });
            match entry {
                Some(entry) if real_time => {
                    self.real_time.entry(signo).or_default().push_back(entry);
                }
                Some(entry) => self.standard.push(entry),
                None if real_time && info.code != SI_USER && info.is_from_program() => {
                    return Err(Errno::EAGAIN);
                }
                // The signal comes, its details are lost, as on Linux.
                None => {}
            }
        }
        self.set = self.set.with(signo);
        Ok(())
    }

    fn take(&mut self, signo: i32) -> Info {
        let (entry, more) = if signo < SIGRTMIN {
            let index = self
                .standard
                .iter()
                .position(|entry| entry.info.signo == signo);
            (index.map(|index| self.standard.remove(index)), false)
        } else if let Some(queue) = self.real_time.get_mut(&signo) {
            (queue.pop_front(), !queue.is_empty())
        } else {
            (None, false)
        };
        if !more {
            self.discard(SigSet::of(signo));
        }
        entry.map_or_else(|| Info::lost(signo), |entry| entry.info)
    }

    fn take_first(&mut self, blocked: SigSet) -> Option<Info> {
        let signo = self.set.without(blocked).first()?;
        Some(self.take(signo))
    }

    /// The first fault in order of arrival: its frame must show the faulting instruction.
    fn take_fault(&mut self, blocked: SigSet) -> Option<Info> {
        let faults = (self.set & SigSet::SYNCHRONOUS).without(blocked);
        let is_fault = |info: &Info| faults.contains(info.signo) && info.code > SI_USER;
        let signo = self
            .standard
            .iter()
            .find(|entry| is_fault(&entry.info))?
            .info
            .signo;
        Some(self.take(signo))
    }

    fn discard(&mut self, signals: SigSet) {
        if !(self.set & signals).is_empty() {
            self.set = self.set.without(signals);
            self.standard
                .retain(|entry| !signals.contains(entry.info.signo));
            self.real_time.retain(|signo, _| !signals.contains(*signo));
        }
    }
}

/// A thread's or a process's pending signals. Changed only under the process's signal lock; the set can
/// be read at any time.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: SpinLock<Queue>,
    set: AtomicU64,
}

impl Pending {
    fn with<R>(&self, change: impl FnOnce(&mut Queue) -> R) -> R {
        let mut queue = self.queue.lock();
        let result = change(&mut queue);
        self.set.store(queue.set.0, Ordering::SeqCst);
        result
    }

    /// Which signals are pending.
    pub(super) fn set(&self) -> SigSet {
        SigSet(self.set.load(Ordering::SeqCst))
    }

    /// Adds a signal; a standard one that is pending already is not added again.
    ///
    /// # Errors
    /// `EAGAIN` if a program queued a real-time signal and its user's queue is full.
    pub(super) fn push(&self, info: &Info, account: &Account) -> Result<()> {
        self.with(|queue| queue.push(info, account))
    }

    /// Takes the next signal that is not `blocked`.
    pub(super) fn take_first(&self, blocked: SigSet) -> Option<Info> {
        if self.set().without(blocked).is_empty() {
            return None;
        }
        self.with(|queue| queue.take_first(blocked))
    }

    /// Takes the first fault that is not `blocked`.
    pub(super) fn take_fault(&self, blocked: SigSet) -> Option<Info> {
        if (self.set() & SigSet::SYNCHRONOUS)
            .without(blocked)
            .is_empty()
        {
            return None;
        }
        self.with(|queue| queue.take_fault(blocked))
    }

    /// The `index`-th that waits, standard ones first.
    pub(super) fn nth(&self, index: usize) -> Option<Info> {
        let queue = self.queue.lock();
        let real_time = queue.real_time.values().flatten();
        let mut entries = queue.standard.iter().chain(real_time);
        entries.nth(index).map(|entry| entry.info)
    }

    /// Whether the signal of POSIX timer `timer` is among them.
    pub(super) fn has_timer(&self, timer: i32) -> bool {
        let queue = self.queue.lock();
        let real_time = queue.real_time.values().flatten();
        let mut entries = queue.standard.iter().chain(real_time);
        entries.any(|entry| entry.info.timer_id() == Some(timer))
    }

    /// Forgets `signals`.
    pub(super) fn discard(&self, signals: SigSet) {
        if !(self.set() & signals).is_empty() {
            self.with(|queue| queue.discard(signals));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::set::*;
    use super::*;

    fn account(limit: u64) -> Account {
        Account {
            counts: Box::leak(Box::default()),
            uid: 7,
            limit: rlimit64 {
                rlim_cur: limit,
                rlim_max: limit,
            },
        }
    }

    fn queued(signo: i32, value: u64) -> Info {
        let mut bytes = Info::kill(signo, 1, 0).to_bytes();
        bytes[8..12].copy_from_slice(&(-1i32).to_le_bytes());
        bytes[24..32].copy_from_slice(&value.to_le_bytes());
        Info::from_program(signo, &bytes).unwrap()
    }

    #[test]
    fn standard_signals_coalesce_real_time_ones_queue() {
        let account = account(100);
        let pending = Pending::default();
        for pid in 1..4 {
            pending
                .push(&Info::kill(SIGUSR1, pid, 0), &account)
                .unwrap();
        }
        for value in 0..3 {
            pending.push(&queued(40, value), &account).unwrap();
        }
        assert_eq!(account.counts.count(7), 4);
        assert_eq!(
            pending.take_first(SigSet::EMPTY),
            Some(Info::kill(SIGUSR1, 1, 0))
        );
        for value in 0..3 {
            assert!(pending.set().contains(40));
            assert_eq!(pending.take_first(SigSet::EMPTY), Some(queued(40, value)));
        }
        assert_eq!(pending.take_first(SigSet::EMPTY), None);
        assert_eq!(account.counts.count(7), 0);
    }

    #[test]
    fn order_faults_then_lowest() {
        let account = account(100);
        let pending = Pending::default();
        for signo in [50, 34, SIGTERM, SIGHUP, SIGSEGV] {
            pending.push(&queued(signo, 0), &account).unwrap();
        }
        pending
            .push(&Info::fault(SIGFPE, 1, 0x1000), &account)
            .unwrap();
        // A SIGSEGV that a program sent is no fault.
        assert_eq!(
            pending.take_fault(SigSet::EMPTY).map(|info| info.signo),
            Some(SIGFPE)
        );
        assert_eq!(pending.take_fault(SigSet::EMPTY), None);
        let order: Vec<i32> =
            core::iter::from_fn(|| pending.take_first(SigSet::of(34)).map(|info| info.signo))
                .collect();
        assert_eq!(order, [SIGSEGV, SIGHUP, SIGTERM, 50]);
        assert_eq!(pending.set(), SigSet::of(34));
    }

    #[test]
    fn limits() {
        let account = account(2);
        let pending = Pending::default();
        pending.push(&queued(40, 0), &account).unwrap();
        pending.push(&queued(40, 1), &account).unwrap();
        assert_eq!(pending.push(&queued(40, 2), &account), Err(Errno::EAGAIN));
        assert_eq!(pending.push(&queued(41, 2), &account), Err(Errno::EAGAIN));
        assert!(!pending.set().contains(41));
        // kill(2) never fails for lack of room; the details are lost.
        pending.push(&Info::kill(41, 9, 9), &account).unwrap();
        pending.push(&queued(SIGUSR1, 1), &account).unwrap();
        // A standard signal of the kernel keeps them.
        pending.push(&Info::kernel(SIGCHLD), &account).unwrap();
        assert_eq!(account.counts.count(7), 3);
        pending.discard(SigSet::of(40));
        assert_eq!(account.counts.count(7), 1);
        let taken: Vec<Info> = core::iter::from_fn(|| pending.take_first(SigSet::EMPTY)).collect();
        assert_eq!(
            taken,
            [Info::lost(SIGUSR1), Info::kernel(SIGCHLD), Info::lost(41)]
        );
        drop(pending);
        assert_eq!(account.counts.count(7), 0);
    }

    #[test]
    fn sigkill_needs_no_room() {
        let account = account(0);
        let pending = Pending::default();
        pending.push(&queued(SIGKILL, 0), &account).unwrap();
        assert_eq!(pending.take_first(SigSet::EMPTY), Some(Info::lost(SIGKILL)));
    }
}
