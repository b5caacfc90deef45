//! When a timer expires: arithmetic only, in nanoseconds of the timer's own clock.

use super::units::TIME_MAX;

/// A one-shot or periodic timer's next expiration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    next: Option<u64>,
    interval_ns: u64,
}

impl Schedule {
    /// Expires at `next`, then every `interval_ns` if that is not 0.
    #[must_use]
    pub fn at(next: u64, interval_ns: u64) -> Self {
        Self {
            next: Some(next),
            interval_ns,
        }
    }

    /// A timer that is not armed but remembers its interval.
    #[must_use]
    pub fn disarmed(interval_ns: u64) -> Self {
        Self {
            next: None,
            interval_ns,
        }
    }

    /// What `timer_settime(2)` asks for: `value` counts from `now` unless it is absolute; 0 disarms.
    #[must_use]
    pub fn set(value: u64, interval_ns: u64, is_absolute: bool, now: u64) -> Self {
        match (value, is_absolute) {
            (0, _) => Self::default(),
            (_, true) => Self::at(value, interval_ns),
            (_, false) => Self::at(now.saturating_add(value).min(TIME_MAX), interval_ns),
        }
    }

    /// When it expires next.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Its interval; 0 for a one-shot timer.
    #[must_use]
    pub fn interval_ns(&self) -> u64 {
        self.interval_ns
    }

    /// Time until the next expiration as Linux reports it: 0 only if disarmed, at least 1 otherwise.
    #[must_use]
    pub fn remaining(&self, now: u64) -> u64 {
        self.next.map_or(0, |next| next.saturating_sub(now).max(1))
    }

    /// Whether an expiration is due.
    #[must_use]
    pub fn is_due(&self, now: u64) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Passes all expirations up to `now` and returns their number. A one-shot timer is disarmed by its only
    /// one; a periodic one is armed for its first multiple after `now`.
    pub fn expire(&mut self, now: u64) -> u64 {
        let Some(next) = self.next.filter(|next| *next <= now) else {
            return 0;
        };
        if self.interval_ns == 0 {
            self.next = None;
            return 1;
        }
        let passed = (now - next) / self.interval_ns + 1;
        self.next = passed
            .checked_mul(self.interval_ns)
            .and_then(|by| next.checked_add(by));
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn one_shot() {
        let mut timer = Schedule::at(100, 0);
        assert_eq!(timer.remaining(40), 60);
        assert_eq!(timer.expire(99), 0);
        assert!(timer.is_due(100));
        assert_eq!(timer.remaining(100), 1);
        assert_eq!(timer.expire(500), 1);
        assert_eq!(timer.next(), None);
        assert_eq!(timer.remaining(500), 0);
        assert_eq!(timer.expire(600), 0);
    }

    #[test]
    fn periodic_keeps_its_phase() {
        let mut timer = Schedule::at(100, 30);
        assert_eq!(timer.expire(100), 1);
        assert_eq!(timer.next(), Some(130));
        // 130, 160, 190, 220 have passed at 229; the next is 250.
        assert_eq!(timer.expire(249), 4);
        assert_eq!(timer.next(), Some(250));
        assert_eq!(timer.expire(250), 1);
        assert_eq!(timer.next(), Some(280));
    }

    #[test]
    fn the_end_of_time_disarms() {
        let mut timer = Schedule::at(u64::MAX - 1, u64::MAX - 1);
        assert_eq!(timer.expire(u64::MAX), 1);
        assert_eq!(timer.next(), None);
    }
}
