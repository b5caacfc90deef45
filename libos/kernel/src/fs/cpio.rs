//! The container's root from a cpio archive (newc; `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Only headers and names are read; a file's bytes stay where they are until somebody reads or maps them
//! (`tmpfs::data`). The archive is untrusted as far as its form goes: whatever is wrong ends the filling with
//! an error that says where.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::boot::GuestRange;
use husk_abi::linux::general;
use husk_hal::phys;

use super::tmpfs::{Node, Tmpfs};
use super::{Create, FileKind, Inode, SetAttributes};
use crate::Errno;

const HEADER: u64 = 110;
const TRAILER: &[u8] = b"TRAILER!!!";

/// What is wrong with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpioError {
    /// It ends in the middle of an entry, or without a trailer.
    Truncated,
    /// An entry does not start with `070701`, or a field is not hexadecimal.
    BadHeader,
    /// A name is empty, too long, has a NUL in it, or a `..` component.
    BadName,
    /// A file type cpio does not have.
    BadType,
    /// An entry lies below something that is not a directory, or replaces a directory that is not empty.
    Conflict,
    /// No room.
    File(Errno),
}

/// Where an archive is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpioErrorAt {
    /// Byte offset of the entry.
    pub offset: u64,
    /// What is wrong.
    pub error: CpioError,
}

impl core::fmt::Display for CpioErrorAt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let what = match self.error {
            CpioError::Truncated => "it ends too early",
            CpioError::BadHeader => "not a newc header",
            CpioError::BadName => "a bad name",
            CpioError::BadType => "an unknown file type",
            CpioError::Conflict => "a name below or over something that is in the way",
            CpioError::File(errno) => {
                return write!(f, "root archive, byte {}: {errno}", self.offset);
            }
        };
        write!(f, "root archive, byte {}: {what}", self.offset)
    }
}

/// One entry's header.
#[derive(Clone, Copy, Debug)]
struct Header {
    ino: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    mtime: u32,
    size: u32,
    device: (u32, u32),
    rdev: (u32, u32),
    name_size: u32,
}

fn hex(field: &[u8]) -> Option<u32> {
    field.iter().try_fold(0u32, |value, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some(value << 4 | digit)
    })
}

impl Header {
    fn parse(bytes: &[u8; HEADER as usize]) -> Option<Self> {
        let (magic, fields) = bytes.split_first_chunk::<6>()?;
        if magic != b"070701" {
            return None;
        }
        let mut values = [0; 13];
        for (value, field) in values.iter_mut().zip(fields.chunks_exact(8)) {
            *value = hex(field)?;
        }
        let [
            ino,
            mode,
            uid,
            gid,
            nlink,
            mtime,
            size,
            dev_major,
            dev_minor,
            rdev_major,
            rdev_minor,
            name_size,
            _check,
        ] = values;
        Some(Self {
            ino,
            mode,
            uid,
            gid,
            nlink,
            mtime,
            size,
            device: (dev_major, dev_minor),
            rdev: (rdev_major, rdev_minor),
            name_size,
        })
    }

    fn kind(&self) -> Option<FileKind> {
        FileKind::from_mode(self.mode)
    }
}

/// An archive being read.
struct Reader {
    range: GuestRange,
    at: u64,
}

impl Reader {
    /// `len` bytes at the current offset plus `skip`.
    fn read(&self, skip: u64, bytes: &mut [u8]) -> Result<(), CpioError> {
        let start = self.at.checked_add(skip).ok_or(CpioError::Truncated)?;
        let end = start
            .checked_add(bytes.len() as u64)
            .ok_or(CpioError::Truncated)?;
        if end > self.range.len {
            return Err(CpioError::Truncated);
        }
        phys::read_gpa(self.range.gpa + start, bytes);
        Ok(())
    }
}

/// The tree being filled, with what speeds it up and what hard links need.
struct Filler<'a> {
    fs: &'a Tmpfs,
    /// The directory the last entry was in: the next is likely in the same.
    last: (Vec<u8>, Arc<Node>),
    /// Files that have more than one name, by device and number.
    linked: BTreeMap<((u32, u32), u32), Arc<Node>>,
    /// Directories and what the archive says of them: filling them changed their times.
    directories: Vec<(Arc<Node>, SetAttributes)>,
}

/// Fills `fs` from the archive at `range`; returns the number of entries.
///
/// # Errors
/// The first thing that is wrong; what came before it is in place.
pub fn fill(fs: &Tmpfs, range: GuestRange) -> Result<usize, CpioErrorAt> {
    let mut reader = Reader { range, at: 0 };
    let mut filler = Filler {
        fs,
        last: (Vec::new(), fs.root_node().clone()),
        linked: BTreeMap::new(),
        directories: Vec::new(),
    };
    let mut count = 0;
    loop {
        match filler.entry(&mut reader) {
            Ok(true) => count += 1,
            Ok(false) => {
                for (directory, attributes) in filler.directories {
                    let _ = directory.set_attributes(&attributes);
                }
                return Ok(count);
            }
            Err(error) => {
                return Err(CpioErrorAt {
                    offset: reader.at,
                    error,
                });
            }
        }
    }
}

impl Filler<'_> {
    /// Adds the entry at the reader's offset; false if it was the trailer.
    fn entry(&mut self, reader: &mut Reader) -> Result<bool, CpioError> {
        let mut bytes = [0; HEADER as usize];
        reader.read(0, &mut bytes)?;
        let header = Header::parse(&bytes).ok_or(CpioError::BadHeader)?;
        // The name may be padded with NULs, so that the data comes to lie where it should: up to a page more
        // than a path can have.
        let name_size = header.name_size as usize;
        if name_size == 0 || name_size > general::PATH_MAX as usize + 4096 {
            return Err(CpioError::BadName);
        }
        let mut name_bytes = [0u8; 8192];
        let name_bytes = &mut name_bytes[..name_size];
        reader.read(HEADER, name_bytes)?;
        let end = name_bytes
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(CpioError::BadName)?;
        let (name, padding) = name_bytes.split_at(end);
        if padding.iter().any(|byte| *byte != 0) || end >= general::PATH_MAX as usize {
            return Err(CpioError::BadName);
        }
        let data_at = (reader.at + HEADER + name_size as u64).next_multiple_of(4);
        let data_end = data_at + u64::from(header.size);
        if name == TRAILER {
            return Ok(false);
        }
        if data_end > reader.range.len {
            return Err(CpioError::Truncated);
        }
        let data = GuestRange {
            gpa: reader.range.gpa + data_at,
            len: u64::from(header.size),
        };
        self.add(name, &header, data)?;
        reader.at = data_end.next_multiple_of(4);
        Ok(true)
    }

    fn add(&mut self, path: &[u8], header: &Header, data: GuestRange) -> Result<(), CpioError> {
        let kind = header.kind().ok_or(CpioError::BadType)?;
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        if name.is_empty() && !path.iter().all(|byte| *byte == b'/') {
            // `dir/`: the slash only repeats that it is a directory.
            return self.add(directory, header, data);
        }
        let time_ns = i64::from(header.mtime) * 1_000_000_000;
        let attributes = SetAttributes {
            mode: Some(header.mode & 0o7777),
            uid: Some(header.uid),
            gid: Some(header.gid),
            atime_ns: Some(time_ns),
            mtime_ns: Some(time_ns),
            ctime_ns: Some(time_ns),
            ..SetAttributes::default()
        };
        let parent = self.directory(directory)?;
        if matches!(name, b"" | b".") {
            if kind != FileKind::Directory {
                return Err(CpioError::Conflict);
            }
            self.directories.push((parent.clone(), attributes));
            return parent.set_attributes(&attributes).map_err(CpioError::File);
        }
        if name == b".." || name.len() > general::NAME_MAX as usize {
            return Err(CpioError::BadName);
        }
        let is_linked = header.nlink > 1 && kind != FileKind::Directory;
        let key = (header.device, header.ino);
        if let Some(existing) = parent.get_child(name) {
            if kind == FileKind::Directory && existing.file_kind() == FileKind::Directory {
                self.directories.push((existing.clone(), attributes));
                return existing
                    .set_attributes(&attributes)
                    .map_err(CpioError::File);
            }
            if is_linked
                && data.len == 0
                && self
                    .linked
                    .get(&key)
                    .is_some_and(|node| Arc::ptr_eq(node, &existing))
            {
                return Ok(());
            }
            parent
                .unlink(name)
                .or_else(|_| parent.rmdir(name))
                .map_err(|_| CpioError::Conflict)?;
            self.last = (Vec::new(), self.fs.root_node().clone());
        }
        if is_linked && let Some(node) = self.linked.get(&key) {
            // The last of the names brings the data.
            if data.len > 0 {
                node.set_archived(data);
            }
            let inode: Arc<dyn Inode> = node.clone();
            return parent.link(name, &inode).map_err(CpioError::File);
        }
        let mut target = Vec::new();
        if kind == FileKind::Symlink {
            if data.len == 0 || data.len >= u64::from(general::PATH_MAX) {
                return Err(CpioError::BadName);
            }
            target.resize(data.len as usize, 0);
            phys::read_gpa(data.gpa, &mut target);
        }
        let what = Create {
            kind,
            mode: header.mode & 0o7777,
            uid: header.uid,
            gid: header.gid,
            rdev: super::devfs::makedev(u64::from(header.rdev.0), u64::from(header.rdev.1)),
            target: &target,
        };
        let archive = (kind == FileKind::Regular).then_some(data);
        let node = parent
            .add_archived(name, &what, archive, time_ns)
            .map_err(CpioError::File)?;
        if kind == FileKind::Directory {
            self.directories.push((node, attributes));
        } else if is_linked {
            self.linked.insert(key, node);
        }
        Ok(())
    }

    /// The directory `path`; directories the archive did not mention are made, as root's.
    fn directory(&mut self, path: &[u8]) -> Result<Arc<Node>, CpioError> {
        if self.last.0 == path {
            return Ok(self.last.1.clone());
        }
        let mut at = self.fs.root_node().clone();
        for name in path.split(|byte| *byte == b'/') {
            if matches!(name, b"" | b".") {
                continue;
            }
            if name == b".." || name.len() > general::NAME_MAX as usize {
                return Err(CpioError::BadName);
            }
            let next = match at.get_child(name) {
                Some(next) => next,
                None => {
                    let what = Create {
                        kind: FileKind::Directory,
                        mode: 0o755,
                        uid: 0,
                        gid: 0,
                        rdev: 0,
                        target: &[],
                    };
                    at.add_archived(name, &what, None, 0)
                        .map_err(CpioError::File)?
                }
            };
            if next.file_kind() != FileKind::Directory {
                return Err(CpioError::Conflict);
            }
            at = next;
        }
        self.last = (path.to_vec(), at.clone());
        Ok(at)
    }
}
