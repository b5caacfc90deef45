//! The thread that writes records out while the guest runs.
//!
//! It wakes when a ring is half full, and now and then so that those who follow a recording see what an idle
//! container has done.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::EventFd;

use super::Session;
use crate::confine::{self, rules::Role};
use crate::vmm::borrow_event;

/// How long a record may wait in its ring, in milliseconds.
const PERIOD_MS: u16 = 100;

/// Starts the thread; `waiting` is the doorbell of half-full rings. It runs until the process ends.
///
/// # Errors
/// When there can be no thread.
pub fn start(session: Arc<Mutex<Session>>, waiting: EventFd) -> io::Result<()> {
    std::thread::Builder::new()
        .name("records".to_owned())
        .spawn(move || {
            confine::enter_thread(Role::Records);
            loop {
                let mut events = [PollFd::new(borrow_event(&waiting), PollFlags::POLLIN)];
                if poll(&mut events, PollTimeout::from(PERIOD_MS)).is_ok_and(|ready| ready > 0) {
                    let _ = waiting.read();
                }
                let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
                session.flush();
            }
        })
        .map(drop)
}
