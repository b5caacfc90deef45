//! The libOS's table of threads (`husk_abi::boundary::inspect`).

use husk_abi::boundary::frame::{FRAME_WORDS, TrapFrame};
use husk_abi::boundary::inspect::{
    DEAD, InspectPlace, OFFSET, PARKED, RUNNABLE, TABLE_ENTRIES, ThreadRecord,
};
use vm_memory::{Bytes, GuestAddress};

use super::registers::Registers;
use super::space::GuestSpace;

const RECORD_WORDS: usize = size_of::<ThreadRecord>() / 8;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadState {
    /// Runs or waits for a vCPU.
    Runnable,
    /// Waits for something else.
    Parked,
    /// Ended.
    Dead,
    /// The record says something unknown.
    Unknown(u32),
}

impl std::fmt::Display for ThreadState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Runnable => f.pad("runnable"),
            Self::Parked => f.pad("waiting"),
            Self::Dead => f.pad("dead"),
            Self::Unknown(state) => f.pad(&format!("state {state}")),
        }
    }
}

/// A thread as its record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub pid: u32,
    /// What it does.
    pub state: ThreadState,
    /// Its PML4; 0 if it has not run yet.
    pub root: u64,
    /// End of its libOS stack.
    pub stack_top: u64,
    /// Its libOS stack pointer while it does not run.
    pub rsp: u64,
    /// FS base while it does not run.
    pub fs_base: u64,
    /// GS base while it does not run.
    pub gs_base: u64,
    /// Its name, safe to print.
    pub name: String,
}

impl Thread {
    fn of(words: &[u64; RECORD_WORDS]) -> Self {
        let [
            ids,
            state,
            root,
            stack_top,
            rsp,
            fs_base,
            gs_base,
            name_low,
            name_high,
        ] = *words;
        let mut name = [0; 16];
        name[..8].copy_from_slice(&name_low.to_le_bytes());
        name[8..].copy_from_slice(&name_high.to_le_bytes());
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(16);
        Self {
            tid: ids as u32,
            pid: (ids >> 32) as u32,
            state: match state as u32 {
                RUNNABLE => ThreadState::Runnable,
                PARKED => ThreadState::Parked,
                DEAD => ThreadState::Dead,
                other => ThreadState::Unknown(other),
            },
            root,
            stack_top,
            rsp,
            fs_base,
            gs_base,
            name: String::from_utf8_lossy(&name[..end])
                .chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .collect(),
        }
    }

    /// What it entered the libOS with; `root` maps the libOS.
    #[must_use]
    pub fn user_frame(&self, space: &GuestSpace, root: u64) -> Option<TrapFrame> {
        let at = self.stack_top.checked_sub(size_of::<TrapFrame>() as u64)?;
        let words = space.words::<FRAME_WORDS>(root, at)?;
        Some(TrapFrame::from_words(&words))
    }

    /// Its registers in the libOS, if it is not running.
    #[must_use]
    pub fn saved_registers(&self, space: &GuestSpace, root: u64) -> Option<Registers> {
        let [r15, r14, r13, r12, rbp, rbx, rip] = space.words(root, self.rsp)?;
        let mut registers = Registers {
            rip,
            rflags: 0x202,
            cs: 0x33,
            ss: 0x2b,
            fs_base: self.fs_base,
            gs_base: self.gs_base,
            root: if self.root == 0 { root } else { self.root },
            ..Registers::default()
        };
        registers.general[1] = rbx;
        registers.general[6] = rbp;
        registers.general[7] = self.rsp + 7 * 8;
        registers.general[12..].copy_from_slice(&[r12, r13, r14, r15]);
        Some(registers)
    }
}

/// All threads, by id; none before the libOS has its table. `root` is a PML4 that maps the libOS.
pub fn all(space: &GuestSpace, page_gpa: u64, root: u64) -> Vec<Thread> {
    let place = page_gpa + OFFSET + std::mem::offset_of!(InspectPlace, threads) as u64;
    let table = space
        .memory()
        .read_obj::<u64>(GuestAddress(place))
        .unwrap_or(0);
    if table == 0 {
        return Vec::new();
    }
    let mut bytes = vec![0; TABLE_ENTRIES * 8];
    let read = space.read(root, table, &mut bytes);
    let (entries, _) = bytes[..read].as_chunks::<8>();
    entries
        .iter()
        .map(|entry| u64::from_le_bytes(*entry))
        .filter(|address| *address != 0)
        .filter_map(|address| Some(Thread::of(&space.words(root, address)?)))
        .collect()
}
