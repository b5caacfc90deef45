//! What semaphores get back when a process ends (`SEM_UNDO`).

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use super::now;
use super::sem::{MAX_VALUE, Set, State};
use crate::sync::{SpinLock, SpinLockGuard};

/// The adjustments of a process, or of several that share them (`CLONE_SYSVSEM`). They are made when the last lets go. Its lock
/// comes before a set's.
#[derive(Debug, Default)]
pub struct Undo {
    adjustments: SpinLock<Adjustments>,
    /// The process that changes the semaphores in the end.
    pid: AtomicU32,
}

/// Adjustments by set.
#[derive(Debug, Default)]
pub(super) struct Adjustments(Vec<(Weak<Set>, Vec<i16>)>);

impl Undo {
    /// None yet, of process `pid`.
    #[must_use]
    pub fn new(pid: u32) -> Arc<Self> {
        let undo = Self::default();
        undo.pid.store(pid, Ordering::Relaxed);
        Arc::new(undo)
    }

    pub(super) fn lock(&self) -> SpinLockGuard<'_, Adjustments> {
        self.adjustments.lock()
    }
}

impl Adjustments {
    /// Those for `set`, which is told of `undo`, whose they are.
    pub(super) fn of(&mut self, set: &Arc<Set>, state: &mut State, undo: &Arc<Undo>) -> &mut [i16] {
        let is_this = |known: &Weak<Set>| core::ptr::eq(known.as_ptr(), Arc::as_ptr(set));
        let found = self.0.iter().position(|(known, _)| is_this(known));
        let at = found.unwrap_or_else(|| {
            state.undoers.retain(|known| known.strong_count() > 0);
            state.undoers.push(Arc::downgrade(undo));
            let none = alloc::vec![0; state.semaphores.len()];
            self.0.retain(|(known, _)| known.strong_count() > 0);
            self.0.push((Arc::downgrade(set), none));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// Nothing is added to these semaphores of `set` any more.
    pub(super) fn forget(&mut self, set: &Set, semaphores: &[usize]) {
        for (known, all) in &mut self.0 {
            if core::ptr::eq(known.as_ptr(), set) {
                for at in semaphores {
                    all[*at] = 0;
                }
            }
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let pid = self.pid.load(Ordering::Relaxed);
        for (set, all) in core::mem::take(&mut self.adjustments.get_mut().0) {
            let Some(set) = set.upgrade().filter(|set| set.common.check_alive().is_ok()) else {
                continue;
            };
            {
                let mut state = set.state.lock();
                for (semaphore, by) in state.semaphores.iter_mut().zip(&all) {
                    if *by != 0 {
                        semaphore.value = (semaphore.value + i32::from(*by)).clamp(0, MAX_VALUE);
                        semaphore.pid = pid;
                    }
                }
                state.operated = now();
            }
            set.changed.wake_all();
        }
    }
}
