//! The host side of the boundary: one module per service, all of one shape.
//!
//! A service gets guest memory, its queue or page, and a way to interrupt the guest; it trusts nothing it
//! reads. Nothing here knows KVM.

mod clock;
pub mod fuse;
pub mod handed;
mod net;
pub(crate) mod queue;
pub mod requests;
pub mod stdio;

use std::io;
use std::sync::Arc;

use husk_abi::boundary::doorbell;
use vmm_sys_util::eventfd::EventFd;

use crate::vmm::{Error as VmmError, Machine};
pub use net::{Alone, names as socket_names};
use stdio::{End, StreamObserver, Streams};

/// Interrupts the guest.
pub trait Interrupt: Send + Sync {
    /// Makes the guest look at its queues.
    fn interrupt(&self);

    /// As [`Interrupt::interrupt`] if the guest sleeps; false, and nothing is done, if it runs.
    fn wake(&self) -> bool;
}

impl Interrupt for crate::vmm::Kicker {
    fn interrupt(&self) {
        self.kick();
    }

    fn wake(&self) -> bool {
        Self::wake(self)
    }
}

/// Is told of what is done to the guest, or for it, beside files and streams.
pub trait ControlObserver: Send + Sync {
    /// `operation` was asked for, of what `argument` names, or as much as `value` says.
    fn control(&self, operation: &'static str, argument: &[u8], value: Option<u64>);
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
    streams: Streams,
}

impl Services {
    /// Starts everything `machine` needs; `observer` is told of what goes through the standard streams, `control` of updates of
    /// the clock.
    ///
    /// # Errors
    /// When a thread, an eventfd or a timer cannot be had.
    pub fn start(
        machine: &Machine,
        observer: Option<Arc<dyn StreamObserver>>,
        control: Option<Arc<dyn ControlObserver>>,
    ) -> Result<Self, Error> {
        let memory = machine.memory().clone();
        let layout = machine.layout();
        let interrupt: Arc<dyn Interrupt> = Arc::new(machine.kicker());
        clock::start(
            machine,
            memory.clone(),
            layout.wall_clock,
            interrupt.clone(),
            control,
        )?;

        let doorbells = machine.doorbells();
        let bound = |port| -> Result<EventFd, Error> {
            let event = EventFd::new(0).map_err(|source| Error::Start {
                service: "stdio",
                source,
            })?;
            doorbells.bind(port, 0, &event)?;
            Ok(event)
        };
        let streams = Streams::start(stdio::Parts {
            memory,
            rings: [layout.stdio_out, layout.stdio_in],
            bells: [bound(doorbell::STDIO_OUT)?, bound(doorbell::STDIO_IN)?],
            ends: Arc::new([0, 1, 2].map(End::Own)),
            interrupt,
            listener: None,
            observer,
        })?;
        Ok(Self { streams })
    }

    /// Writes what the guest has left in its output queue. To be called when the machine has ended.
    pub fn finish(self) {
        self.streams.finish();
    }
}
