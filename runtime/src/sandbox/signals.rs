//! Signals sent to husk go to the container's init.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use husk_abi::boundary::events::HostEvents;
use nix::sys::signal::{SigSet, Signal};
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileMemory};

use crate::confine::{self, rules::Role};
use crate::vmm::{GuestMemory, Kicker};

/// What is passed on. Stopping and continuing stay husk's own: they stop and continue the whole guest.
const FORWARDED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGWINCH,
];

/// Signals that wait, blocked, for somebody to pass them on.
#[derive(Debug)]
pub struct Blocked(SigSet);

/// Blocks the signals for this thread and all it starts.
pub fn block() -> io::Result<Blocked> {
    let set: SigSet = FORWARDED.into_iter().collect();
    set.thread_block()?;
    Ok(Blocked(set))
}

impl Blocked {
    /// Starts the thread that passes each signal on to the guest whose host-events page is at `page`, after it has
    /// called `on_usr1` for `SIGUSR1`.
    pub fn forward(
        self,
        memory: GuestMemory,
        page: u64,
        kicker: Kicker,
        on_usr1: Option<impl Fn() + Send + 'static>,
    ) -> io::Result<()> {
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                confine::enter_thread(Role::Signals);
                while let Ok(signal) = self.0.wait() {
                    if signal == Signal::SIGUSR1
                        && let Some(on_usr1) = &on_usr1
                    {
                        on_usr1();
                    }
                    if raise(&memory, page, signal) {
                        kicker.kick();
                    }
                }
            })
            .map(drop)
    }
}

/// Sets the signal's bit; false if the page is not where it was said to be.
fn raise(memory: &GuestMemory, page: u64, signal: Signal) -> bool {
    let at = page + std::mem::offset_of!(HostEvents, signals) as u64;
    let Ok(slice) = memory.get_slice(GuestAddress(at), 8) else {
        return false;
    };
    let Ok(bits) = slice.get_atomic_ref::<AtomicU64>(0) else {
        return false;
    };
    bits.fetch_or(1 << (signal as i32 - 1), Ordering::SeqCst);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vm_memory::{Bytes, GuestMemoryMmap};

    #[test]
    fn bits_add_up() {
        let memory: GuestMemory =
            Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap());
        assert!(raise(&memory, 0, Signal::SIGHUP));
        assert!(raise(&memory, 0, Signal::SIGTERM));
        let bits: u64 = memory.read_obj(GuestAddress(0)).unwrap();
        assert_eq!(bits, 1 | 1 << 14);
        assert!(!raise(&memory, 1 << 40, Signal::SIGHUP));
    }
}
