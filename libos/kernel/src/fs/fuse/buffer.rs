//! A stretch of a file's bytes kept here: read ahead, or written and not yet told to the host.
//!
//! Only files of a tree that is this guest's alone have one, and only while no process maps them: nobody then can see the
//! difference. What was written is told to the host
//!
//! - when the buffer is full, or something is written elsewhere in the file;
//! - before anything else is asked about the file's contents or attributes, and before it is mapped;
//! - when an open file that may write is released, by a request nobody waits for, and by `fsync(2)` and `sync(2)`;
//! - when the vCPU has nothing to do, and [`MAX_AGE_NS`] after the first of it was written.
//!
//! Nothing is gathered while the host's disk has little room, so that a full one is told where it happens. Another error is the next `write(2)`'s or `fsync(2)`'s
//! to tell, as Linux tells those of its own writing back.
//!
//! Changes of attributes of what this guest has made are posted, too: requests nobody waits for, served with the next one,
//! or when the vCPU idles. Who asks for attributes waits for them, who asks for rights gets them as they will be.
//!
//! A file's lock here is a short one, never held over a copy to or from a process or over a request; `flushing` is held over
//! requests, by whoever writes back. Lock order: `writing`, `flushing`, then this.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use husk_abi::boundary::fuse::{MAX_DATA, SetattrIn};
use husk_hal::phys::Frame;

use super::node::Node;
use super::{PAGE, calls, data::Data};
use crate::fs::SetAttributes;
use crate::mm::{Frames, Span};
use crate::sync::{Mutex, SpinLock};
use crate::user::IoBuf;
use crate::{Errno, Kernel, Result};

/// Frames of a file's first buffer.
const FRAMES: u64 = 64;
/// Frames of the buffers of a file that is read or written in sequence.
const MANY_FRAMES: u64 = MAX_DATA as u64 / PAGE;
/// Writes of fewer bytes are gathered.
const SMALL_WRITE: usize = 64 << 10;
/// A file that is read from its start is read as a whole if it has at most so many bytes.
const WHOLE_FILE: u64 = 128 << 10;
/// A file's first read of at least so many bytes is taken for one of many.
const BULK_READ: usize = PAGE as usize;
/// Most buffers at once.
const MAX_BUFFERS: usize = 16;
/// How long what was written may wait, in nanoseconds.
const MAX_AGE_NS: u64 = 20_000_000;

/// The memory of a buffer.
#[derive(Debug)]
struct Pages {
    frames: &'static Frames,
    first: Frame,
    count: u64,
}

impl Pages {
    /// `count` pages, or fewer if memory is short.
    fn new(frames: &'static Frames, count: u64) -> Result<Self> {
        let many = |count| {
            frames.alloc_contiguous(count).map(|first| Self {
                frames,
                first,
                count,
            })
        };
        if count > FRAMES && !frames.is_short() {
            many(count).or_else(|_| many(FRAMES))
        } else {
            many(FRAMES)
        }
    }

    fn bytes(&self) -> usize {
        (self.count * PAGE) as usize
    }

    fn span(&self, range: &Range<usize>) -> Span {
        Span {
            gpa: self.first.gpa() + range.start as u64,
            len: range.len(),
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.frames.free_contiguous(self.first, self.count);
    }
}

/// A file's buffer.
#[derive(Debug)]
struct Extent {
    pages: Arc<Pages>,
    /// The file's byte that the first byte of the buffer is.
    at: u64,
    /// Bytes that are the file's.
    len: usize,
    /// Of these, those the host does not know yet.
    dirty: Range<usize>,
}

impl Extent {
    fn end(&self) -> u64 {
        self.at + self.len as u64
    }
}

/// What a file has of a buffer.
#[derive(Debug, Default)]
pub(super) struct Buffered {
    extent: SpinLock<Option<Extent>>,
    /// Held while it is written back.
    flushing: Mutex<()>,
    /// There is something to write back, or that is going on.
    dirty: AtomicBool,
    /// Changes whenever what the host has may be something else than what was read of it.
    generation: AtomicU64,
    /// Where the last read ended.
    next_read: AtomicU64,
    /// Where the last full buffer of written bytes ended.
    next_write: AtomicU64,
    /// What writing back gave and nobody was told.
    failed: SpinLock<Option<Errno>>,
}

impl Buffered {
    /// The file's end as the host will know it, at least; 0 if it knows all.
    pub(super) fn dirty_end(&self) -> u64 {
        if !self.dirty.load(Ordering::Acquire) {
            return 0;
        }
        let extent = self.extent.lock();
        extent.as_ref().map_or(0, Extent::end)
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// A read ended there.
    pub(super) fn read_to(&self, at: u64) {
        self.next_read.store(at, Ordering::Relaxed);
    }

    /// Writing back gave an error.
    pub(super) fn failed(&self, errno: Errno) {
        *self.failed.lock() = Some(errno);
    }

    /// The error of writing back, told once.
    pub(super) fn take_error(&self) -> Result<()> {
        self.failed.lock().take().map_or(Ok(()), Err)
    }
}

/// The files with buffers, so that there are not too many, and nothing waits for too long.
#[derive(Debug, Default)]
pub struct WriteBehind {
    nodes: SpinLock<VecDeque<Weak<Node>>>,
    /// Something was written since everything was last written back.
    pending: AtomicBool,
    /// A timer will write back what waits.
    timed: AtomicBool,
}

impl WriteBehind {
    /// Makes room for one more buffer, `node`'s.
    fn admit(&self, node: &Node) {
        let mut old: Vec<Arc<Node>> = Vec::new();
        {
            let mut nodes = self.nodes.lock();
            nodes.retain(|weak| {
                weak.upgrade()
                    .is_some_and(|other| other.id() != node.id() && other.has_buffer())
            });
            while nodes.len() >= MAX_BUFFERS {
                old.extend(nodes.pop_front().and_then(|weak| weak.upgrade()));
            }
            nodes.push_back(node.weak());
        }
        for node in old {
            node.drop_buffer();
        }
    }

    /// Something was written that the host does not know.
    fn dirtied(&'static self, kernel: &'static Kernel) {
        self.pending.store(true, Ordering::Release);
        if !self.timed.swap(true, Ordering::AcqRel) {
            let when = husk_hal::clock::now_ns() + MAX_AGE_NS;
            kernel.timers.call_at(when, move || {
                self.timed.store(false, Ordering::Release);
                self.flush(kernel);
            });
        }
    }

    /// Tells the host what waits, but of files that are being written back; may be called without a thread.
    pub fn flush(&self, kernel: &'static Kernel) {
        self.flush_files(kernel);
        kernel.host.files.settle_all();
    }

    fn flush_files(&self, kernel: &'static Kernel) {
        if !self.pending.load(Ordering::Acquire) || !kernel.host.files.has_room() {
            return;
        }
        self.pending.store(false, Ordering::Release);
        let nodes: Vec<_> = {
            let nodes = self.nodes.lock();
            nodes.iter().filter_map(Weak::upgrade).collect()
        };
        for node in nodes {
            node.flush_unless_busy();
        }
    }
}

impl Node {
    fn buffered(&self) -> Option<(&Data, &Buffered)> {
        let data = self.data().ok()?;
        Some((data, &data.buffered))
    }

    fn has_buffer(&self) -> bool {
        self.buffered()
            .is_some_and(|(_, buffered)| buffered.extent.lock().is_some())
    }

    /// Whether the file may have a buffer now.
    fn may_buffer(&self, data: &Data) -> bool {
        self.is_exclusive() && !data.is_mapped()
    }

    /// Memory for a new extent, `count` pages at best: that of the old one, which is clean, if it fits and nobody copies
    /// from it.
    fn pages_of_own(&self, data: &Data, count: u64) -> Result<Arc<Pages>> {
        let old = data.buffered.extent.lock().take();
        if let Some(extent) = old
            && extent.pages.count >= count
            && Arc::strong_count(&extent.pages) == 1
        {
            return Ok(extent.pages);
        }
        self.kernel().fs.behind.admit(self);
        Pages::new(&self.kernel().frames, count).map(Arc::new)
    }

    /// Reads from the buffer what it has at `at`; 0 if that is nothing.
    pub(super) fn read_buffered(&self, data: &Data, buf: &mut IoBuf<'_>, at: u64) -> Result<usize> {
        let (pages, start, len) = {
            let extent = data.buffered.extent.lock();
            match extent.as_ref() {
                Some(extent) if extent.at <= at && at < extent.end() => {
                    let start = (at - extent.at) as usize;
                    (extent.pages.clone(), start, extent.len - start)
                }
                _ => return Ok(0),
            }
        };
        let len = len.min(buf.remaining());
        each_page(start, len, |page, offset, piece| {
            buf.put_frame(pages.first.offset(page), offset, piece)
        })
    }

    /// Fills the buffer from `at` on if a read of `len` bytes there is likely to be followed by the next; whether it did.
    pub(super) fn read_ahead(&self, data: &Data, at: u64, len: usize) -> bool {
        let size = data.size();
        let next = data.buffered.next_read.load(Ordering::Relaxed);
        let follows = if at == 0 {
            size <= WHOLE_FILE || len >= BULK_READ
        } else {
            at == next
        };
        if !follows || !self.may_buffer(data) {
            return false;
        }
        self.flush_quietly();
        let buffered = &data.buffered;
        let generation = buffered.generation.load(Ordering::SeqCst);
        let left = size.saturating_sub(at);
        let count = if at == 0 {
            FRAMES
        } else {
            MANY_FRAMES.min(left.div_ceil(PAGE))
        };
        let Ok(pages) = self.pages_of_own(data, count) else {
            return false;
        };
        let want = usize::try_from(left).unwrap_or(usize::MAX);
        let place = pages.span(&(0..want.min(pages.bytes())));
        let Ok(len) = calls::read_to(self.kernel(), self.id(), &[place], at, place.len) else {
            return false;
        };
        if len == 0 || !self.may_buffer(data) {
            return false;
        }
        let mut extent = buffered.extent.lock();
        if extent.is_some() || generation != buffered.generation.load(Ordering::SeqCst) {
            // Somebody wrote meanwhile.
            return false;
        }
        *extent = Some(Extent {
            pages,
            at,
            len,
            dirty: 0..0,
        });
        true
    }

    /// Gathers a small write at `at`; 0 if it must be told to the host at once. The caller holds `writing`.
    pub(super) fn write_buffered(
        &self,
        data: &Data,
        buf: &mut IoBuf<'_>,
        at: u64,
        len: usize,
    ) -> Result<usize> {
        if len >= SMALL_WRITE || !self.may_buffer(data) || !self.has_room_for(len) {
            return Ok(0);
        }
        let fits = |extent: &Extent| {
            extent.at <= at && at <= extent.end() && at - extent.at < extent.pages.bytes() as u64
        };
        let found = {
            let extent = data.buffered.extent.lock();
            let extent = extent.as_ref().filter(|extent| fits(extent));
            extent.map(|extent| (extent.pages.clone(), extent.at))
        };
        let (pages, base) = match found {
            Some(found) => found,
            None => {
                self.flush()?;
                let follows = at > 0 && at == data.buffered.next_write.load(Ordering::Relaxed);
                let count = if follows { MANY_FRAMES } else { FRAMES };
                let Ok(pages) = self.pages_of_own(data, count) else {
                    return Ok(0);
                };
                *data.buffered.extent.lock() = Some(Extent {
                    pages: pages.clone(),
                    at,
                    len: 0,
                    dirty: 0..0,
                });
                (pages, at)
            }
        };
        let start = (at - base) as usize;
        let len = len.min(pages.bytes() - start);
        let moved = each_page(start, len, |page, offset, piece| {
            buf.take_frame(pages.first.offset(page), offset, piece)
        })?;
        let end = start + moved;
        let kept = {
            let mut extent = data.buffered.extent.lock();
            match extent.as_mut() {
                Some(extent) if Arc::ptr_eq(&extent.pages, &pages) && extent.at == base => {
                    extent.len = extent.len.max(end);
                    extent.dirty = if extent.dirty.is_empty() {
                        start..end
                    } else {
                        extent.dirty.start.min(start)..extent.dirty.end.max(end)
                    };
                    data.buffered.dirty.store(true, Ordering::Release);
                    true
                }
                _ => false,
            }
        };
        if !kept {
            // Copying waited, and meanwhile somebody had the buffer dropped.
            let from = [pages.span(&(start..end))];
            let (_, attr) = calls::write_from(self.kernel(), self.id(), &from, Some(at), moved)?;
            self.learned(&attr);
            return Ok(moved);
        }
        data.grow(at + moved as u64);
        if end == pages.bytes() {
            let next = base + end as u64;
            data.buffered.next_write.store(next, Ordering::Relaxed);
            self.flush()?;
        } else {
            self.kernel().fs.behind.dirtied(self.kernel());
        }
        Ok(moved)
    }

    /// Tells the host what it does not know of the file's contents.
    ///
    /// # Errors
    /// What writing gives, also if that was long ago and nobody was told.
    pub(super) fn flush(&self) -> Result<()> {
        let Some((data, buffered)) = self.buffered() else {
            return Ok(());
        };
        if buffered.is_dirty() {
            let _flushing = buffered.flushing.lock();
            self.flush_locked(data);
        }
        buffered.take_error()
    }

    /// The same, for callers that cannot tell anybody of an error, which is kept.
    pub(super) fn flush_quietly(&self) {
        if let Some((data, buffered)) = self.buffered()
            && buffered.is_dirty()
        {
            let _flushing = buffered.flushing.lock();
            self.flush_locked(data);
        }
    }

    fn flush_unless_busy(&self) {
        if let Some((data, buffered)) = self.buffered()
            && buffered.is_dirty()
            && let Some(_flushing) = buffered.flushing.try_lock()
        {
            self.flush_locked(data);
        }
    }

    /// The caller holds `flushing`.
    fn take_dirty(data: &Data) -> Option<(Arc<Pages>, u64, Range<usize>)> {
        let mut extent = data.buffered.extent.lock();
        let extent = extent.as_mut()?;
        let dirty = core::mem::take(&mut extent.dirty);
        (!dirty.is_empty()).then(|| (extent.pages.clone(), extent.at, dirty))
    }

    /// Starts telling the host what it does not know of the file's contents.
    pub(super) fn post_flush(&self) {
        let Some((data, buffered)) = self.buffered() else {
            return;
        };
        if !buffered.is_dirty() {
            return;
        }
        let _flushing = buffered.flushing.lock();
        let Some((pages, base, dirty)) = Self::take_dirty(data) else {
            return;
        };
        let (from, at) = (pages.span(&dirty), base + dirty.start as u64);
        let len = dirty.len();
        let node = self.arc();
        let (again, back) = (dirty.clone(), dirty);
        self.posting();
        let is_posted = calls::post_write(self.kernel(), self.id(), from, at, move |answer| {
            let data = node.data().expect("a regular file");
            match answer {
                Ok((written, attr)) if written == len as u64 => {
                    node.learned(&attr);
                    Self::if_clean(data);
                }
                // The rest is tried again, and then told why it cannot be written.
                Ok((written, attr)) if written > 0 => {
                    node.learned(&attr);
                    let rest = again.start + written as usize..again.end;
                    node.dirty_again(data, &pages, rest);
                }
                Ok(_) => node.flush_failed(data, Errno::EIO),
                Err(errno) => node.flush_failed(data, errno),
            }
            drop(pages);
            node.posted_done();
        });
        if is_posted {
            self.kernel().fs.behind.dirtied(self.kernel());
            return;
        }
        self.posted_done();
        if let Some(extent) = buffered.extent.lock().as_mut() {
            extent.dirty = back;
        }
        self.flush_locked(data);
    }

    /// Posts a change of attributes that nothing can forbid, and counts it as made; false if it is to be made at once.
    pub(super) fn post_attributes(&self, change: &SetAttributes, message: &SetattrIn) -> bool {
        if !self.may_post() {
            return false;
        }
        let node = self.arc();
        self.posting();
        let is_posted = calls::post_setattr(self.kernel(), self.id(), message, move |answer| {
            match answer {
                Ok(attr) => node.learned(&attr),
                Err(errno) => node.post_failed(errno),
            }
            node.posted_done();
        });
        if is_posted {
            self.foresee(change);
            self.kernel().fs.behind.dirtied(self.kernel());
        } else {
            self.posted_done();
        }
        is_posted
    }

    /// Only a part of what was posted was written.
    fn dirty_again(&self, data: &Data, pages: &Arc<Pages>, rest: Range<usize>) {
        let mut extent = data.buffered.extent.lock();
        match extent.as_mut() {
            Some(extent) if Arc::ptr_eq(&extent.pages, pages) => {
                let dirty = &extent.dirty;
                extent.dirty = if dirty.is_empty() {
                    rest
                } else {
                    dirty.start.min(rest.start)..dirty.end.max(rest.end)
                };
            }
            _ => {
                drop(extent);
                self.flush_failed(data, Errno::EIO);
            }
        }
    }

    /// If nothing waits to be written any more, says so.
    fn if_clean(data: &Data) {
        let extent = data.buffered.extent.lock();
        if extent.as_ref().is_none_or(|extent| extent.dirty.is_empty()) {
            data.buffered.dirty.store(false, Ordering::Release);
        }
    }

    /// The caller holds `flushing`.
    fn flush_locked(&self, data: &Data) {
        self.settle();
        let buffered = &data.buffered;
        let Some((pages, base, mut dirty)) = Self::take_dirty(data) else {
            buffered.dirty.store(false, Ordering::Release);
            return;
        };
        while !dirty.is_empty() {
            let from = [pages.span(&dirty)];
            let at = base + dirty.start as u64;
            match calls::write_from(self.kernel(), self.id(), &from, Some(at), dirty.len()) {
                Ok((0, _)) => return self.flush_failed(data, Errno::EIO),
                Ok((written, attr)) => {
                    dirty.start += written;
                    self.learned(&attr);
                }
                Err(errno) => return self.flush_failed(data, errno),
            }
        }
        Self::if_clean(data);
    }

    /// What was to be written is lost, as Linux drops pages that cannot be written.
    fn flush_failed(&self, data: &Data, errno: Errno) {
        let buffered = &data.buffered;
        *buffered.extent.lock() = None;
        buffered.dirty.store(false, Ordering::Release);
        *buffered.failed.lock() = Some(errno);
        self.outdate();
    }

    /// Writes back and forgets the buffer: before and after the host changes the contents, and before processes see the
    /// host's.
    pub(super) fn drop_buffer(&self) {
        let Some((data, buffered)) = self.buffered() else {
            return;
        };
        let _flushing = buffered.flushing.lock();
        if buffered.is_dirty() {
            self.flush_locked(data);
        }
        buffered.generation.fetch_add(1, Ordering::SeqCst);
        let old = buffered.extent.lock().take();
        drop(old);
    }
}

/// Calls `copy` for each page of a run of bytes of a buffer with the page's number, and where in it which bytes are; gives how
/// many were copied.
pub(super) fn each_page(
    start: usize,
    len: usize,
    mut copy: impl FnMut(u64, usize, usize) -> Result<usize>,
) -> Result<usize> {
    let mut moved = 0;
    while moved < len {
        let at = start + moved;
        let in_page = at % PAGE as usize;
        let piece = (PAGE as usize - in_page).min(len - moved);
        match copy(at as u64 / PAGE, in_page, piece) {
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
    Ok(moved)
}
