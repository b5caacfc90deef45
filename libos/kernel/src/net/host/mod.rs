//! Sockets of the host: how inet sockets lead out of the guest (`abi::boundary::net`).
//!
//! | module | what |
//! | --- | --- |
//! | `calls` | the messages, typed |
//! | `socket` | a socket of the host, and waiting for it |
//! | `send`, `receive` | sending and receiving by it |
//! | `stream`, `datagrams` | what of a socket is on this side already, or still |
//! | `shared` | bringing these over, of all sockets together |
//! | `tables` | interfaces, addresses and routes |
//! | `outside` | the host's side of a socket a program has, made when it is first needed |
//!
//! What is ready stands in memory that the VMM writes, so that nothing is asked of it for `poll(2)`. An event of a socket
//! interrupts the guest only if somebody wanted to know.

mod calls;
mod datagrams;
mod outside;
mod receive;
mod send;
mod shared;
mod socket;
mod stream;
pub mod tables;

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};

use husk_abi::boundary::boot::BootInfo;
use husk_abi::boundary::net::{
    CHANGED_OFFSET, MAX_SOCKETS, NO_SOCKET, STATES_OFFSET, SUMMARY_OFFSET, SocketState,
};
use husk_hal::phys::{self, Frame};

pub use calls::Received;
pub use calls::route;
pub use outside::Outside;
pub use socket::{Accepted, HostSocket};

use crate::sync::SpinLock;
use crate::{Kernel, Result};

/// All sockets of the host that are open.
#[derive(Debug, Default)]
pub struct HostSockets {
    /// Where what is ready stands; `None` if the container has no sockets of the host.
    area_gpa: Option<u64>,
    open: SpinLock<BTreeMap<u32, Weak<HostSocket>>>,
    unsent: shared::Unsent,
}

/// Where a word at `gpa` is.
fn place(gpa: u64) -> (Frame, usize) {
    (Frame::containing(gpa), (gpa % 4096) as usize)
}

/// Takes the bits of the word at `gpa`.
fn take_bits(gpa: u64) -> impl Iterator<Item = u32> {
    let (frame, offset) = place(gpa);
    // A plain load first: this is done on every interrupt.
    let bits = match phys::load_u64(frame, offset) {
        0 => 0,
        _ => phys::swap_u64(frame, offset, 0),
    };
    (0..64).filter(move |bit| bits >> bit & 1 == 1)
}

impl HostSockets {
    /// As the boot info says.
    #[must_use]
    pub fn new(boot: &BootInfo) -> Self {
        Self {
            area_gpa: (boot.sockets.len > 0).then_some(boot.sockets.gpa),
            open: SpinLock::default(),
            unsent: shared::Unsent::default(),
        }
    }

    /// Whether anything leads out of the guest.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.area_gpa.is_some()
    }

    /// Wakes who waits for sockets that the VMM says something happened to.
    pub fn poll(&self) {
        let Some(area) = self.area_gpa else { return };
        self.take_delivered();
        for summary in 0..MAX_SOCKETS as u32 / 64 / 64 {
            let at = area + SUMMARY_OFFSET + u64::from(summary) * 8;
            for word in take_bits(at).map(|bit| summary * 64 + bit) {
                let at = area + CHANGED_OFFSET + u64::from(word) * 8;
                for number in take_bits(at).map(|bit| word * 64 + bit) {
                    let found = self.open.lock().get(&number).cloned();
                    if let Some(socket) = found.and_then(|socket| socket.upgrade()) {
                        socket.wake();
                    }
                }
            }
        }
    }

    /// The guest physical address of a socket's state.
    fn state_gpa(&self, number: u32) -> Option<u64> {
        let area = self.area_gpa?;
        let index = (number as usize).min(MAX_SOCKETS - 1);
        Some(area + STATES_OFFSET + (index * size_of::<SocketState>()) as u64)
    }
}

/// An `ioctl(2)` about interfaces: the argument's `bytes`, changed.
///
/// # Errors
/// The host's.
pub fn interface_ioctl(kernel: &Kernel, request: u32, bytes: &[u8]) -> Result<alloc::vec::Vec<u8>> {
    calls::ioctl(kernel, NO_SOCKET, request, bytes)
}

/// Keeps `socket` where events find it.
fn enter(kernel: &Kernel, number: u32, socket: &Arc<HostSocket>) {
    let mut open = kernel.net.host.open.lock();
    open.insert(number, Arc::downgrade(socket));
}
