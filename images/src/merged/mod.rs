//! Finished layers seen as one root, as overlayfs would show them.
//!
//! A layer is a directory in overlayfs' own form (Linux, Documentation/filesystems/overlayfs.rst): a name in an
//! upper layer hides the same name below it, directories merge, a character device 0:0 is a whiteout, and a directory
//! with the attribute `trusted.overlay.opaque` (`user.overlay.opaque` where the first takes rights that are not there)
//! does not merge with those below. So the kernel can mount what is stored; reading here needs no mount and no rights.
//!
//! Layers are private to the store and finished, so nothing changes under a reader. Still, every path is opened with
//! `openat2` below the layer's own handle, without following a symbolic link: links are resolved here, inside the root.

mod xattr;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

pub(crate) use xattr::{OPAQUE_KEYS, Xattrs, is_overlayfs, proc_path};

/// Most symbolic links followed for one name, as in Linux.
pub(crate) const MAX_LINKS: usize = 40;

/// The layers of a root, topmost first.
#[derive(Clone)]
pub struct Stack {
    layers: Arc<[Layer]>,
}

struct Layer {
    fd: OwnedFd,
    path: PathBuf,
}

/// A directory of the root: which layers it consists of, topmost first. Holds no handles, so a walk may keep many.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    /// From the root, free of symbolic links.
    pub(crate) path: PathBuf,
    layers: Vec<usize>,
}

/// What a name is.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Of the file itself; of a directory as its topmost layer has it.
    pub(crate) stat: Stat,
    /// The layer `stat` is from.
    pub(crate) layer: usize,
    /// The directory, if it is one.
    pub(crate) dir: Option<Branch>,
}

impl Node {
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.layers.iter().map(|layer| &layer.path))
            .finish()
    }
}

/// Whether a file is overlayfs' mark for an absent name.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

impl Stack {
    /// Opens layers, topmost first.
    ///
    /// # Errors
    /// Of the first that cannot be opened.
    pub fn open(paths: &[PathBuf]) -> io::Result<Self> {
        let open = |path: &PathBuf| {
            // The layer itself may be reached through links: it is the caller's choice.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(path, flags, Mode::empty())?;
            Ok(Layer {
                fd,
                path: path.clone(),
            })
        };
        Ok(Self {
            layers: paths.iter().map(open).collect::<io::Result<_>>()?,
        })
    }

    /// The contents of the regular file `path`, at most `limit` bytes of it. Symbolic links are followed inside the
    /// root only; `None` where nothing is.
    ///
    /// # Errors
    /// Those of the operating system; `Other` for what is no regular file.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        let Some((path, node)) = self.resolve(path)? else {
            return Ok(None);
        };
        if node.file_type() != FileType::RegularFile {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        self.open_file(node.layer, &path)?
            .take(limit)
            .read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The root; `None` without layers.
    pub(crate) fn root(&self) -> Option<Branch> {
        (!self.layers.is_empty()).then(|| Branch {
            path: PathBuf::new(),
            layers: (0..self.layers.len()).collect(),
        })
    }

    /// The root as a node.
    pub(crate) fn root_node(&self) -> io::Result<Option<Node>> {
        let Some(dir) = self.root() else {
            return Ok(None);
        };
        let stat = statat(&self.layers[0].fd, c".", AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Some(Node {
            stat,
            layer: 0,
            dir: Some(dir),
        }))
    }

    /// Where layer `layer` lies.
    pub(crate) fn layer_path(&self, layer: usize) -> &Path {
        &self.layers[layer].path
    }

    /// What `base` is in `dir`.
    pub(crate) fn lookup(&self, dir: &Branch, base: &[u8]) -> io::Result<Option<Node>> {
        let mut slot = Slot::default();
        for layer in &dir.layers {
            let fd = self.dir(*layer, &dir.path)?;
            match statat(&fd, base, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => slot.add(self, *layer, &dir.path, base, stat)?,
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
            if slot.closed {
                break;
            }
        }
        Ok(slot.node)
    }

    /// All names of `dir`, sorted by bytes.
    pub(crate) fn entries(&self, dir: &Branch) -> io::Result<BTreeMap<Vec<u8>, Node>> {
        let mut slots: BTreeMap<Vec<u8>, Slot> = BTreeMap::new();
        for layer in &dir.layers {
            let fd = self.open_at(*layer, &dir.path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            for base in names(&fd)? {
                let slot = slots.entry(base.clone()).or_default();
                if !slot.closed {
                    let stat = statat(&fd, base.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
                    slot.add(self, *layer, &dir.path, &base, stat)?;
                }
            }
        }
        let there = |(base, slot): (Vec<u8>, Slot)| slot.node.map(|node| (base, node));
        Ok(slots.into_iter().filter_map(there).collect())
    }

    /// The target of the symbolic link `path`, which is free of links otherwise.
    pub(crate) fn read_link(&self, layer: usize, path: &Path) -> io::Result<Vec<u8>> {
        let fd = self.open_at(layer, path, OFlags::PATH)?;
        Ok(readlinkat(&fd, c"", Vec::new())?.into_bytes())
    }

    /// The regular file `path`, for reading.
    pub(crate) fn open_file(&self, layer: usize, path: &Path) -> io::Result<File> {
        Ok(File::from(self.open_at(
            layer,
            path,
            OFlags::RDONLY | OFlags::NONBLOCK,
        )?))
    }

    /// The extended attributes of `path` but overlayfs' own.
    pub(crate) fn xattrs(&self, layer: usize, path: &Path) -> io::Result<Xattrs> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(base)) => xattr::all(&self.dir(layer, parent)?, base.as_bytes()),
            _ => xattr::all(&self.dir(layer, Path::new(""))?, b"."),
        }
    }

    /// Follows `path` with all its symbolic links, the last component's too.
    fn resolve(&self, path: &Path) -> io::Result<Option<(PathBuf, Node)>> {
        let steps = |path: &[u8]| -> Vec<Vec<u8>> {
            let parts = path.split(|b| *b == b'/').rev();
            parts
                .filter(|p| !p.is_empty() && *p != b".")
                .map(<[u8]>::to_vec)
                .collect()
        };
        let Some(root) = self.root_node()? else {
            return Ok(None);
        };
        let mut todo = steps(path.as_os_str().as_bytes());
        // The nodes from the root to here, with their paths.
        let mut way = vec![(PathBuf::new(), root)];
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                way.truncate((way.len() - 1).max(1));
                continue;
            }
            let Some(dir) = way.last().and_then(|(_, node)| node.dir.as_ref()) else {
                return Ok(None);
            };
            let Some(node) = self.lookup(dir, &part)? else {
                return Ok(None);
            };
            let at = dir.path.join(OsStr::from_bytes(&part));
            if node.file_type() != FileType::Symlink {
                way.push((at, node));
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = self.read_link(node.layer, &at)?;
            if target.starts_with(b"/") {
                way.truncate(1);
            }
            todo.extend(steps(&target));
        }
        Ok(way.pop())
    }

    /// A handle of a directory to walk from.
    fn dir(&self, layer: usize, path: &Path) -> io::Result<OwnedFd> {
        self.open_at(layer, path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn open_at(&self, layer: usize, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(openat2(
            &self.layers[layer].fd,
            path,
            flags,
            Mode::empty(),
            resolve,
        )?)
    }
}

/// A name while the layers are gone through from above.
#[derive(Default)]
struct Slot {
    node: Option<Node>,
    /// Lower layers do not show through.
    closed: bool,
}

impl Slot {
    fn add(
        &mut self,
        stack: &Stack,
        layer: usize,
        parent: &Path,
        base: &[u8],
        stat: Stat,
    ) -> io::Result<()> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            // Below a directory a file of another kind is hidden, and hides what is below it.
            if self.node.is_none() && !is_whiteout(&stat) {
                self.node = Some(Node {
                    stat,
                    layer,
                    dir: None,
                });
            }
            self.closed = true;
            return Ok(());
        }
        let path = parent.join(OsStr::from_bytes(base));
        // Nothing is below the lowest layer that an attribute could hide.
        let lowest = layer + 1 == stack.layers.len();
        self.closed = lowest || xattr::is_opaque(&stack.dir(layer, parent)?, base)?;
        let node = self.node.get_or_insert_with(|| Node {
            stat,
            layer,
            dir: Some(Branch {
                path,
                layers: Vec::new(),
            }),
        });
        if let Some(dir) = &mut node.dir {
            dir.layers.push(layer);
        }
        Ok(())
    }
}

/// The names in a directory opened for reading.
pub(crate) fn names(fd: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
