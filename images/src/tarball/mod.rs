//! Tar archives as a stream: ustar, GNU and pax, one entry at a time.
//!
//! Follows POSIX.1-2024 "pax Interchange Format" and the GNU tar manual ("Basic Tar Format",
//! "Storing Sparse Files"). The `tar` crate is not used for reading because it splits pax records at
//! newlines (values of extended attributes are binary and may hold some), does not know pax sparse
//! files, holds names of any length in memory, and cannot tell an end marker from a cut file.

mod header;
mod pax;
mod sparse;

use std::io::{self, Read};

use header::RawHeader;
use pax::Pax;

pub(crate) use sparse::Segment;

/// Tar works in blocks of this many bytes.
pub(crate) const BLOCK: u64 = 512;

/// Longest pax header or GNU long name accepted, in bytes; Go's reader has the same limit.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Dir,
    Fifo,
}

/// One entry with every extension applied.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As the archive has it: callers must not trust it.
    pub(crate) path: Vec<u8>,
    /// Target of a link, otherwise empty.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// Major and minor number of a device node.
    pub(crate) dev: (u32, u32),
    /// Length of the file in bytes, holes included.
    pub(crate) size: u64,
    /// Where the stored data starts in the archive, in bytes.
    pub(crate) data_offset: u64,
    /// The parts that hold data, in stored order; `None` for a file without holes.
    pub(crate) sparse: Option<Vec<Segment>>,
    /// Extended attributes: name, value.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is wrong with an archive. Offsets are bytes from its (uncompressed) start.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The archive ends inside an entry.
    #[error("archive is cut off at byte {at}: fetch it again")]
    Truncated {
        /// Where it ends.
        at: u64,
    },
    /// A block that should be a header is none.
    #[error("no tar header at byte {at} ({why}): the archive is corrupt or not a tar file")]
    Header {
        /// Where the block starts.
        at: u64,
        /// What does not fit.
        why: &'static str,
    },
    /// A pax header or a sparse map is malformed.
    #[error("bad extended header at byte {at} ({why}): the archive is corrupt")]
    Extension {
        /// Where its header starts.
        at: u64,
        /// What does not fit.
        why: &'static str,
    },
    /// An entry type this reader does not know.
    #[error("entry {entry} has type {flag}, which images do not use: rebuild the image")]
    Type {
        /// The entry's name, in quotes.
        entry: String,
        /// The type byte, in quotes.
        flag: String,
    },
    /// Reading (or decompressing) failed.
    #[error("archive cannot be read at byte {at}: {cause}")]
    Read {
        /// Where.
        at: u64,
        /// Why.
        cause: io::Error,
    },
}

/// Moving forward without looking, by seeking where the input can.
pub(crate) trait Skip {
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// A stream that can only be read.
pub(crate) struct Streamed<R>(pub(crate) R);

impl<R: Read> Read for Streamed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl<R: Read> Skip for Streamed<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.0.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

/// Reads entries; between two calls of [`TarStream::next`] its `Read` yields the stored data of the
/// current entry (for a sparse file: the segments, back to back).
pub(crate) struct TarStream<R> {
    inner: R,
    at: u64,
    left: u64,
    pad: u64,
    ended: bool,
}

impl<R: Read + Skip> TarStream<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            at: 0,
            left: 0,
            pad: 0,
            ended: false,
        }
    }

    /// Whether the end marker, two blocks of zeros, has been seen whole.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes read so far.
    pub(crate) fn offset(&self) -> u64 {
        self.at
    }

    /// The next entry, or `None` at the end marker or where the input ends between two entries.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pax = Pax::default();
        let mut long_path = None;
        let mut long_link = None;
        let mut extended = false;
        loop {
            self.skip_rest()?;
            let start = self.at;
            let Some(block) = self.block()? else {
                return if extended {
                    Err(TarError::Truncated { at: self.at })
                } else {
                    Ok(None)
                };
            };
            if block.iter().all(|b| *b == 0) {
                if extended {
                    let why = "an extended header without an entry";
                    return Err(TarError::Extension { at: start, why });
                }
                self.ended = self.block()?.is_some_and(|b| b.iter().all(|b| *b == 0));
                return Ok(None);
            }
            let raw =
                RawHeader::parse(&block).map_err(|why| TarError::Header { at: start, why })?;
            match raw.flag {
                b'x' | b'X' => {
                    pax = Pax::parse(&self.extension(start, raw.size)?)
                        .map_err(|why| TarError::Extension { at: start, why })?;
                }
                // Global headers carry comments (git archive); Docker ignores them as well.
                b'g' => drop(self.extension(start, raw.size)?),
                b'L' => long_path = Some(until_nul(self.extension(start, raw.size)?)),
                b'K' => long_link = Some(until_nul(self.extension(start, raw.size)?)),
                _ => return self.entry(start, raw, pax, long_path, long_link).map(Some),
            }
            extended = raw.flag != b'g' || extended;
        }
    }

    fn entry(
        &mut self,
        start: u64,
        raw: RawHeader,
        pax: Pax,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let bad = |why| TarError::Header { at: start, why };
        let bad_extension = |why| TarError::Extension { at: start, why };
        let path = pax.sparse_name.clone().or(pax.path).or(long_path);
        let path = path.unwrap_or_else(|| raw.path.clone());
        let kind = match raw.flag {
            // Before POSIX a directory was a file whose name ends in a slash.
            0 if path.ends_with(b"/") => Kind::Dir,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            flag => {
                return Err(TarError::Type {
                    entry: crate::text::shown(&path),
                    flag: crate::text::shown([flag]),
                });
            }
        };
        // The other types store no data whatever their size field says (as Go's reader has it).
        let stored = match kind {
            Kind::File => pax.size.unwrap_or(raw.size),
            _ => 0,
        };
        let is_link = matches!(kind, Kind::HardLink | Kind::Symlink);
        let link = pax.link.or(long_link).unwrap_or(raw.link);
        let id = |pax: Option<u64>, raw: i64, why| {
            let wide = pax.map_or(i128::from(raw), i128::from);
            u32::try_from(wide).map_err(|_| bad(why))
        };
        let dev = match kind {
            Kind::Char | Kind::Block => (
                u32::try_from(raw.major).map_err(|_| bad("device number out of range"))?,
                u32::try_from(raw.minor).map_err(|_| bad("device number out of range"))?,
            ),
            _ => (0, 0),
        };
        let mut entry = Entry {
            path,
            link: if is_link { link } else { Vec::new() },
            kind,
            mode: raw.mode & 0o7777,
            uid: id(pax.uid, raw.uid, "owner out of range")?,
            gid: id(pax.gid, raw.gid, "group out of range")?,
            mtime: pax.mtime.unwrap_or((raw.mtime, 0)),
            dev,
            size: stored,
            data_offset: 0,
            sparse: None,
            xattrs: pax.xattrs,
        };
        let (mut map, mut stored) = (None, stored);
        if raw.flag == b'S' {
            let mut more = raw.sparse_more;
            let mut segments = raw.sparse.clone();
            while more {
                let block = self.block()?.ok_or(TarError::Truncated { at: self.at })?;
                more = sparse::extend_gnu(&block, &mut segments).map_err(bad_extension)?;
            }
            map = Some((segments, raw.sparse_size));
        } else if kind == Kind::File && pax.sparse.is_some_and(|v| v >= 1) {
            let size = pax
                .sparse_size
                .ok_or_else(|| bad_extension("no real size"))?;
            self.left = stored;
            let segments = sparse::read_pax_1_0(self).map_err(|e| e.at(start))?;
            stored = self.left;
            map = Some((segments, size));
        } else if kind == Kind::File
            && let Some(segments) = pax.sparse_map
        {
            let size = pax
                .sparse_size
                .ok_or_else(|| bad_extension("no real size"))?;
            map = Some((segments, size));
        }
        if let Some((segments, size)) = map {
            sparse::check(&segments, size, stored).map_err(bad_extension)?;
            entry.size = size;
            entry.sparse = Some(segments);
        }
        entry.data_offset = self.at;
        self.left = stored;
        // `at` is a multiple of the block size whenever a header has been read.
        self.pad = (BLOCK - stored % BLOCK) % BLOCK;
        Ok(entry)
    }

    /// The content of an extension entry.
    fn extension(&mut self, start: u64, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            let why = "longer than 1 MiB";
            return Err(TarError::Extension { at: start, why });
        }
        self.left = size;
        self.pad = (BLOCK - size % BLOCK) % BLOCK;
        let mut bytes = Vec::new();
        let read = self.by_ref().take(MAX_EXTENSION).read_to_end(&mut bytes);
        read.map_err(|cause| self.failed(cause))?;
        Ok(bytes)
    }

    /// One block; `None` where the input ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>, TarError> {
        let mut block = [0; BLOCK as usize];
        let mut have = 0;
        while have < block.len() {
            match self.inner.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => {
                    let at = self.at + have as u64;
                    return Err(TarError::Truncated { at });
                }
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(self.failed(cause)),
            }
        }
        self.at += BLOCK;
        Ok(Some(block))
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.left.saturating_add(self.pad);
        if rest > 0 {
            self.inner.skip(rest).map_err(|cause| self.failed(cause))?;
            self.at = self.at.saturating_add(rest);
            (self.left, self.pad) = (0, 0);
        }
        Ok(())
    }

    /// The error for a failed read of data.
    pub(crate) fn failed(&self, cause: io::Error) -> TarError {
        let at = self.at;
        match cause.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated { at },
            _ => TarError::Read { at, cause },
        }
    }
}

impl<R: Read> Read for TarStream<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        if want == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..want])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        self.at += n as u64;
        Ok(n)
    }
}

/// GNU long names end in a NUL.
fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests;
