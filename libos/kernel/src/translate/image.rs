//! One executable file's patched pages and thunks, shared by all processes that map it.
//!
//! A patched page is a copy of the file's in guest RAM. Its frames, and those of the thunks, belong to the
//! image until it is dropped with its file; page tables refer to them without counting.
//!
//! # What a running thread may see
//! Nothing half done, because of one of these:
//! - a new copy is complete, jump included, before [`TextImage::patched_page`] hands it out;
//! - a copy that is mapped changes by one aligned 8-byte store, or while no other vCPU runs;
//! - failing that it is replaced by a newer copy; those who have the old one run the unpatched site.
//!
//! Pattern 2 replaces more than one instruction, so of these only the first and the last will do, and the second alone.
//! A thread that stands between the instructions it replaces finds one that faults, see [`thunk`].
//!
//! A thunk is written before any jump to it. Bytes to be replaced on two pages are refused
//! ([`TrapReason::TwoPages`]): processes map pages one by one, so one could have the new half of the one and the
//! old half of the other. (Where the halves on the second page are equal it is no such case.)

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt::Debug;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use husk_abi::boundary::layout::PAGE_SIZE;
use husk_abi::boundary::stats::TrapReason;
use husk_hal::phys::{self, Frame};

use super::area::ThunkArea;
use super::decode::{Lengths, MAX_DISPLACED, SYSCALL_LEN};
use super::table::{Displaced, Patch, PatchTable, Place};
use super::thunk::{self, Call, JUMP_LEN, Thunk};
use crate::sync::SpinLock;

/// Sites an image remembers as not to be patched; more are looked at again each time.
const MAX_REFUSED: usize = 4096;
/// Copies that are not handed out any more and are kept until the image goes.
const MAX_RETIRED: usize = 64;

/// How often a jump between displaced instructions is put up with.
const MAX_ENTRIES: u32 = 8;

/// Where an image gets its frames. They come zeroed, with one reference.
pub trait FrameSource: Sync + Debug {
    /// A zeroed frame.
    fn take(&self) -> Option<Frame>;
    /// Gives back what [`FrameSource::take`] gave.
    fn give_back(&self, frame: Frame);
}

/// What is known of a `syscall` at an offset of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Patched: first replaced byte, and the thunk's offset in its area.
    Patched {
        /// File offset.
        start: u64,
        /// Offset in the thunk area.
        thunk: u64,
    },
    /// Not to be patched.
    Refused(TrapReason),
}

/// The most bytes replaced at a site.
pub const MAX_REPLACED: usize = 16;

/// What is replaced at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pattern 1: the load of this number before the `syscall`.
    Load {
        /// The number.
        nr: u32,
    },
    /// Pattern 2: the `syscall` and the instructions behind it.
    Behind(Lengths),
    /// Pattern 3: the first of these instructions before the `syscall`.
    Before(Lengths),
}

/// A proven site that is to be patched.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// What is replaced.
    pub kind: Kind,
    /// What the site executes.
    pub call: Call,
    /// File offset of the first byte to be replaced.
    pub start: u64,
    /// The bytes from there on that the thunk does the work of, without the `syscall` of patterns 1 and 3.
    pub code: &'a [u8],
    /// Address of the slot that holds the libOS's entry.
    pub slot: u64,
    /// The file's own page that holds the site's first byte.
    pub page: Frame,
    /// No other vCPU runs while this one patches.
    pub alone: bool,
}

impl Site<'_> {
    /// The bytes to be replaced, at most [`MAX_REPLACED`].
    fn old(&self) -> &[u8] {
        match self.kind {
            Kind::Before(lengths) => &self.code[..lengths.first()],
            _ => self.code,
        }
    }

    fn syscall(&self) -> u64 {
        match self.kind {
            Kind::Behind(_) => self.start,
            Kind::Load { .. } | Kind::Before(_) => self.start + self.code.len() as u64,
        }
    }

    /// The thunk at position `at`.
    fn thunk(&self, at: i64) -> Option<Thunk> {
        let from = i64::try_from(self.start).ok()?;
        match self.kind {
            Kind::Load { nr } => {
                let return_to = from + (self.code.len() + SYSCALL_LEN) as i64;
                Thunk::load_and_call(at, nr, return_to, self.slot)
            }
            Kind::Before(lengths) => {
                Thunk::run_and_enter(self.call, at, self.code, lengths, from, self.slot)
            }
            Kind::Behind(lengths) => {
                let code = self.code.get(SYSCALL_LEN..)?;
                Thunk::enter_and_continue(self.call, at, code, lengths, from, self.slot)
            }
        }
    }

    /// The bytes that lead to a thunk at position `at`. `None` if it is too far, or if those between replaced
    /// instructions would not trap.
    fn jump(&self, at: i64) -> Option<([u8; MAX_REPLACED], usize)> {
        let from = i64::try_from(self.start).ok()?;
        let (code, len) = thunk::jump(from, at, self.old().len())?;
        let Kind::Behind(lengths) = self.kind else {
            return Some((code, len));
        };
        let mut boundary = SYSCALL_LEN;
        for instruction in lengths.iter() {
            if boundary < JUMP_LEN && !thunk::is_trapping(code[boundary]) {
                return None;
            }
            boundary += instruction;
        }
        Some((code, len))
    }

    /// The instructions that run in `thunk`.
    fn displaced(&self, thunk: &Thunk) -> [Option<Displaced>; MAX_DISPLACED] {
        let (lengths, mut site) = match self.kind {
            Kind::Load { .. } => (Lengths::one(small(self.code.len())), 0),
            Kind::Before(lengths) => (lengths, 0),
            Kind::Behind(lengths) => (lengths, SYSCALL_LEN),
        };
        let mut displaced = [None; MAX_DISPLACED];
        for (index, len) in lengths.iter().enumerate() {
            displaced[index] = Some(Displaced {
                thunk: thunk.displaced[index],
                site: small(site),
            });
            site += len;
        }
        displaced
    }
}

/// A site that is patched now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patched {
    /// Offset of its thunk in the thunk area.
    pub thunk: u64,
    /// It was not before.
    pub is_new: bool,
}

/// One executable file's patched pages and thunks.
///
/// Thunks lie at `mapping address of file offset 0 + delta` in every address space, in an area hidden from
/// `/proc/*/maps` that the memory room reserves when it maps the file executable and privately. If the
/// area is taken, that mapping stays untranslated.
#[derive(Debug, Default)]
pub struct TextImage {
    /// Distance from (mapping start - file offset) to the thunk area; set by the first mapping.
    pub delta: spin::Once<i64>,
    area_bytes: spin::Once<u64>,
    /// Whether `state` holds anything a reader could look for.
    in_use: AtomicBool,
    /// Whether nothing is to be patched any more.
    frozen: AtomicBool,
    state: SpinLock<State>,
}

#[derive(Debug, Default)]
struct State {
    source: Option<&'static dyn FrameSource>,
    table: PatchTable,
    /// Patched copies by page index.
    pages: BTreeMap<u64, Frame>,
    /// Copies that are not handed out any more, with their page index.
    retired: Vec<(u64, Frame)>,
    thunks: ThunkArea,
    /// What of the thunk area holds thunks, by page.
    thunk_pages: BTreeMap<u64, Frame>,
    refused: HashMap<u64, TrapReason>,
    /// Sites of pattern 2, by their `syscall`, that jumps have entered in the middle, and how often.
    entered: BTreeMap<u64, u32>,
    /// Pages of the file nothing on which is patched.
    unpatchable: BTreeSet<u64>,
}

impl TextImage {
    /// Bytes of the thunk area of a file of `size_bytes`; page aligned.
    #[must_use]
    pub fn thunk_area_bytes(size_bytes: u64) -> u64 {
        (size_bytes / 16)
            .clamp(64 << 10, 4 << 20)
            .next_multiple_of(PAGE_SIZE)
    }

    /// Bytes of this file's thunk area: what [`TextImage::thunk_area_bytes`] said when first asked, for a
    /// file may grow and its earlier mappings' areas do not.
    pub fn area_bytes(&self, size_bytes: u64) -> u64 {
        *self
            .area_bytes
            .call_once(|| Self::thunk_area_bytes(size_bytes))
    }

    /// The patched copy of page `index` of the file, if any site in it is patched. Owned by the image.
    #[must_use]
    pub fn patched_page(&self, index: u64) -> Option<Frame> {
        if !self.in_use.load(Ordering::Acquire) {
            return None;
        }
        self.state.lock().pages.get(&index).copied()
    }

    /// Page `index` of the thunk area, if it holds thunks. Owned by the image.
    #[must_use]
    pub fn thunk_page(&self, index: u64) -> Option<Frame> {
        if !self.in_use.load(Ordering::Acquire) {
            return None;
        }
        self.state.lock().thunk_pages.get(&index).copied()
    }

    /// The pages of the thunk area that hold thunks now.
    #[must_use]
    pub fn thunk_pages(&self) -> Vec<u64> {
        if !self.in_use.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.state.lock().thunk_pages.keys().copied().collect()
    }

    /// Whether anything was ever patched, or judged, in it.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    /// Which of `pages` have copies, handed out or still mapped: [`TextImage::file_changed`] will ask what they have now.
    #[must_use]
    pub fn copied_pages(&self, pages: Range<u64>) -> Vec<u64> {
        if !self.in_use.load(Ordering::Acquire) {
            return Vec::new();
        }
        let pages = pages.start.saturating_sub(1)..pages.end.saturating_add(1);
        let state = self.state.lock();
        let retired = state.retired.iter().map(|(index, _)| *index);
        let mut found: Vec<u64> = state
            .pages
            .keys()
            .copied()
            .chain(retired)
            .filter(|index| pages.contains(index))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The file's contents within `pages` (indices) have changed; to be called after each change. Copies of these
    /// pages are handed out no more; those that are mapped get the new contents: `fill` fills a frame with what a page
    /// has now. What was judged with the old bytes in view is judged again. No other vCPU runs the code meanwhile.
    pub fn file_changed(&self, pages: Range<u64>, fill: impl Fn(u64, Frame)) {
        if self.in_use.load(Ordering::Acquire) {
            // A site next to a page's edge was judged with bytes of its neighbour.
            let pages = pages.start.saturating_sub(1)..pages.end.saturating_add(1);
            self.state.lock().forget(pages, fill);
        }
    }

    /// The file may change at any time from now on without anybody's being told (it is mapped shared and
    /// writable): as [`TextImage::file_changed`] for all of it, and nothing is patched any more.
    pub fn file_may_change(&self, fill: impl Fn(u64, Frame)) {
        if self.frozen.swap(true, Ordering::AcqRel) {
            return;
        }
        self.in_use.store(true, Ordering::Release);
        self.state.lock().forget(0..u64::MAX, fill);
    }

    /// What is known of the `syscall` at file offset `syscall`.
    #[must_use]
    pub fn known(&self, syscall: u64) -> Option<Known> {
        let state = self.state.lock();
        if let Some(patch) = state.table.at_syscall(syscall) {
            return Some(Known::Patched {
                start: patch.start,
                thunk: patch.thunk,
            });
        }
        state.refused.get(&syscall).copied().map(Known::Refused)
    }

    /// Remembers that the `syscall` at file offset `syscall` is not to be patched.
    pub fn refuse(&self, syscall: u64, reason: TrapReason) {
        self.in_use.store(true, Ordering::Release);
        let mut state = self.state.lock();
        if state.refused.len() < MAX_REFUSED {
            state.refused.insert(syscall, reason);
        }
    }

    /// Where in the file a program is that is at offset `at` of the thunk area.
    #[must_use]
    pub fn place(&self, at: u64) -> Option<Place> {
        self.state.lock().table.place(at)
    }

    /// Whether a step to offset `at` of the thunk area was none of the program's.
    #[must_use]
    pub fn is_extra_step(&self, at: u64) -> bool {
        self.state.lock().table.is_extra_step(at)
    }

    /// Where in the thunk area execution goes on that is to go on at `offset` of the file; see
    /// [`PatchTable::resume`].
    #[must_use]
    pub fn resume(&self, offset: u64) -> Option<u64> {
        if !self.in_use.load(Ordering::Acquire) {
            return None;
        }
        self.state.lock().table.resume(offset)
    }

    /// Number of patched sites.
    #[must_use]
    pub fn patched_sites(&self) -> usize {
        self.state.lock().table.len()
    }

    /// Notes that a jump has led to `offset` of the file, between instructions that were displaced. Each costs a fault: a
    /// site that this happens to often is given up. `page` is the file's own page there. Nothing is changed unless no
    /// other vCPU runs (`alone`).
    pub fn note_entry(&self, offset: u64, page: Frame, alone: bool) {
        let mut state = self.state.lock();
        let Some(patch) = state.table.containing(offset).copied() else {
            return;
        };
        let entries = state.entered.entry(patch.syscall).or_insert(0);
        *entries = entries.saturating_add(1);
        if *entries < MAX_ENTRIES || !alone {
            return;
        }
        let at = index(patch.start % PAGE_SIZE);
        // What lies on the next page did not change.
        let len = usize::from(patch.len).min(PAGE_SIZE as usize - at);
        let mut old = [0; MAX_REPLACED];
        let old = &mut old[..len];
        phys::read(page, at, old);
        let here = patch.start / PAGE_SIZE;
        let retired = state.retired.iter().filter(|(index, _)| *index == here);
        let copies = retired.map(|(_, copy)| copy).chain(state.pages.get(&here));
        for copy in copies {
            phys::write(*copy, at, old);
        }
        state.table.forget_sites(patch.start..patch.start + 1);
    }

    /// Whether pattern 2 was given up for the `syscall` at file offset `syscall`.
    #[must_use]
    pub fn is_often_entered(&self, syscall: u64) -> bool {
        let state = self.state.lock();
        let entries = state.entered.get(&syscall);
        entries.is_some_and(|entries| *entries >= MAX_ENTRIES)
    }

    /// Patches `site`; one that is patched already is not patched again. The caller has proven what [`super::decode`]
    /// asks for and that `code` is what the file has.
    ///
    /// # Errors
    /// Why it cannot be done. Nothing has changed then.
    pub fn patch(
        &self,
        site: &Site<'_>,
        area_bytes: u64,
        source: &'static dyn FrameSource,
    ) -> Result<Patched, TrapReason> {
        let delta = *self.delta.get().ok_or(TrapReason::NoThunkArea)?;
        let mut state = self.state.lock();
        let state = &mut *state;
        // Under the lock: whoever freezes takes it afterwards.
        if self.frozen.load(Ordering::Acquire) {
            return Err(TrapReason::FileChanged);
        }
        let syscall = site.syscall();
        if let Some(patch) = state.table.at_syscall(syscall) {
            return Ok(Patched {
                thunk: patch.thunk,
                is_new: false,
            });
        }
        let end = (site.start + site.code.len() as u64).max(syscall + SYSCALL_LEN as u64);
        if state.table.overlaps(site.start, end - site.start) {
            return Err(TrapReason::Ambiguous);
        }

        // Everything that can fail comes first; the jump is the last thing written.
        let (thunk_at, code, jump) = state.place_thunk(site, delta, area_bytes)?;
        let jump = &jump[..site.old().len()];
        let change = Change::new(site, jump)?;
        if state.unpatchable.contains(&change.page) {
            return Err(TrapReason::FileChanged);
        }
        if !change.still_applies(state, site) {
            return Err(TrapReason::FileChanged);
        }
        let frames = state.take_frames(&change, site, thunk_at, source)?;

        let page = thunk_at / PAGE_SIZE;
        if let Some(frame) = frames.thunk {
            state.thunk_pages.insert(page, frame);
        }
        if let Some(frame) = state.thunk_pages.get(&page) {
            phys::write(*frame, index(thunk_at % PAGE_SIZE), code.bytes());
        }
        state.thunks.take(thunk_at, code.bytes().len());
        state.write(&change, site, frames.copy);
        state.table.insert(Patch {
            start: site.start,
            len: small(jump.len()),
            syscall,
            thunk: thunk_at,
            thunk_len: small(code.bytes().len()),
            call_at: small(code.call_at),
            call_end: small(code.call_end),
            displaced: site.displaced(&code),
            is_syscall: site.call == Call::Syscall,
        });
        self.in_use.store(true, Ordering::Release);
        Ok(Patched {
            thunk: thunk_at,
            is_new: true,
        })
    }
}

/// A length within a site or a thunk.
fn small(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

fn index(value: u64) -> usize {
    value as usize
}

/// The bytes that differ once a site is patched; all on one page.
#[derive(Debug)]
struct Change {
    page: u64,
    /// Offset in the page.
    at: usize,
    bytes: [u8; MAX_REPLACED],
    len: usize,
}

impl Change {
    fn new(site: &Site<'_>, new: &[u8]) -> Result<Self, TrapReason> {
        let differs = |at: &usize| site.old()[*at] != new[*at];
        let first = (0..new.len()).find(differs).unwrap_or(0);
        let last = (0..new.len()).rev().find(differs).unwrap_or(0);
        let from = site.start + first as u64;
        let to = site.start + last as u64;
        // `site.page` is the page of the site's first byte.
        let page = site.start / PAGE_SIZE;
        if from / PAGE_SIZE != page || to / PAGE_SIZE != page {
            return Err(TrapReason::TwoPages);
        }
        let mut bytes = [0; MAX_REPLACED];
        let len = last + 1 - first;
        bytes[..len].copy_from_slice(&new[first..=last]);
        Ok(Self {
            page,
            at: index(from % PAGE_SIZE),
            bytes,
            len,
        })
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Whether the page still has the bytes to be replaced.
    fn still_applies(&self, state: &State, site: &Site<'_>) -> bool {
        let frame = state.pages.get(&self.page).copied().unwrap_or(site.page);
        let at = index(site.start % PAGE_SIZE);
        let mut seen = [0; MAX_REPLACED];
        let len = site.old().len().min(PAGE_SIZE as usize - at);
        phys::read(frame, at, &mut seen[..len]);
        seen[..len] == site.old()[..len]
    }

    /// Whether one aligned 8-byte store makes it.
    fn fits_word(&self) -> bool {
        self.at / 8 == (self.at + self.len - 1) / 8
    }

    /// Whether a copy that is mapped can be changed.
    fn is_atomic(&self, site: &Site<'_>) -> bool {
        site.alone || self.fits_word() && !matches!(site.kind, Kind::Behind(_))
    }

    fn store_word(&self, frame: Frame) {
        let word_at = self.at / 8 * 8;
        let mut word = phys::load_u64(frame, word_at).to_le_bytes();
        word[self.at - word_at..][..self.len].copy_from_slice(self.bytes());
        phys::store_u64(frame, word_at, u64::from_le_bytes(word));
    }
}

/// Frames a patch needs.
struct Needed {
    thunk: Option<Frame>,
    copy: Option<Frame>,
}

impl State {
    /// Forgets what is known of `pages` of the file. Thunks and copies stay, for they may be in use; the copies are filled
    /// with what the file has.
    fn forget(&mut self, pages: Range<u64>, fill: impl Fn(u64, Frame)) {
        let offsets = pages.start.saturating_mul(PAGE_SIZE)..pages.end.saturating_mul(PAGE_SIZE);
        self.table.forget_sites(offsets.clone());
        self.refused.retain(|offset, _| !offsets.contains(offset));
        self.entered.retain(|offset, _| !offsets.contains(offset));
        while let Some((index, frame)) = self.pages.range(pages.clone()).next() {
            let (index, frame) = (*index, *frame);
            self.pages.remove(&index);
            self.retired.push((index, frame));
            // A file that changes and runs in turns does not eat up memory.
            if self.retired.len() >= MAX_RETIRED {
                self.unpatchable.insert(index);
            }
        }
        for (index, frame) in &self.retired {
            if pages.contains(index) {
                fill(*index, *frame);
            }
        }
    }

    /// A place for the thunk of `site`: its offset in the area, its code, and the bytes that lead to it.
    fn place_thunk(
        &self,
        site: &Site<'_>,
        delta: i64,
        area_bytes: u64,
    ) -> Result<(u64, Thunk, [u8; MAX_REPLACED]), TrapReason> {
        let position = |at: u64| i64::try_from(at).ok().map(|at| at + delta);
        let thunk = |at| position(at).and_then(|at| site.thunk(at));
        let len = thunk(0).ok_or(TrapReason::NoThunkArea)?.bytes().len();
        let jump = |at| position(at).and_then(|at| site.jump(at));
        let has_page = |page| self.thunk_pages.contains_key(&page);
        let at = self
            .thunks
            .find(area_bytes, len, has_page, |at| jump(at).is_some());
        let Some(at) = at else {
            return Err(match site.kind {
                Kind::Behind(_) => TrapReason::Enterable,
                _ if jump(0).is_none() => TrapReason::NoThunkArea,
                _ => TrapReason::ThunksFull,
            });
        };
        let (code, (jump, _)) = thunk(at).zip(jump(at)).ok_or(TrapReason::NoThunkArea)?;
        Ok((at, code, jump))
    }

    fn take_frames(
        &mut self,
        change: &Change,
        site: &Site<'_>,
        thunk_at: u64,
        source: &'static dyn FrameSource,
    ) -> Result<Needed, TrapReason> {
        let in_place = change.is_atomic(site);
        let copy_needed = !self.pages.contains_key(&change.page) || !in_place;
        if !in_place && self.pages.contains_key(&change.page) && self.retired.len() >= MAX_RETIRED {
            return Err(TrapReason::NotAtomic);
        }
        let take = || source.take().ok_or(TrapReason::NoMemory);
        let thunk_needed = !self.thunk_pages.contains_key(&(thunk_at / PAGE_SIZE));
        let thunk = thunk_needed.then(take).transpose()?;
        let copy = match copy_needed.then(take).transpose() {
            Ok(copy) => copy,
            Err(reason) => {
                if let Some(frame) = thunk {
                    source.give_back(frame);
                }
                return Err(reason);
            }
        };
        self.source = Some(source);
        Ok(Needed { thunk, copy })
    }

    /// Makes the change: in `copy`, which then takes the place of the page's copy so far, or in that.
    fn write(&mut self, change: &Change, site: &Site<'_>, copy: Option<Frame>) {
        let current = self.pages.get(&change.page).copied();
        if let Some(copy) = copy {
            phys::copy_frames(current.unwrap_or(site.page), copy, 1);
            phys::write(copy, change.at, change.bytes());
            let old = self.pages.insert(change.page, copy);
            self.retired.extend(old.map(|old| (change.page, old)));
        } else if let Some(frame) = current {
            if change.fits_word() {
                change.store_word(frame);
            } else {
                phys::write(frame, change.at, change.bytes());
            }
        }
    }
}

impl Drop for TextImage {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let Some(source) = state.source else {
            return;
        };
        let pages = core::mem::take(&mut state.pages).into_values();
        let retired = core::mem::take(&mut state.retired);
        let retired = retired.into_iter().map(|(_, frame)| frame);
        let thunks = core::mem::take(&mut state.thunk_pages).into_values();
        for frame in pages.chain(retired).chain(thunks) {
            source.give_back(frame);
        }
    }
}

#[cfg(test)]
mod tests;
