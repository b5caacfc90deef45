//! Making and removing mappings.

use core::ops::Range;

use alloc::sync::Arc;
use husk_abi::boundary::layout::{LARGE_PAGE_SIZE, PAGE_SIZE, USER_END, USER_START};

use super::space::{
    AddressSpace, Limits, MAX_AREAS, Places, STACK_GAP_BYTES, State, page_down, page_up,
};
use super::vma::{Backing, Flags, Prot, Vma};
use crate::{Errno, Result};

/// Steps of the heap up to this are mapped at once: they will be used.
const AHEAD_HEAP_BYTES: u64 = 256 << 10;

/// Where a mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Here if that is free, else anywhere; 0 is no wish.
    Hint(u64),
    /// Here, in place of what is there (`MAP_FIXED`).
    Fixed(u64),
    /// Here, or `EEXIST` (`MAP_FIXED_NOREPLACE`).
    FixedNoReplace(u64),
    /// Below 2 GiB (`MAP_32BIT`).
    Low,
}

/// What to map.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Rights.
    pub prot: Prot,
    /// Rights `mprotect(2)` may give later.
    pub max_prot: Prot,
    /// Flags.
    pub flags: Flags,
    /// Contents.
    pub backing: Backing,
}

impl Mapping {
    /// Private zeros.
    #[must_use]
    pub fn anonymous(prot: Prot) -> Self {
        Self {
            prot,
            max_prot: Prot::all(),
            flags: Flags::empty(),
            backing: Backing::Anonymous,
        }
    }
}

impl AddressSpace {
    /// Maps `len` bytes; returns the address.
    ///
    /// # Errors
    /// As `mmap(2)`: `EINVAL`, `ENOMEM`, `EEXIST`, `EPERM` (below the lowest mappable address).
    pub fn map(
        &self,
        place: Placement,
        len: u64,
        mapping: Mapping,
        limits: &Limits,
    ) -> Result<u64> {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_up(len).ok_or(Errno::ENOMEM)?;
        if len > USER_END {
            return Err(Errno::ENOMEM);
        }
        let may_overcommit = mapping.flags.intersects(Flags::NORESERVE | Flags::SHARED)
            || !mapping.backing_is_memory();
        if !may_overcommit && len > self.frames.ram_bytes() {
            return Err(Errno::ENOMEM);
        }
        self.with(|state| {
            let start = state.place(place, len, &mapping)?;
            state.map_at(start..start + len, mapping, limits)?;
            Ok(start)
        })
    }

    /// Unmaps `len` bytes from `start` on.
    ///
    /// # Errors
    /// As `munmap(2)`: `EINVAL`, `ENOMEM`.
    pub fn unmap(&self, start: u64, len: u64) -> Result<()> {
        let range = user_range(start, len)
            .filter(|range| !range.is_empty())
            .ok_or(Errno::EINVAL)?;
        self.with(|state| state.remove(range))
    }

    /// Unmaps the object whose first byte is mapped at `at`, all of it that is where it was mapped, if `/proc/*/maps` calls it
    /// something that begins with `path` (`shmdt(2)`).
    ///
    /// # Errors
    /// `EINVAL` if there is none; `ENOMEM`.
    pub fn unmap_object_at(&self, at: u64, path: &[u8]) -> Result<()> {
        self.with(|state| {
            // Its beginning may be unmapped already.
            let belongs = |vma: &&Vma| {
                vma.object().is_some_and(|object| {
                    object.path.starts_with(path)
                        && vma.start.checked_sub(at) == Some(object.offset)
                })
            };
            let first = state.vmas.iter().find(belongs).ok_or(Errno::EINVAL)?;
            let object = first.object().ok_or(Errno::EINVAL)?;
            let (identity, size) = (object.mappable.identity(), object.mappable.size_bytes());
            let parts: alloc::vec::Vec<_> = state
                .vmas
                .iter()
                .filter(belongs)
                .filter(|vma| vma.start < at.saturating_add(size))
                .filter(|vma| {
                    vma.object()
                        .is_some_and(|o| o.mappable.identity() == identity)
                })
                .map(Vma::range)
                .collect();
            for part in parts {
                state.remove(part)?;
            }
            Ok(())
        })
    }

    /// Moves the program break (`brk(2)`); returns where it is then, unchanged if it cannot be moved.
    pub fn brk(&self, to: u64, limits: &Limits) -> u64 {
        self.with(|state| {
            // A failure is told by the break staying where it was.
            // What could never be had is refused at once, as with mmap.
            let grows = to.saturating_sub(state.places.brk);
            if grows <= self.frames.ram_bytes() {
                let _ = state.set_brk(to, limits);
            }
            state.places.brk
        })
    }
}

impl Mapping {
    /// Whether it will need private memory for all it maps.
    fn backing_is_memory(&self) -> bool {
        self.prot.contains(Prot::WRITE) && !self.flags.contains(Flags::SHARED)
    }
}

/// The pages of `len` bytes from the page-aligned `start`, or `None` if they cannot be user memory.
#[must_use]
pub fn user_range(start: u64, len: u64) -> Option<Range<u64>> {
    if !start.is_multiple_of(PAGE_SIZE) {
        return None;
    }
    let end = start.checked_add(page_up(len)?)?;
    (end <= USER_END).then_some(start..end)
}

impl State {
    /// Chooses where `len` bytes go.
    fn place(&self, place: Placement, len: u64, mapping: &Mapping) -> Result<u64> {
        match place {
            Placement::Fixed(at) | Placement::FixedNoReplace(at) => {
                if !at.is_multiple_of(PAGE_SIZE) {
                    return Err(Errno::EINVAL);
                }
                let range = user_range(at, len).ok_or(Errno::ENOMEM)?;
                if at < USER_START {
                    return Err(Errno::EPERM);
                }
                if matches!(place, Placement::FixedNoReplace(_)) && !self.vmas.is_free(range) {
                    return Err(Errno::EEXIST);
                }
                Ok(at)
            }
            Placement::Hint(hint) => {
                let hint = if hint == 0 {
                    0
                } else {
                    page_up(hint).unwrap_or(0).max(USER_START)
                };
                if hint != 0
                    && let Some(range) = user_range(hint, len)
                    && self.has_room(range)
                {
                    return Ok(hint);
                }
                self.find_place(len, mapping).ok_or(Errno::ENOMEM)
            }
            Placement::Low => self
                .vmas
                .find_gap(0x4000_0000..0x8000_0000, len, PAGE_SIZE, 0, STACK_GAP_BYTES)
                .ok_or(Errno::ENOMEM),
        }
    }

    /// Whether nothing, hidden or not, is in `range` or guards it.
    fn has_room(&self, range: Range<u64>) -> bool {
        let above = self.vmas.find_from(range.start);
        above.is_none_or(|vma| range.end <= vma.guarded_start(STACK_GAP_BYTES))
    }

    /// Top down from the mapping base; if there is no room, from the top of the address range. What can be mapped
    /// by large pages is aligned to them.
    pub fn find_place(&self, len: u64, mapping: &Mapping) -> Option<u64> {
        let (align, phase) = match &mapping.backing {
            Backing::Anonymous
                if len >= LARGE_PAGE_SIZE && !mapping.flags.contains(Flags::SMALL_PAGES) =>
            {
                (LARGE_PAGE_SIZE, 0)
            }
            Backing::Object(object) if len >= LARGE_PAGE_SIZE => {
                (LARGE_PAGE_SIZE, object.offset % LARGE_PAGE_SIZE)
            }
            _ => (PAGE_SIZE, 0),
        };
        let base = self.places.mmap_base;
        let search = |end: u64, align, phase| {
            self.vmas
                .find_gap(USER_START..end, len, align, phase, STACK_GAP_BYTES)
        };
        search(base, align, phase)
            .or_else(|| search(base, PAGE_SIZE, 0))
            .or_else(|| search(USER_END, PAGE_SIZE, 0))
    }

    /// Maps `range`, replacing what is there.
    pub fn map_at(&mut self, range: Range<u64>, mapping: Mapping, limits: &Limits) -> Result<()> {
        let len = range.end - range.start;
        let vma = Vma {
            start: range.start,
            end: range.end,
            prot: mapping.prot,
            max_prot: mapping.max_prot,
            flags: mapping.flags,
            backing: mapping.backing,
        };
        let (mut replaced, mut replaced_data) = (0, 0);
        for old in self.vmas.overlapping(range.clone()) {
            if !old.is_hidden() {
                let bytes = old.end.min(range.end) - old.start.max(range.start);
                replaced += bytes;
                replaced_data += if old.is_data() { bytes } else { 0 };
            }
        }
        let data = if vma.is_data() { len } else { 0 };
        self.check_limits(
            limits,
            len.saturating_sub(replaced),
            data.saturating_sub(replaced_data),
        )?;
        if self.vmas.len() >= MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        self.displace_thunks(&range)?;
        self.remove(range)?;
        self.add(vma);
        Ok(())
    }

    /// Enters an area where nothing is, with an area for thunks if it is code.
    pub fn add(&mut self, mut vma: Vma) {
        self.reserve_thunks(&mut vma);
        self.vmas.insert(vma);
    }

    fn set_brk(&mut self, to: u64, limits: &Limits) -> Result<()> {
        let Places {
            start_brk,
            brk,
            start_data,
            end_data,
            ..
        } = self.places;
        if to < start_brk || to > USER_END {
            return Err(Errno::ENOMEM);
        }
        let data = (to - start_brk).saturating_add(end_data.saturating_sub(start_data));
        if data > limits.data {
            return Err(Errno::ENOMEM);
        }
        let old_end = page_up(brk).ok_or(Errno::ENOMEM)?;
        let new_end = page_up(to).ok_or(Errno::ENOMEM)?;
        if new_end < old_end {
            self.remove(new_end..old_end)?;
        } else if new_end > old_end {
            if self.blocked(old_end..new_end, PAGE_SIZE) {
                return Err(Errno::ENOMEM);
            }
            let heap = Mapping::anonymous(Prot::READ | Prot::WRITE);
            self.map_at(old_end..new_end, heap, limits)?;
            if new_end - old_end <= AHEAD_HEAP_BYTES {
                self.fill_ahead(old_end..new_end);
            }
        }
        self.places.brk = to;
        Ok(())
    }

    /// Whether something keeps an area from growing up over `range`, with `room` bytes beyond it to stay free. Thunks
    /// give way; what lies behind them does not.
    pub(super) fn blocked(&self, range: Range<u64>, room: u64) -> bool {
        let end = range.end.saturating_add(room);
        self.vmas
            .overlapping(range.start..end.saturating_add(STACK_GAP_BYTES))
            .any(|above| !above.is_hidden() && end > above.guarded_start(STACK_GAP_BYTES))
    }

    /// Extends the area that grows down above `address` so that it contains it.
    ///
    /// # Errors
    /// `ENOMEM` if there is none, or a limit or a neighbour forbids it.
    pub fn grow_stack(&mut self, address: u64, limits: &Limits) -> Result<()> {
        /// Growth happens in steps of this, where there is room.
        const STEP: u64 = 64 << 10;
        let stack = self.vmas.find_from(address).ok_or(Errno::ENOMEM)?;
        if !stack.flags.contains(Flags::GROWSDOWN) || stack.start <= address {
            return Err(Errno::ENOMEM);
        }
        let (start, end) = (stack.start, stack.end);
        let lowest = self.vmas.find_below(start).map_or(USER_START, |below| {
            let gap = if below.flags.contains(Flags::GROWSDOWN) || below.prot.is_empty() {
                0
            } else {
                STACK_GAP_BYTES
            };
            below.end.saturating_add(gap)
        });
        let grow = |new_start: u64| {
            if new_start < lowest.max(USER_START) || end - new_start > limits.stack {
                return Err(Errno::ENOMEM);
            }
            self.check_limits(limits, start - new_start, 0)
                .map(|()| new_start)
        };
        let new_start = grow(address & !(STEP - 1)).or_else(|_| grow(page_down(address)))?;
        self.displace_thunks(&(new_start..start))?;
        self.vmas.grow_down(start, new_start);
        Ok(())
    }
}

/// Shared anonymous memory of `len` bytes as a mapping's contents.
///
/// # Errors
/// `ENOMEM`.
pub fn shared_anonymous(space: &AddressSpace, len: u64) -> Result<Backing> {
    let memory = super::shmem::SharedMemory::new(space.frames, len)?;
    Ok(Backing::Object(super::vma::Object {
        mappable: Arc::new(memory),
        offset: 0,
        path: Arc::from(&b"/dev/zero (deleted)"[..]),
        thunk_base: None,
    }))
}
