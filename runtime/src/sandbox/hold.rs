//! Holding the guest still, from when it has written what waits until it is frozen.
//!
//! The guest comes to a doorbell when it has; its vCPU stays there as long as somebody holds it.

use std::sync::{Condvar, Mutex, PoisonError};

/// How many want the guest to stand still.
#[derive(Debug, Default)]
pub struct Hold {
    holders: Mutex<u32>,
    changed: Condvar,
}

impl Hold {
    fn change(&self, change: impl FnOnce(u32) -> u32) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        *holders = change(*holders);
        self.changed.notify_all();
    }

    /// One more wants it; [`Hold::release`] takes that back.
    pub fn hold(&self) {
        self.change(|holders| holders.saturating_add(1));
    }

    /// One less does.
    pub fn release(&self) {
        self.change(|holders| holders.saturating_sub(1));
    }

    /// Waits until nobody wants it.
    pub fn stand(&self) {
        let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.changed
                .wait_while(holders, |holders| *holders > 0)
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
        let standing = {
            let (hold, released) = (hold.clone(), released.clone());
            thread::spawn(move || {
                hold.stand();
                released.load(Ordering::SeqCst)
            })
        };
        hold.release();
        released.store(true, Ordering::SeqCst);
        hold.release();
        assert!(standing.join().unwrap());
        hold.stand();
    }
}
