//! The layer that is being made, on top of those below it: one root to walk, one directory to write to.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, Stat, makedev, mknodat, readlinkat, statat, unlinkat};
use rustix::io::Errno;

use super::UnpackError;
use super::dirs::Dirs;
use super::make::{self, Owner};
use super::name::Name;
use super::remove;
use super::walk::Dir;
use crate::merged::{Branch, MAX_LINKS, Node, Stack, is_whiteout};
use crate::tarball::{Entry, Kind};
use crate::text::shown;

/// Deepest nesting of directories accepted: trees are removed and archived recursively, one handle
/// per level. Package trees reach some forty.
pub(super) const MAX_DEPTH: usize = 256;

/// A directory of the root.
#[derive(Clone)]
pub(super) struct Place {
    /// From the root, free of symbolic links.
    pub(super) path: PathBuf,
    /// Where this layer has it, if it has.
    upper: Option<Dir>,
    /// What shows through of the layers below.
    lower: Option<Branch>,
}

/// A name in a [`Place`].
enum Child {
    Absent,
    Dir(Place),
    /// A symbolic link and its target.
    Link(Vec<u8>),
    Other,
}

/// What is in a directory.
pub(super) type Entries = std::collections::BTreeMap<Vec<u8>, Node>;

/// Why a walk stopped.
pub(super) enum WalkError {
    NotADirectory(Vec<u8>),
    TooManyLinks,
    TooDeep,
    Io(io::Error),
}

impl WalkError {
    pub(super) fn of(self, name: &Name<'_>) -> UnpackError {
        let entry = name.shown();
        match self {
            Self::NotADirectory(part) => UnpackError::NotADirectory {
                entry,
                obstacle: shown(part),
            },
            Self::TooManyLinks => UnpackError::TooManyLinks {
                entry,
                limit: MAX_LINKS,
            },
            Self::TooDeep => UnpackError::TooDeep {
                entry,
                limit: MAX_DEPTH,
            },
            Self::Io(cause) => name.failed("reach", cause),
        }
    }
}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for WalkError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// The layer and what is below it.
pub(super) struct Tree {
    upper: Dir,
    lower: Stack,
    dirs: Dirs,
    /// Who owns what this process makes.
    pub(super) owner: Owner,
}

impl Tree {
    /// A layer in the empty directory `target` on top of `lower`.
    pub(super) fn new(target: &Path, lower: Stack) -> io::Result<Self> {
        let mut tree = Self {
            upper: Dir::root(target)?,
            lower,
            dirs: Dirs::default(),
            owner: Owner::of_process(),
        };
        match tree.lower.root_node()? {
            Some(root) => tree.copy_dir(Path::new(""), &root)?,
            None => tree.dirs.made(Path::new(""), tree.owner),
        }
        Ok(tree)
    }

    /// Gives the directories their attributes. Gives the number of extended attributes left out.
    pub(super) fn finish(self) -> Result<u64, UnpackError> {
        self.dirs.finish(&self.upper, self.owner)
    }

    /// The directory `parts` lead to, symbolic links resolved inside the root. With `make` missing ones are created,
    /// and this layer has all on the way; without it missing ones give `None`.
    pub(super) fn walk(&mut self, parts: &[&[u8]], make: bool) -> Result<Option<Place>, WalkError> {
        let mut here = self.root();
        let mut todo: Vec<Vec<u8>> = parts.iter().rev().map(|p| p.to_vec()).collect();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                // Only links bring these; the parent of the root is the root.
                let parent = here.path.parent().unwrap_or(Path::new("")).to_owned();
                here = self.reach(&parent, make)?;
                continue;
            }
            let next = match self.child(&here, &part)? {
                Child::Dir(place) if place.upper.is_some() || !make => place,
                Child::Dir(_) => self.raise_child(&here, &part)?,
                Child::Absent if !make => return Ok(None),
                Child::Absent => {
                    let upper = self.make_dir(&here, &part)?;
                    self.entered(&here, &part, upper)?
                }
                Child::Other => return Err(WalkError::NotADirectory(part)),
                Child::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(WalkError::TooManyLinks);
                    }
                    if target.starts_with(b"/") {
                        here = self.root();
                    }
                    let steps = target.split(|b| *b == b'/').rev();
                    let steps = steps.filter(|s| !s.is_empty() && *s != b".");
                    todo.extend(steps.map(<[u8]>::to_vec));
                    continue;
                }
            };
            if next.path.components().count() > MAX_DEPTH {
                return Err(WalkError::TooDeep);
            }
            here = next;
        }
        Ok(Some(here))
    }

    /// The same directory, with this layer having it and all on the way.
    pub(super) fn raise(&mut self, place: &Place) -> Result<Place, WalkError> {
        self.reach(&place.path.clone(), true)
    }

    /// Hides what the layers below have as `base`, never what this one has.
    pub(super) fn hide(&mut self, place: &Place, base: &[u8]) -> Result<(), WalkError> {
        let Some(lower) = &place.lower else {
            return Ok(());
        };
        if self.lower.lookup(lower, base)?.is_none() {
            return Ok(());
        }
        match place.upper_type(base)? {
            Some(FileType::Directory) => self.dirs.opaque(&place.path.join(os(base))),
            Some(_) => {}
            None => {
                let place = self.raise(place)?;
                let dev = makedev(0, 0);
                mknodat(
                    &place.upper()?.fd,
                    base,
                    FileType::CharacterDevice,
                    Mode::empty(),
                    dev,
                )?;
            }
        }
        Ok(())
    }

    /// Hides all that the layers below have in `place`.
    pub(super) fn hide_all(&mut self, place: &Place) -> Result<(), WalkError> {
        let Some(lower) = &place.lower else {
            return Ok(());
        };
        if !place.path.as_os_str().is_empty() {
            let place = self.raise(place)?;
            self.dirs.opaque(&place.path);
            return Ok(());
        }
        // Overlayfs merges the roots of layers whatever their attributes say.
        for base in self.lower.entries(lower)?.into_keys() {
            self.hide(place, &base)?;
        }
        Ok(())
    }

    /// Makes `base` a directory of this layer with the attributes of `entry`.
    pub(super) fn put_dir(&mut self, place: &Place, base: &[u8], entry: &Entry) -> io::Result<()> {
        if place.upper_type(base)? != Some(FileType::Directory) {
            self.make_dir(place, base)?;
        }
        self.dirs.listed(&place.path.join(os(base)), entry);
        Ok(())
    }

    /// The attributes of the root.
    pub(super) fn put_root(&mut self, entry: &Entry) {
        self.dirs.listed(Path::new(""), entry);
    }

    /// Removes what this layer has as `base`, and tells whether that was a directory. What is put there then hides what
    /// lower layers have.
    pub(super) fn clear(&mut self, place: &Place, base: &[u8]) -> io::Result<bool> {
        let there = place.upper_type(base)?;
        let was_dir = there == Some(FileType::Directory);
        if there.is_some() {
            remove::all(place.upper()?, base)?;
        }
        if was_dir {
            self.dirs.removed(&place.path.join(os(base)));
        }
        Ok(was_dir)
    }

    /// Makes this layer have the file `base`, so that it can be linked to: what overlayfs does when a file of a lower
    /// layer is linked. Gives the directory of this layer, or `None` when the name is no file.
    pub(super) fn own_file(
        &mut self,
        place: &Place,
        name: &Name<'_>,
    ) -> Result<Option<(Place, u64)>, UnpackError> {
        let base = name.base().unwrap_or_default();
        let look_up = |c: io::Error| name.failed("look up", c);
        if let Some(stat) = place.upper_stat(base).map_err(look_up)? {
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            return Ok((!is_dir && !is_whiteout(&stat)).then(|| (place.clone(), 0)));
        }
        let Some(lower) = &place.lower else {
            return Ok(None);
        };
        let node = self.lower.lookup(lower, base).map_err(look_up)?;
        let Some(node) = node.filter(|node| node.dir.is_none()) else {
            return Ok(None);
        };
        let place = self.raise(place).map_err(|e| e.of(name))?;
        let skipped = self.copy_file(&place, name, &node)?;
        Ok(Some((place, skipped)))
    }

    /// Copies a file of the layers below; `name` is its path.
    pub(super) fn copy_file(
        &self,
        place: &Place,
        name: &Name<'_>,
        node: &Node,
    ) -> Result<u64, UnpackError> {
        let failed = |c: io::Error| name.failed("copy from the layer below", c);
        let path = place.path.join(os(name.base().unwrap_or_default()));
        let entry = self.entry_of(&path, node).map_err(failed)?;
        let dir = place.upper().map_err(failed)?;
        if entry.kind != Kind::File {
            return make::special(dir, &entry, name, self.owner);
        }
        let from = self.lower.open_file(node.layer, &path).map_err(failed)?;
        let to = make::create(dir, name.base().unwrap_or_default()).map_err(failed)?;
        make::copy_with_holes(&from, &to).map_err(failed)?;
        make::file_attributes(&to, &entry, name, self.owner)
    }

    /// The directory `path`, which this layer has afterwards, and what is in it.
    pub(super) fn whole(&mut self, path: &Path) -> Result<(Place, Entries), WalkError> {
        let place = self.reach(path, true)?;
        let entries = match &place.lower {
            Some(lower) => self.lower.entries(lower)?,
            None => Entries::new(),
        };
        Ok((place, entries))
    }

    /// A directory of this layer.
    pub(super) fn below(&self, path: &Path) -> io::Result<Dir> {
        self.upper.open_below(path)
    }

    /// A file of the layers below as an archive would describe it.
    fn entry_of(&self, path: &Path, node: &Node) -> io::Result<Entry> {
        let stat = &node.stat;
        let kind = match node.file_type() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            // Layers come from archives, which hold no sockets.
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let link = match kind {
            Kind::Symlink => self.lower.read_link(node.layer, path)?,
            _ => Vec::new(),
        };
        Ok(Entry {
            path: path.as_os_str().as_bytes().to_vec(),
            link,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (
                stat.st_mtime,
                u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            ),
            dev: (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ),
            size: stat.st_size.cast_unsigned(),
            data_offset: 0,
            sparse: None,
            xattrs: self.lower.xattrs(node.layer, path)?,
        })
    }

    fn root(&self) -> Place {
        Place {
            path: PathBuf::new(),
            upper: Some(self.upper.clone()),
            lower: self.lower.root(),
        }
    }

    /// Walks a path known to be free of links.
    fn reach(&mut self, path: &Path, make: bool) -> Result<Place, WalkError> {
        let parts: Vec<&[u8]> = path.iter().map(|part| part.as_bytes()).collect();
        let place = self.walk(&parts, make)?;
        place.ok_or_else(|| Errno::NOENT.into())
    }

    fn child(&self, place: &Place, base: &[u8]) -> io::Result<Child> {
        if let (Some(upper), Some(stat)) = (&place.upper, place.upper_stat(base)?) {
            return match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => match upper.open_child(base)? {
                    Some(dir) => Ok(Child::Dir(self.entered(place, base, dir)?)),
                    None => Ok(Child::Other),
                },
                FileType::Symlink => {
                    let target = readlinkat(&upper.fd, base, Vec::new())?;
                    Ok(Child::Link(target.into_bytes()))
                }
                _ if is_whiteout(&stat) => Ok(Child::Absent),
                _ => Ok(Child::Other),
            };
        }
        let node = match &place.lower {
            Some(lower) => self.lower.lookup(lower, base)?,
            None => None,
        };
        let Some(node) = node else {
            return Ok(Child::Absent);
        };
        let path = place.path.join(os(base));
        Ok(match node.file_type() {
            FileType::Directory => Child::Dir(Place {
                path,
                upper: None,
                lower: node.dir,
            }),
            FileType::Symlink => Child::Link(self.lower.read_link(node.layer, &path)?),
            _ => Child::Other,
        })
    }

    /// The directory `base`, which this layer has as `upper`.
    fn entered(&self, place: &Place, base: &[u8], upper: Dir) -> io::Result<Place> {
        let path = place.path.join(os(base));
        let lower = match &place.lower {
            Some(lower) if !self.dirs.is_opaque(&path) => {
                self.lower.lookup(lower, base)?.and_then(|node| node.dir)
            }
            _ => None,
        };
        Ok(Place {
            path,
            upper: Some(upper),
            lower,
        })
    }

    /// Gives this layer the directory `base` of those below.
    fn raise_child(&mut self, place: &Place, base: &[u8]) -> io::Result<Place> {
        let node = match &place.lower {
            Some(lower) => self.lower.lookup(lower, base)?,
            None => None,
        };
        let upper = self.make_dir(place, base)?;
        if let Some(node) = node {
            self.copy_dir(&upper.path, &node)?;
        }
        self.entered(place, base, upper)
    }

    fn copy_dir(&mut self, path: &Path, node: &Node) -> io::Result<()> {
        let entry = self.entry_of(path, node)?;
        self.dirs.listed(path, &entry);
        Ok(())
    }

    /// Makes a directory of this layer, with default attributes, where it has none. In place of a whiteout or a file of this layer it shows
    /// nothing of the layers below: they were hidden already.
    fn make_dir(&mut self, place: &Place, base: &[u8]) -> io::Result<Dir> {
        let upper = place.upper()?;
        let path = place.path.join(os(base));
        let replaces = place.upper_stat(base)?.is_some();
        if replaces {
            unlinkat(&upper.fd, base, AtFlags::empty())?;
        }
        upper.make_dir(base)?;
        self.dirs.made(&path, self.owner);
        if replaces
            && let Some(lower) = &place.lower
            && self
                .lower
                .lookup(lower, base)?
                .is_some_and(|node| node.dir.is_some())
        {
            self.dirs.opaque(&path);
        }
        Ok(upper.open_child(base)?.ok_or(Errno::NOTDIR)?)
    }
}

impl Place {
    /// The directory of this layer. Places to write to have been walked to with `make`.
    pub(super) fn upper(&self) -> io::Result<&Dir> {
        Ok(self.upper.as_ref().ok_or(Errno::NOENT)?)
    }

    fn upper_stat(&self, base: &[u8]) -> io::Result<Option<Stat>> {
        let Some(upper) = &self.upper else {
            return Ok(None);
        };
        match statat(&upper.fd, base, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn upper_type(&self, base: &[u8]) -> io::Result<Option<FileType>> {
        let stat = self.upper_stat(base)?;
        Ok(stat.map(|stat| FileType::from_raw_mode(stat.st_mode)))
    }
}

pub(super) fn os(base: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(base)
}
