//! Virtqueues whose addresses stand in the boot info.

use husk_abi::boundary::boot::Virtqueue;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::Error;

/// The device's side of a queue.
pub fn open(
    memory: &GuestMemoryMmap,
    rings: &Virtqueue,
    service: &'static str,
) -> Result<Queue, Error> {
    let bad = || Error::Queue { service };
    let size = u16::try_from(rings.size).map_err(|_| bad())?;
    let mut queue = Queue::new(size).map_err(|_| bad())?;
    let halves = |gpa: u64| (Some(gpa as u32), Some((gpa >> 32) as u32));
    queue.set_size(size);
    let (low, high) = halves(rings.desc_gpa);
    queue.set_desc_table_address(low, high);
    let (low, high) = halves(rings.avail_gpa);
    queue.set_avail_ring_address(low, high);
    let (low, high) = halves(rings.used_gpa);
    queue.set_used_ring_address(low, high);
    queue.set_ready(true);
    if queue.is_valid(memory) {
        Ok(queue)
    } else {
        Err(bad())
    }
}
