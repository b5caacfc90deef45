//! Code mappings and their thunks, for the translator (`crate::translate`).
//!
//! A private, executable, read-only mapping of a file that has a [`TextImage`](crate::translate::TextImage) gets a hidden
//! area for thunks at a fixed distance from where the file's first byte would lie. Its pages are then shown as
//! the image's patched copies where there are any. The patched frames and the thunks are the image's own: mapped
//! borrowed. A mapping without thunk area (the range was taken) shows the file's own pages only, because
//! patched code jumps to the thunks.

use alloc::sync::Arc;
use core::ops::Range;

use husk_abi::boundary::layout::{PAGE_SIZE, USER_END, USER_START};
use husk_hal::phys::Frame;

use super::Mappable;
use super::pte::{Entry, Owner};
use super::space::{AddressSpace, STACK_GAP_BYTES, State, page_down};
use super::vma::{Backing, Flags, Object, Prot, Vma};
use crate::{Errno, Result};

/// How far thunks may be from the file's first byte: well within a 32-bit displacement.
const REACH_BYTES: u64 = 1 << 30;

/// Distances whose highest byte is one of `crate::translate::thunk::is_trapping`: some 360 MB below (0xea), or a GiB above
/// (0x3f) where the file lies too low for that; a heap seldom grows so far.
const TRAPPING_DISTANCES: [Range<i64>; 2] = [-0x1600_0000..-0x1500_0000, 0x3f00_0000..0x4000_0000];
/// Length of the jump: its distance counts from its end.
const JUMP_BYTES: u64 = 5;

/// A code mapping as the translator sees it.
#[derive(Clone, Debug)]
pub struct CodeRegion {
    /// The file.
    pub mappable: Arc<dyn Mappable>,
    /// What `/proc/*/maps` calls it.
    pub path: Arc<[u8]>,
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// Offset in the file of the byte at `start`.
    pub file_offset: u64,
    /// Where the file's thunks lie in this address space; `None` if there was no room.
    pub thunk_base: Option<u64>,
}

/// The file's page `index` as code that runs: patched if it is.
pub(super) fn code_page(object: &Object, index: u64) -> Option<Frame> {
    object.thunk_base?;
    object.mappable.text()?.patched_page(index)
}

fn region(vma: &Vma) -> Option<CodeRegion> {
    let object = vma.object().filter(|_| vma.is_code())?;
    object.mappable.text()?;
    Some(CodeRegion {
        mappable: object.mappable.clone(),
        path: object.path.clone(),
        start: vma.start,
        end: vma.end,
        file_offset: object.offset,
        thunk_base: object.thunk_base,
    })
}

impl AddressSpace {
    /// The code mapping that contains `address`; `None` if there is none, or the process changed that page.
    #[must_use]
    pub fn code_region(&self, address: u64) -> Option<CodeRegion> {
        self.with(|state| {
            if state.table.get(address).is_anonymous() {
                return None;
            }
            region(state.vmas.find(address)?)
        })
    }

    /// The code mapping whose thunk area contains `address`. If several mappings of the file share the area,
    /// the first; its `start - file_offset` is that of all.
    #[must_use]
    pub fn thunk_region(&self, address: u64) -> Option<CodeRegion> {
        self.with(|state| {
            let thunks = state.vmas.find(address).filter(|vma| vma.is_hidden())?;
            state
                .vmas
                .iter()
                .filter(|vma| {
                    vma.object()
                        .is_some_and(|o| o.thunk_base == Some(thunks.start))
                })
                .find_map(region)
        })
    }

    /// The file's own frame, with a reference for the caller, for the page of code at `address` if that is shown patched;
    /// `None` if it is not.
    ///
    /// # Errors
    /// `EFAULT` for thunks, which are not the process's to see, and if the file has no such page any more.
    pub(super) fn original_page(&self, address: u64) -> Result<Option<Frame>> {
        let page = page_down(address);
        let found = self.with(|state| {
            if state.table.get(page).owner() != Owner::Borrowed {
                return Ok(None);
            }
            let code = state.vmas.find(page).and_then(region);
            code.map(Some).ok_or(Errno::EFAULT)
        })?;
        let Some(code) = found else { return Ok(None) };
        let index = (code.file_offset + (page - code.start)) / PAGE_SIZE;
        let frame = code.mappable.page(index, false);
        frame.map(Some).map_err(|_| Errno::EFAULT)
    }

    /// Shows the process the text of its files as it is, and patches nothing for it from now on: for debuggers, which write
    /// breakpoints where they have read instructions. Threads that are in a thunk are moved to where they would be without.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn untranslate(&self) -> Result<()> {
        self.with(State::untranslate)
    }

    /// Maps the code page at `address` anew, patched if it is by now. Nothing if it is no code, or the process's own
    /// copy, or there is no memory for it: its sites then go on trapping. The caller holds no lock that `TextImage` or
    /// `Mappable` take.
    pub fn refresh_code_page(&self, address: u64) {
        let _ = self.try_refresh_code_page(address);
    }

    fn try_refresh_code_page(&self, address: u64) -> Result<()> {
        let page = page_down(address);
        let Some(region) = self.code_region(page) else {
            return Ok(());
        };
        let index = (region.file_offset + (page - region.start)) / PAGE_SIZE;
        let patched = region
            .thunk_base
            .and_then(|_| region.mappable.text()?.patched_page(index));
        let (frame, owner) = match patched {
            Some(frame) => (frame, Owner::Borrowed),
            None => (region.mappable.page(index, false)?, Owner::Object),
        };
        let done = self.with(|state| {
            let same = state.vmas.find(page).is_some_and(|vma| {
                vma.is_code()
                    && vma.object().is_some_and(|o| {
                        Arc::ptr_eq(&o.mappable, &region.mappable)
                            && vma.page_index(page) == index
                            && o.thunk_base == region.thunk_base
                    })
            });
            if !same || state.table.get(page).is_anonymous() {
                return Ok(false);
            }
            let entry = Entry::page(frame, owner, Prot::READ | Prot::EXEC, false);
            if state.table.get(page) == entry {
                return Ok(false);
            }
            state.table.set(page, entry).map(|()| true)
        });
        if owner == Owner::Object && !matches!(done, Ok(true)) {
            self.frames.put(frame);
        }
        done.map(drop)
    }

    /// Maps the thunk page at `address`, which lies in a thunk area; nothing if it holds no thunks yet, or there is
    /// no memory: the first use then faults for it.
    pub fn map_thunk_page(&self, address: u64) {
        let _ = self.map_thunk(page_down(address));
    }

    /// Maps all thunks there are by now for the code mapping at `address`: a program that is executed again uses
    /// them from the start.
    pub(super) fn map_all_thunks(&self, address: u64) {
        let Some(code) = self.code_region(address) else {
            return;
        };
        if let Some((base, text)) = code.thunk_base.zip(code.mappable.text()) {
            for page in text.thunk_pages() {
                self.map_thunk_page(base + page * PAGE_SIZE);
            }
        }
    }

    /// [`AddressSpace::map_thunk_page`]; whether there is something now.
    pub(super) fn map_thunk(&self, page: u64) -> Result<bool> {
        let thunks = self.with(|state| {
            let vma = state.vmas.find(page)?;
            match &vma.backing {
                Backing::Thunks(mappable) => Some((mappable.clone(), vma.start)),
                _ => None,
            }
        });
        let Some((mappable, start)) = thunks else {
            return Ok(false);
        };
        let index = (page - start) / PAGE_SIZE;
        let Some(frame) = mappable.text().and_then(|text| text.thunk_page(index)) else {
            return Ok(false);
        };
        self.with(|state| {
            let still = state
                .vmas
                .find(page)
                .is_some_and(|vma| vma.is_hidden() && vma.start == start);
            if still {
                let entry = Entry::page(frame, Owner::Borrowed, Prot::READ | Prot::EXEC, false);
                state.table.set(page, entry)?;
            }
            Ok(still)
        })
    }
}

impl State {
    /// Gives a code mapping that is about to be entered its thunk area, if there is room for one.
    pub fn reserve_thunks(&mut self, vma: &mut Vma) {
        if !vma.is_code() {
            return;
        }
        let untranslated = self.untranslated;
        let code = vma.range();
        let Backing::Object(object) = &mut vma.backing else {
            return;
        };
        object.thunk_base = None;
        if untranslated {
            return;
        }
        let mappable = object.mappable.clone();
        let Some(text) = mappable.text() else {
            return;
        };
        let Some(base) = code.start.checked_sub(object.offset) else {
            return;
        };
        let len = text.area_bytes(mappable.size_bytes());
        let delta = match text.delta.get() {
            Some(delta) => *delta,
            None => {
                let Some(at) = self.choose_thunks(base, &code, &mappable, len) else {
                    return;
                };
                *text.delta.call_once(|| at.wrapping_sub(base) as i64)
            }
        };
        let at = base.wrapping_add_signed(delta);
        let range = at..at.saturating_add(len);
        if at < USER_START || range.end > USER_END || range.end > code.start && at < code.end {
            return;
        }
        let mut there = self.vmas.overlapping(range.clone());
        match (there.next(), there.next()) {
            (None, _) => {}
            // Another code mapping of the file, at the same distance, has made it.
            (Some(one), None)
                if one.range() == range
                    && matches!(&one.backing, Backing::Thunks(m) if Arc::ptr_eq(m, &mappable)) =>
            {
                object.thunk_base = Some(at);
                return;
            }
            _ => return,
        }
        drop(there);
        object.thunk_base = Some(at);
        self.vmas.insert(Vma {
            start: range.start,
            end: range.end,
            prot: Prot::READ | Prot::EXEC,
            max_prot: Prot::READ | Prot::EXEC,
            flags: Flags::HIDDEN,
            backing: Backing::Thunks(mappable),
        });
    }

    /// A free range for thunks. Best is one at such a distance that the last byte of every jump to it traps (see
    /// `crate::translate::thunk`): then two instructions may be replaced that end in the jump's fourth byte. Else close below
    /// the file's lowest mapping.
    fn choose_thunks(
        &self,
        base: u64,
        code: &Range<u64>,
        mappable: &Arc<dyn Mappable>,
        len: u64,
    ) -> Option<u64> {
        let of_file = |vma: &&Vma| {
            vma.object()
                .is_some_and(|o| Arc::ptr_eq(&o.mappable, mappable))
        };
        let near = base.saturating_sub(REACH_BYTES).max(USER_START)
            ..base.saturating_add(REACH_BYTES).min(USER_END);
        let mine = || self.vmas.overlapping(near.clone()).filter(of_file);
        let lowest = mine().map(|vma| vma.start).min();
        let lowest = lowest.unwrap_or(code.start).min(code.start);
        let bytes = mappable.size_bytes();
        for distances in TRAPPING_DISTANCES {
            // Of the area's first byte from the file's, so that all distances between the two lie within.
            let first = base.checked_add_signed(distances.start + bytes.cast_signed());
            let end = base.checked_add_signed(distances.end);
            let (Some(first), Some(end)) = (first, end) else {
                continue;
            };
            let window = first.saturating_add(JUMP_BYTES).max(USER_START)..end.min(USER_END);
            if window.start < window.end
                && let Some(at) = self
                    .vmas
                    .find_gap(window, len, PAGE_SIZE, 0, STACK_GAP_BYTES)
            {
                return Some(at);
            }
        }
        self.vmas
            .find_gap(near.start..lowest, len, PAGE_SIZE, 0, STACK_GAP_BYTES)
    }

    /// The mapping that had its thunks at `base` lost a part: drops the area if no mapping uses it any more.
    pub fn release_thunks(&mut self, base: u64) {
        let used = self
            .vmas
            .iter()
            .any(|vma| vma.object().is_some_and(|o| o.thunk_base == Some(base)));
        if !used {
            self.drop_thunk_area(base);
        }
    }

    fn drop_thunk_area(&mut self, base: u64) {
        let Some(range) = self
            .vmas
            .find(base)
            .filter(|vma| vma.is_hidden())
            .map(Vma::range)
        else {
            return;
        };
        // Thunks are never mapped large, so nothing needs to be split.
        let _ = self.table.unmap(range.clone());
        let area = self.vmas.take(range.start);
        if let Some(Backing::Thunks(mappable)) = area.as_ref().map(|area| &area.backing)
            && let Some(delta) = mappable.text().and_then(|text| text.delta.get())
        {
            let file_start = base.wrapping_add_signed(delta.wrapping_neg());
            self.left.push(CodeRegion {
                mappable: mappable.clone(),
                path: Arc::default(),
                start: file_start,
                end: file_start,
                file_offset: 0,
                thunk_base: Some(base),
            });
        }
        self.trash.extend(area);
    }

    /// Mappings of this address space show their own pages only from now on, and get no thunks any more.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn untranslate(&mut self) -> Result<()> {
        self.untranslated = true;
        self.displace_thunks(&(0..USER_END))
    }

    /// The process maps something else at `range`: mappings whose thunks lie there go back to their own pages.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn displace_thunks(&mut self, range: &Range<u64>) -> Result<()> {
        loop {
            let hidden = self
                .vmas
                .overlapping(range.clone())
                .find(|vma| vma.is_hidden())
                .map(|vma| vma.start);
            let Some(base) = hidden else {
                return Ok(());
            };
            let users: alloc::vec::Vec<_> = self
                .vmas
                .iter()
                .filter(|vma| vma.object().is_some_and(|o| o.thunk_base == Some(base)))
                .map(Vma::range)
                .collect();
            for user in users {
                self.drop_borrowed(user.clone())?;
                self.vmas.change(user, |vma| {
                    if let Backing::Object(object) = &mut vma.backing {
                        object.thunk_base = None;
                    }
                });
            }
            self.drop_thunk_area(base);
        }
    }

    /// Takes patched pages out of `range`, so that the next fault finds the file's own.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn drop_borrowed(&mut self, range: Range<u64>) -> Result<()> {
        self.table.update(range, |_, entry| {
            if entry.owner() == Owner::Borrowed {
                Entry::EMPTY
            } else {
                entry
            }
        })
    }
}
