//! From a trapped `syscall` to a patched site.

use alloc::sync::Arc;
use core::iter;
use core::ops::Range;

use husk_abi::boundary::layout::PAGE_SIZE;
use husk_abi::boundary::stats::TrapReason;
use husk_hal::phys::{self, Frame};

use super::decode::{self, AFTER, BEFORE, Registers, SYSCALL_LEN, Text};
use super::image::{FrameSource, Kind, Known, Patched, Site, TextImage};
use super::table::Place;
use super::thunk::Call;
use crate::mm::Mappable;

/// A private, read-only, executable mapping of a file.
#[derive(Clone, Debug)]
pub struct Region {
    /// The file.
    pub file: Arc<dyn Mappable>,
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// File offset mapped at `start`.
    pub file_offset: u64,
    /// Where its thunk area lies, if it has one.
    pub thunk_base: Option<u64>,
}

/// What the engine needs of the address space whose thread trapped.
pub trait CodeSpace {
    /// The code mapping at `address`.
    fn region(&self, address: u64) -> Option<Region>;
    /// Copies what the process sees at `address`; false if it sees nothing.
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool;
    /// Shows the page of code at `address` as [`TextImage::patched_page`] has it from now on.
    fn refresh(&self, address: u64);
    /// Maps the thunk page at `address`, which is about to be used.
    fn map_thunk(&self, address: u64);
    /// Gives back a frame that [`Mappable::page`] counted.
    fn put(&self, frame: Frame);
    /// Where images get their frames.
    fn frames(&self) -> &'static dyn FrameSource;
    /// Whether no other vCPU can be running code now.
    fn alone(&self) -> bool;
}

/// The trap.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    /// What trapped.
    pub call: Call,
    /// Address of the `syscall` (or `cpuid`) instruction.
    pub syscall: u64,
    /// Registers it was executed with.
    pub registers: Registers,
    /// Whether the call comes back, so that code is known to follow.
    pub returns: bool,
    /// Address of the slot that holds the libOS's entry.
    pub slot: u64,
}

/// What became of a trap.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Why it trapped ([`TrapReason::FirstUse`]: the site is patched now).
    pub reason: TrapReason,
    /// The code mapping it was in.
    pub region: Option<Region>,
    /// Where the program goes on instead of behind the `syscall`, if that was replaced.
    pub resume: Option<u64>,
}

/// Patches the site of a trap if that is sound, or finds out why not.
pub fn consider(space: &impl CodeSpace, trap: &Trap) -> Verdict {
    let region = space.region(trap.syscall);
    let reason = match &region {
        Some(region) => consider_in(space, trap, region),
        None => TrapReason::NotFileText,
    };
    let resume = match (&region, reason) {
        (Some(region), TrapReason::FirstUse | TrapReason::Patched) => {
            resume(region, trap.syscall + SYSCALL_LEN as u64)
        }
        _ => None,
    };
    Verdict {
        reason,
        region,
        resume,
    }
}

fn consider_in(space: &impl CodeSpace, trap: &Trap, region: &Region) -> TrapReason {
    let Some(text) = region.file.text() else {
        return TrapReason::NotFileText;
    };
    let Some(thunk_base) = region.thunk_base else {
        return TrapReason::NoThunkArea;
    };
    // Thunks keep their distance in every mapping of the file, or the jumps would miss them.
    let file_start = region.start.wrapping_sub(region.file_offset);
    let delta = thunk_base.wrapping_sub(file_start).cast_signed();
    if *text.delta.call_once(|| delta) != delta {
        return TrapReason::NoThunkArea;
    }
    let syscall = trap.syscall - region.start + region.file_offset;
    match text.known(syscall) {
        Some(Known::Refused(reason)) => return reason,
        Some(Known::Patched { start, thunk }) => {
            show(space, region, start, thunk_base + thunk);
            return TrapReason::Patched;
        }
        None => {}
    }
    match judge_and_patch(space, trap, region, text, syscall) {
        Ok((start, patched)) => {
            show(space, region, start, thunk_base + patched.thunk);
            if patched.is_new {
                TrapReason::FirstUse
            } else {
                TrapReason::Patched
            }
        }
        Err(TrapReason::ModifiedCode) => match text.known(syscall) {
            // Not this process changed it: another vCPU patched it meanwhile.
            Some(Known::Patched { start, thunk }) => {
                show(space, region, start, thunk_base + thunk);
                TrapReason::Patched
            }
            _ => TrapReason::ModifiedCode,
        },
        Err(reason) => {
            // Want of memory says nothing about the site, and another call from it may come back.
            if reason != TrapReason::NoMemory && trap.returns {
                text.refuse(syscall, reason);
            }
            reason
        }
    }
}

/// Lets the process see the jump at file offset `start` of its mapping and the thunk it leads to.
fn show(space: &impl CodeSpace, region: &Region, start: u64, thunk: u64) {
    let address = start - region.file_offset + region.start;
    let mut first = [0];
    // A jump straight to the `syscall`, or a restart, needs nothing: it sees the jump already.
    if space.read(address, &mut first) && first[0] == 0xe9 {
        return;
    }
    space.map_thunk(thunk);
    space.refresh(address);
}

/// The site's file offset, and what was made of it.
fn judge_and_patch(
    space: &impl CodeSpace,
    trap: &Trap,
    region: &Region,
    text: &TextImage,
    syscall: u64,
) -> Result<(u64, Patched), TrapReason> {
    let mut bytes = [0; BEFORE + SYSCALL_LEN + AFTER];
    let from = trap.syscall.saturating_sub(BEFORE as u64).max(region.start);
    let to = (trap.syscall + (SYSCALL_LEN + AFTER) as u64).min(region.end);
    let bytes = &mut bytes[..(to - from) as usize];
    let at = (trap.syscall - from) as usize;
    read_file(space, region, from, bytes)?;
    let window = Text {
        bytes,
        syscall: at,
        address: from,
    };
    let is_cpuid = trap.call == Call::Cpuid && bytes[at..].starts_with(&trap.call.bytes());
    let site = if is_cpuid {
        decode::Site::Unloaded
    } else {
        decode::classify(&window, &trap.registers)
    };
    let (load, mut failure) = match site {
        decode::Site::Pattern1 { nr, len } => (Some((nr, len)), None),
        decode::Site::Unloaded => (None, None),
        decode::Site::Ambiguous => (None, Some(TrapReason::Ambiguous)),
        decode::Site::Restorer => return Err(TrapReason::Restorer),
        decode::Site::Other => return Err(TrapReason::ModifiedCode),
    };
    let is_entered = text.is_often_entered(syscall);
    for (kind, code) in choices(&window, load, trap.returns) {
        if is_entered && matches!(kind, Kind::Behind(_)) {
            failure = failure.or(Some(TrapReason::Enterable));
            continue;
        }
        let attempt = Attempt {
            kind,
            start: syscall + code.start as u64 - at as u64,
            address: from + code.start as u64,
            code: &bytes[code],
        };
        match attempt.patch(space, trap, region, text) {
            Ok(patched) => return Ok((attempt.start, patched)),
            Err(TrapReason::NoMemory) => return Err(TrapReason::NoMemory),
            Err(reason) => failure = failure.or(Some(reason)),
        }
    }
    let failure = failure.unwrap_or(TrapReason::NoPattern);
    Err(different_or(space, &window, failure))
}

/// What a thunk can do the work of at a site, and where that lies in `text`; the best first. One after the other: what is not
/// needed is not decoded.
fn choices<'a>(
    text: &'a Text<'a>,
    load: Option<(u32, u8)>,
    returns: bool,
) -> impl Iterator<Item = (Kind, Range<usize>)> + 'a {
    let at = text.syscall;
    let load = load.map(|(nr, len)| (Kind::Load { nr }, at - usize::from(len)..at));
    let behind = move || {
        let lengths = decode::behind(text, returns)?;
        Some((Kind::Behind(lengths), at..at + SYSCALL_LEN + lengths.sum()))
    };
    let before = move || {
        let lengths = decode::before(text)?;
        Some((Kind::Before(lengths), at - lengths.sum()..at))
    };
    load.into_iter()
        .chain(iter::once_with(behind).flatten())
        .chain(iter::once_with(before).flatten())
}

/// One way to patch a site.
struct Attempt<'a> {
    kind: Kind,
    /// File offset of the first byte to be replaced.
    start: u64,
    /// Its address.
    address: u64,
    /// The bytes the thunk does the work of.
    code: &'a [u8],
}

impl Attempt<'_> {
    fn patch(
        &self,
        space: &impl CodeSpace,
        trap: &Trap,
        region: &Region,
        text: &TextImage,
    ) -> Result<Patched, TrapReason> {
        // What the process runs must be what the file has.
        let mut seen = [0; BEFORE];
        let seen = seen
            .get_mut(..self.code.len())
            .ok_or(TrapReason::NoPattern)?;
        if !space.read(self.address, seen) || seen != self.code {
            return Err(TrapReason::ModifiedCode);
        }
        let page = region
            .file
            .page(self.start / PAGE_SIZE, false)
            .map_err(|_| TrapReason::NoMemory)?;
        let site = Site {
            kind: self.kind,
            call: trap.call,
            start: self.start,
            code: self.code,
            slot: trap.slot,
            page,
            alone: space.alone(),
        };
        let area = text.area_bytes(region.file.size_bytes());
        let patched = text.patch(&site, area, space.frames());
        space.put(page);
        patched
    }
}

/// Where the program is for `rip`, which lies in the thunk area of `region`, as addresses; `None` if no thunk is there.
pub fn place(region: &Region, rip: u64) -> Option<Place> {
    let at = rip.checked_sub(region.thunk_base?)?;
    let file_start = region.start.wrapping_sub(region.file_offset);
    let place = region.file.text()?.place(at)?;
    Some(place.map(|offset| file_start.wrapping_add(offset)))
}

/// Whether a step to `rip`, which lies in the thunk area of `region`, was none of the program's.
pub fn is_extra_step(region: &Region, rip: u64) -> bool {
    let at = region.thunk_base.and_then(|base| rip.checked_sub(base));
    at.zip(region.file.text())
        .is_some_and(|(at, text)| text.is_extra_step(at))
}

/// Where in its thunks the program goes on that is to go on at `address` of `region`, if a displaced instruction was
/// there.
pub fn resume(region: &Region, address: u64) -> Option<u64> {
    let base = region.thunk_base?;
    let offset = address.checked_sub(region.start)? + region.file_offset;
    Some(base + region.file.text()?.resume(offset)?)
}

/// A jump has led to `address` of `region`, where a displaced instruction was, and faulted: where the program goes on.
pub fn enter(space: &impl CodeSpace, region: &Region, address: u64) -> Option<u64> {
    let resumed = resume(region, address)?;
    let offset = address - region.start + region.file_offset;
    if let Ok(page) = region.file.page(offset / PAGE_SIZE, false) {
        if let Some(text) = region.file.text() {
            text.note_entry(offset, page, space.alone());
        }
        space.put(page);
    }
    Some(resumed)
}

/// `reason`, unless the process runs something else than the file has there.
fn different_or(space: &impl CodeSpace, window: &Text<'_>, reason: TrapReason) -> TrapReason {
    let mut seen = [0; SYSCALL_LEN];
    let own = &window.bytes[window.syscall..window.syscall + SYSCALL_LEN];
    let address = window.address + window.syscall as u64;
    if space.read(address, &mut seen) && seen == own {
        reason
    } else {
        TrapReason::ModifiedCode
    }
}

/// The file's own bytes for addresses of the mapping.
fn read_file(
    space: &impl CodeSpace,
    region: &Region,
    from: u64,
    bytes: &mut [u8],
) -> Result<(), TrapReason> {
    let mut done = 0;
    while done < bytes.len() {
        let offset = from - region.start + region.file_offset + done as u64;
        let in_page = (offset % PAGE_SIZE) as usize;
        let len = (PAGE_SIZE as usize - in_page).min(bytes.len() - done);
        let page = region
            .file
            .page(offset / PAGE_SIZE, false)
            .map_err(|_| TrapReason::NoMemory)?;
        phys::read(page, in_page, &mut bytes[done..done + len]);
        space.put(page);
        done += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
