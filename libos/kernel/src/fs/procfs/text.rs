//! The contents of a file while they are made.

use alloc::vec::Vec;
use core::fmt;

/// Bytes that `write!` appends to; appending cannot fail.
#[derive(Debug, Default)]
pub(super) struct Text {
    bytes: Vec<u8>,
}

impl Text {
    /// What `write!` calls.
    pub fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) {
        // `write_str` below never fails.
        let _ = fmt::Write::write_fmt(self, arguments);
    }

    /// Appends bytes as they are.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends bytes with those in `special`, and backslashes, as octal escapes.
    pub fn push_escaped(&mut self, bytes: &[u8], special: &[u8]) {
        for byte in bytes {
            if *byte == b'\\' || special.contains(byte) {
                write!(self, "\\{byte:03o}");
            } else {
                self.bytes.push(*byte);
            }
        }
    }

    /// Appends a path with its newlines as octal escapes, as `maps` does.
    pub fn push_newlines_escaped(&mut self, path: &[u8]) {
        for (index, line) in path.split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                self.push(b"\\012");
            }
            self.push(line);
        }
    }

    /// Appends spaces until the text is `width` bytes longer than at `start`.
    pub fn pad_to(&mut self, start: usize, width: usize) {
        let len = (start + width).max(self.bytes.len());
        self.bytes.resize(len, b' ');
    }

    /// Length so far, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The finished contents.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.push(s.as_bytes());
        Ok(())
    }
}

/// A bit mask and how many of its bits are meant.
pub(super) struct Bits(pub u64, pub usize);

impl fmt::Display for Bits {
    /// The low `self.1` bits as Linux prints bit masks: hexadecimal words of 32 bits with commas between.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bits(bits, count) = *self;
        let first = match count % 32 {
            0 => 32,
            rest => rest,
        };
        let digits = first.div_ceil(4);
        let words = count.div_ceil(32).max(1);
        for word in (0..words).rev() {
            let value = bits.checked_shr(word as u32 * 32).unwrap_or(0) as u32;
            if word + 1 == words {
                write!(f, "{value:0digits$x}")?;
            } else {
                write!(f, ",{value:08x}")?;
            }
        }
        Ok(())
    }
}
