//! Guest RAM by frames: who uses what, and how often.
//!
//! RAM is cut into blocks of 2 MiB. A block is fresh (never used, reads as zero), free, one large frame, or
//! split into 4 KiB frames. Blocks are taken in the order split, free, fresh, so the guest's footprint
//! grows only when it must; a fresh block costs a counter, whatever its size.
//!
//! The bookkeeping lies in RAM itself, before the first frame that is handed out, and is only touched for
//! blocks that were: tens of GiB can be reserved and cost nothing. Nothing here allocates from the heap, which
//! grows by frames.
//!
//! Longer than most files: all of it works on one bookkeeping under one lock, whose fields nothing else may touch.

use core::sync::atomic::{AtomicU32, Ordering};

use husk_abi::boundary::doorbell;
use husk_abi::boundary::layout::PAGE_SIZE;
use husk_hal::phys::{self, Frame};

use super::window_counts::WindowCounts;
use crate::sync::SpinLock;
use crate::{Errno, Result};

/// Frames of a large (2 MiB) frame.
pub const LARGE_FRAMES: u64 = 512;

/// Bytes of bookkeeping for a block: its record, and a 32-bit reference count a frame.
const RECORD_BYTES: u64 = 256;
const COUNTS_BYTES: u64 = LARGE_FRAMES * 4;
/// Free blocks (64 MiB) whose memory is not given back to the host.
const KEPT_BLOCKS: u64 = 32;
/// How many split blocks are searched for a run of frames before another block is split.
const RUN_SEARCH: usize = 16;
/// End of a list of blocks.
const NONE: u64 = u64::MAX;

/// A word of a block's record. Fresh memory is all zero, so zero must mean fresh.
mod word {
    /// 8 words: frames of a split block that are free.
    pub const FREE: u64 = 0;
    /// 8 words: frames that were never used and so read as zero.
    pub const ZERO: u64 = 8;
    /// What the block is.
    pub const STATE: u64 = 16;
    /// Free frames of a split block.
    pub const FREE_COUNT: u64 = 17;
    /// Neighbours in the list of split blocks with free frames, or of free blocks; index + 1, 0 is none.
    pub const NEXT: u64 = 18;
    pub const PREVIOUS: u64 = 19;
    /// Reference count of a large frame.
    pub const LARGE_COUNT: u64 = 20;
}

/// What a block is; 0 is fresh.
mod state {
    /// Split, its frames page tables only.
    pub const TABLES: u64 = 4;
    pub const FREE: u64 = 1;
    pub const LARGE: u64 = 2;
    pub const SPLIT: u64 = 3;
    /// Free, its memory given back to the host.
    pub const COLD: u64 = 5;
    /// Free, its memory being given back.
    pub const OFFERED: u64 = 6;
}

/// Free frames and reference counts.
#[derive(Debug)]
pub struct Frames {
    layout: Layout,
    pool: SpinLock<Pool>,
    /// How often each chunk of the window of host files is mapped.
    window: spin::Once<WindowCounts>,
}

/// Where the blocks and their bookkeeping are; never changes.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Number of the frame block 0 starts with.
    base: u64,
    /// First frame of block 0 that may be handed out, counted from `base`.
    skip: u64,
    /// Number of blocks.
    blocks: u64,
    /// Guest physical address of the records; the counts follow.
    records: u64,
}

#[derive(Debug)]
struct Pool {
    /// First split block with free frames.
    split: u64,
    /// First block of page tables with free frames.
    tables: u64,
    /// First free block, and how many there are.
    free: u64,
    warm: u64,
    /// First block whose memory was given back.
    cold: u64,
    /// First block that was never used; all after it are fresh as well.
    fresh: u64,
    /// Blocks before this one are there; the VMM makes the others when it is asked to.
    ready: u64,
    used: u64,
    limit: u64,
}

/// What [`Frames::usage`] reports, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Handed out, the libOS's own heap included.
    pub used_bytes: u64,
    /// What may be handed out in all.
    pub limit_bytes: u64,
}

impl Usage {
    /// What may still be handed out.
    #[must_use]
    pub fn free_bytes(self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes)
    }
}

impl Layout {
    fn word(&self, block: u64, index: u64) -> u64 {
        let at = self.records + block * RECORD_BYTES + index * 8;
        phys::load_u64(Frame::containing(at), (at % PAGE_SIZE) as usize)
    }

    fn set_word(&self, block: u64, index: u64, value: u64) {
        let at = self.records + block * RECORD_BYTES + index * 8;
        phys::store_u64(Frame::containing(at), (at % PAGE_SIZE) as usize, value);
    }

    /// The 8-byte word that holds frame `index`'s count, and its shift in there.
    fn count_cell(&self, index: u64) -> (Frame, usize, u32) {
        let at = self.records + self.blocks * RECORD_BYTES + index / 2 * 8;
        let shift = if index.is_multiple_of(2) { 0 } else { 32 };
        (Frame::containing(at), (at % PAGE_SIZE) as usize, shift)
    }

    fn count(&self, index: u64) -> u32 {
        let (frame, offset, shift) = self.count_cell(index);
        (phys::load_u64(frame, offset) >> shift) as u32
    }

    fn set_count(&self, index: u64, count: u32) {
        let (frame, offset, shift) = self.count_cell(index);
        let other = phys::load_u64(frame, offset) & !(0xffff_ffff << shift);
        phys::store_u64(frame, offset, other | u64::from(count) << shift);
    }

    fn frame(&self, block: u64, index: u64) -> Frame {
        Frame::new(self.base + block * LARGE_FRAMES + index)
    }

    /// Frames of `block` that may be handed out start here.
    fn first_in(&self, block: u64) -> u64 {
        if block == 0 { self.skip } else { 0 }
    }

    /// Index of `frame` among all frames handed out from here, or `None` if it is not one.
    fn index(&self, frame: Frame) -> Option<u64> {
        let index = frame.number().checked_sub(self.base)?;
        (index >= self.skip && index < self.blocks * LARGE_FRAMES).then_some(index)
    }

    /// One more reference to a frame, or to the large frame it is part of. The caller holds the pool.
    fn add_reference(&self, index: u64) {
        let block = index / LARGE_FRAMES;
        if self.word(block, word::STATE) == state::LARGE {
            let count = self.word(block, word::LARGE_COUNT);
            self.set_word(block, word::LARGE_COUNT, count + 1);
        } else {
            self.set_count(index, self.count(index) + 1);
        }
    }
}

impl Pool {
    fn charge(&mut self, frames: u64) -> Result<()> {
        if self.used + frames > self.limit {
            return Err(Errno::ENOMEM);
        }
        self.used += frames;
        Ok(())
    }

    fn head(&mut self, of: u64) -> &mut u64 {
        match of {
            state::SPLIT => &mut self.split,
            state::TABLES => &mut self.tables,
            state::COLD => &mut self.cold,
            _ => &mut self.free,
        }
    }

    /// Puts a block at the head of the list of its kind.
    fn link(&mut self, layout: &Layout, block: u64, kind: u64) {
        let head = self.head(kind);
        let next = core::mem::replace(head, block);
        layout.set_word(block, word::NEXT, next.wrapping_add(1));
        layout.set_word(block, word::PREVIOUS, 0);
        if next != NONE {
            layout.set_word(next, word::PREVIOUS, block + 1);
        }
    }

    fn unlink(&mut self, layout: &Layout, block: u64, kind: u64) {
        let next = layout.word(block, word::NEXT).wrapping_sub(1);
        let previous = layout.word(block, word::PREVIOUS).wrapping_sub(1);
        if previous == NONE {
            *self.head(kind) = next;
        } else {
            layout.set_word(previous, word::NEXT, next.wrapping_add(1));
        }
        if next != NONE {
            layout.set_word(next, word::PREVIOUS, previous.wrapping_add(1));
        }
    }

    /// Takes a block nobody uses, whole; tells whether it reads as zero. Block 0 is only whole if nothing of
    /// it is skipped.
    fn take_block(&mut self, layout: &Layout, whole: bool) -> Option<(u64, bool)> {
        if self.free != NONE {
            let block = self.free;
            self.unlink_free(layout, block);
            return Some((block, false));
        }
        if self.cold != NONE {
            let block = self.cold;
            self.unlink(layout, block, state::COLD);
            return Some((block, false));
        }
        if whole && self.fresh == 0 && layout.skip > 0 && layout.blocks > 0 {
            self.split_block(layout, 0, true, state::SPLIT);
            self.fresh = 1;
        }
        if self.fresh < layout.blocks {
            self.take_fresh(layout, 1);
            return Some((self.fresh - 1, true));
        }
        None
    }

    /// Takes the next `count` fresh blocks, which exist; those that are not there yet are asked for, with as many again as
    /// there are, so that it is asked seldom.
    fn take_fresh(&mut self, layout: &Layout, count: u64) {
        self.fresh += count;
        if self.fresh > self.ready {
            self.ready = (self.ready * 2).max(self.fresh).min(layout.blocks);
            let end = layout.base / LARGE_FRAMES + self.ready;
            // As large pages 32 bits are 8 PiB.
            husk_hal::doorbell::ring(doorbell::MEMORY, u32::try_from(end).unwrap_or(u32::MAX));
        }
    }

    /// Makes a block that nobody uses a split one of `kind`, all its frames free.
    fn split_block(&mut self, layout: &Layout, block: u64, zero: bool, kind: u64) {
        let first = layout.first_in(block);
        for index in 0..8 {
            let low = index * 64;
            let mask = if first >= low + 64 {
                0
            } else {
                u64::MAX << first.saturating_sub(low)
            };
            layout.set_word(block, word::FREE + index, mask);
            layout.set_word(block, word::ZERO + index, if zero { mask } else { 0 });
        }
        layout.set_word(block, word::STATE, kind);
        layout.set_word(block, word::FREE_COUNT, LARGE_FRAMES - first);
        self.link(layout, block, kind);
    }

    /// A split block of `kind` with a free frame. Where no block is left, the other kind's frames do.
    fn split_with_room(&mut self, layout: &Layout, kind: u64) -> Result<u64> {
        if *self.head(kind) == NONE {
            match self.take_block(layout, kind == state::TABLES) {
                Some((block, zero)) => self.split_block(layout, block, zero, kind),
                None if self.split != NONE => return Ok(self.split),
                None if self.tables != NONE => return Ok(self.tables),
                None => return Err(Errno::ENOMEM),
            }
        }
        Ok(*self.head(kind))
    }

    /// Takes `count` frames from `index` on, all free, out of a split block; whether all read as zero.
    fn take_run(&mut self, layout: &Layout, block: u64, index: u64, count: u64) -> bool {
        let mut zero = true;
        for at in index..index + count {
            let (slot, bit) = (at / 64, 1 << (at % 64));
            let free = layout.word(block, word::FREE + slot);
            layout.set_word(block, word::FREE + slot, free & !bit);
            let fresh = layout.word(block, word::ZERO + slot);
            zero &= fresh & bit != 0;
            if fresh & bit != 0 {
                layout.set_word(block, word::ZERO + slot, fresh & !bit);
            }
            layout.set_count(block * LARGE_FRAMES + at, 1);
        }
        let left = layout.word(block, word::FREE_COUNT) - count;
        layout.set_word(block, word::FREE_COUNT, left);
        if left == 0 {
            self.unlink(layout, block, layout.word(block, word::STATE));
        }
        zero
    }

    fn alloc(&mut self, layout: &Layout, kind: u64) -> Result<(Frame, bool)> {
        self.charge(1)?;
        let block = self
            .split_with_room(layout, kind)
            .inspect_err(|_| self.used -= 1)?;
        for slot in 0..8 {
            let free = layout.word(block, word::FREE + slot);
            if free != 0 {
                let index = slot * 64 + u64::from(free.trailing_zeros());
                let zero = self.take_run(layout, block, index, 1);
                return Ok((layout.frame(block, index), zero));
            }
        }
        unreachable!("a listed split block has a free frame")
    }

    fn alloc_neighbours(&mut self, layout: &Layout, count: u64) -> Result<Frame> {
        match count {
            0 => Err(Errno::EINVAL),
            1 => self.alloc(layout, state::SPLIT).map(|(frame, _)| frame),
            2..LARGE_FRAMES => self.alloc_run(layout, count),
            _ => self
                .alloc_blocks(layout, count.div_ceil(LARGE_FRAMES))
                .map(|(frame, _)| frame),
        }
    }

    fn alloc_run(&mut self, layout: &Layout, count: u64) -> Result<Frame> {
        self.charge(count)?;
        let mut block = self.split;
        for _ in 0..RUN_SEARCH {
            if block == NONE {
                break;
            }
            if let Some(index) = find_run(layout, block, count) {
                self.take_run(layout, block, index, count);
                return Ok(layout.frame(block, index));
            }
            block = layout.word(block, word::NEXT).wrapping_sub(1);
        }
        let Some((block, zero)) = self.take_block(layout, true) else {
            self.used -= count;
            return Err(Errno::ENOMEM);
        };
        self.split_block(layout, block, zero, state::SPLIT);
        self.take_run(layout, block, 0, count);
        Ok(layout.frame(block, 0))
    }

    /// `count` neighbouring blocks as large frames.
    fn alloc_blocks(&mut self, layout: &Layout, count: u64) -> Result<(Frame, bool)> {
        self.charge(count * LARGE_FRAMES)?;
        let found = if count == 1 {
            self.take_block(layout, true)
        } else {
            self.take_blocks(layout, count)
        };
        let Some((first, zero)) = found else {
            self.used -= count * LARGE_FRAMES;
            return Err(Errno::ENOMEM);
        };
        for block in first..first + count {
            layout.set_word(block, word::STATE, state::LARGE);
            layout.set_word(block, word::LARGE_COUNT, 1);
        }
        Ok((layout.frame(first, 0), zero))
    }

    fn take_blocks(&mut self, layout: &Layout, count: u64) -> Option<(u64, bool)> {
        let first_whole = u64::from(layout.skip > 0);
        let mut run = 0;
        for block in first_whole..self.fresh {
            let kind = layout.word(block, word::STATE);
            let is_free = matches!(kind, state::FREE | state::COLD);
            run = if is_free { run + 1 } else { 0 };
            if run == count {
                let first = block + 1 - count;
                (first..=block).for_each(|block| self.unlink_free(layout, block));
                return Some((first, false));
            }
        }
        if self.fresh == 0 && first_whole == 1 && layout.blocks > 0 {
            self.split_block(layout, 0, true, state::SPLIT);
            self.fresh = 1;
        }
        (self.fresh + count <= layout.blocks).then(|| {
            self.take_fresh(layout, count);
            (self.fresh - count, true)
        })
    }

    fn free_block(&mut self, layout: &Layout, block: u64) {
        self.link_free(layout, block);
        self.used -= LARGE_FRAMES;
    }

    fn link_free(&mut self, layout: &Layout, block: u64) {
        layout.set_word(block, word::STATE, state::FREE);
        self.link(layout, block, state::FREE);
        self.warm += 1;
    }

    /// Takes a free block out of its list, warm or cold.
    fn unlink_free(&mut self, layout: &Layout, block: u64) {
        let kind = layout.word(block, word::STATE);
        self.unlink(layout, block, kind);
        if kind == state::FREE {
            self.warm -= 1;
        }
    }

    fn put(&mut self, layout: &Layout, index: u64) {
        let (block, at) = (index / LARGE_FRAMES, index % LARGE_FRAMES);
        if layout.word(block, word::STATE) == state::LARGE {
            return self.put_large(layout, block);
        }
        let count = layout.count(index);
        assert!(count > 0, "frame {index:#x} was put once too often");
        layout.set_count(index, count - 1);
        if count > 1 {
            return;
        }
        let slot = word::FREE + at / 64;
        let free = layout.word(block, slot);
        layout.set_word(block, slot, free | 1 << (at % 64));
        let free_count = layout.word(block, word::FREE_COUNT) + 1;
        layout.set_word(block, word::FREE_COUNT, free_count);
        let kind = layout.word(block, word::STATE);
        if free_count == 1 {
            self.link(layout, block, kind);
        }
        if free_count == LARGE_FRAMES {
            self.unlink(layout, block, kind);
            self.link_free(layout, block);
        }
        self.used -= 1;
    }

    fn put_large(&mut self, layout: &Layout, block: u64) {
        if layout.word(block, word::STATE) != state::LARGE {
            for at in 0..LARGE_FRAMES {
                self.put(layout, block * LARGE_FRAMES + at);
            }
            return;
        }
        let count = layout.word(block, word::LARGE_COUNT);
        assert!(count > 0, "block {block:#x} was put once too often");
        layout.set_word(block, word::LARGE_COUNT, count - 1);
        if count == 1 {
            self.free_block(layout, block);
        }
    }
}

/// First index of `count` free frames in a row in a split block.
fn find_run(layout: &Layout, block: u64, count: u64) -> Option<u64> {
    if layout.word(block, word::FREE_COUNT) < count {
        return None;
    }
    let mut run = 0;
    for slot in 0..8 {
        let free = layout.word(block, word::FREE + slot);
        for bit in 0..64 {
            run = if free >> bit & 1 == 1 { run + 1 } else { 0 };
            if run == count {
                return Some(slot * 64 + bit + 1 - count);
            }
        }
    }
    None
}

impl Frames {
    /// All RAM from `free_gpa` to `ram_bytes`, of which `limit_bytes` may be in use. All of it reads as zero.
    #[must_use]
    pub fn new(free_gpa: u64, ram_bytes: u64, limit_bytes: u64) -> Self {
        let records = free_gpa.next_multiple_of(PAGE_SIZE);
        let base = records / PAGE_SIZE / LARGE_FRAMES * LARGE_FRAMES;
        let end = ram_bytes / PAGE_SIZE / LARGE_FRAMES * LARGE_FRAMES;
        let blocks = end.saturating_sub(base) / LARGE_FRAMES;
        let bookkeeping = blocks * (RECORD_BYTES + COUNTS_BYTES);
        let first = (records + bookkeeping).div_ceil(PAGE_SIZE);
        // With tens of GiB the bookkeeping alone fills blocks: those do not exist.
        let gone = (first.saturating_sub(base) / LARGE_FRAMES).min(blocks);
        let base = base + gone * LARGE_FRAMES;
        Self {
            layout: Layout {
                base,
                skip: first.saturating_sub(base),
                blocks: blocks - gone,
                records,
            },
            pool: SpinLock::new(Pool {
                split: NONE,
                tables: NONE,
                free: NONE,
                warm: 0,
                cold: NONE,
                fresh: 0,
                ready: blocks - gone,
                used: 0,
                limit: limit_bytes / PAGE_SIZE,
            }),
            window: spin::Once::new(),
        }
    }

    /// The same with only the RAM below `ready_bytes` there at first. It must reach beyond the bookkeeping, and a block more.
    #[must_use]
    pub fn ready_to(self, ready_bytes: u64) -> Self {
        let first = self.layout.base / LARGE_FRAMES;
        let ready = (ready_bytes / PAGE_SIZE / LARGE_FRAMES).saturating_sub(first);
        self.pool.lock().ready = ready.min(self.layout.blocks);
        self
    }

    /// Counts references to the frames of the window, `chunks` times 2 MiB from `first` on, from here on.
    pub fn count_window(&self, first: Frame, chunks: usize) -> &WindowCounts {
        self.window.call_once(|| WindowCounts::new(first, chunks))
    }

    /// References to the window's chunks, if there is one.
    #[must_use]
    pub fn window(&self) -> Option<&WindowCounts> {
        self.window.get()
    }

    fn window_chunk(&self, frame: Frame) -> Option<&AtomicU32> {
        self.window.get()?.chunk(frame)
    }

    /// A frame with one reference; contents undefined.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc(&self) -> Result<Frame> {
        self.pool
            .lock()
            .alloc(&self.layout, state::SPLIT)
            .map(|(frame, _)| frame)
    }

    /// A frame of zeros with one reference.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc_zeroed(&self) -> Result<Frame> {
        let (frame, zero) = self.pool.lock().alloc(&self.layout, state::SPLIT)?;
        if !zero {
            phys::zero_frames(frame, 1);
        }
        Ok(frame)
    }

    /// A frame of zeros for a page table, with one reference.
    ///
    /// Page tables have blocks of their own: KVM's shadow paging maps a 2 MiB block in which there is a guest page
    /// table by 4 KiB pages only, and would then fill the direct map page by page.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc_table(&self) -> Result<Frame> {
        let (frame, zero) = self.pool.lock().alloc(&self.layout, state::TABLES)?;
        if !zero {
            phys::zero_frames(frame, 1);
        }
        Ok(frame)
    }

    /// A 2 MiB aligned large frame with one reference; contents undefined.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc_large(&self) -> Result<Frame> {
        self.pool
            .lock()
            .alloc_blocks(&self.layout, 1)
            .map(|(frame, _)| frame)
    }

    /// A 2 MiB aligned large frame of zeros with one reference.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc_large_zeroed(&self) -> Result<Frame> {
        let (frame, zero) = self.pool.lock().alloc_blocks(&self.layout, 1)?;
        if !zero {
            phys::zero_frames(frame, LARGE_FRAMES);
        }
        Ok(frame)
    }

    /// `count` neighbouring frames, 2 MiB aligned if they are 512 or more; contents undefined. To be given
    /// back with [`Frames::free_contiguous`].
    ///
    /// # Errors
    /// `ENOMEM`; `EINVAL` for none.
    pub fn alloc_contiguous(&self, count: u64) -> Result<Frame> {
        self.pool.lock().alloc_neighbours(&self.layout, count)
    }

    /// The same for the libOS itself, which does not stop at the container's limit: RAM is a little larger. What exceeds the
    /// limit then is missing for everyone else.
    ///
    /// # Errors
    /// `ENOMEM` if there is no RAM; `EINVAL` for none.
    pub fn alloc_for_libos(&self, count: u64) -> Result<Frame> {
        let mut pool = self.pool.lock();
        let limit = core::mem::replace(&mut pool.limit, u64::MAX / LARGE_FRAMES);
        let result = pool.alloc_neighbours(&self.layout, count);
        pool.limit = limit;
        result
    }

    /// Gives back what [`Frames::alloc_contiguous`] gave.
    pub fn free_contiguous(&self, first: Frame, count: u64) {
        if count >= LARGE_FRAMES {
            for block in 0..count.div_ceil(LARGE_FRAMES) {
                self.put_large(first.offset(block * LARGE_FRAMES));
            }
        } else {
            (0..count).for_each(|at| self.put(first.offset(at)));
        }
    }

    /// One more reference to a frame; nothing for frames that are not handed out here (read-only memory) nor of
    /// the window. The caller has a reference to the window's chunk already.
    pub fn get(&self, frame: Frame) {
        let Some(index) = self.layout.index(frame) else {
            if let Some(count) = self.window_chunk(frame) {
                count.fetch_add(1, Ordering::AcqRel);
            }
            return;
        };
        let _pool = self.pool.lock();
        self.layout.add_reference(index);
    }

    /// One more reference to each of `count` frames that are handed out here.
    pub fn get_run(&self, first: Frame, count: u64) {
        let Some(index) = self.layout.index(first) else {
            return;
        };
        let _pool = self.pool.lock();
        (index..index + count).for_each(|index| self.layout.add_reference(index));
    }

    /// One reference to each of `count` frames less.
    ///
    /// # Panics
    /// As [`Frames::put`].
    pub fn put_run(&self, first: Frame, count: u64) {
        let Some(index) = self.layout.index(first) else {
            return;
        };
        let mut pool = self.pool.lock();
        (index..index + count).for_each(|index| pool.put(&self.layout, index));
    }

    /// One reference to a frame less; the last one frees it.
    ///
    /// # Panics
    /// If there was none: a bug of the caller that would corrupt other processes.
    pub fn put(&self, frame: Frame) {
        if let Some(index) = self.layout.index(frame) {
            self.pool.lock().put(&self.layout, index);
        } else if let Some(count) = self.window_chunk(frame) {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Whether the frame is RAM that is handed out here.
    #[must_use]
    pub fn owns(&self, frame: Frame) -> bool {
        self.layout.index(frame).is_some()
    }

    /// References to a frame; 0 for frames that are not handed out here.
    #[must_use]
    pub fn count(&self, frame: Frame) -> u32 {
        let Some(index) = self.layout.index(frame) else {
            return 0;
        };
        let _pool = self.pool.lock();
        let block = index / LARGE_FRAMES;
        if self.layout.word(block, word::STATE) == state::LARGE {
            self.layout.word(block, word::LARGE_COUNT) as u32
        } else {
            self.layout.count(index)
        }
    }

    /// One more reference to each 4 KiB of a large frame, split or not.
    pub fn get_large(&self, frame: Frame) {
        let Some(index) = self.layout.index(frame) else {
            return;
        };
        let _pool = self.pool.lock();
        let block = index / LARGE_FRAMES;
        if self.layout.word(block, word::STATE) == state::LARGE {
            let count = self.layout.word(block, word::LARGE_COUNT);
            self.layout.set_word(block, word::LARGE_COUNT, count + 1);
        } else {
            for at in index..index + LARGE_FRAMES {
                self.layout.set_count(at, self.layout.count(at) + 1);
            }
        }
    }

    /// One reference to each 4 KiB of a large frame less.
    ///
    /// # Panics
    /// As [`Frames::put`].
    pub fn put_large(&self, frame: Frame) {
        if let Some(index) = self.layout.index(frame) {
            let mut pool = self.pool.lock();
            pool.put_large(&self.layout, index / LARGE_FRAMES);
        }
    }

    /// Whether the caller's reference to the large frame is the only one to any part of it.
    #[must_use]
    pub fn is_large_unshared(&self, frame: Frame) -> bool {
        let Some(index) = self.layout.index(frame) else {
            return false;
        };
        let _pool = self.pool.lock();
        let block = index / LARGE_FRAMES;
        if self.layout.word(block, word::STATE) == state::LARGE {
            self.layout.word(block, word::LARGE_COUNT) == 1
        } else {
            (index..index + LARGE_FRAMES).all(|at| self.layout.count(at) == 1)
        }
    }

    /// From now on the 512 frames of a large frame are counted one by one; each has as many references as the
    /// large frame had. Address spaces that still map it as one keep one reference to each.
    pub fn split_large(&self, frame: Frame) {
        let Some(index) = self.layout.index(frame) else {
            return;
        };
        let _pool = self.pool.lock();
        let block = index / LARGE_FRAMES;
        if self.layout.word(block, word::STATE) != state::LARGE {
            return;
        }
        let count = self.layout.word(block, word::LARGE_COUNT) as u32;
        for at in index..index + LARGE_FRAMES {
            self.layout.set_count(at, count);
        }
        for slot in 0..8 {
            self.layout.set_word(block, word::FREE + slot, 0);
            self.layout.set_word(block, word::ZERO + slot, 0);
        }
        self.layout.set_word(block, word::FREE_COUNT, 0);
        self.layout.set_word(block, word::STATE, state::SPLIT);
    }

    /// Takes free blocks out, so that their memory can be given back to the host, and fills in their guest physical
    /// addresses; how many. Some stay for those who need memory next. They come back with [`Frames::given_back`].
    pub fn offer(&self, blocks: &mut [u64]) -> usize {
        let mut pool = self.pool.lock();
        let mut count = 0;
        while count < blocks.len() && pool.warm > KEPT_BLOCKS {
            let block = pool.free;
            pool.unlink_free(&self.layout, block);
            self.layout.set_word(block, word::STATE, state::OFFERED);
            blocks[count] = self.layout.frame(block, 0).gpa();
            count += 1;
        }
        count
    }

    /// The memory of `blocks`, which [`Frames::offer`] gave, is the host's now. They are free again, and used last.
    pub fn given_back(&self, blocks: &[u64]) {
        let mut pool = self.pool.lock();
        for gpa in blocks {
            let Some(index) = self.layout.index(Frame::containing(*gpa)) else {
                continue;
            };
            let block = index / LARGE_FRAMES;
            self.layout.set_word(block, word::STATE, state::COLD);
            pool.link(&self.layout, block, state::COLD);
        }
    }

    /// How much is handed out, and how much may be.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let pool = self.pool.lock();
        Usage {
            used_bytes: pool.used * PAGE_SIZE,
            limit_bytes: pool.limit * PAGE_SIZE,
        }
    }

    /// RAM there is, whatever the limit: as on Linux, what exceeds a container's limit may be mapped, and only
    /// using it runs out of memory.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        self.layout.blocks * LARGE_FRAMES * PAGE_SIZE
    }

    /// Whether memory is so short (above 7/8 of the limit) that nothing should be mapped ahead of need.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let pool = self.pool.lock();
        pool.used > pool.limit / 8 * 7
    }

    /// Changes how much may be handed out; below what is in use nothing is taken away, but nothing given.
    pub fn set_limit(&self, limit_bytes: u64) {
        self.pool.lock().limit = limit_bytes / PAGE_SIZE;
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
