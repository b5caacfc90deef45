//! The host side of the boundary: one module per service, all of one shape.
//!
//! A service gets guest memory, its queue or page, and a way to interrupt the guest; it trusts nothing it
//! reads. Nothing here knows KVM.

mod clock;
mod events;
mod log;
mod queue;
mod stdio;

use std::io;
use std::sync::{Arc, Mutex};

use husk_abi::boundary::doorbell;
use vmm_sys_util::eventfd::EventFd;

pub use log::read_log;

use crate::vmm::{DoorbellHandler, End, Error as VmmError, GuestMemory, Layout, Machine, Served};

/// Interrupts the guest.
pub trait Interrupt: Send + Sync {
    /// Makes the guest look at its queues.
    fn interrupt(&self);
}

impl Interrupt for crate::vmm::Kicker {
    fn interrupt(&self) {
        self.kick();
    }
}

/// Takes records out of the guest's rings; called on a vCPU's thread and at the end.
pub trait RecordDrain: Send {
    /// Takes everything vCPU `vcpu` has recorded.
    fn drain(&mut self, vcpu: u32);
}

/// What can go wrong in starting the services.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(transparent)]
    Vmm(#[from] VmmError),
    #[error("cannot set up the {service} service: {source}")]
    Start {
        service: &'static str,
        source: io::Error,
    },
    #[error("the {service} queue is malformed")]
    Queue { service: &'static str },
}

/// All services of a machine.
pub struct Services {
    memory: GuestMemory,
    host_events: u64,
    interrupt: Arc<dyn Interrupt>,
    output: Mutex<Option<stdio::Output>>,
    records: Mutex<Option<Box<dyn RecordDrain>>>,
    vcpus: u32,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services")
            .field("vcpus", &self.vcpus)
            .finish_non_exhaustive()
    }
}

impl Services {
    /// Starts everything `machine` needs; `records` is where syscall records go, if they are wanted.
    ///
    /// # Errors
    /// When a thread, an eventfd or a timer cannot be had.
    pub fn start(
        machine: &Machine,
        records: Option<Box<dyn RecordDrain>>,
    ) -> Result<Arc<Self>, Error> {
        let memory = machine.memory().clone();
        let layout: &Layout = machine.layout();
        let interrupt: Arc<dyn Interrupt> = Arc::new(machine.kicker());
        clock::start(machine, memory.clone(), layout.wall_clock)?;

        let bound = |port| -> Result<EventFd, Error> {
            let failed = |source| Error::Start {
                service: "stdio",
                source,
            };
            let event = EventFd::new(0).map_err(failed)?;
            machine.bind_doorbell(port, &event)?;
            Ok(event)
        };
        let output = stdio::Output::start(
            memory.clone(),
            &layout.stdio_out,
            bound(doorbell::STDIO_OUT)?,
            interrupt.clone(),
        )?;
        stdio::Input::start(
            memory.clone(),
            &layout.stdio_in,
            bound(doorbell::STDIO_IN)?,
            interrupt.clone(),
        )?;
        Ok(Arc::new(Self {
            memory,
            host_events: layout.host_events,
            interrupt,
            output: Mutex::new(Some(output)),
            records: Mutex::new(records),
            vcpus: u32::try_from(layout.vcpus.len()).unwrap_or(u32::MAX),
        }))
    }

    /// Sends signal `signo` to the container's init.
    pub fn forward_signal(&self, signo: u32) {
        events::post_signal(&self.memory, self.host_events, signo);
        self.interrupt.interrupt();
    }

    /// Why the first program could not be started, as an errno; `None` if it could.
    #[must_use]
    pub fn start_error(&self) -> Option<i32> {
        events::start_error(&self.memory, self.host_events)
    }

    /// Delivers what is still under way: all output written, all records taken. After the machine has ended.
    pub fn finish(&self) {
        if let Ok(mut output) = self.output.lock()
            && let Some(output) = output.take()
        {
            output.finish();
        }
        for vcpu in 0..self.vcpus {
            self.drain_records(vcpu);
        }
        if let Ok(mut records) = self.records.lock() {
            // Dropping the drain closes its sink.
            *records = None;
        }
    }

    fn drain_records(&self, vcpu: u32) {
        if let Ok(mut records) = self.records.lock()
            && let Some(records) = records.as_mut()
        {
            records.drain(vcpu);
        }
    }
}

impl DoorbellHandler for Services {
    fn ring(&self, vcpu: u32, port: u16, value: u32) -> Served {
        match port {
            doorbell::SHUTDOWN => Served::End(End::Shutdown(value)),
            doorbell::PANIC => Served::End(End::Panic),
            doorbell::RECORDS => {
                self.drain_records(vcpu);
                Served::Resume
            }
            // A process may ring what it likes; only these mean anything.
            _ => Served::Resume,
        }
    }
}
