//! What programs read.

use alloc::vec::Vec;

use husk_abi::linux::general::{EXTPROC, VEOF, VMIN, VTIME};

use super::{CAPACITY, Line};
use crate::tty::settings::DISABLED;

/// What decides when a read is done (`termios(3)`: "Canonical and noncanonical mode").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Bytes that are enough.
    pub minimum: usize,
    /// How long to wait for the first byte; `None` is for ever.
    pub first_ns: Option<u64>,
    /// How long to wait for each further one; `None` is for ever.
    pub further_ns: Option<u64>,
}

impl Line {
    /// What decides when a read is done.
    #[must_use]
    pub fn patience(&self) -> Patience {
        const TENTH_NS: u64 = 100_000_000;
        if self.settings.is_canonical() {
            return Patience {
                minimum: 0,
                first_ns: None,
                further_ns: None,
            };
        }
        let minimum = usize::from(self.settings.character(VMIN));
        let time_ns = u64::from(self.settings.character(VTIME)) * TENTH_NS;
        if minimum == 0 {
            return Patience {
                minimum: 1,
                first_ns: Some(time_ns),
                further_ns: Some(time_ns),
            };
        }
        Patience {
            minimum,
            first_ns: None,
            further_ns: (time_ns > 0).then_some(time_ns),
        }
    }

    /// Whether there is anything to read: a line, its end included, or a byte.
    #[must_use]
    pub fn has_input(&self) -> bool {
        if self.reads_lines() {
            self.complete > 0
        } else {
            !self.input.is_empty()
        }
    }

    /// Whether `poll(2)` says so: where reads wait for several bytes without a timer, so does it.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        if self.reads_lines() {
            return self.complete > 0;
        }
        let (minimum, time) = (
            self.settings.character(VMIN),
            self.settings.character(VTIME),
        );
        let enough = if time == 0 { minimum.max(1) } else { 1 };
        self.input.len() >= usize::from(enough)
    }

    /// Bytes that can be read (`FIONREAD`).
    #[must_use]
    pub fn available(&self) -> usize {
        if !self.reads_lines() {
            return self.input.len();
        }
        let lines = self.input.iter().take(self.complete);
        lines
            .filter(|cell| !(cell.ends && cell.byte == DISABLED))
            .count()
    }

    /// Moves up to `most` bytes, of one line at most, to the end of `bytes`.
    pub fn read(&mut self, bytes: &mut Vec<u8>, most: usize) {
        if self.reads_lines() {
            self.read_line(bytes, most);
        } else {
            let len = most.min(self.input.len());
            let start = bytes.len();
            bytes.extend(self.input.drain(..len).map(|cell| cell.byte));
            // The end of file is a byte of its own where somebody else does the editing.
            let is_end = self.settings.has_local(EXTPROC)
                && self.settings.is_canonical()
                && len == 1
                && bytes.last().copied() == Some(self.settings.character(VEOF));
            if is_end {
                bytes.truncate(start);
            }
        }
        // What a long line took up is given back.
        if self.input.is_empty() && self.input.capacity() > CAPACITY {
            self.input.shrink_to_fit();
        }
    }

    fn read_line(&mut self, bytes: &mut Vec<u8>, most: usize) {
        let mut moved = 0;
        while self.complete > 0 {
            let Some(cell) = self.input.front().copied() else {
                break;
            };
            let is_end = cell.ends && cell.byte == DISABLED;
            if moved == most && !is_end {
                break;
            }
            self.input.pop_front();
            self.complete -= 1;
            if !is_end {
                bytes.push(cell.byte);
                moved += 1;
            }
            if cell.ends {
                break;
            }
        }
    }
}
