//! When the guest is interrupted: for changes it has not looked at, and for bytes it has not handed in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A guest that runs has so long to look by itself what changed, before it is interrupted: that takes as long as many
/// events' work.
const LATE: Duration = Duration::from_micros(300);
/// How often somebody looks for bytes that are not handed in.
const TICK: Duration = Duration::from_millis(1);
/// So long after the last data were sent or received.
const WATCHED: Duration = Duration::from_millis(50);

/// Told by those who send and receive that it is time to watch.
pub struct Alarm {
    event: OwnedFd,
    is_watched: AtomicBool,
    has_moved: AtomicBool,
}

impl Alarm {
    /// Nobody watches.
    ///
    /// # Errors
    /// What `eventfd(2)` gives.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            is_watched: AtomicBool::new(false),
            has_moved: AtomicBool::new(false),
        })
    }

    /// Readable when watching is to begin.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Whether somebody watches.
    pub fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::SeqCst)
    }

    /// Data were sent or received: more may follow.
    pub fn moved(&self) {
        self.has_moved.store(true, Ordering::Relaxed);
        if !self.is_watched.swap(true, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Takes the event.
    pub fn heard(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }
}

/// What the thread that watches does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The guest may not have seen changes: it is to be interrupted if so.
    pub unseen: bool,
    /// It has had bytes to send for a while: it is to be interrupted.
    pub unsent: bool,
    /// It no longer has those it was interrupted for.
    pub handed_in: bool,
    /// It has not left for a while: events are to be taken for it.
    pub alone: bool,
    /// Nobody watches any longer: the guest is to be told.
    pub over: bool,
}

/// What the thread that watches knows.
#[derive(Debug, Default)]
pub struct Watch {
    /// Since when a guest that ran then may not have seen changes.
    untold: Option<Instant>,
    /// When data were sent or received last, and when to look next.
    watching: Option<(Instant, Instant)>,
    /// What the guest said of bytes to send when it was last looked at; 0: none.
    unsent: u32,
    /// It was interrupted for them.
    asks: bool,
    /// How often it had left when it was last looked at.
    visits: u32,
}

impl Watch {
    /// Watching begins at `now`.
    pub fn begin(&mut self, now: Instant) {
        self.watching = Some((now, now + TICK));
    }

    /// The guest was told of changes: true if it slept, and looks at once.
    pub fn told(&mut self, has_slept: bool, now: Instant) {
        if has_slept {
            self.untold = None;
        } else {
            self.untold.get_or_insert(now);
        }
    }

    /// How long there is nothing to do at `now`; `None`: for ever.
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        let late = self.untold.map(|since| since + LATE);
        let tick = self.watching.map(|(_, next)| next);
        let next = late.into_iter().chain(tick).min()?;
        Some(next.saturating_duration_since(now))
    }

    /// What is due at `now`, when the guest has left so often; `unsent` is what it says of bytes to send, if that has to be
    /// looked at.
    pub fn due(
        &mut self,
        now: Instant,
        alarm: &Alarm,
        visits: u32,
        unsent: impl Fn() -> u32,
    ) -> Due {
        let mut due = Due::default();
        if self.untold.is_some_and(|since| since + LATE <= now) {
            self.untold = None;
            due.unseen = true;
        }
        let Some((last, next)) = self.watching.filter(|(_, next)| *next <= now) else {
            return due;
        };
        let last = if alarm.has_moved.swap(false, Ordering::Relaxed) {
            next
        } else {
            last
        };
        due.alone = std::mem::replace(&mut self.visits, visits) == visits;
        let before = std::mem::replace(&mut self.unsent, unsent());
        due.unsent = self.unsent != 0 && self.unsent == before;
        let asks = std::mem::replace(&mut self.asks, due.unsent);
        due.handed_in = asks && !due.unsent;
        if self.unsent != 0 || now.saturating_duration_since(last) < WATCHED {
            self.watching = Some((last, now + TICK));
        } else {
            self.watching = None;
            alarm.is_watched.store(false, Ordering::SeqCst);
            due.over = true;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_late_to_those_who_run() {
        let (mut watch, alarm, now) = (Watch::default(), Alarm::new().unwrap(), Instant::now());
        assert_eq!(watch.rest(now), None);
        watch.told(true, now);
        assert_eq!(watch.rest(now), None);
        watch.told(false, now);
        watch.told(false, now + LATE / 2);
        assert_eq!(watch.rest(now), Some(LATE));
        assert_eq!(watch.due(now + LATE / 2, &alarm, 0, || 0), Due::default());
        assert!(watch.due(now + LATE, &alarm, 0, || 0).unseen);
        assert_eq!(watch.rest(now), None);
    }

    #[test]
    fn bytes_that_stay_are_asked_for() {
        let (mut watch, alarm, now) = (Watch::default(), Alarm::new().unwrap(), Instant::now());
        alarm.moved();
        watch.begin(now);
        let at = |ticks: u32| now + TICK * ticks;
        // It does not leave.
        let alone = Due {
            alone: true,
            ..Due::default()
        };
        assert_eq!(watch.due(at(1), &alarm, 0, || 7), alone);
        // Others than before.
        assert_eq!(watch.due(at(2), &alarm, 0, || 9), alone);
        let due = watch.due(at(3), &alarm, 1, || 9);
        assert!(due.unsent && !due.alone);
        assert!(watch.due(at(4), &alarm, 0, || 11).handed_in);
        // Whoever has some is watched.
        assert!(!watch.due(at(200), &alarm, 0, || 13).over);
        let end = at(201);
        assert!(watch.due(end, &alarm, 0, || 0).over);
        assert_eq!(watch.rest(end), None);
        // The next that sends wakes the thread again.
        alarm.moved();
        assert!(rustix::io::read(alarm.event(), &mut [0; 8]).is_ok());
    }
}
