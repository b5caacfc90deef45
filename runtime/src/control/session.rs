//! A process that runs by `exec`, with its streams.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use husk_abi::boundary::config::{ProcessConfig, StreamKind};
use husk_abi::boundary::control::session_queues;
use husk_abi::boundary::doorbell;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::gate::handed::Handed;
use crate::gate::stdio::{End, Event, Listener, Parts, StreamObserver, Streams};
use crate::gate::{Error, Interrupt};
use crate::vmm::{Doorbells, GuestMemory};

/// What sessions are made with.
#[derive(Clone)]
pub struct Surroundings {
    /// Guest memory.
    pub memory: GuestMemory,
    /// Makes the guest look.
    pub interrupt: Arc<dyn Interrupt>,
    /// Who is told what goes through the streams.
    pub observer: Option<Arc<dyn StreamObserver>>,
    /// Doorbells of the streams.
    pub doorbells: Doorbells,
    /// The sessions' pages.
    pub pages_gpa: u64,
    /// Where the guest finds what else a process is handed.
    pub handed: Arc<Handed>,
}

/// A session. Its number is free again when it is dropped.
pub struct Session {
    number: u32,
    /// The connection that asked for it, while that is open.
    pub connection: Option<u64>,
    /// Its wait status, when its process has ended.
    pub status: Option<i32>,
    /// The client knows already that it could not run.
    pub has_failed: bool,
    /// What is queued for its output has been written since its process has ended.
    pub is_flushed: bool,
    /// Whether the threads of its streams run: output, input.
    pub runs: [bool; 2],
    /// The guest was told that it is over.
    pub is_released: bool,
    streams: Streams,
    bells: [EventFd; 2],
    doorbells: Doorbells,
    handed: Arc<Handed>,
}

const BELLS: [u16; 2] = [doorbell::STDIO_OUT, doorbell::STDIO_IN];

/// The host's ends: a descriptor for each stream that is not closed; and what else there is, which must be so many.
fn ends(
    kinds: [StreamKind; 3],
    handed: usize,
    descriptors: Vec<OwnedFd>,
) -> Option<([End; 3], Vec<OwnedFd>)> {
    let mut descriptors = descriptors.into_iter();
    let mut ends = [End::Closed, End::Closed, End::Closed];
    for (end, kind) in ends.iter_mut().zip(kinds) {
        if kind != StreamKind::Closed {
            *end = End::Given(descriptors.next()?);
        }
    }
    let rest: Vec<OwnedFd> = descriptors.collect();
    (rest.len() == handed).then_some((ends, rest))
}

impl Session {
    /// Serves the streams of session `number`; its process is to be asked for afterwards.
    ///
    /// # Errors
    /// What keeps it from being made, for the client.
    pub fn start(
        number: u32,
        connection: u64,
        config: &ProcessConfig,
        descriptors: Vec<OwnedFd>,
        surroundings: &Surroundings,
        listener: Listener,
    ) -> Result<Self, String> {
        let (ends, handed) =
            ends(config.streams, config.handed.len(), descriptors).ok_or_else(|| {
                "the descriptors are not those of its streams and what else it is handed".to_owned()
            })?;
        let text = |error: Error| error.to_string();
        let page = surroundings.pages_gpa + u64::from(number) * 4096;
        surroundings
            .memory
            .write_slice(&[0; 4096], GuestAddress(page))
            .map_err(|error| error.to_string())?;
        let event = || EventFd::new(0).map_err(|error| error.to_string());
        let bells = [event()?, event()?];
        let clone = |event: &EventFd| event.try_clone().map_err(|error| error.to_string());
        let served = [clone(&bells[0])?, clone(&bells[1])?];
        let doorbells = surroundings.doorbells.clone();
        for (port, event) in BELLS.into_iter().zip(&bells) {
            doorbells
                .bind(port, number, event)
                .map_err(|error| error.to_string())?;
        }
        let streams = Streams::start(Parts {
            memory: surroundings.memory.clone(),
            rings: session_queues(page),
            bells: served,
            ends: Arc::new(ends),
            interrupt: surroundings.interrupt.clone(),
            listener: Some(listener),
            observer: surroundings.observer.clone(),
        });
        let streams = match streams {
            Ok(streams) => streams,
            Err(error) => {
                for (port, event) in BELLS.into_iter().zip(&bells) {
                    doorbells.unbind(port, number, event);
                }
                return Err(text(error));
            }
        };
        surroundings.handed.put(number, handed);
        Ok(Self {
            number,
            connection: Some(connection),
            status: None,
            has_failed: false,
            is_flushed: false,
            runs: [true; 2],
            is_released: false,
            streams,
            bells,
            doorbells,
            handed: surroundings.handed.clone(),
        })
    }

    /// Its streams.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Notes what its threads tell.
    pub fn told(&mut self, event: Event) {
        match event {
            Event::Flushed => self.is_flushed |= self.status.is_some(),
            Event::OutputEnded => self.runs[0] = false,
            Event::InputEnded => self.runs[1] = false,
        }
    }

    /// The wait status to tell, when all output is written.
    pub fn end(&self) -> Option<i32> {
        let written = self.is_flushed || !self.runs[0];
        self.status.filter(|_| written)
    }

    /// Whether nothing of it is left but its number.
    pub fn is_over(&self) -> bool {
        self.status.is_some() && self.runs == [false; 2]
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.handed.forget(self.number);
        for (port, event) in BELLS.into_iter().zip(&self.bells) {
            self.doorbells.unbind(port, self.number, event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StreamKind::{Closed, Null, Pipe};

    #[test]
    fn a_descriptor_for_each_open_stream() {
        let fds = |count: usize| -> Vec<OwnedFd> {
            (0..count)
                .map(|_| std::fs::File::open("/dev/null").unwrap().into())
                .collect()
        };
        assert!(ends([Pipe, Null, Pipe], 0, fds(3)).is_some());
        let (some, rest) = ends([Pipe, Closed, Null], 2, fds(4)).unwrap();
        assert_eq!(rest.len(), 2);
        assert!(matches!(some, [End::Given(_), End::Closed, End::Given(_)]));
        assert!(ends([Pipe, Closed, Null], 0, fds(3)).is_none());
        assert!(ends([Pipe, Null, Null], 0, fds(2)).is_none());
    }
}
