//! How a vCPU with nothing to do waits for sockets' events: it sleeps on them itself, so that no other thread has to run first,
//! and looks for a moment before, where events came soon of late: to sleep, and to wake what sleeps, takes longer than many
//! answers.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::gate::requests::eagerness::Eagerness;

/// What comes within this time after the vCPU has begun to sleep came soon.
const SOON: Duration = Duration::from_micros(200);
/// So long it looks before it sleeps, at most.
const LOOK: Duration = Duration::from_micros(100);
/// Times that looking may be in vain in a row: what comes has its pauses.
const IN_VAIN: u32 = 3;

/// What is known of the waits of late.
#[derive(Debug, Default)]
struct State {
    eagerness: Eagerness,
    looks: bool,
    /// How often what was looked for came in time since it began.
    found: u32,
    in_vain: u32,
    begun: Option<Instant>,
}

impl State {
    /// It is about to sleep at `now`; how long to look before.
    fn begin(&mut self, now: Instant) -> Duration {
        self.begun = Some(now);
        if self.looks { LOOK } else { Duration::ZERO }
    }

    /// It is awake at `now`, by an event or not.
    fn end(&mut self, has_news: bool, now: Instant) {
        let waited = self
            .begun
            .take()
            .map_or(Duration::MAX, |begun| now.duration_since(begun));
        if !self.looks {
            if has_news {
                self.looks = self.eagerness.came(waited <= SOON, 1);
            } else {
                self.eagerness.nothing_came();
            }
        } else if has_news && waited <= LOOK {
            self.found = self.found.saturating_add(1);
            self.in_vain = 0;
        } else if waited > LOOK {
            self.in_vain += 1;
            if self.in_vain == IN_VAIN {
                self.eagerness.ended(self.eagerness.is_worth(self.found));
                *self = Self {
                    eagerness: self.eagerness,
                    ..Self::default()
                };
            }
        }
    }
}

/// Waits of the vCPU.
#[derive(Debug)]
pub struct Vigil {
    state: Mutex<State>,
    /// There is a CPU to look with.
    may_look: bool,
}

impl Vigil {
    /// None yet.
    pub fn new(may_look: bool) -> Self {
        Self {
            state: Mutex::default(),
            may_look,
        }
    }

    /// The vCPU is about to sleep: how long it is to look for events before.
    pub fn begin(&self) -> Duration {
        if !self.may_look {
            return Duration::ZERO;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.begin(Instant::now())
    }

    /// It is awake, by an event or not.
    pub fn end(&self, has_news: bool) {
        if self.may_look {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.end(has_news, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(state: &mut State, waited: Duration, has_news: bool) -> Duration {
        let now = Instant::now();
        let look = state.begin(now);
        state.end(has_news, now + waited);
        look
    }

    #[test]
    fn looks_where_events_come_soon() {
        let mut state = State::default();
        for _ in 0..4 {
            assert_eq!(wait(&mut state, SOON, true), Duration::ZERO);
        }
        for _ in 0..10 {
            assert_eq!(wait(&mut state, LOOK, true), LOOK);
        }
        // What wakes it otherwise says nothing.
        assert_eq!(wait(&mut state, LOOK / 2, false), LOOK);
        for _ in 0..IN_VAIN {
            assert_eq!(wait(&mut state, SOON, true), LOOK);
        }
        assert_eq!(wait(&mut state, SOON, true), Duration::ZERO);
    }

    #[test]
    fn sleeps_where_they_come_late() {
        let mut state = State::default();
        for _ in 0..1000 {
            assert_eq!(wait(&mut state, SOON * 2, true), Duration::ZERO);
            assert_eq!(wait(&mut state, SOON / 2, true), Duration::ZERO);
            assert_eq!(wait(&mut state, SOON / 2, false), Duration::ZERO);
        }
        // A CPU spent in vain is not spent soon again.
        for _ in 0..4 {
            wait(&mut state, SOON, true);
        }
        for _ in 0..IN_VAIN {
            wait(&mut state, SOON, true);
        }
        for _ in 0..8 {
            assert_eq!(wait(&mut state, SOON, true), Duration::ZERO);
        }
        assert_eq!(wait(&mut state, SOON, true), LOOK);
    }
}
