//! Applying layers onto a directory, as Linux container tools do (OCI image-spec, layer.md).
//!
//! The rules, where the specification leaves a choice:
//!
//! - **Nothing leaves the target.** Names are cleaned first: a leading slash counts from the root of
//!   the image, `..` may go up inside it, and an entry that would leave it is an error. Then every
//!   component is opened by itself with `O_NOFOLLOW` below a directory handle; symbolic links in
//!   the way are read and resolved inside the root. No system call ever gets a path of two parts, so
//!   neither an archive nor a race can lead outside. Nothing existing is written through: what is
//!   in the way is unlinked and made anew.
//! - A directory merges with a directory; everything else replaces what has its name, also a
//!   directory a symbolic link.
//! - A whiteout hides what lower layers put there, never what its own layer does, in any order.
//! - Missing parents are made with mode 0755, our own user and mtime 0, so that unpacking twice gives
//!   the same root.
//! - Owners must be set: without the right to do so unpacking fails rather than giving another root.
//!   Extended attributes are set where permitted, the rest is counted. Overlayfs' own
//!   (`trusted.overlay.*`, `user.overlay.*`) and the host's SELinux label are never set from an image.
//! - Directories get owner, mode, attributes and mtime in [`Unpacker::finish`]: until then they are
//!   0700, so that a read-only directory can be filled and filling does not change its mtime.

mod dirs;
mod error;
mod make;
mod name;
mod remove;
pub(crate) mod walk;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, statat};

pub use error::UnpackError;

use crate::tarball::{Entry, Kind, Streamed, TarError, TarStream};
use dirs::Dirs;
use name::{Mark, Name};
use walk::{Dir, Root};

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries applied, whiteouts among them.
    pub entries: u64,
    /// Extended attributes left out for lack of permission or support, or on purpose.
    pub skipped_xattrs: u64,
}

/// Applies layers, lowest first, then [`finish`](Self::finish).
pub struct Unpacker {
    root: Root,
    dirs: Dirs,
    owner: make::Owner,
    /// Paths the current layer made, with their parents: out of reach of its whiteouts.
    touched: BTreeSet<PathBuf>,
    /// The parent of the last entry: archives list a directory's content in a row.
    last_parent: Option<(Vec<Vec<u8>>, Dir)>,
    done: Unpacked,
}

type Stream<'a> = TarStream<Streamed<&'a mut dyn Read>>;

impl Unpacker {
    /// Unpacks below `target`, an existing directory, which becomes the root of the image.
    ///
    /// # Errors
    /// [`UnpackError::Target`] when it cannot be opened.
    pub fn new(target: &Path) -> Result<Self, UnpackError> {
        let owner = make::Owner::of_process();
        let mut dirs = Dirs::default();
        dirs.made(Path::new(""), owner);
        Ok(Self {
            root: Root::open(target).map_err(|cause| UnpackError::Target {
                path: target.to_owned(),
                cause,
            })?,
            dirs,
            owner,
            touched: BTreeSet::new(),
            last_parent: None,
            done: Unpacked::default(),
        })
    }

    /// Applies one layer, an uncompressed tar stream, up to its end marker.
    ///
    /// # Errors
    /// [`UnpackError`]; the target then holds part of the layer.
    pub fn apply(&mut self, layer: &mut dyn Read) -> Result<(), UnpackError> {
        self.touched.clear();
        self.last_parent = None;
        let mut stream = TarStream::new(Streamed(layer));
        while let Some(entry) = stream.next().map_err(UnpackError::Tar)? {
            self.entry(&entry, &mut stream)?;
            self.done.entries += 1;
        }
        Ok(())
    }

    /// Gives the directories their attributes.
    ///
    /// # Errors
    /// [`UnpackError`] as for entries.
    pub fn finish(mut self) -> Result<Unpacked, UnpackError> {
        self.done.skipped_xattrs += self.dirs.finish(&self.root, self.owner)?;
        Ok(self.done)
    }

    fn entry(&mut self, entry: &Entry, stream: &mut Stream<'_>) -> Result<(), UnpackError> {
        let name = Name::parse(&entry.path)?;
        let Some(base) = name.base() else {
            if entry.kind != Kind::Dir {
                return Err(UnpackError::Root {
                    entry: name.shown(),
                });
            }
            self.dirs.listed(Path::new(""), entry);
            return Ok(());
        };
        match name.mark()? {
            Mark::None => {}
            Mark::Ignored => return Ok(()),
            Mark::Opaque => {
                if let Some(dir) = self.parent(&name, false)? {
                    self.prune_children(&dir)
                        .map_err(|c| name.failed("empty", c))?;
                }
                return Ok(());
            }
            Mark::Whiteout(hidden) => {
                if let Some(dir) = self.parent(&name, false)? {
                    let pruned = self.prune(&dir, hidden);
                    pruned.map_err(|c| name.failed("remove what is hidden by", c))?;
                }
                return Ok(());
            }
        }
        // Made missing, `parent` is never `None`.
        let Some(parent) = self.parent(&name, true)? else {
            return Ok(());
        };
        let path = parent.child(base);
        if name.depth_below(&parent) > walk::MAX_DEPTH {
            return Err(UnpackError::TooDeep {
                entry: name.shown(),
                limit: walk::MAX_DEPTH,
            });
        }
        if entry.kind == Kind::HardLink {
            self.hard_link(entry, &name, &parent, &path)?;
        } else {
            self.make(entry, &name, &parent, &path, stream)?;
        }
        self.touch(&path);
        Ok(())
    }

    fn make(
        &mut self,
        entry: &Entry,
        name: &Name<'_>,
        parent: &Dir,
        path: &Path,
        stream: &mut Stream<'_>,
    ) -> Result<(), UnpackError> {
        let base = name.base().unwrap_or_default();
        let there = file_type(parent, base).map_err(|c| name.failed("look up", c))?;
        if entry.kind == Kind::Dir {
            if there != Some(FileType::Directory) {
                self.clear_way(there, name, parent, path)?;
                parent
                    .make_dir(base)
                    .map_err(|c| name.failed("create", c))?;
            }
            self.dirs.listed(path, entry);
            return Ok(());
        }
        self.clear_way(there, name, parent, path)?;
        self.done.skipped_xattrs += match entry.kind {
            Kind::File => {
                let file = make::create(parent, base).map_err(|c| name.failed("create", c))?;
                copy(entry, name, stream, &file)?;
                make::file_attributes(&file, entry, name, self.owner)?
            }
            Kind::Symlink => make::symlink(parent, entry, name, self.owner)?,
            _ => make::node(parent, entry, name, self.owner)?,
        };
        Ok(())
    }

    fn hard_link(
        &mut self,
        entry: &Entry,
        name: &Name<'_>,
        parent: &Dir,
        path: &Path,
    ) -> Result<(), UnpackError> {
        let base = name.base().unwrap_or_default();
        let target = Name::parse_link(&entry.link, name)?;
        let missing = || UnpackError::LinkTarget {
            entry: name.shown(),
            target: target.shown(),
        };
        let target_base = target.base().ok_or_else(missing)?;
        let walked = self.root.walk(target.parents(), None);
        let target_dir = walked.map_err(|e| e.of(&target))?.ok_or_else(missing)?;
        match file_type(&target_dir, target_base).map_err(|c| name.failed("look up", c))? {
            None | Some(FileType::Directory) => return Err(missing()),
            Some(_) => {}
        }
        if target_dir.child(target_base) == path {
            return Ok(());
        }
        let there = file_type(parent, base).map_err(|c| name.failed("look up", c))?;
        self.clear_way(there, name, parent, path)?;
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link links that itself. Attributes are
        // those of the target, which the header only repeats.
        let (from, to) = (&target_dir.fd, &parent.fd);
        match rustix::fs::linkat(from, target_base, to, base, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // The target lay in what had to make way.
            Err(rustix::io::Errno::NOENT) => Err(missing()),
            Err(e) => Err(name.failed("link", e.into())),
        }
    }

    /// Removes what stands where an entry goes.
    fn clear_way(
        &mut self,
        there: Option<FileType>,
        name: &Name<'_>,
        parent: &Dir,
        path: &Path,
    ) -> Result<(), UnpackError> {
        if there.is_none() {
            return Ok(());
        }
        let base = name.base().unwrap_or_default();
        remove::all(parent, base).map_err(|c| name.failed("replace", c))?;
        self.forget(path);
        Ok(())
    }

    /// The directory an entry goes to. `None` when absent and not to be made.
    fn parent(&mut self, name: &Name<'_>, make: bool) -> Result<Option<Dir>, UnpackError> {
        if let Some((parts, dir)) = &self.last_parent
            && name.parents().iter().eq(parts.iter())
        {
            return Ok(Some(dir.clone()));
        }
        let owner = self.owner;
        let dirs = &mut self.dirs;
        let mut made = |path: &Path| dirs.made(path, owner);
        let on_made: Option<&mut dyn FnMut(&Path)> = if make { Some(&mut made) } else { None };
        let dir = self
            .root
            .walk(name.parents(), on_made)
            .map_err(|e| e.of(name))?;
        if let Some(dir) = &dir {
            let parts = name.parents().iter().map(|p| p.to_vec()).collect();
            self.last_parent = Some((parts, dir.clone()));
        }
        Ok(dir)
    }

    /// `path` and its parents belong to this layer now.
    fn touch(&mut self, path: &Path) {
        for ancestor in path.ancestors() {
            if !self.touched.insert(ancestor.to_owned()) {
                break;
            }
        }
    }

    /// `path` and what was below it are gone.
    fn forget(&mut self, path: &Path) {
        self.dirs.removed(path);
        self.last_parent = None;
        for gone in below(self.touched.range(path.to_owned()..), path) {
            self.touched.remove(&gone);
        }
    }

    /// Removes `base` in `dir` as far as lower layers made it.
    fn prune(&mut self, dir: &Dir, base: &[u8]) -> io::Result<()> {
        let path = dir.child(base);
        if !self.touched.contains(&path) {
            if file_type(dir, base)?.is_some() {
                remove::all(dir, base)?;
                self.forget(&path);
            }
            return Ok(());
        }
        match dir.open_child(base)? {
            Some(child) => self.prune_children(&child),
            None => Ok(()),
        }
    }

    fn prune_children(&mut self, dir: &Dir) -> io::Result<()> {
        for base in dir.names()? {
            self.prune(dir, &base)?;
        }
        Ok(())
    }
}

/// The leading paths of a sorted sequence that are `path` or below it: paths order by components, so
/// these stand together.
fn below<'a>(sorted: impl Iterator<Item = &'a PathBuf>, path: &Path) -> Vec<PathBuf> {
    sorted
        .take_while(|p| p.starts_with(path))
        .cloned()
        .collect()
}

/// Removes the directory or file `path` and all below it, following no links. `Ok` when absent.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(base)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    match remove::all(&Root::open(parent)?.dir(), base.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What `base` is, itself and not what it may point to.
fn file_type(dir: &Dir, base: &[u8]) -> io::Result<Option<FileType>> {
    match statat(&dir.fd, base, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The entry's data into `file`, holes left as holes.
fn copy(
    entry: &Entry,
    name: &Name<'_>,
    stream: &mut Stream<'_>,
    file: &File,
) -> Result<(), UnpackError> {
    let Some(segments) = &entry.sparse else {
        return copy_range(entry.size, name, stream, file);
    };
    use std::io::Seek;
    let write = |c| name.failed("write", c);
    file.set_len(entry.size).map_err(write)?;
    let mut seeker = file;
    for segment in segments {
        seeker
            .seek(io::SeekFrom::Start(segment.offset))
            .map_err(write)?;
        copy_range(segment.len, name, stream, file)?;
    }
    Ok(())
}

fn copy_range(
    mut left: u64,
    name: &Name<'_>,
    stream: &mut Stream<'_>,
    mut file: &File,
) -> Result<(), UnpackError> {
    use std::io::Write;
    let mut buf = vec![0; usize::try_from(left.min(256 * 1024)).unwrap_or(256 * 1024)];
    while left > 0 {
        let want = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let n = match stream.read(&mut buf[..want]) {
            Ok(0) => {
                return Err(UnpackError::Tar(TarError::Truncated {
                    at: stream.offset(),
                }));
            }
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(UnpackError::Tar(stream.failed(e))),
        };
        file.write_all(&buf[..n])
            .map_err(|c| name.failed("write", c))?;
        left -= n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
