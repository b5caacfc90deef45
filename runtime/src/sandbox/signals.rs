//! Signals sent to husk go to the container's init; those of its terminal to the processes in the foreground there.
#![allow(
    unsafe_code,
    reason = "a signal with its origin, which nix does not offer"
)]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use husk_abi::boundary::config::WindowSize;
use husk_abi::boundary::events::HostEvents;
use nix::sys::signal::{SigSet, Signal};
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileMemory};

use crate::confine::{self, rules::Role};
use crate::control::proxy;
use crate::vmm::{GuestMemory, Kicker};

/// What is passed on. `SIGSTOP` and `SIGCONT` stay husk's own: they stop and continue the whole guest.
const FORWARDED: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
];

/// Whether a signal to the VMM goes to the container's init.
#[must_use]
pub fn is_forwarded(number: i32) -> bool {
    FORWARDED.iter().any(|signal| *signal as i32 == number)
}

/// What a terminal sends.
const OF_TERMINAL: [Signal; 3] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP];
/// `si_code` of a signal the kernel sent.
const SI_KERNEL: i32 = 0x80;

/// With this value comes what the terminal sent to the command that shares it with the guest.
pub const OF_SHARED_TERMINAL: u64 = 0x6875_736b_7474_7901;

/// Whether a terminal sent it: the VMM's own, or that of the command.
fn is_terminals(info: &libc::siginfo_t) -> bool {
    // SAFETY: a signal with this code has a value.
    let value = || unsafe { info.si_value() }.sival_ptr as u64;
    info.si_code == SI_KERNEL || (info.si_code == libc::SI_QUEUE && value() == OF_SHARED_TERMINAL)
}

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
                while let Ok((signal, of_terminal)) = next(&self.0) {
                    if signal == Signal::SIGUSR1
                        && let Some(on_usr1) = &on_usr1
                    {
                        on_usr1();
                    }
                    let bit = 1 << (signal as i32 - 1);
                    let (field, bits) = match (signal, window()) {
                        (Signal::SIGWINCH, Some(size)) => {
                            (std::mem::offset_of!(HostEvents, window), size.to_bits())
                        }
                        _ if of_terminal && OF_TERMINAL.contains(&signal) => {
                            (std::mem::offset_of!(HostEvents, terminal_signals), bit)
                        }
                        _ => (std::mem::offset_of!(HostEvents, signals), bit),
                    };
                    let is_window = field == std::mem::offset_of!(HostEvents, window);
                    if raise(&memory, page + field as u64, bits, is_window) {
                        kicker.kick();
                    }
                }
            })
            .map(drop)
    }
}

/// Waits for the next signal of `set`, and tells whether a terminal sent it.
///
/// # Errors
/// What `sigwaitinfo(2)` gives.
pub fn next(set: &SigSet) -> io::Result<(Signal, bool)> {
    loop {
        // SAFETY: a C struct of integers, for which zero is valid; it is written.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: both live through the call.
        let number = unsafe { libc::sigwaitinfo(set.as_ref(), &raw mut info) };
        if let Ok(signal) = Signal::try_from(number) {
            return Ok((signal, is_terminals(&info)));
        }
        // One in real time is nobody's.
        if number < 0 {
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            }
        }
    }
}

/// The size of the terminal that is standard input, if it has one.
#[must_use]
pub fn window() -> Option<WindowSize> {
    // SAFETY: standard input stays open; if it is not, the call fails.
    let input = unsafe { BorrowedFd::borrow_raw(0) };
    proxy::window(input)
}

/// Sets `bits` in the word at `at`, or makes it `bits`; false if it is not where it was said to be.
fn raise(memory: &GuestMemory, at: u64, bits: u64, replaces: bool) -> bool {
    let Ok(slice) = memory.get_slice(GuestAddress(at), 8) else {
        return false;
    };
    let Ok(word) = slice.get_atomic_ref::<AtomicU64>(0) else {
        return false;
    };
    if replaces {
        word.store(bits, Ordering::SeqCst);
    } else {
        word.fetch_or(bits, Ordering::SeqCst);
    }
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
        assert!(raise(&memory, 0, 1, false));
        assert!(raise(&memory, 0, 1 << 14, false));
        let bits: u64 = memory.read_obj(GuestAddress(0)).unwrap();
        assert_eq!(bits, 1 | 1 << 14);
        assert!(raise(&memory, 0, 7, true));
        let bits: u64 = memory.read_obj(GuestAddress(0)).unwrap();
        assert_eq!(bits, 7);
        assert!(!raise(&memory, 1 << 40, 1, false));
    }
}
