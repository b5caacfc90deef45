//! The wall clock: keeps the guest's offset from kvmclock to the host's `CLOCK_REALTIME` right.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use husk_abi::boundary::clock::WallClock;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};
use vm_memory::{Bytes, GuestAddress};

use super::{ControlObserver, Error, Interrupt};
use crate::confine::{self, rules::Role};
use crate::vmm::{GuestMemory, KvmClock, Machine};

/// How often the offset is measured anew when nobody steps the clock: it follows NTP's slewing.
const PERIOD_SECONDS: i64 = 10;

/// Writes the offset now, and keeps a thread that does so again when the host's clock is stepped.
pub fn start(
    machine: &Machine,
    memory: GuestMemory,
    gpa: u64,
    interrupt: Arc<dyn Interrupt>,
    observer: Option<Arc<dyn ControlObserver>>,
) -> Result<(), Error> {
    let failed = |source| Error::Start {
        service: "clock",
        source,
    };
    let clock = machine.clock().map_err(Error::Vmm)?;
    update(&clock, &memory, gpa).map_err(failed)?;
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC)
        .map_err(|errno| failed(errno.into()))?;
    std::thread::Builder::new()
        .name("clock".into())
        .spawn(move || {
            confine::enter_thread(Role::Clock);
            while wait(&timer).is_ok() {
                let Ok(offset_ns) = update(&clock, &memory, gpa) else {
                    break;
                };
                if let Some(observer) = &observer {
                    observer.control("clock", b"", Some(offset_ns));
                }
                // Who sleeps until a time of day looks again.
                interrupt.interrupt();
            }
        })
        .map_err(failed)?;
    Ok(())
}

/// Sleeps for the period, or until the wall clock is set.
fn wait(timer: &TimerFd) -> Result<(), Errno> {
    let now = clock_gettime(Clock::CLOCK_REALTIME)?;
    let next = TimeSpec::new(now.tv_sec() + PERIOD_SECONDS, now.tv_nsec());
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(Expiration::OneShot(next), flags)?;
    loop {
        let mut expirations = [0; 8];
        match nix::unistd::read(timer, &mut expirations) {
            Ok(_) | Err(Errno::ECANCELED) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                tracing::warn!(%errno, fd = timer.as_fd_number(), "the clock's timer failed");
                return Err(errno);
            }
        }
    }
}

/// Lets a log line name the timer.
trait FdNumber {
    fn as_fd_number(&self) -> i32;
}

impl FdNumber for TimerFd {
    fn as_fd_number(&self) -> i32 {
        use std::os::fd::AsFd;
        self.as_fd().as_raw_fd()
    }
}

/// Measures the offset, in nanoseconds, and publishes it in the seqlock.
fn update(clock: &KvmClock, memory: &GuestMemory, gpa: u64) -> io::Result<u64> {
    let guest = clock.now_ns()?;
    let host = clock_gettime(Clock::CLOCK_REALTIME)?;
    let host = host
        .tv_sec()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(host.tv_nsec());
    #[expect(clippy::cast_possible_wrap, reason = "nanoseconds fit for 292 years")]
    let offset = host.wrapping_sub(guest as i64);
    let field = |offset: usize| GuestAddress(gpa + offset as u64);
    let sequence = field(std::mem::offset_of!(WallClock, sequence));
    let store = || -> Result<(), vm_memory::GuestMemoryError> {
        let number: u32 = memory.load(sequence, Ordering::Acquire)?;
        memory.store(number.wrapping_add(1) | 1, sequence, Ordering::SeqCst)?;
        let value = field(std::mem::offset_of!(WallClock, offset_ns));
        memory.store(offset as u64, value, Ordering::SeqCst)?;
        memory.store((number | 1).wrapping_add(1), sequence, Ordering::SeqCst)
    };
    store().map_err(io::Error::other)?;
    Ok(offset.cast_unsigned())
}
