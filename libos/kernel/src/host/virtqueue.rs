//! The driver's side of a split virtqueue (virtio 1.2, section 2.7).

use alloc::vec::Vec;

use husk_abi::boundary::boot::Virtqueue as Rings;
use husk_hal::phys::{self, Frame};

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;

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

/// Writes descriptor `id` of the table at `table_gpa`.
fn describe(table_gpa: u64, id: u16, buffer: &Buffer, next: Option<u16>) {
    let mut flags = if buffer.device_writes { DESC_WRITE } else { 0 };
    flags |= if next.is_some() { DESC_NEXT } else { 0 };
    let place = (buffer.gpa, buffer.len);
    put_descriptor(table_gpa, id, place, flags, next.unwrap_or(0));
}

fn put_descriptor(table_gpa: u64, id: u16, place: (u64, u32), flags: u16, next: u16) {
    let mut bytes = [0; Virtqueue::DESCRIPTOR_BYTES];
    bytes[..8].copy_from_slice(&place.0.to_le_bytes());
    bytes[8..12].copy_from_slice(&place.1.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    // A descriptor never crosses a page.
    write(table_gpa + u64::from(id) * bytes.len() as u64, &bytes);
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

    /// Bytes of a descriptor.
    pub const DESCRIPTOR_BYTES: usize = 16;

    /// Queues a chain; `None` if there are not enough descriptors.
    pub fn push(&mut self, buffers: &[Buffer]) -> Option<u16> {
        if buffers.is_empty() || self.free.len() < buffers.len() {
            return None;
        }
        let chain: Vec<u16> = (0..buffers.len()).filter_map(|_| self.free.pop()).collect();
        for (index, (buffer, id)) in buffers.iter().zip(&chain).enumerate() {
            describe(
                self.rings.desc_gpa,
                *id,
                buffer,
                chain.get(index + 1).copied(),
            );
        }
        Some(self.publish(chain))
    }

    /// Queues a chain that takes one descriptor: the others are in a table at `table_gpa` (virtio 1.2, section 2.7.5.3), which
    /// has room for them and stays until the device is done. `None` if there is no descriptor.
    pub fn push_table(&mut self, buffers: &[Buffer], table_gpa: u64) -> Option<u16> {
        let ids = 0..buffers.len() as u16;
        for (id, buffer) in ids.clone().zip(buffers) {
            let next = Some(id + 1).filter(|next| ids.contains(next));
            describe(table_gpa, id, buffer, next);
        }
        let id = self.free.pop()?;
        let len = (buffers.len() * Self::DESCRIPTOR_BYTES) as u32;
        put_descriptor(self.rings.desc_gpa, id, (table_gpa, len), DESC_INDIRECT, 0);
        Some(self.publish(alloc::vec![id]))
    }

    fn publish(&mut self, chain: Vec<u16>) -> u16 {
        let head = chain[0];
        self.chains[usize::from(head)] = chain;
        let slot = u64::from(self.next_avail % self.rings.size as u16);
        write(self.rings.avail_gpa + 4 + slot * 2, &head.to_le_bytes());
        self.next_avail = self.next_avail.wrapping_add(1);
        // The index last: it publishes the entry.
        core::sync::atomic::fence(core::sync::atomic::Ordering::Release);
        write(self.rings.avail_gpa + 2, &self.next_avail.to_le_bytes());
        head
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::testing::arena;

    fn descriptor(at: u64) -> (u64, u32, u16, u16) {
        let bytes: [u8; 16] = read(at);
        let word = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        (
            u64::from_le_bytes(bytes[..8].try_into().unwrap()),
            u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
            word(12),
            word(14),
        )
    }

    #[test]
    fn a_table_takes_one_descriptor() {
        let memory = arena(2).start;
        let rings = Rings {
            desc_gpa: memory,
            avail_gpa: memory + 4096,
            used_gpa: memory + 8192,
            size: 4,
            ..Rings::default()
        };
        let table = memory + 16384;
        let mut queue = Virtqueue::new(rings);
        // More than a page of them, and than the queue has.
        let buffers: Vec<Buffer> = (0..300)
            .map(|index| Buffer {
                gpa: index * 4096,
                len: 100,
                device_writes: index >= 200,
            })
            .collect();
        assert_eq!(queue.push(&buffers), None);
        let head = queue.push_table(&buffers, table).unwrap();
        let at = memory + u64::from(head) * 16;
        assert_eq!(descriptor(at), (table, 4800, DESC_INDIRECT, 0));
        assert_eq!(descriptor(table), (0, 100, DESC_NEXT, 1));
        let last = descriptor(table + 299 * 16);
        assert_eq!(last, (299 * 4096, 100, DESC_WRITE, 0));
        assert_eq!(
            queue.push(&buffers[..3]).map(|other| other != head),
            Some(true)
        );
        assert_eq!(queue.push(&buffers[..1]), None);
    }
}
