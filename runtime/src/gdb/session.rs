//! One gdb's visit, from connecting to leaving.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};
use husk_abi::boundary::vcpu::VcpuShared;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vm_memory::{Bytes, GuestAddress};

use super::Ending;
use super::connection::Stream;
use super::target::{Guest, TargetFailure, vcpu_tid};
use crate::vmm::End;
use crate::vmm::debug::{Inspector, Reason, Resume};

type StopReason = MultiThreadStopReason<u64>;
type WaitError = WaitForStopReasonError<TargetFailure, io::Error>;

/// Serves one gdb.
pub fn run(stream: OwnedFd, inspector: &Arc<Inspector>, ending: &Arc<Ending>) {
    set_attached(inspector, true);
    inspector.debug.stop_all();
    tracing::debug!("gdb is attached");
    let mut guest = Guest::new(inspector.clone(), ending.clone());
    let reason = GdbStub::new(Stream::new(stream)).run_blocking::<Loop>(&mut guest);
    match &reason {
        Ok(reason) => tracing::debug!("gdb leaves: {reason:?}"),
        Err(error) => tracing::warn!("gdb is cut off: {error}"),
    }
    // However it left: the guest goes on without it, but not if it was to be killed.
    inspector.debug.stop_all();
    inspector.unplant_all();
    set_attached(inspector, false);
    let kill = matches!(reason, Ok(DisconnectReason::Kill));
    inspector.debug.resume_all(|_, stop| {
        Some(Resume {
            kill,
            ..stop.resume()
        })
    });
}

fn set_attached(inspector: &Inspector, attached: bool) {
    inspector.debug.set_attached(attached);
    let offset = std::mem::offset_of!(VcpuShared, debugger) as u64;
    for page in inspector.shared_pages() {
        let _ = inspector
            .space
            .memory()
            .write_obj(u32::from(attached), GuestAddress(page + offset));
    }
}

/// How gdb hears of an end.
fn farewell(end: End) -> StopReason {
    match end {
        End::Shutdown(status) => {
            let status = ExitStatus::from_raw(status.cast_signed());
            let signal = status.signal().and_then(|signal| u8::try_from(signal).ok());
            match signal {
                Some(signal) => MultiThreadStopReason::Terminated(Signal(signal)),
                None => MultiThreadStopReason::Exited(
                    status.code().map_or(u8::MAX, |code| (code & 0xff) as u8),
                ),
            }
        }
        _ => MultiThreadStopReason::Terminated(Signal::SIGABRT),
    }
}

enum Loop {}

impl Loop {
    /// What a stopped vCPU has to tell, once all others stand still.
    fn stop_reason(guest: &Guest) -> Option<StopReason> {
        let debug = &guest.inspector.debug;
        let told = debug.stops().into_iter().find_map(|(index, stop)| {
            let tid = vcpu_tid(index);
            match stop?.reason {
                Reason::Asked => None,
                Reason::Breakpoint => Some(MultiThreadStopReason::SwBreak(tid)),
                Reason::Step => Some(MultiThreadStopReason::SignalWithThread {
                    tid,
                    signal: Signal::SIGTRAP,
                }),
                Reason::Crash => Some(MultiThreadStopReason::SignalWithThread {
                    tid,
                    signal: Signal::SIGABRT,
                }),
            }
        });
        if told.is_some() {
            debug.stop_all();
        }
        told
    }
}

impl BlockingEventLoop for Loop {
    type Target = Guest;
    type Connection = Stream;
    type StopReason = StopReason;

    fn wait_for_stop_reason(
        guest: &mut Guest,
        stream: &mut Stream,
    ) -> Result<Event<StopReason>, WaitError> {
        use gdbstub::conn::ConnectionExt;
        let inspector = guest.inspector.clone();
        let events = inspector.debug.events();
        loop {
            if let Some(end) = guest.ending.get() {
                return Ok(Event::TargetStopped(farewell(end)));
            }
            if let Some(reason) = Self::stop_reason(guest) {
                guest.refresh();
                return Ok(Event::TargetStopped(reason));
            }
            if stream
                .peek()
                .map_err(WaitForStopReasonError::Connection)?
                .is_some()
            {
                return stream
                    .read()
                    .map(Event::IncomingData)
                    .map_err(WaitForStopReasonError::Connection);
            }
            let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds = [readable(stream.as_fd()), readable(events.as_fd())];
            let _ = poll(&mut fds, PollTimeout::NONE);
            let _ = events.read();
        }
    }

    fn on_interrupt(guest: &mut Guest) -> Result<Option<StopReason>, TargetFailure> {
        guest.inspector.debug.stop_all();
        guest.refresh();
        let tid: Tid = vcpu_tid(0);
        Ok(Some(MultiThreadStopReason::SignalWithThread {
            tid,
            signal: Signal::SIGINT,
        }))
    }
}
