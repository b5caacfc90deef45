//! The host side of the boundary: one module per service, all of one shape.
//!
//! A service gets guest memory, its queue or page, and a way to interrupt the guest; it trusts nothing it
//! reads. Nothing here knows KVM.

mod clock;
pub mod fuse;
mod queue;
mod stdio;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use husk_abi::boundary::doorbell;
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::{Error as VmmError, Machine};

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

/// Bytes that went through a standard stream, for records.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// The stream's descriptor number: 0 to 2.
    pub stream: u32,
    /// How many.
    pub bytes: usize,
    /// Errno, or 0.
    pub errno: u32,
    /// How long it took.
    pub duration: Duration,
}

/// Is told of what the container reads and writes.
pub trait StreamObserver: Send + Sync {
    /// Bytes went through a stream, or could not.
    fn transferred(&self, transfer: Transfer);
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
    #[error(transparent)]
    Files(#[from] fuse::Error),
}

/// The services of a machine; they serve until the process ends.
#[derive(Debug)]
pub struct Services {
    output: stdio::Output,
}

impl Services {
    /// Starts everything `machine` needs; `observer` is told of what goes through the standard streams.
    ///
    /// # Errors
    /// When a thread, an eventfd or a timer cannot be had.
    pub fn start(
        machine: &Machine,
        observer: Option<Arc<dyn StreamObserver>>,
    ) -> Result<Self, Error> {
        let memory = machine.memory().clone();
        let layout = machine.layout();
        let interrupt: Arc<dyn Interrupt> = Arc::new(machine.kicker());
        clock::start(
            machine,
            memory.clone(),
            layout.wall_clock,
            interrupt.clone(),
        )?;

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
            observer.clone(),
        )?;
        stdio::Input::start(
            memory,
            &layout.stdio_in,
            bound(doorbell::STDIO_IN)?,
            interrupt,
            observer,
        )?;
        Ok(Self { output })
    }

    /// Writes what the guest has left in its output queue. To be called when the machine has ended.
    pub fn finish(self) {
        self.output.finish();
    }
}
