//! POSIX timers (`timer_create(2)`).
//!
//! As on Linux a timer has at most one signal queued. A periodic timer is armed again only when its signal is
//! taken ([`signal_taken`]); the expirations passed by then are its overrun. So a timer whose signal is blocked
//! costs nothing however short its interval.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use super::{ClockId, OnWallStep, Schedule, Timeline, cputime, itimerspec_ns, itimerspec_of};
use crate::sched::TimerId;
use crate::signal::{self, Info};
use crate::sync::SpinLock;
use crate::user::UserAddr;
use crate::{Errno, Kernel, Process, Result, SysResult, Thread};
use husk_abi::linux::general::{
    __kernel_itimerspec, RLIMIT_SIGPENDING, SIGALRM, SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD,
    SIGEV_THREAD_ID, TIMER_ABSTIME,
};

/// Highest signal number.
const SIGNAL_MAX: i32 = 64;

/// While its signal is ignored a timer expires at most this often, in nanoseconds.
const IGNORED_PAUSE_NS: u64 = 10_000_000;

/// What a timer counts.
#[derive(Debug)]
enum Source {
    Monotonic,
    Realtime,
    Process(Weak<Process>),
    Thread(Weak<Thread>),
}

impl Source {
    fn is_cpu(&self) -> bool {
        matches!(self, Self::Process(_) | Self::Thread(_))
    }
}

/// Who is told of an expiration.
#[derive(Debug)]
enum Target {
    Nobody,
    Process,
    Thread(Weak<Thread>),
}

/// A POSIX timer.
#[derive(Debug)]
struct PosixTimer {
    id: i32,
    process: Weak<Process>,
    source: Source,
    target: Target,
    signo: i32,
    value: u64,
    state: SpinLock<State>,
}

#[derive(Debug, Default)]
struct State {
    schedule: Schedule,
    /// What the schedule is in, unless it is CPU time.
    timeline: Timeline,
    timer: Option<TimerId>,
    /// Its signal is queued.
    is_pending: bool,
    /// Overrun of the last signal taken.
    overrun: i32,
    is_deleted: bool,
}

/// The timers of a process.
#[derive(Debug, Default)]
pub(super) struct PosixTimers(SpinLock<Table>);

#[derive(Debug, Default)]
struct Table {
    next_id: i32,
    timers: BTreeMap<i32, Arc<PosixTimer>>,
}

impl Table {
    /// An id not in use: the next after the last one given out, as on Linux.
    fn free_id(&mut self) -> i32 {
        loop {
            let id = self.next_id;
            self.next_id = id.checked_add(1).unwrap_or(0);
            if !self.timers.contains_key(&id) {
                return id;
            }
        }
    }
}

impl PosixTimers {
    fn get(&self, id: i32) -> Result<Arc<PosixTimer>> {
        self.0.lock().timers.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    fn all(&self) -> Vec<Arc<PosixTimer>> {
        self.0.lock().timers.values().cloned().collect()
    }

    pub fn delete_all(&self, kernel: &Kernel) {
        let table = core::mem::take(&mut *self.0.lock());
        for timer in table.timers.into_values() {
            timer.delete(kernel);
        }
    }

    /// Sends what is due of the timers on CPU clocks; returns the least CPU time until the next expiration.
    pub fn check_cpu(&self) -> Option<u64> {
        let timers = self.all().into_iter();
        timers
            .filter(|timer| timer.source.is_cpu())
            .filter_map(|timer| {
                timer.expire();
                let state = timer.state.lock();
                let now = timer.now(&state)?;
                (state.schedule.next().is_some() && !state.is_pending)
                    .then(|| state.schedule.remaining(now))
            })
            .min()
    }

    /// Whether a timer counts another process's CPU time.
    pub fn watches_others(&self) -> bool {
        self.all().iter().any(|timer| match &timer.source {
            Source::Process(watched) => !Weak::ptr_eq(watched, &timer.process),
            _ => false,
        })
    }
}

impl PosixTimer {
    /// The time its schedule is in; `None` if what it counts is gone.
    fn now(&self, state: &State) -> Option<u64> {
        match &self.source {
            Source::Monotonic | Source::Realtime => Some(state.timeline.now()),
            Source::Process(process) => Some(process.upgrade()?.cpu_ns()),
            Source::Thread(thread) => Some(thread.upgrade()?.sched.cpu_ns()),
        }
    }

    /// Has [`PosixTimer::expire`] called when it is due. CPU clocks are looked after by `cputime`.
    fn arm(self: &Arc<Self>, state: &mut State) {
        let Some(process) = self.process.upgrade() else {
            return;
        };
        let timers = &process.kernel.timers;
        if let Some(old) = state.timer.take() {
            timers.cancel(old);
        }
        let is_silent = matches!(self.target, Target::Nobody);
        if self.source.is_cpu() || is_silent || state.is_pending || state.is_deleted {
            return;
        }
        state.timer = state.schedule.next().map(|at| {
            let at = state.timeline.monotonic(at);
            let timer = Arc::downgrade(self);
            timers.call_at(at, move || {
                if let Some(timer) = timer.upgrade() {
                    timer.expire();
                }
            })
        });
    }

    /// Sends its signal if an expiration is due; may be called at any time.
    fn expire(self: &Arc<Self>) {
        {
            let mut state = self.state.lock();
            let due = self
                .now(&state)
                .is_some_and(|now| state.schedule.is_due(now));
            if !due || state.is_pending || state.is_deleted {
                self.arm(&mut state);
                return;
            }
            if matches!(self.target, Target::Nobody) {
                return;
            }
            state.is_pending = true;
            state.timer = None;
        }
        let Some(process) = self.process.upgrade() else {
            return;
        };
        let info = Info::timer(self.signo, self.id, 0, self.value);
        // The kernel's own signals are never refused, but they may be ignored.
        let _ = match &self.target {
            Target::Nobody => Ok(()),
            Target::Process => signal::send_process(&process, &info),
            Target::Thread(thread) => match thread.upgrade() {
                Some(thread) => signal::send_thread(&thread, &info),
                None => Ok(()),
            },
        };
        self.check_queued(&process);
    }

    /// Goes on if its signal is not queued: it was ignored, or one with the same number was pending.
    fn check_queued(self: &Arc<Self>, process: &Process) {
        let is_pending = self.state.lock().is_pending;
        if is_pending && !signal::is_timer_queued(process, self.id) {
            self.taken(IGNORED_PAUSE_NS);
        }
    }

    /// Its signal was taken from the queue, or thrown away: counts what it missed and goes on, after a pause of at
    /// least `pause_ns`. Returns the overrun, or `None` if the timer was set anew since.
    fn taken(self: &Arc<Self>, pause_ns: u64) -> Option<i32> {
        let overrun = {
            let mut state = self.state.lock();
            if !core::mem::take(&mut state.is_pending) {
                return None;
            }
            let now = self.now(&state).unwrap_or(0);
            let passed = state.schedule.expire(now.saturating_add(pause_ns));
            let overrun = i32::try_from(passed.saturating_sub(1)).unwrap_or(i32::MAX);
            state.overrun = overrun;
            self.arm(&mut state);
            overrun
        };
        if self.source.is_cpu()
            && let Some(process) = self.process.upgrade()
        {
            process.timers.cpu.rearm();
        }
        Some(overrun)
    }

    fn delete(&self, kernel: &Kernel) {
        let mut state = self.state.lock();
        state.is_deleted = true;
        state.schedule = Schedule::default();
        if let Some(timer) = state.timer.take() {
            kernel.timers.cancel(timer);
        }
    }

    /// What `timer_gettime` says.
    fn setting(&self, state: &State) -> __kernel_itimerspec {
        let now = self.now(state).unwrap_or(0);
        let mut schedule = state.schedule;
        // Expirations that wait for their signal to be taken have passed all the same.
        if state.is_pending || matches!(self.target, Target::Nobody) {
            schedule.expire(now);
        }
        itimerspec_of(&schedule, now)
    }
}

impl OnWallStep for PosixTimer {
    fn wall_stepped(self: Arc<Self>) {
        self.expire();
    }
}

/// The signal code calls this when it takes the signal of `process`'s timer `timer` from a queue. Returns its
/// `si_overrun`.
pub fn signal_taken(process: &Process, timer: i32) -> i32 {
    let timer = process.timers.posix.get(timer);
    timer.ok().and_then(|timer| timer.taken(0)).unwrap_or(0)
}

/// The signal code calls this when it has thrown pending signals of `process` away.
pub fn signals_discarded(process: &Process) {
    for timer in process.timers.posix.all() {
        timer.check_queued(process);
    }
}

/// `sigevent` as words: value (2), signal, how to notify, thread id.
type SigEvent = [u32; 16];

/// Who to tell, the signal and its value.
fn decode_event(t: &Thread, event: &SigEvent) -> Result<(Target, i32, u64)> {
    const NONE: u32 = SIGEV_NONE;
    const TO_THREAD: u32 = SIGEV_SIGNAL | SIGEV_THREAD_ID;
    let value = u64::from(event[0]) | u64::from(event[1]) << 32;
    let signo = event[2].cast_signed();
    let target = match event[3] {
        NONE => return Ok((Target::Nobody, signo, value)),
        SIGEV_SIGNAL | SIGEV_THREAD => Target::Process,
        TO_THREAD => {
            let thread = t.kernel.tasks.thread(event[4]).ok_or(Errno::EINVAL)?;
            if !Arc::ptr_eq(&thread.process, &t.process) {
                return Err(Errno::EINVAL);
            }
            Target::Thread(thread.weak())
        }
        _ => return Err(Errno::EINVAL),
    };
    if !(1..=SIGNAL_MAX).contains(&signo) {
        return Err(Errno::EINVAL);
    }
    Ok((target, signo, value))
}

/// `timer_create(2)`.
///
/// # Errors
/// As the man page; `EOPNOTSUPP` for clocks that have no timers.
pub fn timer_create(t: &Thread, clockid: i32, sevp: UserAddr, timerid: UserAddr) -> SysResult {
    let event = sevp.read_opt::<SigEvent>()?;
    let clock = ClockId::decode(clockid)?;
    let source = match clock {
        ClockId::Monotonic => Source::Monotonic,
        ClockId::Realtime => Source::Realtime,
        ClockId::ProcessCpu(_) => Source::Process(Arc::downgrade(&clock.process(t)?)),
        ClockId::ThreadCpu(_) => Source::Thread(clock.thread(t)?.weak()),
        _ => return Err(Errno::EOPNOTSUPP),
    };
    let timers = &t.process.timers.posix;
    let id = {
        let mut table = timers.0.lock();
        let limit = t.process.limit(RLIMIT_SIGPENDING)?.rlim_cur;
        if table.timers.len() as u64 >= limit {
            return Err(Errno::EAGAIN);
        }
        table.free_id()
    };
    let (target, signo, value) = match event {
        Some(event) => decode_event(t, &event)?,
        None => (
            Target::Process,
            SIGALRM.cast_signed(),
            u64::from(id.cast_unsigned()),
        ),
    };
    timerid.write(&id)?;
    let timer = Arc::new(PosixTimer {
        id,
        process: Arc::downgrade(&t.process),
        source,
        target,
        signo,
        value,
        state: SpinLock::default(),
    });
    if clock.is_realtime() {
        let weak: Weak<PosixTimer> = Arc::downgrade(&timer);
        t.kernel.time.register(weak);
    }
    timers.0.lock().timers.insert(id, timer);
    Ok(0)
}

/// `timer_settime(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn timer_settime(
    t: &Thread,
    timerid: i32,
    flags: u64,
    new_value: UserAddr,
    old_value: UserAddr,
) -> SysResult {
    if new_value.is_null() {
        return Err(Errno::EINVAL);
    }
    let (value, interval) = itimerspec_ns(&new_value.read()?)?;
    let timer = t.process.timers.posix.get(timerid)?;
    let is_absolute = flags & u64::from(TIMER_ABSTIME) != 0;
    let old = {
        let mut state = timer.state.lock();
        let old = timer.setting(&state);
        state.is_pending = false;
        state.overrun = 0;
        state.timeline = if is_absolute && matches!(timer.source, Source::Realtime) {
            Timeline::Wall
        } else {
            Timeline::Monotonic
        };
        let now = timer.now(&state).unwrap_or(0);
        state.schedule = Schedule::set(value, interval, is_absolute, now);
        timer.arm(&mut state);
        old
    };
    if timer.source.is_cpu() {
        cputime::check(&t.process);
    }
    old_value.write_opt(&old)?;
    Ok(0)
}

/// `timer_gettime(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn timer_gettime(t: &Thread, timerid: i32, value: UserAddr) -> SysResult {
    let timer = t.process.timers.posix.get(timerid)?;
    let setting = timer.setting(&timer.state.lock());
    value.write(&setting)?;
    Ok(0)
}

/// `timer_getoverrun(2)`: expirations missed before the last signal was taken.
///
/// # Errors
/// `EINVAL`.
pub fn timer_getoverrun(t: &Thread, timerid: i32) -> SysResult {
    let timer = t.process.timers.posix.get(timerid)?;
    let overrun = timer.state.lock().overrun;
    Ok(usize::try_from(overrun).unwrap_or(0))
}

/// `timer_delete(2)`.
///
/// # Errors
/// `EINVAL`.
pub fn timer_delete(t: &Thread, timerid: i32) -> SysResult {
    let removed = t.process.timers.posix.0.lock().timers.remove(&timerid);
    removed.ok_or(Errno::EINVAL)?.delete(t.kernel);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn ids_count_up() {
        let mut table = Table::default();
        assert_eq!([table.free_id(), table.free_id()], [0, 1]);
        table.next_id = i32::MAX;
        assert_eq!([table.free_id(), table.free_id()], [i32::MAX, 0]);
    }
}
