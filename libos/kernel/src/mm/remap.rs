//! `mremap(2)`.

use core::ops::Range;

use husk_abi::boundary::layout::{LARGE_PAGE_SIZE, PAGE_SIZE, USER_START};

use super::map::{Mapping, user_range};
use super::pte::Owner;
use super::space::{AddressSpace, Limits, MAX_AREAS, State, page_up};
use super::vma::{Backing, Flags, Vma};
use crate::{Errno, Result};

/// What `mremap(2)` was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Remap {
    /// Old address.
    pub old: u64,
    /// Old length in bytes.
    pub old_len: u64,
    /// New length in bytes.
    pub new_len: u64,
    /// `MREMAP_MAYMOVE`.
    pub may_move: bool,
    /// `MREMAP_FIXED`: the new address.
    pub fixed: Option<u64>,
    /// `MREMAP_DONTUNMAP`.
    pub keep_old: bool,
}

impl AddressSpace {
    /// Resizes or moves a mapping; returns where it is then.
    ///
    /// # Errors
    /// As `mremap(2)`: `EINVAL`, `EFAULT` (no such mapping), `ENOMEM`.
    pub fn remap(&self, what: &Remap, limits: &Limits) -> Result<u64> {
        let old_len = page_up(what.old_len).ok_or(Errno::EINVAL)?;
        let new_len = page_up(what.new_len).ok_or(Errno::EINVAL)?;
        if !what.old.is_multiple_of(PAGE_SIZE)
            || new_len == 0
            || (what.fixed.is_some() && !what.may_move)
            || (what.keep_old && (!what.may_move || old_len != new_len))
        {
            return Err(Errno::EINVAL);
        }
        let old = user_range(what.old, old_len).ok_or(Errno::EINVAL)?;
        if let Some(new) = what.fixed {
            let new = user_range(new, new_len).ok_or(Errno::EINVAL)?;
            if new.start < old.end && old.start < new.end {
                return Err(Errno::EINVAL);
            }
            if new.start < USER_START {
                return Err(Errno::EPERM);
            }
        }
        self.with(|state| state.remap(old, new_len, what, limits))
    }
}

impl State {
    fn remap(
        &mut self,
        old: Range<u64>,
        new_len: u64,
        what: &Remap,
        limits: &Limits,
    ) -> Result<u64> {
        let old_len = old.end - old.start;
        let vma = self
            .vmas
            .find(old.start)
            .filter(|vma| !vma.is_hidden())
            .ok_or(Errno::EFAULT)?
            .clone();
        if old_len == 0 && !vma.is_shared() {
            return Err(Errno::EINVAL);
        }
        let moves = what.fixed.is_some() || what.keep_old || old_len == 0;
        if !moves && new_len <= old_len {
            // Shrinking is unmapping the rest, whatever areas that is.
            if new_len < old_len {
                self.remove(old.start + new_len..old.end)?;
            }
            return Ok(old.start);
        }
        if old.end > vma.end {
            return Err(Errno::EFAULT);
        }
        let more = if what.keep_old || old_len == 0 {
            new_len
        } else {
            new_len.saturating_sub(old_len)
        };
        self.check_limits(limits, more, if vma.is_data() { more } else { 0 })?;
        if !moves && old.end == vma.end && self.grow_up(&vma, new_len - old_len)? {
            return Ok(old.start);
        }
        if !what.may_move {
            return Err(Errno::ENOMEM);
        }
        if self.vmas.len() + 3 > MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        let mut source = old.clone();
        let to = match what.fixed {
            Some(to) => {
                // With MREMAP_FIXED a shorter new mapping drops the old one's tail first.
                if new_len < old_len {
                    self.remove(old.start + new_len..old.end)?;
                    source.end = old.start + new_len;
                }
                self.displace_thunks(&(to..to + new_len))?;
                self.remove(to..to + new_len)?;
                to
            }
            None => {
                let mapping = Mapping {
                    prot: vma.prot,
                    max_prot: vma.max_prot,
                    flags: vma.flags,
                    backing: vma.backing.clone(),
                };
                self.find_place(new_len, &mapping).ok_or(Errno::ENOMEM)?
            }
        };
        self.move_mapping(&vma, source, to..to + new_len, what.keep_old)?;
        Ok(to)
    }

    /// Extends the area upwards by `more` bytes if there is room.
    fn grow_up(&mut self, vma: &Vma, more: u64) -> Result<bool> {
        let Some(end) = vma.end.checked_add(more) else {
            return Ok(false);
        };
        let Some(range) = user_range(vma.end, more) else {
            return Ok(false);
        };
        let blocked = self.blocked(vma.end..end, 0);
        if blocked || range.end != end {
            return Ok(false);
        }
        self.displace_thunks(&range)?;
        if let Some(mut grown) = self.vmas.take(vma.start) {
            grown.end = end;
            self.vmas.insert(grown);
        }
        Ok(true)
    }

    /// Moves the pages of `from` (within `vma`) to the free range `to` and makes an area of it.
    fn move_mapping(
        &mut self,
        vma: &Vma,
        from: Range<u64>,
        to: Range<u64>,
        keep_old: bool,
    ) -> Result<()> {
        self.move_pages(&from, to.start)?;
        let mut new = vma.clone();
        new.start = to.start;
        new.end = to.end;
        new.flags -= Flags::GROWSDOWN;
        if let Backing::Object(object) = &mut new.backing {
            object.offset += from.start - vma.start;
            object.thunk_base = None;
        }
        if !keep_old {
            self.remove(from)?;
        }
        self.add(new);
        Ok(())
    }

    /// Moves resident pages; nothing has moved if there is not enough memory for the tables.
    fn move_pages(&mut self, from: &Range<u64>, to: u64) -> Result<()> {
        let target = |address: u64| address - from.start + to;
        let congruent = (from.start ^ to).is_multiple_of(LARGE_PAGE_SIZE);
        // Patched code depends on where it lies.
        self.drop_borrowed(from.clone())?;
        self.table.split_edges(from)?;
        let mut at = from.start;
        while let Some((address, entry)) = self.table.next_resident(at..from.end) {
            if entry.is_large() && congruent {
                self.table.prepare_large(target(address))?;
                at = address + LARGE_PAGE_SIZE;
            } else if entry.is_large() {
                self.table.leaf_table(address)?;
                at = address;
            } else {
                self.table.leaf_table(target(address))?;
                at = address + PAGE_SIZE;
            }
        }
        let mut at = from.start;
        while let Some((address, entry)) = self.table.next_resident(at..from.end) {
            debug_assert!(entry.owner() != Owner::Borrowed);
            let entry = self.table.take(address);
            if entry.is_large() {
                self.table.set_large(target(address), entry)?;
                at = address + LARGE_PAGE_SIZE;
            } else {
                self.table.set(target(address), entry)?;
                at = address + PAGE_SIZE;
            }
        }
        Ok(())
    }
}
