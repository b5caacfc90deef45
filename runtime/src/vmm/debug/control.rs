//! Stopping and resuming vCPUs.
//!
//! A vCPU's own thread does everything with its KVM descriptor. Others say what they want in its [`Control`] and kick
//! it; it stops, shows its registers, and waits to be resumed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvm_bindings::kvm_fpu;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::breakpoints::Planted;
use super::registers::Registers;
use crate::vmm::Kicker;

/// How long a vCPU may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody asked.
    Asked,
    /// It came to a breakpoint.
    Breakpoint,
    /// It has executed the one instruction it was to.
    Step,
    /// The libOS gave up, or the guest did something that ends the machine.
    Crash,
}

/// A stopped vCPU.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// Why.
    pub reason: Reason,
    /// Its registers.
    pub registers: Registers,
    /// Its x87 and SSE registers.
    pub fpu: kvm_fpu,
}

/// How a vCPU is to go on.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    /// With these registers.
    pub registers: Registers,
    /// For one instruction only.
    pub step: bool,
    /// Not at all: the machine ends as if init had been killed.
    pub kill: bool,
}

#[derive(Debug)]
enum Phase {
    Running,
    Stopped(Box<Stop>),
    Resuming(Box<Resume>),
    Ended(Option<Box<Stop>>),
}

/// One vCPU's side of it.
#[derive(Debug)]
pub struct Control {
    wanted: AtomicBool,
    phase: Mutex<Phase>,
    changed: Condvar,
}

impl Control {
    fn new(wanted: bool) -> Self {
        Self {
            wanted: AtomicBool::new(wanted),
            phase: Mutex::new(Phase::Running),
            changed: Condvar::new(),
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody wants the vCPU to stop; for its own thread.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Stops until told to go on; for the vCPU's own thread.
    pub fn stop(&self, stop: Stop, debug: &Debug) -> Resume {
        let mut phase = self.phase();
        self.wanted.store(false, Ordering::Release);
        *phase = Phase::Stopped(Box::new(stop));
        self.changed.notify_all();
        debug.announce();
        loop {
            phase = self
                .changed
                .wait(phase)
                .unwrap_or_else(PoisonError::into_inner);
            if let Phase::Resuming(resume) = &*phase {
                let resume = **resume;
                *phase = Phase::Running;
                return resume;
            }
        }
    }

    /// The vCPU's thread is about to end; what it was doing, if that is of interest.
    pub fn end(&self, stop: Option<Stop>) {
        *self.phase() = Phase::Ended(stop.map(Box::new));
        self.changed.notify_all();
    }

    fn last(&self) -> Option<Stop> {
        match &*self.phase() {
            Phase::Stopped(stop) => Some(**stop),
            Phase::Ended(stop) => stop.as_deref().copied(),
            Phase::Running | Phase::Resuming(_) => None,
        }
    }
}

/// All vCPUs of a machine, and the breakpoints they share.
#[derive(Debug)]
pub struct Debug {
    vcpus: Vec<(Control, Kicker)>,
    planted: Mutex<Planted>,
    events: EventFd,
    attached: AtomicBool,
}

impl Debug {
    /// For vCPUs with these kickers. `stopped`: they are to stop before their first instruction.
    ///
    /// # Errors
    /// When no eventfd can be had.
    pub(in crate::vmm) fn new(kickers: &[Kicker], stopped: bool) -> io::Result<Self> {
        Ok(Self {
            vcpus: kickers
                .iter()
                .map(|kicker| (Control::new(stopped), kicker.clone()))
                .collect(),
            planted: Mutex::default(),
            events: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            attached: AtomicBool::new(false),
        })
    }

    /// vCPU `index`'s control.
    #[must_use]
    pub fn control(&self, index: u32) -> &Control {
        &self.vcpus[index as usize].0
    }

    /// Number of vCPUs.
    #[must_use]
    pub fn vcpu_count(&self) -> u32 {
        self.vcpus.len() as u32
    }

    /// The planted breakpoints.
    pub(super) fn planted(&self) -> MutexGuard<'_, Planted> {
        self.planted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a breakpoint at `address`.
    #[must_use]
    pub fn is_planted(&self, address: u64) -> bool {
        self.planted().contains_key(&address)
    }

    /// Becomes readable whenever a vCPU stops or ends, and after [`Debug::announce`].
    #[must_use]
    pub fn events(&self) -> &EventFd {
        &self.events
    }

    /// Makes [`Debug::events`] readable.
    pub fn announce(&self) {
        let _ = self.events.write(1);
    }

    /// Says whether a debugger is attached.
    pub fn set_attached(&self, attached: bool) {
        self.attached.store(attached, Ordering::SeqCst);
    }

    /// Whether a debugger is attached.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::SeqCst)
    }

    /// Stops all vCPUs; those that stopped or ended by themselves stay as they are. False if one does not stop in
    /// time.
    pub fn stop_all(&self) -> bool {
        for (control, kicker) in &self.vcpus {
            if matches!(*control.phase(), Phase::Running | Phase::Resuming(_)) {
                control.wanted.store(true, Ordering::Release);
                kicker.kick();
            }
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.vcpus.iter().all(|(control, _)| {
            let phase = control.phase();
            let left = deadline.saturating_duration_since(Instant::now());
            let is_running =
                |phase: &mut Phase| matches!(phase, Phase::Running | Phase::Resuming(_));
            let (mut phase, _) = control
                .changed
                .wait_timeout_while(phase, left, is_running)
                .unwrap_or_else(PoisonError::into_inner);
            let stopped = !is_running(&mut phase);
            if !stopped {
                control.wanted.store(false, Ordering::Release);
            }
            stopped
        })
    }

    /// Lets stopped vCPUs go on, each as `how` says, or not.
    pub fn resume_all(&self, mut how: impl FnMut(u32, &Stop) -> Option<Resume>) {
        for (index, (control, _)) in (0..).zip(&self.vcpus) {
            let mut phase = control.phase();
            if let Phase::Stopped(stop) = &*phase
                && let Some(resume) = how(index, stop)
            {
                *phase = Phase::Resuming(Box::new(resume));
                control.changed.notify_all();
            }
        }
    }

    /// Each vCPU's stop, or its state when it ended; `None` while it runs.
    #[must_use]
    pub fn stops(&self) -> Vec<(u32, Option<Stop>)> {
        (0..)
            .zip(&self.vcpus)
            .map(|(index, (control, _))| (index, control.last()))
            .collect()
    }
}

impl Stop {
    /// To go on as if nothing had been.
    #[must_use]
    pub fn resume(&self) -> Resume {
        Resume {
            registers: self.registers,
            step: false,
            kill: false,
        }
    }
}
