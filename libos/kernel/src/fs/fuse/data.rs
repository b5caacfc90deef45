//! Contents of a regular file.
//!
//! Pages that are mapped, and those that are read over and over, are the host's own, seen through the window; long runs of bytes
//! that are read or written once go by messages. Both are the host's page cache, so they agree. The size is what
//! the server said last; who meets it as a limit asks again where others may change the file.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use husk_abi::boundary::fuse::CHUNK_BYTES;
use husk_hal::phys::{self, Frame};
use spin::Once;

use super::buffer::Buffered;
use super::calls;
use super::node::Node;
use super::{CHUNK_PAGES, PAGE};
use crate::mm::{Mappable, rmap};
use crate::sync::{Mutex, SpinLock};
use crate::translate::TextImage;
use crate::user::IoBuf;
use crate::{Errno, Result};

/// Largest file (`MAX_LFS_FILESIZE`).
pub(super) const MAX_BYTES: u64 = i64::MAX as u64;
/// Reads of at least so many bytes that the window does not show go by message.
const LONG_READ: usize = 32 << 10;
/// Reads of at least so many bytes are better asked for one by one than read ahead: they need no copy in between.
const DIRECT_READ: usize = 256 << 10;

/// Contents of a regular file.
#[derive(Debug)]
pub(super) struct Data {
    size: AtomicU64,
    /// Held over a whole write, truncation or allocation.
    pub writing: Mutex<()>,
    /// Chunks in the window.
    chunks: SpinLock<BTreeMap<u64, Shown>>,
    /// Held while a chunk is asked for.
    mapping: Mutex<()>,
    /// How many have it open for writing; negative: how many execute it (`ETXTBSY`).
    users: AtomicI32,
    /// It is known that it can be opened for writing.
    pub can_write: AtomicBool,
    text: Once<Box<TextImage>>,
    /// Bytes kept here.
    pub buffered: Buffered,
    /// It was mapped once.
    mapped: AtomicBool,
    /// Changes when pages that may be mapped are taken out.
    version: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Shown {
    slot: usize,
    writable: bool,
}

impl Data {
    pub(super) fn new(size: u64, can_write: bool) -> Self {
        Self {
            size: AtomicU64::new(size),
            writing: Mutex::new(()),
            chunks: SpinLock::new(BTreeMap::new()),
            mapping: Mutex::new(()),
            users: AtomicI32::new(0),
            can_write: AtomicBool::new(can_write),
            text: Once::new(),
            buffered: Buffered::default(),
            mapped: AtomicBool::new(false),
            version: AtomicU64::new(0),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The size is this now; gives what it was.
    pub(super) fn set_size(&self, size: u64) -> u64 {
        self.size.swap(size, Ordering::AcqRel)
    }

    /// The size is at least this now.
    pub(super) fn grow(&self, size: u64) {
        self.size.fetch_max(size, Ordering::AcqRel);
    }

    pub(super) fn is_mapped(&self) -> bool {
        self.mapped.load(Ordering::SeqCst)
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    pub(super) fn text(&self) -> &TextImage {
        self.text.call_once(Box::default)
    }

    /// Counts somebody who writes (1) or executes (-1).
    pub(super) fn begin_use(&self, step: i32) -> Result<()> {
        self.users
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count.signum() != -step).then_some(count + step)
            })
            .map(drop)
            .map_err(|_| Errno::ETXTBSY)
    }

    /// Undoes [`Data::begin_use`].
    pub(super) fn end_use(&self, step: i32) {
        self.users.fetch_sub(step, Ordering::AcqRel);
    }

    /// The slots of its chunks, to be taken out of the window.
    pub(super) fn take_slots(&self) -> impl Iterator<Item = usize> + use<> {
        core::mem::take(&mut *self.chunks.lock())
            .into_values()
            .map(|shown| shown.slot)
    }

    /// Chunk `index` is no longer in `slot`.
    pub(super) fn lost(&self, index: u64, slot: usize) {
        let mut chunks = self.chunks.lock();
        if chunks.get(&index).is_some_and(|shown| shown.slot == slot) {
            chunks.remove(&index);
        }
    }
}

/// What a page has.
enum Contents<'n> {
    Shown(Pinned<'n>),
    Read(Vec<u8>),
}

/// A chunk of the window that stays what it is while this lives.
struct Pinned<'n> {
    node: &'n Node,
    slot: usize,
}

impl Pinned<'_> {
    fn frame(&self, page: u64) -> Frame {
        self.node
            .kernel()
            .fs
            .window
            .frame(self.slot, page % CHUNK_PAGES)
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        if let Some(counts) = self.node.kernel().frames.window() {
            counts.unpin(self.slot);
        }
    }
}

impl Node {
    /// `pages` are gone: they leave all page tables. With `copies` the private copies processes made of them go as well.
    pub(super) fn pages_gone(&self, data: &Data, pages: Range<u64>, copies: bool) {
        if data.mapped.load(Ordering::SeqCst) {
            data.version.fetch_add(1, Ordering::SeqCst);
            rmap::unmap_object(self.kernel(), self.identity(), pages, copies);
        }
    }

    /// Tells the translator that these bytes are not what they were, and what they are now.
    pub(super) fn text_changed(&self, data: &Data, bytes: Range<u64>) {
        let Some(text) = data.text.get().filter(|text| text.is_in_use()) else {
            return;
        };
        let pages = bytes.start / PAGE..bytes.end.div_ceil(PAGE);
        let now = self.contents_now(data, text.copied_pages(pages.clone()));
        text.file_changed(pages, |index, frame| Self::fill(&now, index, frame));
    }

    /// What pages have now: as the window shows it, else as it is read. What is past the end, or cannot be read, is left out.
    fn contents_now(&self, data: &Data, pages: Vec<u64>) -> Vec<(u64, Contents<'_>)> {
        let mut now = Vec::new();
        for index in pages {
            if index >= data.size().div_ceil(PAGE) {
                continue;
            }
            let contents = match self.shown(data, index, false) {
                Some(pinned) => Contents::Shown(pinned),
                None => {
                    let mut bytes = alloc::vec![0; PAGE as usize];
                    let mut buf = IoBuf::kernel(&mut bytes);
                    let len = PAGE as usize;
                    match calls::read(self.kernel(), self.id(), &mut buf, index * PAGE, len) {
                        Ok(_) => Contents::Read(bytes),
                        Err(_) => continue,
                    }
                }
            };
            now.push((index, contents));
        }
        now
    }

    /// Puts what page `index` has now into `frame`, zeros if that is nothing.
    fn fill(now: &[(u64, Contents<'_>)], index: u64, frame: Frame) {
        match now.iter().find(|(page, _)| *page == index) {
            Some((_, Contents::Shown(pinned))) => phys::copy_frames(pinned.frame(index), frame, 1),
            Some((_, Contents::Read(bytes))) => phys::write(frame, 0, bytes),
            None => phys::zero_frames(frame, 1),
        }
    }

    /// The chunk with page `page` if the window shows it, writable if need be.
    fn shown(&self, data: &Data, page: u64, write: bool) -> Option<Pinned<'_>> {
        let counts = self.kernel().frames.window()?;
        let chunks = data.chunks.lock();
        let shown = chunks.get(&(page / CHUNK_PAGES))?;
        if write && !shown.writable {
            return None;
        }
        counts.pin(shown.slot).then_some(Pinned {
            node: self,
            slot: shown.slot,
        })
    }

    /// The chunk with page `page`, shown if it is not yet.
    fn show(&self, data: &Data, page: u64, write: bool) -> Result<Pinned<'_>> {
        if let Some(pinned) = self.shown(data, page, write) {
            return Ok(pinned);
        }
        let kernel = self.kernel();
        let counts = kernel.frames.window().ok_or(Errno::ENODEV)?;
        let window = &kernel.fs.window;
        let index = page / CHUNK_PAGES;
        let _mapping = data.mapping.lock();
        if let Some(pinned) = self.shown(data, page, write) {
            return Ok(pinned);
        }
        let shown = data.chunks.lock().get(&index).copied();
        if let Some(shown) = shown
            && counts.pin(shown.slot)
        {
            // In place: what page tables have of it stays right.
            let pinned = Pinned {
                node: self,
                slot: shown.slot,
            };
            let attr = calls::map(kernel, self.id(), index, shown.slot, true)?;
            self.learned(&attr);
            let mut chunks = data.chunks.lock();
            if let Some(shown) = chunks.get_mut(&index) {
                shown.writable = true;
            }
            drop(chunks);
            return Ok(pinned);
        }
        let slot = window.take(kernel, counts, self.weak(), index)?;
        match calls::map(kernel, self.id(), index, slot, write) {
            Ok(attr) => {
                self.learned(&attr);
                let shown = Shown {
                    slot,
                    writable: write,
                };
                data.chunks.lock().insert(index, shown);
                counts.release(slot, 1);
                Ok(Pinned { node: self, slot })
            }
            Err(errno) => {
                window.give_back(counts, slot);
                Err(errno)
            }
        }
    }

    /// Reads from `offset` on, up to the end of the file.
    pub(super) fn read_data(&self, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let data = self.data()?;
        let end = offset.saturating_add(buf.remaining() as u64);
        if end > data.size() {
            self.refresh_size();
        }
        let mut at = offset;
        loop {
            let size = data.size();
            if at >= size || buf.remaining() == 0 {
                break;
            }
            let len = usize::try_from(size - at)
                .unwrap_or(usize::MAX)
                .min(buf.remaining());
            let in_chunk = (CHUNK_BYTES - at % CHUNK_BYTES).min(len as u64) as usize;
            let kept = self.read_buffered(data, buf, at);
            if kept == Ok(0) {
                // What the host does not know yet is not there to be read.
                self.flush_quietly();
            }
            let by_message =
                |buf: &mut IoBuf<'_>| calls::read(self.kernel(), self.id(), buf, at, len).map(Some);
            let moved = match self.shown(data, at / PAGE, false) {
                _ if kept != Ok(0) => kept.map(Some),
                // What the host does not know yet is not there to be read.
                _ if len < DIRECT_READ && self.read_ahead(data, at, len) => continue,
                Some(pinned) => self.read_window(data, &pinned, buf, at, in_chunk),
                None if len >= LONG_READ => by_message(buf),
                None => match self.show(data, at / PAGE, false) {
                    Ok(pinned) => self.read_window(data, &pinned, buf, at, in_chunk),
                    // The window is full of what is in use; or a page near this one cannot be read.
                    Err(Errno::ENOMEM | Errno::EIO) => by_message(buf),
                    Err(errno) => Err(errno),
                },
            };
            match moved {
                // What was to be read is gone: the next round finds out why.
                Ok(None) => {}
                Ok(Some(0)) => break,
                Ok(Some(moved)) => at += moved as u64,
                Err(_) if at > offset => break,
                Err(errno) => return Err(errno),
            }
        }
        data.buffered.read_to(at);
        Ok((at - offset) as usize)
    }

    /// Reads what a chunk shows; `None`, with nothing read, if it shows the file no longer.
    fn read_window(
        &self,
        data: &Data,
        pinned: &Pinned<'_>,
        buf: &mut IoBuf<'_>,
        offset: u64,
        len: usize,
    ) -> Result<Option<usize>> {
        let before = buf.place();
        let mut moved = 0;
        while moved < len {
            let at = offset + moved as u64;
            let in_page = (at % PAGE) as usize;
            let piece = (PAGE as usize - in_page).min(len - moved);
            match buf.put_frame(pinned.frame(at / PAGE), in_page, piece) {
                Ok(done) => {
                    moved += done;
                    if done < piece {
                        break;
                    }
                }
                Err(_) if moved > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        // Where the file has lost pages meanwhile, or they could not be read, zeros were copied.
        let window = &self.kernel().fs.window;
        if window.has_lost_pages() {
            window.poll_truncated();
            let chunks = data.chunks.lock();
            let shown = chunks.get(&(offset / CHUNK_BYTES));
            if shown.is_none_or(|shown| shown.slot != pinned.slot) {
                buf.return_to(before);
                return Ok(None);
            }
        }
        Ok(Some(moved))
    }

    /// Writes at `offset`, or with `appends`, where others may write, too, wherever the end is by then; the caller holds `writing`. At
    /// most `limit` is the new end of what is written.
    pub(super) fn write_data(
        &self,
        buf: &mut IoBuf<'_>,
        offset: u64,
        limit: u64,
        appends: bool,
    ) -> Result<usize> {
        let data = self.data()?;
        let mut at = offset;
        let mut failed = None;
        let mut told = false;
        while at < limit && buf.remaining() > 0 {
            let len = usize::try_from(limit - at)
                .unwrap_or(usize::MAX)
                .min(buf.remaining());
            match self.write_buffered(data, buf, at, len) {
                Ok(0) => {}
                Ok(written) => {
                    at += written as u64;
                    continue;
                }
                Err(errno) => {
                    failed = Some(errno);
                    break;
                }
            }
            self.drop_buffer();
            told = true;
            let place = (!appends).then_some(at);
            match calls::write(self.kernel(), self.id(), buf, place, len) {
                Ok((written, taken, attr)) => {
                    at += written as u64;
                    self.learned(&attr);
                    if written < taken {
                        break;
                    }
                }
                Err(errno) => {
                    failed = Some(errno);
                    break;
                }
            }
        }
        if told {
            self.drop_buffer();
        }
        self.text_changed(data, offset..at);
        match failed {
            Some(errno) if at == offset => Err(errno),
            _ => Ok((at - offset) as usize),
        }
    }

    /// The frame to map for page `index`, its chunk's count raised for the caller.
    pub(super) fn map_page(&self, index: u64, write: bool) -> Result<Frame> {
        let data = self.data()?;
        if !data.mapped.swap(true, Ordering::SeqCst) {
            self.drop_buffer();
        }
        if write {
            // From now on its bytes change without anybody's being told.
            let text = data.text();
            let now = self.contents_now(data, text.copied_pages(0..u64::MAX));
            text.file_may_change(|index, frame| Self::fill(&now, index, frame));
        }
        let is_past_end = || index >= data.size().div_ceil(PAGE);
        if is_past_end() {
            self.refresh_size();
            if is_past_end() {
                return Err(Errno::ENXIO);
            }
        }
        let pinned = self.show(data, index, write)?;
        // Where others change the file, what is shown may end before what was known.
        if is_past_end() {
            return Err(Errno::ENXIO);
        }
        let frame = pinned.frame(index);
        self.kernel().frames.get(frame);
        Ok(frame)
    }
}
