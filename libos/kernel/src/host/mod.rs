//! The guest's side of the boundary: queues to the VMM, and what the VMM tells unasked.

mod console;
mod files;
mod virtqueue;

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::boundary::boot::BootInfo;
use husk_abi::boundary::doorbell;
use husk_abi::boundary::events::{GUEST_EVENTS_OFFSET, GuestEvents};
use husk_abi::boundary::start::{self, StartReport};
use husk_hal::doorbell as bell;
use husk_hal::phys::{self, Frame};

use crate::signal::{self, Info};
use crate::sync::SpinLock;
use crate::{Errno, Kernel};

pub use console::Console;
pub use files::{Ask, Exchange, FileQueue};

/// Everything that leads out of the guest.
#[derive(Debug)]
pub struct Host {
    /// The standard streams.
    pub console: Console,
    /// Files of the host.
    pub files: FileQueue,
    events_gpa: u64,
    oom_kills: AtomicU64,
    kernel: SpinLock<Option<&'static Kernel>>,
}

impl Host {
    /// The queues are where the boot info says.
    #[must_use]
    pub fn new(boot: &BootInfo) -> Self {
        Self {
            console: Console::new(boot),
            files: FileQueue::new(boot),
            events_gpa: boot.host_events_gpa,
            oom_kills: AtomicU64::new(0),
            kernel: SpinLock::new(None),
        }
    }

    pub(crate) fn attach(&self, kernel: &'static Kernel) {
        *self.kernel.lock() = Some(kernel);
    }

    /// Looks what the VMM has answered or sent, and wakes who waits for it.
    pub fn poll(&self) {
        self.console.poll();
        self.files.poll();
        let kernel = *self.kernel.lock();
        if let Some(kernel) = kernel {
            kernel.fs.window.poll_truncated();
            kernel.trace.poll_filter(kernel);
        }
        let frame = Frame::containing(self.events_gpa);
        let signals = phys::swap_u64(frame, (self.events_gpa % 4096) as usize, 0);
        if signals == 0 {
            return;
        }
        let init = (*self.kernel.lock()).and_then(|kernel| kernel.tasks.process(1));
        if let Some(init) = init {
            for signo in (1..=64).filter(|signo| signals >> (signo - 1) & 1 == 1) {
                let _ = signal::send_process(&init, &Info::from_host(signo));
            }
        }
    }

    /// Ends the machine: init has ended with `wait_status`.
    pub fn shutdown(&self, wait_status: u32) {
        let kernel = *self.kernel.lock();
        if let Some(kernel) = kernel {
            crate::trace::report::leave(kernel, self.events_gpa);
        }
        bell::ring(doorbell::SHUTDOWN, wait_status);
    }

    /// A process was killed because memory ran out.
    pub fn count_oom_kill(&self) {
        let at = self.events_gpa + GUEST_EVENTS_OFFSET + offset_of!(GuestEvents, oom_kills) as u64;
        let (frame, offset) = (Frame::containing(at), (at % 4096) as usize);
        let kills = self.oom_kills.fetch_add(1, Ordering::Relaxed) + 1;
        phys::store_u64(frame, offset, kills);
    }

    /// How many processes were killed because memory ran out.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        self.oom_kills.load(Ordering::Relaxed)
    }

    /// Tells the VMM that the first program is about to run.
    pub fn started(&self) {
        self.report(
            offset_of!(StartReport, started_ns),
            husk_hal::clock::now_ns(),
        );
        husk_hal::cpu::shared_started();
        bell::ring(doorbell::STARTED, 0);
    }

    /// Tells the VMM why the first program could not be started, which ends the machine.
    pub fn start_failed(&self, errno: Errno) {
        let code = u64::from(errno.code().unsigned_abs());
        self.report(offset_of!(StartReport, exec_errno), code);
        self.shutdown(0);
    }

    fn report(&self, field: usize, value: u64) {
        let at = self.events_gpa + start::OFFSET + field as u64;
        phys::store_u64(Frame::containing(at), (at % 4096) as usize, value);
    }
}
