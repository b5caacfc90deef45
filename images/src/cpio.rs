//! The root of an image as one cpio file, which the guest maps read-only and fills its root from.
//!
//! The format is "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst; magic
//! 070701), readable by `cpio -it` and fit for a Linux initramfs, with more promises of our own:
//!
//! - The data of every regular file of [`PAGE`] bytes or more starts at a multiple of [`PAGE`], so
//!   that it can be mapped instead of copied. The room before it is made by NUL bytes after the
//!   name, counted in `c_namesize`; readers take names as C strings. `c_namesize` never exceeds
//!   4096, which Linux enforces: where the name's room would not do, the record of `.` is
//!   written again before the file with as many NULs as needed.
//! - The root is `.`, other names are relative without `./`. Entries come in depth-first order, the
//!   names of a directory sorted by bytes, so parents come first.
//! - Two archives of equal roots are equal: inode numbers count up from 1, directories have two
//!   links, device numbers of the file system are 0.
//! - The names of one hard-linked file share an inode number and the true `c_nlink`; all but the
//!   last have `c_filesize` 0. Only regular files are linked: other kinds become a file per name.
//! - Files of 4 GiB or more, paths longer than 4093 bytes, and `TRAILER!!!` in the root are errors.
//! - Times are whole seconds, clamped to 0..2^32. Extended attributes have no place in the format.
//! - The file ends with `TRAILER!!!` and zeros up to a multiple of [`PAGE`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Stat};

use crate::merged::{Branch, Stack};
use crate::progress::Progress;
use crate::text::shown;

/// Alignment of file data, in bytes: the page size of the guest.
pub const PAGE: u64 = 4096;

/// Magic and thirteen numbers of eight hex digits.
const HEADER: u64 = 110;
/// Longest `c_namesize` Linux accepts (PATH_MAX).
const MAX_NAMESIZE: u64 = 4096;
/// Longest name in bytes: with its NUL the largest size that leaves aligned data aligned (a header
/// starts at a multiple of 4, so `c_namesize` is 2 more than one).
const MAX_NAME: usize = 4093;
const TRAILER: &[u8] = b"TRAILER!!!";
/// How much is copied between two reports of progress, in bytes.
const CHUNK: u64 = 8 << 20;

/// Why a root could not be archived.
#[derive(Debug, thiserror::Error)]
pub enum CpioError {
    /// A file or directory of the root cannot be read.
    #[error("cannot read {name} in {layer}: {cause}")]
    Read {
        /// Where the layer lies.
        layer: String,
        /// The file, in quotes.
        name: String,
        /// Why.
        cause: io::Error,
    },
    /// The archive cannot be written.
    #[error("cannot write the root archive: {cause}")]
    Write {
        /// Why.
        cause: io::Error,
    },
    /// A file too long for the format's 32-bit size.
    #[error(
        "{name} has {size} bytes, but a root archive holds files below 4 GiB only: mount it as a volume instead"
    )]
    TooLarge {
        /// The file, in quotes.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
    /// A name readers would take for something else.
    #[error("{name} cannot be archived ({why}): rename it in the image")]
    Name {
        /// The file, in quotes.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// A socket or the like.
    #[error("{name} is of a kind that a root archive cannot hold: remove it from the image")]
    Kind {
        /// The file, in quotes.
        name: String,
    },
    /// A file became shorter while it was read.
    #[error("{name} changed while it was archived: nothing else may write below the store")]
    Changed {
        /// The file, in quotes.
        name: String,
    },
}

/// One name of the root.
struct Node {
    /// Relative, `.` for the root.
    name: Vec<u8>,
    stat: Stat,
    /// Names of this file in the archive.
    links: u32,
    /// Whether this is the last of them, which holds the data.
    last: bool,
    ino: u32,
    layer: usize,
}

/// Writes the archive of a root to `out`, an empty file, and gives its length in bytes.
///
/// # Errors
/// [`CpioError`]; `out` then holds part of an archive.
pub fn write_root_archive(
    root: &Stack,
    out: &File,
    progress: &mut dyn Progress,
) -> Result<u64, CpioError> {
    let nodes = gather(root)?;
    let total = nodes.iter().filter(|n| n.last).map(Node::size).sum();
    progress.begin("root archive", Some(total));
    let mut archive = Archive {
        out: BufWriter::with_capacity(256 * 1024, out),
        at: 0,
    };
    for node in &nodes {
        let read = |cause| read_error(root, node.layer, &node.name, cause);
        let path = Path::new(OsStr::from_bytes(&node.name));
        match node.file_type() {
            FileType::RegularFile if node.last && node.size() > 0 => {
                archive.align(node, &nodes[0])?;
                let file = root.open_file(node.layer, path).map_err(read)?;
                archive.data(node, &file, progress)?;
            }
            FileType::Symlink => {
                let target = root.read_link(node.layer, path).map_err(read)?;
                let size = u32::try_from(target.len()).unwrap_or(u32::MAX);
                archive.record(node, size, node.name.len() as u64 + 1)?;
                archive.put(&target)?;
                archive.pad(4)?;
            }
            _ => archive.record(node, 0, node.name.len() as u64 + 1)?,
        }
    }
    let length = archive.close()?;
    progress.end();
    Ok(length)
}

fn read_error(root: &Stack, layer: usize, name: &[u8], cause: io::Error) -> CpioError {
    CpioError::Read {
        layer: root.layer_path(layer).display().to_string(),
        name: shown(name),
        cause,
    }
}

impl Node {
    fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Bytes of data, for regular files.
    fn size(&self) -> u64 {
        match self.file_type() {
            FileType::RegularFile => self.stat.st_size.cast_unsigned(),
            _ => 0,
        }
    }
}

/// All names in archive order, numbered and their links counted.
fn gather(root: &Stack) -> Result<Vec<Node>, CpioError> {
    let mut nodes = Vec::new();
    let top = root.root_node().map_err(|c| read_error(root, 0, b".", c))?;
    if let Some((stat, dir)) = top.and_then(|node| node.dir.map(|dir| (node.stat, dir))) {
        nodes.push(Node {
            name: b".".to_vec(),
            stat,
            links: 2,
            last: true,
            ino: 1,
            layer: 0,
        });
        gather_below(root, &dir, 0, &mut nodes)?;
    }

    // Device and inode number of a linked file -> where its names stand.
    let mut linked: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
    for (i, node) in nodes.iter_mut().enumerate() {
        node.ino = u32::try_from(i + 1).unwrap_or(u32::MAX);
        if node.file_type() == FileType::RegularFile && node.stat.st_nlink > 1 {
            let key = (node.stat.st_dev, node.stat.st_ino);
            linked.entry(key).or_default().push(i);
        }
    }
    for names in linked.values() {
        let (ino, links) = (
            nodes[names[0]].ino,
            u32::try_from(names.len()).unwrap_or(u32::MAX),
        );
        for (i, at) in names.iter().enumerate() {
            nodes[*at].ino = ino;
            nodes[*at].links = links;
            nodes[*at].last = i + 1 == names.len();
        }
    }
    Ok(nodes)
}

fn gather_below(
    root: &Stack,
    dir: &Branch,
    layer: usize,
    nodes: &mut Vec<Node>,
) -> Result<(), CpioError> {
    let entries = root.entries(dir);
    let shown_dir = dir.path.as_os_str().as_bytes();
    let entries = entries.map_err(|c| read_error(root, layer, shown_dir, c))?;
    for (base, found) in entries {
        let (stat, layer) = (found.stat, found.layer);
        let name = dir.path.join(OsStr::from_bytes(&base)).into_os_string();
        let name = name.as_bytes();
        let bad = |why| CpioError::Name {
            name: shown(name),
            why,
        };
        if name == TRAILER {
            return Err(bad("the name marks the end of an archive"));
        }
        if name.len() > MAX_NAME {
            return Err(bad("the path is longer than 4093 bytes"));
        }
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if matches!(file_type, FileType::Socket | FileType::Unknown) {
            return Err(CpioError::Kind { name: shown(name) });
        }
        let is_dir = file_type == FileType::Directory;
        let node = Node {
            name: name.to_vec(),
            stat,
            links: if is_dir { 2 } else { 1 },
            last: true,
            ino: 0,
            layer,
        };
        if node.size() > u32::MAX.into() {
            return Err(CpioError::TooLarge {
                name: shown(name),
                size: node.size(),
            });
        }
        nodes.push(node);
        if let Some(child) = &found.dir {
            gather_below(root, child, layer, nodes)?;
        }
    }
    Ok(())
}

/// The archive as written so far.
struct Archive<'a> {
    out: BufWriter<&'a File>,
    at: u64,
}

impl Archive<'_> {
    /// Header and name, with NULs up to `name_size` bytes, then to a multiple of 4.
    fn record(&mut self, node: &Node, file_size: u32, name_size: u64) -> Result<(), CpioError> {
        let stat = &node.stat;
        let (major, minor) = match node.file_type() {
            FileType::CharacterDevice | FileType::BlockDevice => (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ),
            _ => (0, 0),
        };
        let mtime = u32::try_from(stat.st_mtime.max(0)).unwrap_or(u32::MAX);
        let fields = [
            node.ino,
            stat.st_mode,
            stat.st_uid,
            stat.st_gid,
            node.links,
            mtime,
            file_size,
            0,
            0,
            major,
            minor,
        ];
        self.header(fields, &node.name, name_size)
    }

    fn header(&mut self, fields: [u32; 11], name: &[u8], name_size: u64) -> Result<(), CpioError> {
        let mut text = String::from("070701");
        for field in fields {
            text.push_str(&format!("{field:08x}"));
        }
        // The checksum is of the "crc" variant and zero here.
        text.push_str(&format!("{name_size:08x}{:08x}", 0));
        self.put(text.as_bytes())?;
        self.put(name)?;
        self.zeros(name_size - name.len() as u64)?;
        self.pad(4)
    }

    /// Makes the data of `node` start at a page boundary when it fills a page or more: writes the
    /// record of `root` once more where the name of `node` alone cannot.
    fn align(&mut self, node: &Node, root: &Node) -> Result<(), CpioError> {
        if node.size() < PAGE {
            return Ok(());
        }
        let shortest = HEADER + node.name.len() as u64 + 1;
        if self.name_size(node) <= MAX_NAMESIZE {
            return Ok(());
        }
        let least = self.at + HEADER + 2 + shortest.next_multiple_of(4);
        let filler_end = least.next_multiple_of(PAGE) - shortest.next_multiple_of(4);
        self.record(root, 0, filler_end - self.at - HEADER)
    }

    /// The `c_namesize` with which the data of `node` starts where it shall.
    fn name_size(&self, node: &Node) -> u64 {
        let shortest = node.name.len() as u64 + 1;
        if node.size() < PAGE {
            return shortest;
        }
        (self.at + HEADER + shortest).next_multiple_of(PAGE) - self.at - HEADER
    }

    /// A regular file with its data.
    fn data(
        &mut self,
        node: &Node,
        file: &File,
        progress: &mut dyn Progress,
    ) -> Result<(), CpioError> {
        let size = u32::try_from(node.size()).map_err(|_| CpioError::TooLarge {
            name: shown(&node.name),
            size: node.size(),
        })?;
        self.record(node, size, self.name_size(node))?;
        let mut left = u64::from(size);
        if left >= PAGE {
            // Past the buffer, the kernel copies from file to file.
            self.out.flush().map_err(failed)?;
        }
        while left > 0 {
            let mut chunk = file.take(left.min(CHUNK));
            let copied = if u64::from(size) >= PAGE {
                io::copy(&mut chunk, self.out.get_mut())
            } else {
                io::copy(&mut chunk, &mut self.out)
            };
            let copied = copied.map_err(failed)?;
            if copied == 0 {
                return Err(CpioError::Changed {
                    name: shown(&node.name),
                });
            }
            left -= copied;
            self.at += copied;
            progress.advance(copied);
        }
        self.pad(4)
    }

    fn close(mut self) -> Result<u64, CpioError> {
        let fields = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        self.header(fields, TRAILER, TRAILER.len() as u64 + 1)?;
        self.pad(PAGE)?;
        self.out.flush().map_err(failed)?;
        Ok(self.at)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), CpioError> {
        self.out.write_all(bytes).map_err(failed)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, count: u64) -> Result<(), CpioError> {
        let copied = io::copy(&mut io::repeat(0).take(count), &mut self.out);
        self.at += copied.map_err(failed)?;
        Ok(())
    }

    fn pad(&mut self, to: u64) -> Result<(), CpioError> {
        self.zeros(self.at.next_multiple_of(to) - self.at)
    }
}

fn failed(cause: io::Error) -> CpioError {
    CpioError::Write { cause }
}

#[cfg(test)]
mod tests;
