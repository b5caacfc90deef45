//! The driver's side of a split virtqueue (virtio 1.2, section 2.7).

use alloc::vec::Vec;

use husk_abi::boundary::boot::Virtqueue as Rings;
use husk_hal::phys::{self, Frame};

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;

/// A buffer of guest memory and who writes it.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes.
    pub len: u32,
    /// Whether the device writes it.
    pub device_writes: bool,
}

/// A split virtqueue. Chains come back by the number [`Virtqueue::push`] gave.
#[derive(Debug)]
pub struct Virtqueue {
    rings: Rings,
    free: Vec<u16>,
    /// Descriptors of the chain that starts at this one.
    chains: Vec<Vec<u16>>,
    next_avail: u16,
    next_used: u16,
}

fn write(gpa: u64, bytes: &[u8]) {
    phys::write(Frame::containing(gpa), (gpa % 4096) as usize, bytes);
}

fn read<const N: usize>(gpa: u64) -> [u8; N] {
    let mut bytes = [0; N];
    phys::read(Frame::containing(gpa), (gpa % 4096) as usize, &mut bytes);
    bytes
}

impl Virtqueue {
    /// A queue over `rings`, which are zero.
    #[must_use]
    pub fn new(rings: Rings) -> Self {
        let size = rings.size as u16;
        Self {
            rings,
            free: (0..size).rev().collect(),
            chains: (0..size).map(|_| Vec::new()).collect(),
            next_avail: 0,
            next_used: 0,
        }
    }

    /// Queues a chain; `None` if there are not enough descriptors.
    pub fn push(&mut self, buffers: &[Buffer]) -> Option<u16> {
        if buffers.is_empty() || self.free.len() < buffers.len() {
            return None;
        }
        let chain: Vec<u16> = (0..buffers.len()).filter_map(|_| self.free.pop()).collect();
        for (index, (buffer, id)) in buffers.iter().zip(&chain).enumerate() {
            let next = chain.get(index + 1);
            let mut flags = if buffer.device_writes { DESC_WRITE } else { 0 };
            flags |= if next.is_some() { DESC_NEXT } else { 0 };
            let at = self.rings.desc_gpa + u64::from(*id) * 16;
            write(at, &buffer.gpa.to_le_bytes());
            write(at + 8, &buffer.len.to_le_bytes());
            write(at + 12, &flags.to_le_bytes());
            write(at + 14, &next.copied().unwrap_or(0).to_le_bytes());
        }
        let head = chain[0];
        self.chains[usize::from(head)] = chain;
        let slot = u64::from(self.next_avail % self.rings.size as u16);
        write(self.rings.avail_gpa + 4 + slot * 2, &head.to_le_bytes());
        self.next_avail = self.next_avail.wrapping_add(1);
        // The index last: it publishes the entry.
        core::sync::atomic::fence(core::sync::atomic::Ordering::Release);
        write(self.rings.avail_gpa + 2, &self.next_avail.to_le_bytes());
        Some(head)
    }

    /// Takes a chain the device is done with: its number and the length the device gave.
    pub fn pop_used(&mut self) -> Option<(u16, u32)> {
        let used = u16::from_le_bytes(read(self.rings.used_gpa + 2));
        if used == self.next_used {
            return None;
        }
        core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
        let slot = u64::from(self.next_used % self.rings.size as u16);
        let at = self.rings.used_gpa + 4 + slot * 8;
        let head = u32::from_le_bytes(read(at)) as u16;
        let len = u32::from_le_bytes(read(at + 4));
        self.next_used = self.next_used.wrapping_add(1);
        let chain = core::mem::take(self.chains.get_mut(usize::from(head))?);
        self.free.extend(chain);
        Some((head, len))
    }

    /// Whether the device wants to be notified of new chains.
    #[must_use]
    pub fn wants_notification(&self) -> bool {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        u16::from_le_bytes(read(self.rings.used_gpa)) & 1 == 0
    }

    /// Asks the device to interrupt when it is done with chains, or not to.
    pub fn want_interrupts(&mut self, want: bool) {
        write(self.rings.avail_gpa, &u16::from(!want).to_le_bytes());
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }
}
