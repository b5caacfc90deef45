//! What `wait(2)` shows a tracer: stops and ends of its tracees.

use alloc::sync::Arc;

use super::link;
use super::state::{LISTENING, STANDING, wait_status};
use crate::process::Thread;

/// What a tracee did.
pub struct TraceeEvent {
    /// Who.
    pub tracee: Arc<Thread>,
    /// Its wait status.
    pub status: i32,
    /// It stopped; otherwise it has ended.
    pub stopped: bool,
}

/// What of its tracees there is to tell `tracer`, an event that `consume` takes away. `ended` if their ends count. `Some(None)`:
/// there are tracees that `matches`, but nothing has happened.
pub fn look(
    tracer: &Thread,
    matches: impl Fn(&Thread) -> bool,
    ended: bool,
    consume: bool,
) -> Option<Option<TraceeEvent>> {
    let tracees = tracer.trace.tracees.lock().clone();
    let mut any = false;
    for tracee in tracees.into_iter().filter(|tracee| matches(tracee)) {
        any = true;
        if let Some(status) = end_of(&tracee) {
            if !ended {
                continue;
            }
            if consume {
                link::reaped(tracer, &tracee);
            }
            return Some(Some(TraceeEvent {
                tracee,
                status,
                stopped: false,
            }));
        }
        if let Some(code) = stop_of(&tracee, consume) {
            return Some(Some(TraceeEvent {
                tracee,
                status: wait_status(code),
                stopped: true,
            }));
        }
    }
    any.then_some(None)
}

/// How a tracee has ended, as far as that is its tracer's to see. Who is also the parent sees a process's end as that.
fn end_of(tracee: &Arc<Thread>) -> Option<i32> {
    let process = &tracee.process;
    if tracee.tid() != process.pid {
        return tracee.trace.state.lock().ended;
    }
    process
        .end_to_tell()
        .filter(|_| !process.is_traced_by_parent())
}

fn stop_of(tracee: &Thread, consume: bool) -> Option<i32> {
    if tracee.trace.flags() & (STANDING | LISTENING) != STANDING {
        return None;
    }
    let mut state = tracee.trace.state.lock();
    if consume {
        state.unreported.take()
    } else {
        state.unreported
    }
}
