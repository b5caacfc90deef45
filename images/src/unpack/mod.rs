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
//! - A layer goes into a directory of its own in overlayfs' form (see [`crate::merged`]); what is below it is only read.
//!   What the layer needs of it is copied as overlayfs does: directories on the way with their attributes, a file that
//!   is linked to. A layer therefore belongs to the layers it was made on.
//! - A whiteout hides what lower layers put there, never what its own layer does, in any order. A character device
//!   0:0 is one too: some tools pack overlayfs' directories as they are.
//! - Missing parents are made with mode 0755, our own user and mtime 0, so that unpacking twice gives
//!   the same root.
//! - Owners must be set: without the right to do so unpacking fails rather than giving another root.
//!   Extended attributes are set where permitted, the rest is counted. Overlayfs' own
//!   (`trusted.overlay.*`, `user.overlay.*`) and the host's SELinux label are never set from an image.
//! - Directories get owner, mode, attributes and mtime in [`Unpacker::finish`]: until then they are
//!   0700, so that a read-only directory can be filled and filling does not change its mtime.

mod copy;
mod dirs;
mod error;
mod make;
mod name;
mod remove;
mod tree;
mod walk;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::AtFlags;

pub use error::UnpackError;

use crate::merged::Stack;
use crate::tarball::{Entry, Kind, Streamed, TarError, TarStream};
use name::{Mark, Name};
use tree::{MAX_DEPTH, Place, Tree};
use walk::Dir;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries applied, whiteouts among them.
    pub entries: u64,
    /// Extended attributes left out for lack of permission or support, or on purpose.
    pub skipped_xattrs: u64,
}

/// Unpacks one layer: [`apply`](Self::apply), then [`finish`](Self::finish).
pub struct Unpacker {
    tree: Tree,
    /// The parent of the last entry: archives list a directory's content in a row.
    last_parent: Option<(Vec<Vec<u8>>, Place)>,
    done: Unpacked,
}

type Stream<'a> = TarStream<Streamed<&'a mut dyn Read>>;

impl Unpacker {
    /// Unpacks into `target`, an existing empty directory, a layer that stands on `lower`.
    ///
    /// # Errors
    /// [`UnpackError::Target`] when it cannot be opened.
    pub fn new(target: &Path, lower: Stack) -> Result<Self, UnpackError> {
        Ok(Self {
            tree: Tree::new(target, lower).map_err(|cause| UnpackError::Target {
                path: target.to_owned(),
                cause,
            })?,
            last_parent: None,
            done: Unpacked::default(),
        })
    }

    /// Applies the layer, an uncompressed tar stream, up to its end marker.
    ///
    /// # Errors
    /// [`UnpackError`]; the target then holds part of the layer.
    pub fn apply(&mut self, layer: &mut dyn Read) -> Result<(), UnpackError> {
        let mut stream = TarStream::new(Streamed(layer));
        while let Some(entry) = stream.next().map_err(UnpackError::Tar)? {
            self.entry(&entry, &mut stream)?;
            self.done.entries += 1;
        }
        Ok(())
    }

    /// Copies all that lower layers have, so that this one stands alone.
    ///
    /// # Errors
    /// [`UnpackError`]; the target then holds part of it.
    pub fn copy_lower(&mut self) -> Result<(), UnpackError> {
        self.done.skipped_xattrs += self.tree.copy_all()?;
        Ok(())
    }

    /// Gives the directories their attributes.
    ///
    /// # Errors
    /// [`UnpackError`] as for entries.
    pub fn finish(mut self) -> Result<Unpacked, UnpackError> {
        self.done.skipped_xattrs += self.tree.finish()?;
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
            self.tree.put_root(entry);
            return Ok(());
        };
        let mark = match name.mark()? {
            Mark::None if entry.kind == Kind::Char && entry.dev == (0, 0) => Mark::Whiteout(base),
            mark => mark,
        };
        match mark {
            Mark::None => self.put(entry, &name, stream),
            Mark::Ignored => Ok(()),
            Mark::Opaque | Mark::Whiteout(_) => {
                let Some(place) = self.parent(&name, false)? else {
                    return Ok(());
                };
                // What was known of the way here may have changed.
                self.last_parent = None;
                let hidden = match mark {
                    Mark::Whiteout(hidden) => self.tree.hide(&place, hidden),
                    _ => self.tree.hide_all(&place),
                };
                hidden.map_err(|e| e.of(&name))
            }
        }
    }

    fn put(
        &mut self,
        entry: &Entry,
        name: &Name<'_>,
        stream: &mut Stream<'_>,
    ) -> Result<(), UnpackError> {
        // Made where missing, it is never `None`.
        let Some(place) = self.parent(name, true)? else {
            return Ok(());
        };
        let base = name.base().unwrap_or_default();
        if place.path.components().count() >= MAX_DEPTH {
            return Err(UnpackError::TooDeep {
                entry: name.shown(),
                limit: MAX_DEPTH,
            });
        }
        let create = |c| name.failed("create", c);
        match entry.kind {
            Kind::Dir => {
                let put = self.tree.put_dir(&place, base, entry);
                put.map_err(create)?;
            }
            Kind::HardLink => self.hard_link(entry, name, &place)?,
            kind => {
                self.clear(&place, name)?;
                let (dir, owner) = (place.upper().map_err(create)?, self.tree.owner);
                self.done.skipped_xattrs += if kind == Kind::File {
                    let file = make::create(dir, base).map_err(create)?;
                    copy(entry, name, stream, &file)?;
                    make::file_attributes(&file, entry, name, owner)?
                } else {
                    make::special(dir, entry, name, owner)?
                };
            }
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        entry: &Entry,
        name: &Name<'_>,
        place: &Place,
    ) -> Result<(), UnpackError> {
        let base = name.base().unwrap_or_default();
        let target = Name::parse_link(&entry.link, name)?;
        let missing = || UnpackError::LinkTarget {
            entry: name.shown(),
            target: target.shown(),
        };
        let target_base = target.base().ok_or_else(missing)?;
        let walked = self.tree.walk(target.parents(), false);
        let target_place = walked.map_err(|e| e.of(&target))?.ok_or_else(missing)?;
        let owned = self.tree.own_file(&target_place, &target)?;
        let (target_place, skipped) = owned.ok_or_else(missing)?;
        self.done.skipped_xattrs += skipped;
        if target_place.path == place.path && target_base == base {
            return Ok(());
        }
        self.clear(place, name)?;
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link links that itself. Attributes are
        // those of the target, which the header only repeats.
        let failed = |c| name.failed("link", c);
        let from = target_place.upper().map_err(failed)?;
        let to = place.upper().map_err(failed)?;
        match rustix::fs::linkat(&from.fd, target_base, &to.fd, base, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // The target lay in what had to make way.
            Err(rustix::io::Errno::NOENT) => Err(missing()),
            Err(e) => Err(failed(e.into())),
        }
    }

    /// Removes what stands where an entry goes.
    fn clear(&mut self, place: &Place, name: &Name<'_>) -> Result<(), UnpackError> {
        let base = name.base().unwrap_or_default();
        let cleared = self.tree.clear(place, base);
        // It may have been on the way to the last parent.
        if cleared.as_ref().is_ok_and(|was_dir| *was_dir) {
            self.last_parent = None;
        }
        cleared.map(drop).map_err(|c| name.failed("replace", c))
    }

    /// The directory an entry goes to. `None` when absent and not to be made.
    fn parent(&mut self, name: &Name<'_>, make: bool) -> Result<Option<Place>, UnpackError> {
        if let Some((parts, place)) = &self.last_parent
            && name.parents().iter().eq(parts.iter())
        {
            return Ok(Some(place.clone()));
        }
        let place = self.tree.walk(name.parents(), make);
        let place = place.map_err(|e| e.of(name))?;
        // One that is only looked at may be of the layers below.
        if make && let Some(place) = &place {
            let parts = name.parents().iter().map(|p| p.to_vec()).collect();
            self.last_parent = Some((parts, place.clone()));
        }
        Ok(place)
    }
}

/// Removes the directory or file `path` and all below it, following no links. `Ok` when absent.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(base)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    match remove::all(&Dir::root(parent)?, base.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
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
