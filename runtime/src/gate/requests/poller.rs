//! When a thread looks for requests by itself, so that the guest need not leave for each.
//!
//! It begins when requests come quickly and ends when they come no longer, or when the guest rings again and again all the
//! same: then the thread has lost its CPU. Each time that was not worth its waking makes it more reluctant.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::eagerness::{EAGER, Eagerness};
use super::message::BULK;

/// Rings with at most so much in between come quickly.
const CLOSE: Duration = Duration::from_micros(300);
/// How long it looks in vain before it ends: about what the guest's way out and in takes at most.
const IN_VAIN: Duration = Duration::from_micros(200);
/// Rings while it looks that say nothing: some were under way when it began.
const LATE_RINGS: u32 = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Asleep,
    /// Woken, but not there yet.
    Woken,
    Looking,
    /// To sleep as soon as it notices.
    Outrun,
}

/// How many requests of what size were served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    requests: u32,
    large: u32,
    of_sockets: u32,
}

impl Served {
    /// One more, with so many bytes of data.
    pub fn count(&mut self, bytes: usize) {
        self.requests += 1;
        self.large += u32::from(bytes >= BULK);
    }

    /// One more about a socket. It counts for nothing: whom the work on sockets wakes needs the CPU that a thread which looks
    /// would take.
    pub fn count_of_socket(&mut self) {
        self.of_sockets += 1;
    }

    /// These as well.
    fn add(&mut self, others: Self) {
        self.requests = self.requests.saturating_add(others.requests);
        self.large = self.large.saturating_add(others.large);
        self.of_sockets = self.of_sockets.saturating_add(others.of_sockets);
    }

    /// Whether it was anything.
    pub fn is_any(self) -> bool {
        self.requests > 0 || self.of_sockets > 0
    }

    /// What they count: much data seldom comes alone.
    fn weight(self) -> u32 {
        self.requests
            .saturating_add(self.large.saturating_mul(EAGER))
    }
}

#[derive(Debug)]
struct State {
    mode: Mode,
    last_ring: Option<Instant>,
    eagerness: Eagerness,
    /// Rings while it looks.
    rings: u32,
}

impl State {
    fn new() -> Self {
        Self {
            mode: Mode::Asleep,
            last_ring: None,
            eagerness: Eagerness::default(),
            rings: 0,
        }
    }

    /// The guest rang at `now`; true if the thread is to be woken.
    fn rang(&mut self, now: Instant, served: Served) -> bool {
        match self.mode {
            Mode::Woken | Mode::Outrun => return false,
            Mode::Looking => {
                self.rings += 1;
                if self.rings > LATE_RINGS {
                    self.mode = Mode::Outrun;
                }
                return false;
            }
            Mode::Asleep => {}
        }
        let before = self.last_ring.replace(now);
        let is_close = before.is_some_and(|before| now.duration_since(before) <= CLOSE);
        if !self.eagerness.came(is_close, served.weight()) {
            return false;
        }
        self.mode = Mode::Woken;
        true
    }

    /// It ends, after it served so much.
    fn ended(&mut self, served: Served) {
        let was_worth_it = self.mode == Mode::Looking && self.eagerness.is_worth(served.weight());
        self.eagerness.ended(was_worth_it);
        (self.mode, self.last_ring, self.rings) = (Mode::Asleep, None, 0);
    }
}

/// The thread's sleep and waking.
#[derive(Debug)]
pub struct Poller {
    state: Mutex<State>,
    woken: Condvar,
}

impl Poller {
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State::new()),
            woken: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest rang, and this was served.
    pub fn rang(&self, served: Served) {
        if served.weight() > 0 && self.state().rang(Instant::now(), served) {
            self.woken.notify_one();
        }
    }

    /// The thread's life: sleeps until requests come quickly, then calls `look` as long as they do, between `notify(false)`
    /// and `notify(true)`. The latter says whether a request came before the guest knew that it must ring.
    pub fn live(&self, look: impl Fn() -> Served, notify: impl Fn(bool) -> bool) {
        loop {
            let state = self
                .woken
                .wait_while(self.state(), |state| state.mode != Mode::Woken);
            state.unwrap_or_else(PoisonError::into_inner).mode = Mode::Looking;
            notify(false);
            let mut all = self.look(&look);
            while notify(true) {
                let served = look();
                // A ring that is broken never looks empty.
                if !served.is_any() {
                    break;
                }
                all.add(served);
            }
            self.state().ended(all);
        }
    }

    /// Looks until nothing came for long enough.
    fn look(&self, look: impl Fn() -> Served) -> Served {
        let mut all = Served::default();
        let mut last = Instant::now();
        while last.elapsed() < IN_VAIN && self.state().mode == Mode::Looking {
            let served = look();
            all.add(served);
            if served.weight() > 0 {
                last = Instant::now();
            } else {
                std::hint::spin_loop();
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::requests::eagerness::RELUCTANT;

    fn served(requests: u32) -> Served {
        Served {
            requests,
            ..Served::default()
        }
    }

    #[test]
    fn begins_when_requests_come_quickly() {
        let (mut state, now) = (State::new(), Instant::now());
        let at = |micros| now + Duration::from_micros(micros);
        for time in [0, 1000, 2000, 3000, 4000] {
            assert!(!state.rang(at(time), served(1)));
        }
        assert!(!state.rang(at(4100), served(1)));
        assert!(!state.rang(at(4200), served(1)));
        assert!(state.rang(at(4300), served(1)));
        // Before it looks the guest has to ring.
        assert!(!state.rang(at(4400), served(1)));
        assert_eq!(state.mode, Mode::Woken);
    }

    #[test]
    fn much_data_begins_at_once() {
        let mut large = Served::default();
        large.count(BULK);
        assert!(State::new().rang(Instant::now(), large));
    }

    #[test]
    fn reluctant_when_it_was_not_worth_it() {
        let (mut state, now) = (State::new(), Instant::now());
        state.mode = Mode::Looking;
        state.ended(served(EAGER - 1));
        assert!(!state.rang(now, served(2 * EAGER - 1)));
        // Rings while it looks: it is too slow, however much it did.
        state.mode = Mode::Looking;
        for _ in 0..=LATE_RINGS {
            assert!(!state.rang(now, served(1)));
        }
        state.ended(served(1000));
        assert_eq!(state.mode, Mode::Asleep);
        assert!(!state.rang(now, served(4 * EAGER - 1)));
        for _ in 0..100 {
            state.mode = Mode::Looking;
            state.ended(served(RELUCTANT));
        }
        assert!(state.rang(now, served(EAGER)));
    }

    #[test]
    fn takes_over_and_gives_back() {
        let poller: &'static Poller = Box::leak(Box::new(Poller::new()));
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // A ring that is broken: never empty, and never anything in it.
            let notify = |tell| sender.send(tell).is_ok() && tell;
            poller.live(Served::default, notify);
        });
        for _ in 0..3 {
            let mut much = Served::default();
            (0..RELUCTANT).for_each(|_| much.count(BULK));
            while poller.state().mode != Mode::Woken {
                poller.rang(much);
            }
            assert_eq!((told.recv(), told.recv()), (Ok(false), Ok(true)));
        }
    }
}
