//! Memory of a process that the VMM reads or writes directly, without a buffer of the libOS in between.

use alloc::vec::Vec;
use core::ops::Range;

use husk_abi::boundary::layout::{LARGE_PAGE_SIZE, PAGE_SIZE, USER_END};
use husk_hal::phys::Frame;

use super::fault::Access;
use super::frames::Frames;
use super::space::{AddressSpace, page_down};

/// A run of guest physical memory, all of it RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its address.
    pub gpa: u64,
    /// Bytes.
    pub len: usize,
}

/// Memory that stays what it is while this lives, whatever its process does meanwhile.
#[derive(Debug)]
pub struct Held {
    frames: &'static Frames,
    /// Runs of frames that follow each other.
    pages: Vec<(Frame, u64)>,
    large: Vec<Frame>,
    spans: Vec<Span>,
    bytes: usize,
}

impl Held {
    /// Nothing yet.
    #[must_use]
    pub fn new(frames: &'static Frames) -> Self {
        Self {
            frames,
            pages: Vec::new(),
            large: Vec::new(),
            spans: Vec::new(),
            bytes: 0,
        }
    }

    /// Where it is, in order; neighbours are one.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// How many bytes it is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn add(&mut self, gpa: u64, len: usize) {
        self.bytes += len;
        match self.spans.last_mut() {
            Some(last) if last.gpa + last.len as u64 == gpa => last.len += len,
            _ => self.spans.push(Span { gpa, len }),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (first, count) in self.pages.drain(..) {
            self.frames.put_run(first, count);
        }
        for frame in self.large.drain(..) {
            self.frames.put_large(frame);
        }
    }
}

impl AddressSpace {
    /// Adds to `held` what `address` and the bytes after it are, faulted in for `access`: up to `len` bytes, up to where
    /// that cannot be or is no RAM (files of the host, seen through the window). Gives how many bytes were added.
    pub fn hold(&self, held: &mut Held, address: u64, len: usize, access: Access) -> usize {
        let Some(end) = address
            .checked_add(len as u64)
            .filter(|end| *end <= USER_END)
        else {
            return 0;
        };
        let mut at = address;
        let mut tried = None;
        loop {
            at = self.hold_present(held, at..end, access);
            // What is not there right after it was made accessible is no RAM.
            if at == end || tried == Some(at) || self.access(page_down(at), access).is_err() {
                return (at - address) as usize;
            }
            tried = Some(at);
        }
    }

    /// Adds what is accessible from `range`'s start on; gives where that ends.
    fn hold_present(&self, held: &mut Held, range: Range<u64>, access: Access) -> u64 {
        let mut at = range.start;
        let held_before = held.pages.len();
        let pages = page_down(at)..range.end.next_multiple_of(PAGE_SIZE);
        self.with(|state| {
            state.table.visit(pages, |first, entry| {
                let size = if entry.is_large() {
                    LARGE_PAGE_SIZE
                } else {
                    PAGE_SIZE
                };
                let fits = entry.is_present() && (access != Access::Write || entry.is_writable());
                if !fits || at < first || at >= range.end || !self.frames.owns(entry.frame()) {
                    return;
                }
                if entry.is_large() {
                    self.frames.get_large(entry.frame());
                    held.large.push(entry.frame());
                } else {
                    match held.pages[held_before..].last_mut() {
                        Some((first, count)) if first.offset(*count) == entry.frame() => {
                            *count += 1
                        }
                        _ => held.pages.push((entry.frame(), 1)),
                    }
                }
                let end = (first + size).min(range.end);
                held.add(entry.frame().gpa() + (at - first), (end - at) as usize);
                at = end;
            });
            for (first, count) in &held.pages[held_before..] {
                self.frames.get_run(*first, *count);
            }
        });
        at
    }
}
