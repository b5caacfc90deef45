//! Contents of a regular file: pages in RAM over the bytes an archive has for it.
//!
//! The archive lies in read-only memory outside RAM. A page that was never written is read, and mapped if it
//! is whole and aligned, right there; the first write copies it. Writers and resizers hold `writing`, so
//! that they are atomic against each other; readers and page faults only take the short lock of the page map.
//!
//! A reader copies from frames without counting each: while there are readers, frames that leave the map wait
//! in `doomed` until the last reader is gone. Who starts reading later cannot find them any more.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use husk_hal::phys::{self, Frame};
use spin::Once;

use super::{ArchiveRange, PAGE, Shared};
use crate::mm::{oom, rmap};
use crate::sync::{Mutex, SpinLock};
use crate::translate::TextImage;
use crate::user::IoBuf;
use crate::{Errno, Result};

/// Largest file (`MAX_LFS_FILESIZE`).
pub(super) const MAX_BYTES: u64 = i64::MAX as u64;

/// Contents of a regular file.
#[derive(Debug)]
pub(super) struct Data {
    size: AtomicU64,
    pages: SpinLock<Pages>,
    /// Held over a whole write, truncation or allocation.
    pub writing: Mutex<()>,
    /// How many have it open for writing; negative: how many execute it (`ETXTBSY`).
    writers: AtomicI32,
    /// `F_SEAL_*`.
    pub seals: AtomicU32,
    text: Once<Box<TextImage>>,
    /// Its identity as a mapped object, once it was mapped anywhere.
    mapped_as: Once<(u64, u64)>,
    /// See [`crate::mm::Mappable::version`].
    version: AtomicU64,
    /// Reads that are copying now.
    readers: AtomicU32,
    /// Frames to free when there are no readers.
    doomed: SpinLock<Vec<Frame>>,
    has_doomed: AtomicBool,
}

#[derive(Debug, Default)]
struct Pages {
    ram: BTreeMap<u64, Frame>,
    archive: Archive,
    /// How many of `ram` hide a page of the archive.
    hiding: u64,
}

/// The archive's bytes of a file; shrinks when the file is truncated.
#[derive(Clone, Copy, Debug, Default)]
struct Archive {
    gpa: u64,
    len: u64,
}

impl Archive {
    fn pages(self) -> u64 {
        self.len.div_ceil(PAGE)
    }

    /// Bytes the archive has for page `index`.
    fn bytes_of(self, index: u64) -> u64 {
        self.len.saturating_sub(index * PAGE).min(PAGE)
    }
}

/// What is at a page.
enum Page {
    /// A frame.
    Ram(Frame),
    /// The archive's bytes from this address on, so many of them; zeros after.
    Archive(u64, u64),
    /// Nothing: zeros.
    Hole,
}

impl Data {
    pub(super) fn new(archive: Option<ArchiveRange>, seals: u32) -> Self {
        let archive = archive.map_or(Archive::default(), |range| Archive {
            gpa: range.gpa,
            len: range.len,
        });
        Self {
            size: AtomicU64::new(archive.len),
            pages: SpinLock::new(Pages {
                archive,
                ..Pages::default()
            }),
            writing: Mutex::new(()),
            writers: AtomicI32::new(0),
            seals: AtomicU32::new(seals),
            text: Once::new(),
            mapped_as: Once::new(),
            version: AtomicU64::new(0),
            readers: AtomicU32::new(0),
            doomed: SpinLock::new(Vec::new()),
            has_doomed: AtomicBool::new(false),
        }
    }

    /// Frees frames that are out of the page map, now or when nobody reads.
    fn doom(&self, shared: &Shared, frames: impl Iterator<Item = Frame>) {
        let mut doomed = self.doomed.lock();
        let before = doomed.len();
        doomed.extend(frames);
        shared.uncharge_pages((doomed.len() - before) as u64);
        self.has_doomed.store(!doomed.is_empty(), Ordering::SeqCst);
        drop(doomed);
        self.free_doomed(shared);
    }

    fn free_doomed(&self, shared: &Shared) {
        if !self.has_doomed.load(Ordering::SeqCst) {
            return;
        }
        let frames = {
            // Under the lock: nothing is doomed between the test and the taking.
            let mut doomed = self.doomed.lock();
            if self.readers.load(Ordering::SeqCst) != 0 {
                return;
            }
            self.has_doomed.store(false, Ordering::SeqCst);
            core::mem::take(&mut *doomed)
        };
        for frame in frames {
            shared.kernel.frames.put(frame);
        }
    }

    /// Puts the archive's bytes under a file nobody has written to.
    pub(super) fn set_archive(&self, range: ArchiveRange) {
        let mut pages = self.pages.lock();
        pages.archive = Archive {
            gpa: range.gpa,
            len: range.len,
        };
        self.size.store(range.len, Ordering::Release);
    }

    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Patched copies of its code.
    pub(super) fn text(&self) -> &TextImage {
        self.text.call_once(Box::default)
    }

    /// Changes when pages that may be mapped are taken out or replaced.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Pages `pages` are not what they were, or are gone: those who map them look again. With `copies` their private
    /// copies go as well.
    fn pages_changed(&self, shared: &Shared, pages: Range<u64>, copies: bool) {
        if let Some(identity) = self.mapped_as.get() {
            self.version.fetch_add(1, Ordering::SeqCst);
            rmap::unmap_object(shared.kernel, *identity, pages, copies);
        }
    }

    /// Tells the translator that bytes `from..to` are not what they were.
    fn text_changed(&self, shared: &Shared, from: u64, to: u64) {
        if let Some(text) = self.text.get() {
            let pages = from / PAGE..to.div_ceil(PAGE);
            text.file_changed(pages, |index, frame| self.fill(shared, index, frame));
        }
    }

    /// Copies what is at page `index` to `frame`.
    fn fill(&self, shared: &Shared, index: u64, frame: Frame) {
        let frames = &shared.kernel.frames;
        match self.page_at(index, |source| frames.get(source)) {
            Page::Ram(source) => {
                phys::copy_frames(source, frame, 1);
                frames.put(source);
            }
            Page::Archive(..) => {
                let archive = self.pages.lock().archive;
                phys::zero(frame, 0, PAGE as usize);
                copy_archive(archive, index, frame);
            }
            Page::Hole => phys::zero(frame, 0, PAGE as usize),
        }
    }

    /// Pages that hold something, in RAM or in the archive.
    pub(super) fn page_count(&self) -> u64 {
        let pages = self.pages.lock();
        pages.ram.len() as u64 + pages.archive.pages() - pages.hiding
    }

    /// Counts somebody who writes.
    pub(super) fn begin_write_access(&self) -> Result<()> {
        self.count_access(1)
    }

    /// Counts somebody who executes it.
    pub(super) fn begin_exec(&self) -> Result<()> {
        self.count_access(-1)
    }

    fn count_access(&self, step: i32) -> Result<()> {
        self.writers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count.signum() != -step).then_some(count + step)
            })
            .map(drop)
            .map_err(|_| Errno::ETXTBSY)
    }

    pub(super) fn end_write_access(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn end_exec(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }

    /// What is at page `index`. A frame stays while the caller is counted in `readers`, holds `writing`, or
    /// has `count` raise the frame's own count.
    fn page_at(&self, index: u64, count: impl FnOnce(Frame)) -> Page {
        let pages = self.pages.lock();
        if let Some(frame) = pages.ram.get(&index) {
            count(*frame);
            return Page::Ram(*frame);
        }
        match pages.archive.bytes_of(index) {
            0 => Page::Hole,
            len => Page::Archive(pages.archive.gpa + index * PAGE, len),
        }
    }

    /// Reads from `offset` on, up to the end of the file.
    pub(super) fn read(&self, shared: &Shared, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        self.readers.fetch_add(1, Ordering::SeqCst);
        let result = self.copy_out(buf, offset);
        if self.readers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.free_doomed(shared);
        }
        result
    }

    fn copy_out(&self, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let size = self.size();
        let mut at = offset;
        while at < size && buf.remaining() > 0 {
            let in_page = (at % PAGE) as usize;
            let want = (PAGE as usize - in_page)
                .min(buf.remaining())
                .min(usize::try_from(size - at).unwrap_or(usize::MAX));
            let moved = match self.page_at(at / PAGE, |_| {}) {
                Page::Ram(frame) => buf.put_frame(frame, in_page, want),
                Page::Archive(gpa, len) => {
                    let have = (len as usize).saturating_sub(in_page).min(want);
                    put_archive(buf, gpa + in_page as u64, have).and_then(|moved| {
                        if moved == have && have < want {
                            Ok(moved + buf.put_zeros(want - have)?)
                        } else {
                            Ok(moved)
                        }
                    })
                }
                Page::Hole => buf.put_zeros(want),
            };
            match moved {
                Ok(moved) => {
                    at += moved as u64;
                    if moved < want {
                        break;
                    }
                }
                Err(_) if at > offset => break,
                Err(error) => return Err(error),
            }
        }
        Ok((at - offset.min(at)) as usize)
    }

    /// Writes at `offset`, growing the file as needed; the caller holds `writing`. At most `limit` is the new
    /// end of what is written.
    pub(super) fn write(
        &self,
        shared: &Shared,
        buf: &mut IoBuf<'_>,
        offset: u64,
        limit: u64,
    ) -> Result<usize> {
        let mut at = offset;
        while at < limit && buf.remaining() > 0 {
            let in_page = (at % PAGE) as usize;
            let want = (PAGE as usize - in_page)
                .min(buf.remaining())
                .min(usize::try_from(limit - at).unwrap_or(usize::MAX));
            let moved = self
                .frame_for_write(shared, at / PAGE)
                .and_then(|frame| buf.take_frame(frame, in_page, want));
            match moved {
                Ok(moved) => {
                    at += moved as u64;
                    self.size.fetch_max(at, Ordering::AcqRel);
                    if moved < want {
                        break;
                    }
                }
                Err(_) if at > offset => break,
                Err(error) => return Err(error),
            }
        }
        self.text_changed(shared, offset, at);
        Ok((at - offset) as usize)
    }

    /// The frame of page `index`, made if need be; it stays while the caller holds `writing`, or was counted by
    /// the caller under the page map's lock.
    fn frame_for_write(&self, shared: &Shared, index: u64) -> Result<Frame> {
        let archive = {
            let pages = self.pages.lock();
            if let Some(frame) = pages.ram.get(&index) {
                return Ok(*frame);
            }
            pages.archive
        };
        shared.charge_page()?;
        let frame = match oom::insist(|| shared.kernel.frames.alloc_zeroed()) {
            Ok(frame) => frame,
            Err(error) => {
                shared.uncharge_pages(1);
                return Err(error);
            }
        };
        copy_archive(archive, index, frame);
        let mut pages = self.pages.lock();
        if let Some(other) = pages.ram.get(&index).copied() {
            // A page fault was faster.
            drop(pages);
            shared.kernel.frames.put(frame);
            shared.uncharge_pages(1);
            return Ok(other);
        }
        let hides = pages.archive.bytes_of(index) > 0;
        if hides {
            pages.hiding += 1;
        }
        pages.ram.insert(index, frame);
        drop(pages);
        if hides {
            self.pages_changed(shared, index..index + 1, false);
        }
        Ok(frame)
    }

    /// The frame to map for page `index`, its count raised for the caller.
    pub(super) fn map_page(
        &self,
        shared: &Shared,
        identity: (u64, u64),
        index: u64,
        write: bool,
    ) -> Result<Frame> {
        self.mapped_as.call_once(|| identity);
        if write {
            // From now on its bytes change without anybody's being told.
            self.text()
                .file_may_change(|index, frame| self.fill(shared, index, frame));
        }
        loop {
            if index >= self.size().div_ceil(PAGE) {
                return Err(Errno::ENXIO);
            }
            match self.page_at(index, |frame| shared.kernel.frames.get(frame)) {
                Page::Ram(frame) => return Ok(frame),
                Page::Archive(gpa, PAGE) if gpa.is_multiple_of(PAGE) && !write => {
                    return Ok(Frame::containing(gpa));
                }
                _ => {
                    self.frame_for_write(shared, index)?;
                }
            }
        }
    }

    /// Sets the size; the caller holds `writing`.
    pub(super) fn resize(&self, shared: &Shared, size: u64) -> Result<()> {
        if size > MAX_BYTES {
            return Err(Errno::EFBIG);
        }
        let old = self.size.swap(size, Ordering::AcqRel);
        if size >= old {
            return Ok(());
        }
        let first_gone = size.div_ceil(PAGE);
        let (removed, archived_end) = {
            let mut pages = self.pages.lock();
            let removed = pages.ram.split_off(&first_gone);
            pages.archive.len = pages.archive.len.min(size);
            let covered = pages.archive.pages();
            pages.hiding = pages.ram.range(..covered).count() as u64;
            let used = (size % PAGE) as usize;
            let last = pages.ram.get(&(size / PAGE));
            if let Some(last) = last {
                phys::zero(*last, used, PAGE as usize - used);
            }
            (removed, last.is_none() && used > 0)
        };
        self.text_changed(shared, size, old);
        if archived_end {
            // Whoever maps the archive's page sees bytes behind the end.
            self.pages_changed(shared, size / PAGE..first_gone, false);
        }
        self.pages_changed(shared, first_gone..u64::MAX, true);
        self.doom(shared, removed.into_values());
        Ok(())
    }

    /// Makes `offset..end` take up memory; the caller holds `writing`.
    pub(super) fn allocate(&self, shared: &Shared, offset: u64, end: u64) -> Result<()> {
        for index in offset / PAGE..end.div_ceil(PAGE) {
            let is_hole = {
                let pages = self.pages.lock();
                !pages.ram.contains_key(&index) && pages.archive.bytes_of(index) == 0
            };
            if is_hole {
                self.frame_for_write(shared, index)?;
            }
        }
        Ok(())
    }

    /// Grows the size to at least `end`; the caller holds `writing`.
    pub(super) fn grow(&self, end: u64) {
        self.size.fetch_max(end, Ordering::AcqRel);
    }

    /// Makes `offset..end` read as zeros and frees its pages; the caller holds `writing`.
    pub(super) fn punch(&self, shared: &Shared, offset: u64, end: u64) -> Result<()> {
        let end = end.min(self.size().next_multiple_of(PAGE));
        let mut at = offset;
        while at < end {
            let index = at / PAGE;
            let in_page = at % PAGE;
            let len = (PAGE - in_page).min(end - at);
            at += len;
            let archived = self.pages.lock().archive.bytes_of(index) > 0;
            if len == PAGE && !archived {
                let frame = self.pages.lock().ram.remove(&index);
                self.pages_changed(shared, index..index + 1, false);
                self.doom(shared, frame.into_iter());
            } else if archived || self.pages.lock().ram.contains_key(&index) {
                // An archive's page cannot be freed, so a frame of zeros hides it.
                let frame = self.frame_for_write(shared, index)?;
                phys::zero(frame, in_page as usize, len as usize);
            }
        }
        self.text_changed(shared, offset, end);
        Ok(())
    }

    /// The next offset from `offset` on with data, or with a hole (`lseek(2)`).
    pub(super) fn seek(&self, offset: u64, hole: bool) -> Result<u64> {
        let size = self.size();
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        let pages = self.pages.lock();
        let archive_end = pages.archive.pages();
        let has_data = |index: u64| index < archive_end || pages.ram.contains_key(&index);
        let first = offset / PAGE;
        if has_data(first) != hole {
            return Ok(offset);
        }
        let last = size.div_ceil(PAGE);
        let found = if hole {
            (first..last).find(|index| !has_data(*index))
        } else {
            pages.ram.range(first..last).next().map(|(index, _)| *index)
        };
        match found {
            Some(index) => Ok(index * PAGE),
            None if hole => Ok(size),
            None => Err(Errno::ENXIO),
        }
    }

    /// Frees all pages; the file is gone.
    pub(super) fn free(&mut self, shared: &Shared) {
        let ram = core::mem::take(&mut self.pages.get_mut().ram);
        self.doom(shared, ram.into_values());
    }
}

/// Moves `len` bytes of the archive from `gpa` on into `buf`.
fn put_archive(buf: &mut IoBuf<'_>, gpa: u64, len: usize) -> Result<usize> {
    let mut moved = 0;
    while moved < len {
        let at = gpa + moved as u64;
        let offset = (at % PAGE) as usize;
        let want = (PAGE as usize - offset).min(len - moved);
        match buf.put_frame(Frame::containing(at), offset, want) {
            Ok(got) => {
                moved += got;
                if got < want {
                    break;
                }
            }
            Err(_) if moved > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(moved)
}

/// Copies what the archive has for page `index` to the start of `frame`.
fn copy_archive(archive: Archive, index: u64, frame: Frame) {
    let len = archive.bytes_of(index) as usize;
    let gpa = archive.gpa + index * PAGE;
    if len == PAGE as usize && gpa.is_multiple_of(PAGE) {
        phys::copy_frames(Frame::containing(gpa), frame, 1);
        return;
    }
    let mut chunk = [0u8; 512];
    let mut done = 0;
    while done < len {
        let want = chunk.len().min(len - done);
        phys::read_gpa(gpa + done as u64, &mut chunk[..want]);
        phys::write(frame, done, &chunk[..want]);
        done += want;
    }
}
