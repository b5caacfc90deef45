//! Changing rights: `mprotect(2)`.

use core::ops::Range;

use super::map::user_range;
use super::pte::{Entry, Owner};
use super::space::{AddressSpace, Limits, MAX_AREAS, State};
use super::vma::{Flags, Prot};
use crate::{Errno, Result};

impl AddressSpace {
    /// Gives the pages of `len` bytes from `start` the rights `prot`. `grows_down` extends the range to the start of an
    /// area that grows down (`PROT_GROWSDOWN`).
    ///
    /// # Errors
    /// As `mprotect(2)`: `EINVAL`, `ENOMEM` (nothing mapped, limits), `EACCES`. Areas before the one that fails have changed
    /// then.
    pub fn protect(
        &self,
        start: u64,
        len: u64,
        prot: Prot,
        grows_down: bool,
        limits: &Limits,
    ) -> Result<()> {
        if !start.is_multiple_of(super::PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let mut range = user_range(start, len).ok_or(Errno::ENOMEM)?;
        self.with(|state| {
            if grows_down {
                let vma = state.vmas.find(start).ok_or(Errno::ENOMEM)?;
                if !vma.flags.contains(Flags::GROWSDOWN) {
                    return Err(Errno::EINVAL);
                }
                range.start = vma.start;
            }
            state.protect(range, prot, limits)
        })
    }
}

impl State {
    fn protect(&mut self, range: Range<u64>, prot: Prot, limits: &Limits) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let vma = self
                .vmas
                .find(at)
                .filter(|vma| !vma.is_hidden())
                .ok_or(Errno::ENOMEM)?;
            let piece = at..vma.end.min(range.end);
            at = piece.end;
            if vma.prot == prot {
                continue;
            }
            if !vma.max_prot.contains(prot) {
                return Err(Errno::EACCES);
            }
            let cuts = usize::from(vma.start < piece.start) + usize::from(piece.end < vma.end);
            if self.vmas.len() + cuts > MAX_AREAS {
                return Err(Errno::ENOMEM);
            }
            let becomes_data = prot.contains(Prot::WRITE) && !vma.is_data() && !vma.is_shared();
            if becomes_data && !vma.flags.contains(Flags::GROWSDOWN) {
                self.check_limits(limits, 0, piece.end - piece.start)?;
            }
            self.protect_piece(piece, prot)?;
        }
        Ok(())
    }

    /// Changes a range within one area.
    fn protect_piece(&mut self, piece: Range<u64>, prot: Prot) -> Result<()> {
        let Some(vma) = self.vmas.find(piece.start) else {
            return Ok(());
        };
        let shared = vma.is_shared();
        let frames = self.table.frames();
        let is_code = prot.contains(Prot::EXEC) && !prot.contains(Prot::WRITE);
        self.table.update(piece.clone(), |_, entry| {
            let writable = prot.contains(Prot::WRITE)
                && match entry.owner() {
                    Owner::Anonymous if entry.is_large() => frames.is_large_unshared(entry.frame()),
                    Owner::Anonymous => frames.count(entry.frame()) == 1,
                    Owner::Object => shared && entry.is_writable(),
                    Owner::Borrowed => false,
                };
            if entry.owner() == Owner::Borrowed && !is_code {
                // Not code any more: the next fault finds the bytes as they are in the file.
                return Entry::EMPTY;
            }
            entry.with_access(prot, writable)
        })?;
        self.vmas.change(piece.clone(), |vma| vma.prot = prot);
        if is_code && !shared {
            self.adopt_code(piece.start);
        }
        Ok(())
    }

    /// The area at `address` has become code: gives it room for thunks if it has none.
    fn adopt_code(&mut self, address: u64) {
        let Some(start) = self
            .vmas
            .find(address)
            .filter(|vma| vma.is_code() && vma.object().is_some_and(|o| o.thunk_base.is_none()))
            .map(|vma| vma.start)
        else {
            return;
        };
        if let Some(mut vma) = self.vmas.take(start) {
            self.reserve_thunks(&mut vma);
            self.vmas.insert(vma);
        }
    }
}
