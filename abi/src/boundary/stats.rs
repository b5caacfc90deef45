//! Numbers about syscall translation and memory, for `--stats`; carried as postcard.

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Why a system call came by trap rather than through a thunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TrapReason {
    /// The trap that led to the site's patch.
    FirstUse,
    /// The site is patched: a restart, a jump straight to the `syscall`, or a process that had the old page.
    Patched,
    /// Instructions that could be displaced follow, but a jump between them would go unnoticed.
    Enterable,
    /// Looks like pattern 1, but that is not proven.
    Ambiguous,
    /// No pattern.
    NoPattern,
    /// `rt_sigreturn`: never patched.
    Restorer,
    /// Not the text of a file mapped privately and read-only.
    NotFileText,
    /// This mapping has no room for thunks near it.
    NoThunkArea,
    /// The process changed the code.
    ModifiedCode,
    /// The file was written to since its text was patched first.
    FileChanged,
    /// The file's thunk area is full.
    ThunksFull,
    /// The bytes to replace lie on two pages, which processes map one by one.
    TwoPages,
    /// Other vCPUs may be running the code and the bytes cannot be replaced at once.
    NotAtomic,
    /// No memory for the patched page or its thunks.
    NoMemory,
}

impl TrapReason {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 14] = [
        Self::FirstUse,
        Self::Patched,
        Self::Enterable,
        Self::Ambiguous,
        Self::NoPattern,
        Self::Restorer,
        Self::NotFileText,
        Self::NoThunkArea,
        Self::ModifiedCode,
        Self::FileChanged,
        Self::ThunksFull,
        Self::TwoPages,
        Self::NotAtomic,
        Self::NoMemory,
    ];

    /// A short name for tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstUse => "first use",
            Self::Patched => "patched site",
            Self::Enterable => "enterable",
            Self::Ambiguous => "ambiguous",
            Self::NoPattern => "no pattern",
            Self::Restorer => "signal restorer",
            Self::NotFileText => "not file text",
            Self::NoThunkArea => "no thunk area",
            Self::ModifiedCode => "modified code",
            Self::FileChanged => "file changed",
            Self::ThunksFull => "thunks full",
            Self::TwoPages => "two pages",
            Self::NotAtomic => "not atomic",
            Self::NoMemory => "no memory",
        }
    }
}

/// Bytes around a site that a report carries: this many before the `syscall`, and the `syscall` with what follows.
pub const SITE_BYTES: usize = 16;

/// One site whose calls trapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteReport {
    /// Device and inode of the file whose text it is; `None` for other memory.
    pub file: Option<(u64, u64)>,
    /// Path of the file, or of the program that trapped there first for other memory.
    pub path: Vec<u8>,
    /// The function in the file's symbol table, and where in it the `syscall` is.
    pub symbol: Option<(Vec<u8>, u64)>,
    /// Offset of the `syscall` in the file, or its address in other memory.
    pub offset: u64,
    /// Number of the last call.
    pub nr: u64,
    /// Traps.
    pub traps: u64,
    /// Why, the last time.
    pub reason: TrapReason,
    /// Up to [`SITE_BYTES`] bytes before the `syscall`.
    pub before: Vec<u8>,
    /// The `syscall` and what follows, up to [`SITE_BYTES`] bytes.
    pub after: Vec<u8>,
}

/// Everything about translation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslationReport {
    /// System calls made.
    pub calls: u64,
    /// How many of them trapped.
    pub calls_trapped: u64,
    /// Sites translated.
    pub sites_translated: u64,
    /// Traps for each reason that occurred.
    pub traps: Vec<(TrapReason, u64)>,
    /// Sites by their number of traps, most first; empty unless sites are counted.
    pub sites: Vec<SiteReport>,
    /// Traps at sites for which the table had no room.
    pub traps_unlisted: u64,
}

/// Encodes a report.
///
/// # Errors
/// Only if memory for the encoding runs out.
pub fn encode(report: &TranslationReport) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_allocvec(report)
}

/// Decodes what [`encode`] made.
///
/// # Errors
/// When `bytes` is not such an encoding.
pub fn decode(bytes: &[u8]) -> Result<TranslationReport, postcard::Error> {
    postcard::from_bytes(bytes)
}

/// What costs a switch between guest and KVM, or decides whether one is needed, as the memory room counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemoryEvent {
    /// An address space was loaded (`mov cr3`), or reloaded to flush it.
    Load,
    /// One page was flushed (`invlpg`).
    PageFlush,
    /// A fault that mapped zeros.
    FaultZero,
    /// A fault that mapped pages of an object for reading or executing.
    FaultRead,
    /// A fault that mapped pages of an object for writing to it.
    FaultShared,
    /// A fault that copied pages of an object.
    FaultCopy,
    /// A fault that copied, or made writable, pages shared since a fork.
    FaultFork,
    /// A fault of a page that was accessible, or whose rights only had to be renewed.
    FaultStale,
    /// A fault that ended in a signal.
    FaultSignal,
    /// A page-table entry became present: the CPU, or KVM's shadow, has to fetch it.
    Entry,
    /// A page-table page was made.
    Table,
    /// A fork into page tables that were kept from an earlier process.
    ForkKept,
    /// A fork into new page tables.
    ForkNew,
    /// A program loaded into page tables that were kept from an earlier run.
    ExecKept,
    /// A program loaded into new page tables.
    ExecNew,
    /// A page copied by fork itself.
    ForkCopy,
    /// Out of memory: a process was chosen and killed.
    OomKill,
}

impl MemoryEvent {
    /// All events, in the order of their discriminants.
    pub const ALL: [Self; 17] = [
        Self::Load,
        Self::PageFlush,
        Self::FaultZero,
        Self::FaultRead,
        Self::FaultShared,
        Self::FaultCopy,
        Self::FaultFork,
        Self::FaultStale,
        Self::FaultSignal,
        Self::Entry,
        Self::Table,
        Self::ForkKept,
        Self::ForkNew,
        Self::ExecKept,
        Self::ExecNew,
        Self::ForkCopy,
        Self::OomKill,
    ];

    /// A short name for tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "address spaces loaded",
            Self::PageFlush => "pages flushed",
            Self::FaultZero => "faults: zeros",
            Self::FaultRead => "faults: object, read",
            Self::FaultShared => "faults: object, shared write",
            Self::FaultCopy => "faults: object, copied",
            Self::FaultFork => "faults: shared since fork",
            Self::FaultStale => "faults: stale",
            Self::FaultSignal => "faults: signal",
            Self::Entry => "entries made present",
            Self::Table => "page tables made",
            Self::ForkKept => "forks, tables kept",
            Self::ForkNew => "forks, tables new",
            Self::ExecKept => "execs, tables kept",
            Self::ExecNew => "execs, tables new",
            Self::ForkCopy => "pages copied by fork",
            Self::OomKill => "processes killed for memory",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_by_discriminant() {
        for (index, reason) in TrapReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    #[test]
    fn events_are_listed_by_discriminant() {
        for (index, event) in MemoryEvent::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, index);
        }
    }

    #[test]
    fn a_report_survives_the_wire() {
        let report = TranslationReport {
            calls: 100,
            calls_trapped: 12,
            sites_translated: 3,
            traps: alloc::vec![(TrapReason::FirstUse, 3), (TrapReason::Enterable, 9)],
            sites: alloc::vec![SiteReport {
                file: Some((1, 2)),
                path: b"/bin/busybox".to_vec(),
                symbol: Some((b"read".to_vec(), 18)),
                offset: 0x1234,
                nr: 39,
                traps: 9,
                reason: TrapReason::Enterable,
                before: alloc::vec![1, 2],
                after: alloc::vec![0x0f, 0x05],
            }],
            traps_unlisted: 0,
        };
        let bytes = encode(&report).expect("encodes");
        assert_eq!(decode(&bytes), Ok(report));
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
