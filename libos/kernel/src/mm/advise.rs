//! `madvise(2)`, and what is resident.

use core::ops::Range;

use alloc::vec::Vec;
use husk_abi::boundary::layout::PAGE_SIZE;
use husk_abi::linux::general;

use super::fault::{Access, FaultSignal};
use super::map::user_range;
use super::space::{AddressSpace, State};
use super::vma::{Flags, Prot, Vma};
use crate::{Errno, Result};

/// Pages read ahead for `MADV_WILLNEED` at most.
const WILLNEED_BYTES: u64 = 16 << 20;

impl AddressSpace {
    /// Follows `advice` (`MADV_*`) for `len` bytes from `start` on.
    ///
    /// # Errors
    /// As `madvise(2)`: `EINVAL`, `ENOMEM` (a part is not mapped; the rest is done), `EFAULT`.
    pub fn advise(&self, start: u64, len: u64, advice: u32) -> Result<()> {
        if !is_known(advice) || !start.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let range = user_range(start, len).ok_or(Errno::EINVAL)?;
        if range.is_empty() {
            return Ok(());
        }
        match advice {
            general::MADV_POPULATE_READ => self.populate_strictly(range, Access::Read),
            general::MADV_POPULATE_WRITE => self.populate_strictly(range, Access::Write),
            general::MADV_WILLNEED => self.read_ahead(range),
            general::MADV_REMOVE => self.remove_contents(range),
            _ => self.with(|state| state.advise(range, advice)),
        }
    }

    fn populate_strictly(&self, range: Range<u64>, access: Access) -> Result<()> {
        self.with(|state| {
            if !state.vmas.covers(range.clone()) {
                return Err(Errno::ENOMEM);
            }
            let allowed = |vma: &Vma| match access {
                Access::Write => vma.prot.contains(Prot::WRITE),
                _ => !vma.prot.is_empty(),
            };
            if state.vmas.overlapping(range.clone()).all(allowed) {
                Ok(())
            } else {
                Err(Errno::EINVAL)
            }
        })?;
        self.populate(range, access).map_err(|signal: FaultSignal| {
            match u32::try_from(signal.signo) {
                Ok(general::SIGKILL) => Errno::ENOMEM,
                _ => Errno::EFAULT,
            }
        })
    }

    /// Frees the memory behind shared mappings.
    fn remove_contents(&self, range: Range<u64>) -> Result<()> {
        let (pieces, complete) = self.with(|state| {
            let pieces: Vec<_> = state
                .vmas
                .overlapping(range.clone())
                .filter(|vma| !vma.is_hidden())
                .map(|vma| {
                    let shared = vma.is_shared() && vma.prot.contains(Prot::WRITE);
                    let object = vma.object().filter(|_| shared)?;
                    let (start, end) = (vma.start.max(range.start), vma.end.min(range.end));
                    let from = object.offset + (start - vma.start);
                    Some((object.mappable.clone(), from..from + (end - start)))
                })
                .collect();
            (pieces, state.vmas.covers(range.clone()))
        });
        // Not under the lock: the object takes its own, and unmaps.
        for piece in pieces {
            let (mappable, bytes) = piece.ok_or(Errno::EINVAL)?;
            mappable.remove(bytes)?;
        }
        if complete { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    fn read_ahead(&self, range: Range<u64>) -> Result<()> {
        let (objects, complete) = self.with(|state| {
            let objects: Vec<_> = state
                .vmas
                .overlapping(range.clone())
                .filter(|vma| vma.object().is_some() && !vma.prot.is_empty())
                .map(|vma| vma.start.max(range.start)..vma.end.min(range.end))
                .collect();
            (objects, state.vmas.covers(range.clone()))
        });
        let mut left = WILLNEED_BYTES;
        for object in objects {
            let len = (object.end - object.start).min(left);
            // Advice: what cannot be read ahead is reported when it is used.
            let _ = self.populate(object.start..object.start + len, Access::Read);
            left -= len;
        }
        if complete { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Which pages of the range are in memory, as `mincore(2)` reports them.
    ///
    /// # Errors
    /// `ENOMEM` if a part is not mapped.
    pub fn resident(&self, range: Range<u64>) -> Result<Vec<u8>> {
        self.with(|state| {
            if !state.vmas.covers(range.clone()) {
                return Err(Errno::ENOMEM);
            }
            let pages = ((range.end - range.start) / PAGE_SIZE) as usize;
            let mut map = alloc::vec![0; pages];
            for vma in state.vmas.overlapping(range.clone()) {
                // All of an object's contents are in memory, mapped here or not.
                if let Some(object) = vma.object() {
                    let size = object.mappable.size_bytes();
                    let from = vma.start.max(range.start);
                    let pages = (from..vma.end.min(range.end)).step_by(PAGE_SIZE as usize);
                    for page in pages {
                        if vma.page_index(page) * PAGE_SIZE < size {
                            map[((page - range.start) / PAGE_SIZE) as usize] = 1;
                        }
                    }
                }
            }
            state.table.visit(range.clone(), |page, entry| {
                let count = if entry.is_large() {
                    super::frames::LARGE_FRAMES
                } else {
                    1
                };
                for page in (page..page + count * PAGE_SIZE).step_by(PAGE_SIZE as usize) {
                    if range.contains(&page) {
                        map[((page - range.start) / PAGE_SIZE) as usize] = 1;
                    }
                }
            });
            Ok(map)
        })
    }

    /// Whether the process has mapped all of the range (`msync(2)`, `mlock(2)`).
    #[must_use]
    pub fn is_mapped(&self, range: Range<u64>) -> bool {
        self.with(|state| state.vmas.covers(range))
    }

    /// Marks the range locked (`mlock(2)`) or not.
    ///
    /// # Errors
    /// `ENOMEM` if a part is not mapped; what is before it has changed.
    pub fn set_locked(&self, range: Range<u64>, locked: bool) -> Result<()> {
        self.with(|state| {
            let complete = state.vmas.covers(range.clone());
            if state.vmas.len() + 2 > super::space::MAX_AREAS {
                return Err(Errno::ENOMEM);
            }
            state
                .vmas
                .change(range, |vma| vma.flags.set(Flags::LOCKED, locked));
            if complete { Ok(()) } else { Err(Errno::ENOMEM) }
        })
    }

    /// Faults in a range that was locked, for writing where it may be written and is private.
    ///
    /// # Errors
    /// `ENOMEM` if a page cannot be had.
    pub fn populate_locked(&self, range: Range<u64>) -> Result<()> {
        let pieces: Vec<_> = self.with(|state| {
            let pieces = state.vmas.overlapping(range.clone());
            pieces
                .filter(|vma| !vma.is_hidden())
                .map(|vma| {
                    let writes = vma.prot.contains(Prot::WRITE) && !vma.is_shared();
                    let access = if writes { Access::Write } else { Access::Read };
                    (vma.start.max(range.start)..vma.end.min(range.end), access)
                })
                .collect()
        });
        for (piece, access) in pieces {
            self.populate(piece, access).map_err(|_| Errno::ENOMEM)?;
        }
        Ok(())
    }

    /// Whether any part of the range is locked.
    #[must_use]
    pub fn is_locked(&self, range: Range<u64>) -> bool {
        self.with(|state| {
            state
                .vmas
                .overlapping(range)
                .any(|vma| vma.flags.contains(Flags::LOCKED))
        })
    }
}

/// Advice that means something here. What Linux knows but may be configured without (KSM, huge page collapsing,
/// guard regions, memory failure) is `EINVAL`, as there.
fn is_known(advice: u32) -> bool {
    use general as g;
    matches!(
        advice,
        g::MADV_NORMAL
            | g::MADV_RANDOM
            | g::MADV_SEQUENTIAL
            | g::MADV_WILLNEED
            | g::MADV_DONTNEED
            | g::MADV_DONTNEED_LOCKED
            | g::MADV_FREE
            | g::MADV_REMOVE
            | g::MADV_DONTFORK
            | g::MADV_DOFORK
            | g::MADV_HUGEPAGE
            | g::MADV_NOHUGEPAGE
            | g::MADV_DONTDUMP
            | g::MADV_DODUMP
            | g::MADV_WIPEONFORK
            | g::MADV_KEEPONFORK
            | g::MADV_COLD
            | g::MADV_PAGEOUT
            | g::MADV_POPULATE_READ
            | g::MADV_POPULATE_WRITE
    )
}

impl State {
    fn advise(&mut self, range: Range<u64>, advice: u32) -> Result<()> {
        let complete = self.vmas.covers(range.clone());
        let pieces: Vec<_> = self
            .vmas
            .overlapping(range.clone())
            .filter(|vma| !vma.is_hidden())
            .map(|vma| vma.start.max(range.start)..vma.end.min(range.end))
            .collect();
        for piece in pieces {
            self.advise_piece(piece, advice)?;
        }
        if complete { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Follows advice for a range within one area.
    fn advise_piece(&mut self, piece: Range<u64>, advice: u32) -> Result<()> {
        let Some(vma) = self.vmas.find(piece.start) else {
            return Ok(());
        };
        let private_memory = vma.is_anonymous();
        let (add, remove) = match advice {
            general::MADV_DONTNEED | general::MADV_DONTNEED_LOCKED | general::MADV_FREE => {
                if advice == general::MADV_FREE && !private_memory
                    || advice != general::MADV_DONTNEED_LOCKED && vma.flags.contains(Flags::LOCKED)
                {
                    return Err(Errno::EINVAL);
                }
                return self.table.unmap(piece);
            }
            general::MADV_WIPEONFORK if !private_memory => return Err(Errno::EINVAL),
            general::MADV_NORMAL | general::MADV_SEQUENTIAL => (Flags::empty(), Flags::RANDOM),
            general::MADV_RANDOM => (Flags::RANDOM, Flags::empty()),
            general::MADV_DONTFORK => (Flags::DONTFORK, Flags::empty()),
            general::MADV_DOFORK => (Flags::empty(), Flags::DONTFORK),
            general::MADV_WIPEONFORK => (Flags::WIPEONFORK, Flags::empty()),
            general::MADV_KEEPONFORK => (Flags::empty(), Flags::WIPEONFORK),
            general::MADV_DONTDUMP => (Flags::DONTDUMP, Flags::empty()),
            general::MADV_DODUMP => (Flags::empty(), Flags::DONTDUMP),
            general::MADV_HUGEPAGE => (Flags::empty(), Flags::SMALL_PAGES),
            general::MADV_NOHUGEPAGE => (Flags::SMALL_PAGES, Flags::empty()),
            // Nothing is ever paged out: there is nothing to do for pages that will not be needed soon.
            _ => return Ok(()),
        };
        if vma.flags.contains(add) && !vma.flags.intersects(remove) {
            return Ok(());
        }
        if self.vmas.len() + 2 > super::space::MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        self.vmas.change(piece, |vma| {
            vma.flags.insert(add);
            vma.flags.remove(remove);
        });
        Ok(())
    }
}
