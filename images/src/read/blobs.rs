//! Named byte strings: files of a directory, or members of a tar file found once by their headers.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::ReadError;
use super::compression::{Expand, is_compressed};
use crate::tarball::{Kind, Skip, TarError, TarStream};
use crate::text::shown;

/// Most entries of an image archive; ours have a few per layer.
const MAX_ENTRIES: usize = 200_000;
/// Most links followed from one name to its data.
const MAX_LINKS: usize = 8;

/// Where blobs are.
pub(super) struct Blobs {
    path: PathBuf,
    kind: BlobsKind,
}

enum BlobsKind {
    Dir {
        dir: PathBuf,
    },
    Tar {
        file: File,
        members: HashMap<Vec<u8>, Member>,
    },
}

enum Member {
    Data {
        offset: u64,
        size: u64,
    },
    /// The normal form of another member's name.
    Link(Vec<u8>),
}

/// An open blob.
pub(super) struct Blob<'a> {
    pub(super) reader: Box<dyn Read + 'a>,
    /// Its length in bytes.
    pub(super) size: u64,
}

impl Blobs {
    /// An OCI layout directory; `shown` stands for it in messages. Nothing is read yet.
    pub(super) fn open_dir(dir: &Path, shown: &Path) -> Self {
        Self {
            path: shown.to_owned(),
            kind: BlobsKind::Dir {
                dir: dir.to_owned(),
            },
        }
    }

    /// A tar file, expanded into a nameless file in `spool_dir` when compressed. Reads the headers
    /// only and seeks over the data.
    pub(super) fn open_tar(path: &Path, spool_dir: &Path) -> Result<Self, ReadError> {
        let failed = |cause| ReadError::Open {
            path: path.to_owned(),
            cause,
        };
        let mut file = open_regular(path)
            .map_err(failed)?
            .ok_or_else(|| ReadError::NotAFile {
                path: path.to_owned(),
            })?;
        let mut head = [0; 4];
        let len = file.read_at(&mut head, 0).map_err(failed)?;
        if is_compressed(&head[..len]) {
            file = expand(file, spool_dir).map_err(|cause| ReadError::Expand {
                path: path.to_owned(),
                spool_dir: spool_dir.to_owned(),
                cause,
            })?;
        }
        let members = scan(&file, path)?;
        Ok(Self {
            path: path.to_owned(),
            kind: BlobsKind::Tar { file, members },
        })
    }

    /// The source's file or directory, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the blob `name`. Links are followed inside a tar file; in a directory they are the
    /// user's own.
    pub(super) fn open(&self, name: &str) -> Result<Blob<'_>, ReadError> {
        let missing = || ReadError::Missing {
            path: self.path.clone(),
            name: shown(name),
        };
        let normal = normal_name(b"", name.as_bytes()).ok_or_else(missing)?;
        match &self.kind {
            BlobsKind::Dir { dir } => {
                let failed = |cause| ReadError::Blob {
                    path: self.path.clone(),
                    name: shown(name),
                    cause,
                };
                let file = match open_regular(&dir.join(name)) {
                    Ok(file) => file.ok_or_else(missing)?,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing()),
                    Err(e) => return Err(failed(e)),
                };
                let size = file.metadata().map_err(failed)?.len();
                let reader = Box::new(file);
                Ok(Blob { reader, size })
            }
            BlobsKind::Tar { file, members } => {
                let mut key = &normal;
                for _ in 0..=MAX_LINKS {
                    match members.get(key).ok_or_else(missing)? {
                        Member::Link(target) => key = target,
                        Member::Data { offset, size } => {
                            let (at, left) = (*offset, *size);
                            let reader = Box::new(Slice { file, at, left });
                            return Ok(Blob { reader, size: left });
                        }
                    }
                }
                Err(missing())
            }
        }
    }

    /// All of a blob no longer than `limit` bytes.
    pub(super) fn read_small(&self, name: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        let blob = self.open(name)?;
        let too_long = || ReadError::TooLong {
            path: self.path.clone(),
            name: shown(name),
            limit,
        };
        if blob.size > limit {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        let read = blob.reader.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|cause| ReadError::Blob {
            path: self.path.clone(),
            name: shown(name),
            cause,
        })?;
        if bytes.len() as u64 > limit {
            return Err(too_long());
        }
        Ok(bytes)
    }
}

/// Opens a file; `None` when it is of another kind. `O_NONBLOCK` keeps a FIFO from blocking us.
fn open_regular(path: &Path) -> io::Result<Option<File>> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Distinguishes spool files of one process.
static SPOOLED: AtomicU64 = AtomicU64::new(0);

/// Expands `file` into a file that has no name and so cannot be left behind.
fn expand(file: File, spool_dir: &Path) -> io::Result<File> {
    let number = SPOOLED.fetch_add(1, Ordering::Relaxed);
    let name = format!("spool-{}-{number}", std::process::id());
    let path = spool_dir.join(name);
    let mut spool = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    // Another process that cleans up may have been faster.
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    io::copy(&mut Expand::new(file)?, &mut spool)?;
    Ok(spool)
}

fn scan(file: &File, path: &Path) -> Result<HashMap<Vec<u8>, Member>, ReadError> {
    let failed = |error| ReadError::Tar {
        path: path.to_owned(),
        error,
    };
    let mut reader = BufReader::with_capacity(1024, file);
    reader.rewind().map_err(|cause| ReadError::Open {
        path: path.to_owned(),
        cause,
    })?;
    let mut stream = TarStream::new(Seeker(reader));
    let mut members = HashMap::new();
    while let Some(entry) = stream.next().map_err(failed)? {
        if members.len() == MAX_ENTRIES {
            return Err(ReadError::TooManyEntries {
                path: path.to_owned(),
                limit: MAX_ENTRIES,
            });
        }
        let Some(name) = normal_name(b"", &entry.path) else {
            continue;
        };
        let member = match entry.kind {
            Kind::File if entry.sparse.is_none() => Some(Member::Data {
                offset: entry.data_offset,
                size: entry.size,
            }),
            // Docker before 25 stores a layer that occurs twice as `../<id>/layer.tar`.
            Kind::Symlink => normal_name(&name, &entry.link).map(Member::Link),
            Kind::HardLink => normal_name(b"", &entry.link).map(Member::Link),
            _ => None,
        };
        // As in extraction, the last entry of a name counts.
        if let Some(member) = member {
            members.insert(name, member);
        }
    }
    if !stream.ended() {
        return Err(failed(TarError::Truncated {
            at: stream.offset(),
        }));
    }
    Ok(members)
}

struct Seeker<'a>(BufReader<&'a File>);

impl Read for Seeker<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Skip for Seeker<'_> {
    // Seeking beyond the end succeeds; the missing end marker tells.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        self.0.seek_relative(bytes)
    }
}

/// A range of a file, read without moving its position.
struct Slice<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Slice<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let n = self.file.read_at(&mut buf[..want], self.at)?;
        if n == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// `name`, relative to the directory of `from`, without `.`, `..` and empty parts. `None` when it
/// leaves the archive or names its root.
fn normal_name(from: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = if name.starts_with(b"/") {
        Vec::new()
    } else {
        let mut parts: Vec<_> = from.split(|b| *b == b'/').collect();
        parts.pop();
        parts
    };
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::normal_name;

    #[test]
    fn names_inside_the_archive() {
        let normal = |from: &str, name: &str| {
            normal_name(from.as_bytes(), name.as_bytes()).map(|n| String::from_utf8(n).unwrap())
        };
        assert_eq!(normal("", "./a//b/").as_deref(), Some("a/b"));
        assert_eq!(
            normal("x/layer.tar", "../y/layer.tar").as_deref(),
            Some("y/layer.tar")
        );
        assert_eq!(normal("x/layer.tar", "/y").as_deref(), Some("y"));
        assert_eq!(normal("", "../a"), None);
        assert_eq!(normal("x/l", "../../a"), None);
        assert_eq!(normal("", "."), None);
    }
}
