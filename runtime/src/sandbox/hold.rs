//! Holding the guest still, from when it has written what waits until it is frozen.
//!
//! The guest comes to a doorbell when it has; its vCPU stays there as long as somebody holds it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Who wants the guest to stand still.
#[derive(Debug, Default)]
pub struct Hold {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holders: u32,
    /// How often the last of them let go.
    ended: u64,
}

impl State {
    /// Whether whoever held the guest in this turn has let go.
    fn is_over(&self, turn: u64) -> bool {
        self.holders == 0 || self.ended != turn
    }
}

impl Hold {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more wants it; [`Hold::release`] takes that back.
    pub fn hold(&self) {
        self.state().holders += 1;
    }

    /// One less does.
    pub fn release(&self) {
        let mut state = self.state();
        state.holders = state.holders.saturating_sub(1);
        if state.holders == 0 {
            state.ended += 1;
            self.changed.notify_all();
        }
    }

    /// Waits until all have let go who want it now. Who comes after that has the guest come here again.
    pub fn stand(&self) {
        let state = self.state();
        let turn = state.ended;
        drop(
            self.changed
                .wait_while(state, |state| !state.is_over(turn))
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    #[test]
    fn it_stands_until_the_last_lets_go() {
        let hold = Arc::new(Hold::default());
        hold.stand();
        hold.hold();
        hold.hold();
        let released = Arc::new(AtomicBool::new(false));
        let waiting = {
            let (hold, released) = (hold.clone(), released.clone());
            thread::spawn(move || {
                hold.stand();
                released.load(Ordering::SeqCst)
            })
        };
        hold.release();
        released.store(true, Ordering::SeqCst);
        hold.release();
        assert!(waiting.join().unwrap());
        hold.stand();
    }

    #[test]
    fn who_holds_next_does_not_prolong_a_turn() {
        let hold = Hold::default();
        hold.hold();
        let turn = hold.state().ended;
        assert!(!hold.state().is_over(turn));
        hold.release();
        hold.hold();
        assert!(hold.state().is_over(turn));
    }
}
