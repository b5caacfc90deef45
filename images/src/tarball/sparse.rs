//! Maps of sparse files: GNU's old format and pax 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse
//! Files").

use std::io::Read;

use super::header::number;
use super::{BLOCK, Skip, TarError, TarStream};

/// A stretch of a sparse file that holds data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Most segments accepted: 16 MiB of memory.
const MAX_SEGMENTS: usize = 1 << 20;

/// Appends the 24-byte pairs of `field`, up to the first empty one.
pub(super) fn push_gnu(field: &[u8], map: &mut Vec<Segment>) -> Result<(), &'static str> {
    for pair in field.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let get = |field| number(field).and_then(|n| u64::try_from(n).ok());
        map.push(Segment {
            offset: get(&pair[..12]).ok_or("bad sparse offset")?,
            len: get(&pair[12..]).ok_or("bad sparse length")?,
        });
    }
    if map.len() > MAX_SEGMENTS {
        return Err("too many sparse segments");
    }
    Ok(())
}

/// Appends a continuation block of the old GNU format; tells whether another follows.
pub(super) fn extend_gnu(block: &[u8; 512], map: &mut Vec<Segment>) -> Result<bool, &'static str> {
    push_gnu(&block[..504], map)?;
    Ok(block[504] != 0)
}

/// Why a 1.0 map could not be read.
pub(super) enum MapError {
    Bad(&'static str),
    Tar(TarError),
}

impl MapError {
    pub(super) fn at(self, at: u64) -> TarError {
        match self {
            Self::Bad(why) => TarError::Extension { at, why },
            Self::Tar(e) => e,
        }
    }
}

/// Reads the map that starts the stored data of a 1.0 file: decimal lines (count, then offset and
/// length of each segment), padded to a block.
pub(super) fn read_pax_1_0<R: Read + Skip>(
    stream: &mut TarStream<R>,
) -> Result<Vec<Segment>, MapError> {
    let mut lines = Lines {
        stream,
        block: [0; BLOCK as usize],
        used: BLOCK as usize,
    };
    let count = lines.number()?;
    if count > MAX_SEGMENTS as u64 {
        return Err(MapError::Bad("too many sparse segments"));
    }
    let mut map = Vec::new();
    for _ in 0..count {
        let (offset, len) = (lines.number()?, lines.number()?);
        map.push(Segment { offset, len });
    }
    Ok(map)
}

struct Lines<'a, R> {
    stream: &'a mut TarStream<R>,
    block: [u8; BLOCK as usize],
    used: usize,
}

impl<R: Read + Skip> Lines<'_, R> {
    fn number(&mut self) -> Result<u64, MapError> {
        let mut value: u64 = 0;
        for digits in 0.. {
            if self.used == self.block.len() {
                let read = self.stream.read_exact(&mut self.block);
                read.map_err(|e| MapError::Tar(self.stream.failed(e)))?;
                self.used = 0;
            }
            let byte = self.block[self.used];
            self.used += 1;
            let digit = match byte {
                b'\n' if digits > 0 => return Ok(value),
                b'0'..=b'9' => u64::from(byte - b'0'),
                _ => break,
            };
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(digit))
                .ok_or(MapError::Bad("sparse map number too large"))?;
        }
        Err(MapError::Bad("sparse map is not decimal"))
    }
}

/// Segments must ascend without overlap, lie in the file, and use up the stored data.
pub(super) fn check(map: &[Segment], size: u64, stored: u64) -> Result<(), &'static str> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for segment in map {
        if segment.offset < end {
            return Err("sparse segments overlap");
        }
        end = segment
            .offset
            .checked_add(segment.len)
            .filter(|end| *end <= size)
            .ok_or("sparse segment beyond the file")?;
        // Cannot overflow: the segments are disjoint and lie below `size`.
        sum += segment.len;
    }
    if sum == stored {
        Ok(())
    } else {
        Err("sparse map does not match the stored size")
    }
}
