//! The guest's side of the boundary: queues to the VMM, and what the VMM tells unasked.

mod console;
mod control;
mod files;
mod virtqueue;

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::boundary::boot::BootInfo;
use husk_abi::boundary::config::WindowSize;
use husk_abi::boundary::control::{MAX_SESSIONS, Report, session_queues};
use husk_abi::boundary::doorbell;
use husk_abi::boundary::events::{GUEST_EVENTS_OFFSET, GuestEvents, HostEvents};
use husk_abi::boundary::start::{self, StartReport};
use husk_hal::doorbell as bell;
use husk_hal::phys::{self, Frame};
use spin::Once;

use crate::fs::StreamSet;
use crate::fs::devpts::Place;
use crate::signal::{self, Info};
use crate::sync::SpinLock;
use crate::{Errno, Kernel, Result};

pub use console::Console;
pub use control::ControlQueue;
pub use files::{Ask, BULK_BYTES, Exchange, FileQueue, Needs};

/// A session's streams.
#[derive(Debug)]
struct Session {
    console: Arc<Console>,
    /// Those that are open.
    streams: Weak<StreamSet>,
}

/// Everything that leads out of the guest.
#[derive(Debug)]
pub struct Host {
    /// Init's standard streams.
    pub console: Arc<Console>,
    /// Requests of the host, and reports.
    pub control: ControlQueue,
    /// All sessions' streams, init's among them.
    sessions: SpinLock<BTreeMap<u32, Session>>,
    sessions_gpa: u64,
    /// Files of the host.
    pub files: FileQueue,
    events_gpa: u64,
    oom_kills: AtomicU64,
    /// The devpts terminals are in.
    devpts: Once<Place>,
    kernel: SpinLock<Option<&'static Kernel>>,
}

impl Host {
    /// The queues are where the boot info says.
    #[must_use]
    pub fn new(boot: &BootInfo) -> Self {
        let console = Arc::new(Console::new(0, boot.stdio_out, boot.stdio_in));
        let first = Session {
            console: console.clone(),
            streams: Weak::new(),
        };
        Self {
            console,
            control: ControlQueue::new(boot),
            sessions: SpinLock::new(BTreeMap::from([(0, first)])),
            sessions_gpa: boot.sessions_gpa,
            files: FileQueue::new(boot),
            events_gpa: boot.host_events_gpa,
            oom_kills: AtomicU64::new(0),
            devpts: Once::new(),
            kernel: SpinLock::new(None),
        }
    }

    pub(crate) fn attach(&self, kernel: &'static Kernel) {
        *self.kernel.lock() = Some(kernel);
    }

    /// Looks what the VMM has answered or sent, and wakes who waits for it.
    pub fn poll(&self) {
        for console in self.consoles() {
            console.poll();
        }
        self.files.poll();
        let kernel = *self.kernel.lock();
        let Some(kernel) = kernel else { return };
        kernel.fs.window.poll_truncated();
        kernel.fs.poll_trust();
        kernel.fs.channels.poll(self.events_gpa);
        kernel.net.host.poll();
        kernel.trace.poll_filter(kernel);
        for request in self.control.take() {
            crate::control::handle(kernel, request);
        }
        let window = self.take_event(offset_of!(HostEvents, window));
        if window != 0 {
            let size = WindowSize::from_bits(window);
            self.console.terminal.resize(kernel, size);
        }
        let numbers = |bits: u64| (1..=64).filter(move |signo| bits >> (signo - 1) & 1 == 1);
        let signals = self.take_event(offset_of!(HostEvents, signals));
        if signals != 0
            && let Some(init) = kernel.tasks.process(1)
        {
            for signo in numbers(signals) {
                let _ = signal::send_process(&init, &Info::from_host(signo));
            }
        }
        let signals = self.take_event(offset_of!(HostEvents, terminal_signals));
        for signo in numbers(signals) {
            self.console.terminal.signal(kernel, signo);
        }
    }

    /// Takes a word of the host events; 0 if nothing is there.
    fn take_event(&self, field: usize) -> u64 {
        let at = self.events_gpa + field as u64;
        let (frame, offset) = (Frame::containing(at), (at % 4096) as usize);
        let mut word = [0; 8];
        phys::read(frame, offset, &mut word);
        // A plain load first: this is done on every interrupt.
        if word == [0; 8] {
            return 0;
        }
        phys::swap_u64(frame, offset, 0)
    }

    /// All sessions' streams.
    fn consoles(&self) -> Vec<Arc<Console>> {
        let sessions = self.sessions.lock();
        sessions
            .values()
            .map(|session| session.console.clone())
            .collect()
    }

    /// The streams of a new session.
    ///
    /// # Errors
    /// `EINVAL` for a number that is out of range, `EBUSY` for one that is taken.
    pub fn open_session(&self, kernel: &'static Kernel, session: u32) -> Result<Arc<Console>> {
        if !(1..MAX_SESSIONS).contains(&session) {
            return Err(Errno::EINVAL);
        }
        let [output, input] = session_queues(self.sessions_gpa + u64::from(session) * 4096);
        let mut sessions = self.sessions.lock();
        if sessions.contains_key(&session) {
            return Err(Errno::EBUSY);
        }
        let console = Arc::new(Console::new(session, output, input));
        console.attach(kernel);
        sessions.insert(
            session,
            Session {
                console: console.clone(),
                streams: Weak::new(),
            },
        );
        Ok(console)
    }

    /// Terminals are in this devpts, unless they are in another one already.
    pub fn place_terminals(&self, place: Place) {
        self.devpts.call_once(|| place);
    }

    /// Where terminals are; `None` without a devpts.
    #[must_use]
    pub fn terminal_place(&self) -> Option<Place> {
        self.devpts.get().copied()
    }

    /// Gives a session's terminal the lowest number that is free.
    pub fn number_terminal(&self, kernel: &Kernel, console: &Console) {
        kernel.ttys.choose_outside(|is_taken| {
            let own = self.terminal_numbers();
            let free = (0..).find(|number| !own.contains(number) && !is_taken(*number));
            if let Some(free) = free {
                console.terminal.set_number(free);
            }
        });
    }

    /// Numbers of all sessions' terminals, open or not.
    #[must_use]
    pub fn terminal_numbers(&self) -> Vec<u32> {
        let sessions = self.sessions.lock();
        sessions
            .values()
            .filter_map(|session| session.console.terminal.number())
            .collect()
    }

    /// Numbers of the terminals that somebody has open.
    #[must_use]
    pub fn terminals(&self) -> Vec<u32> {
        let sessions = self.sessions.lock();
        let open = sessions.values().filter(|it| it.streams.strong_count() > 0);
        let mut numbers: Vec<u32> = open
            .filter_map(|session| session.console.terminal.number())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// The VMM has let go of a session's streams: its number may be used again.
    pub fn release_session(&self, session: u32) {
        let released = self.sessions.lock().remove(&session);
        drop(released);
    }

    /// These are the open streams of `session`.
    pub fn remember_streams(&self, session: u32, streams: &Arc<StreamSet>) {
        if let Some(session) = self.sessions.lock().get_mut(&session) {
            session.streams = Arc::downgrade(streams);
        }
    }

    /// The streams of `session`, if it is there.
    #[must_use]
    pub fn console_of(&self, session: u32) -> Option<Arc<Console>> {
        let sessions = self.sessions.lock();
        sessions
            .get(&session)
            .map(|session| session.console.clone())
    }

    /// The streams, still open somewhere, of the first session that `fits`.
    #[must_use]
    pub fn streams(&self, fits: impl Fn(&Console) -> bool) -> Option<Arc<StreamSet>> {
        let sessions = self.sessions.lock();
        sessions
            .values()
            .find(|session| fits(&session.console))
            .and_then(|session| session.streams.upgrade())
    }

    /// Ends the machine: init has ended with `wait_status`.
    pub fn shutdown(&self, wait_status: u32) {
        let kernel = *self.kernel.lock();
        if let Some(kernel) = kernel {
            crate::trace::report::leave(kernel, self.events_gpa);
            kernel.net.host.flush(kernel);
        }
        bell::ring(doorbell::SHUTDOWN, wait_status);
    }

    /// A process was killed because memory ran out.
    pub fn count_oom_kill(&self) {
        let at = self.events_gpa + GUEST_EVENTS_OFFSET + offset_of!(GuestEvents, oom_kills) as u64;
        let (frame, offset) = (Frame::containing(at), (at % 4096) as usize);
        let kills = self.oom_kills.fetch_add(1, Ordering::Relaxed) + 1;
        phys::store_u64(frame, offset, kills);
        self.control.report(&Report::OutOfMemory(kills));
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

    /// Lets the VMM keep this vCPU for as long as the guest is to stand still.
    pub fn stand_still(&self) {
        bell::ring(doorbell::SETTLED, 0);
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
