//! Timers as descriptors (`timerfd_create(2)`).

use alloc::sync::{Arc, Weak};

use husk_abi::linux::general::{
    CAP_WAKE_ALARM, CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM, O_CLOEXEC, O_NONBLOCK, O_RDWR, TFD_TIMER_ABSTIME,
    TFD_TIMER_CANCEL_ON_SET,
};

use super::anon::PlainAnonInode;
use super::poll::PollTable;
use super::{File, FileOps, PollEvents};
use crate::sched::TimerId;
use crate::sync::{Interruptible, SpinLock, WaitQueue};
use crate::time::{OnWallStep, Schedule, Timeline, itimerspec_ns, itimerspec_of};
use crate::user::{IoBuf, UserAddr};
use crate::{Errno, Kernel, Result, SysResult, Thread};

/// A timer.
#[derive(Debug)]
pub struct TimerFd {
    kernel: &'static Kernel,
    this: Weak<TimerFd>,
    realtime: bool,
    state: SpinLock<State>,
    queue: Arc<WaitQueue>,
}

#[derive(Debug, Default)]
struct State {
    /// Armed again only when it is read: expirations nobody looks at cost nothing.
    schedule: Schedule,
    timeline: Timeline,
    timer: Option<TimerId>,
    /// `TFD_TIMER_CANCEL_ON_SET`.
    cancel_on_set: bool,
    is_cancelled: bool,
}

impl State {
    fn is_ready(&self) -> bool {
        self.is_cancelled || self.schedule.is_due(self.timeline.now())
    }

    /// What a read gives, or `None` if it has to wait.
    fn take(&mut self) -> Option<Result<u64>> {
        if core::mem::take(&mut self.is_cancelled) {
            return Some(Err(Errno::ECANCELED));
        }
        match self.schedule.expire(self.timeline.now()) {
            0 => None,
            ticks => Some(Ok(ticks)),
        }
    }
}

impl TimerFd {
    fn new(kernel: &'static Kernel, realtime: bool) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            kernel,
            this: this.clone(),
            realtime,
            state: SpinLock::default(),
            queue: Arc::new(WaitQueue::new()),
        })
    }

    /// Has the waiters woken when it is due.
    fn arm(&self, state: &mut State) {
        let timers = &self.kernel.timers;
        if let Some(old) = state.timer.take() {
            timers.cancel(old);
        }
        state.timer = state.schedule.next().map(|at| {
            let this = self.this.clone();
            timers.call_at(state.timeline.monotonic(at), move || {
                if let Some(this) = this.upgrade() {
                    this.expire();
                }
            })
        });
    }

    fn expire(&self) {
        {
            let mut state = self.state.lock();
            state.timer = None;
            if !state.is_ready() {
                // The wall clock is not there yet.
                self.arm(&mut state);
                return;
            }
        }
        self.queue.wake_all();
    }

    fn take(&self) -> Option<Result<u64>> {
        let mut state = self.state.lock();
        let taken = state.take();
        if matches!(taken, Some(Ok(_))) {
            self.arm(&mut state);
        }
        taken
    }

    fn set(&self, value: u64, interval: u64, flags: u32) {
        let is_absolute = flags & TFD_TIMER_ABSTIME != 0;
        let mut state = self.state.lock();
        state.timeline = if is_absolute && self.realtime {
            Timeline::Wall
        } else {
            Timeline::Monotonic
        };
        state.cancel_on_set =
            flags & TFD_TIMER_CANCEL_ON_SET != 0 && state.timeline == Timeline::Wall;
        state.is_cancelled = false;
        state.schedule = Schedule::set(value, interval, is_absolute, state.timeline.now());
        self.arm(&mut state);
    }
}

impl OnWallStep for TimerFd {
    fn wall_stepped(self: Arc<Self>) {
        {
            let mut state = self.state.lock();
            state.is_cancelled |= state.cancel_on_set;
            if !state.is_ready() {
                self.arm(&mut state);
                return;
            }
        }
        self.queue.wake_all();
    }
}

impl FileOps for TimerFd {
    fn read(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        if buf.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let ticks = match self.take() {
            Some(taken) => taken?,
            None if file.is_nonblocking() => return Err(Errno::EAGAIN),
            None => self
                .queue
                .wait(t, Interruptible::Yes, None, || self.take())
                .map_err(|error| error.errno(Errno::ERESTARTSYS))??,
        };
        if buf.put(&ticks.to_ne_bytes())? < 8 {
            return Err(Errno::EFAULT);
        }
        Ok(8)
    }

    fn poll(&self, _t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.queue);
        }
        if self.state.lock().is_ready() {
            PollEvents::IN | PollEvents::RDNORM
        } else {
            PollEvents::empty()
        }
    }

    fn released(&self) {
        let mut state = self.state.lock();
        state.schedule = Schedule::default();
        self.arm(&mut state);
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// `timerfd_create(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM` for clocks that wake the machine, `EMFILE`.
pub fn timerfd_create(t: &Thread, clockid: i32, flags: u32) -> SysResult {
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let (realtime, wakes) = match clockid.cast_unsigned() {
        CLOCK_REALTIME => (true, false),
        CLOCK_MONOTONIC | CLOCK_BOOTTIME => (false, false),
        CLOCK_REALTIME_ALARM => (true, true),
        CLOCK_BOOTTIME_ALARM => (false, true),
        _ => return Err(Errno::EINVAL),
    };
    if wakes && !t.is_capable(CAP_WAKE_ALARM) {
        return Err(Errno::EPERM);
    }
    let timer = TimerFd::new(t.kernel, realtime);
    if realtime {
        let weak: Weak<TimerFd> = Arc::downgrade(&timer);
        t.kernel.time.register(weak);
    }
    let file = File::new(
        timer,
        PlainAnonInode::new(t),
        b"anon_inode:[timerfd]".to_vec(),
        O_RDWR | flags & O_NONBLOCK,
    );
    let fd = t.files().alloc(t, file, flags & O_CLOEXEC != 0)?;
    Ok(fd as usize)
}

/// Runs `f` on the timer behind descriptor `fd`.
fn with_timer<R>(t: &Thread, fd: i32, f: impl FnOnce(&TimerFd) -> R) -> Result<R> {
    let file = t.file(fd)?;
    let timer = file.ops.as_any().downcast_ref().ok_or(Errno::EINVAL)?;
    Ok(f(timer))
}

/// What `timerfd_gettime` says.
fn setting(timer: &TimerFd) -> husk_abi::linux::general::__kernel_itimerspec {
    let state = timer.state.lock();
    let now = state.timeline.now();
    let mut schedule = state.schedule;
    schedule.expire(now);
    itimerspec_of(&schedule, now)
}

/// `timerfd_settime(2)`.
///
/// # Errors
/// `EBADF`, `EINVAL`, `EFAULT`.
pub fn timerfd_settime(
    t: &Thread,
    fd: i32,
    flags: u32,
    new_value: UserAddr,
    old_value: UserAddr,
) -> SysResult {
    let new = new_value.read()?;
    if flags & !(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let (value, interval) = itimerspec_ns(&new)?;
    let old = with_timer(t, fd, |timer| {
        let old = setting(timer);
        timer.set(value, interval, flags);
        old
    })?;
    old_value.write_opt(&old)?;
    Ok(0)
}

/// `timerfd_gettime(2)`.
///
/// # Errors
/// `EBADF`, `EINVAL`, `EFAULT`.
pub fn timerfd_gettime(t: &Thread, fd: i32, value: UserAddr) -> SysResult {
    let setting = with_timer(t, fd, setting)?;
    value.write(&setting)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::State;
    use crate::Errno;
    use crate::time::Schedule;

    #[test]
    fn reads_count_expirations() {
        let mut state = State::default();
        assert_eq!(state.take(), None);
        let now = state.timeline.now();
        state.schedule = Schedule::at(now - 25, 10);
        assert!(state.is_ready());
        assert_eq!(state.take(), Some(Ok(3)));
        assert_eq!(state.take(), None);
        state.schedule = Schedule::at(now - 1, 0);
        state.is_cancelled = true;
        assert_eq!(state.take(), Some(Err(Errno::ECANCELED)));
        assert_eq!(state.take(), Some(Ok(1)));
        assert!(!state.is_ready());
    }
}
