//! What the libOS keeps where the VMM finds it, so that a crash report and a debugger can tell what its threads do.
//!
//! Every thread has a [`ThreadRecord`]; a table of their addresses, by thread id, is announced once in an
//! [`InspectPlace`], [`OFFSET`] bytes into the page of [`super::events::HostEvents`]. All addresses are virtual, in the
//! libOS's half. The VMM reads when it wants to, and believes nothing.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Offset of [`InspectPlace`] in the host-events page.
pub const OFFSET: u64 = 256;
/// Entries of the table: one more than the largest thread id.
pub const TABLE_ENTRIES: usize = 32_769;

/// Where the table of threads is. 0 until the libOS has one.
#[repr(C)]
#[derive(Debug)]
pub struct InspectPlace {
    /// Address of [`TABLE_ENTRIES`] addresses of [`ThreadRecord`]s, indexed by thread id; 0 where there is no thread.
    pub threads: AtomicU64,
}
super::assert_size!(InspectPlace, 8);

/// `ThreadRecord::state`: on a vCPU or waiting for one.
pub const RUNNABLE: u32 = 0;
/// `ThreadRecord::state`: waits for something.
pub const PARKED: u32 = 1;
/// `ThreadRecord::state`: ended.
pub const DEAD: u32 = 2;

/// A thread as seen from outside.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ThreadRecord {
    /// Thread id.
    pub tid: AtomicU32,
    /// Process id.
    pub pid: AtomicU32,
    /// [`RUNNABLE`], [`PARKED`] or [`DEAD`].
    pub state: AtomicU32,
    /// Reserved, 0.
    pub reserved: AtomicU32,
    /// Guest physical address of the PML4 it last ran on; 0 before it ran.
    pub root_gpa: AtomicU64,
    /// End of its libOS stack, below which its [`super::frame::TrapFrame`] lies; 0 for a vCPU's idle thread.
    pub stack_top: AtomicU64,
    /// While it does not run: its libOS stack pointer, at which r15, r14, r13, r12, rbp, rbx and the return address lie.
    pub rsp: AtomicU64,
    /// While it does not run: FS base.
    pub fs_base: AtomicU64,
    /// While it does not run: GS base.
    pub gs_base: AtomicU64,
    /// Its name, as in `/proc/pid/comm`, NUL-padded.
    pub name: [AtomicU64; 2],
}
super::assert_size!(ThreadRecord, 72);

impl ThreadRecord {
    /// Sets the name.
    pub fn set_name(&self, name: &[u8; 16]) {
        let (words, _) = name.as_chunks::<8>();
        for (field, word) in self.name.iter().zip(words) {
            field.store(u64::from_le_bytes(*word), Ordering::Relaxed);
        }
    }
}
