//! The table of threads the VMM reads for crash reports and debuggers (`husk_abi::boundary::inspect`).

use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::boundary::inspect::{InspectPlace, OFFSET, TABLE_ENTRIES};
use husk_hal::phys::{self, Frame};

use crate::Thread;

static TABLE: [AtomicU64; TABLE_ENTRIES] = [const { AtomicU64::new(0) }; TABLE_ENTRIES];

/// Tells the VMM where the table is, through the host-events page at `page_gpa`.
pub fn announce(page_gpa: u64) {
    let at = page_gpa + OFFSET + core::mem::offset_of!(InspectPlace, threads) as u64;
    let table = core::ptr::from_ref(&TABLE).addr() as u64;
    phys::store_u64(Frame::containing(at), (at % 4096) as usize, table);
}

/// Enters a thread under its id.
pub fn add(thread: &Thread) {
    let record = thread.context.record();
    record.tid.store(thread.tid(), Ordering::Relaxed);
    record.pid.store(thread.process.pid, Ordering::Relaxed);
    if let Some(slot) = TABLE.get(thread.tid() as usize) {
        let address = core::ptr::from_ref(record).addr() as u64;
        slot.store(address, Ordering::Release);
    }
}

/// Takes out the thread with this id; its record may go away from here on.
pub fn remove(tid: u32) {
    if let Some(slot) = TABLE.get(tid as usize) {
        slot.store(0, Ordering::Release);
    }
}
