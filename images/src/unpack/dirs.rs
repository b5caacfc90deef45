//! What the directories of a layer shall be once everything is in them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, fsetxattr};
use rustix::io::Errno;

use super::UnpackError;
use super::make::{self, Attributes, Owner};
use super::name::Name;
use super::walk::Dir;
use crate::merged::{OPAQUE_KEYS, Xattrs};
use crate::tarball::Entry;

/// The attributes of every directory of the layer, by its path from the root.
#[derive(Default)]
pub(super) struct Dirs {
    planned: BTreeMap<PathBuf, Plan>,
}

struct Plan {
    attributes: Attributes,
    xattrs: Xattrs,
    opaque: bool,
}

impl Dirs {
    /// A directory was made because an entry needs it.
    pub(super) fn made(&mut self, path: &Path, owner: Owner) {
        let attributes = Attributes {
            owner,
            mode: 0o755,
            mtime: (0, 0),
        };
        self.plan(path, attributes, Vec::new());
    }

    /// An entry describes the directory; the last one counts.
    pub(super) fn listed(&mut self, path: &Path, entry: &Entry) {
        self.plan(path, Attributes::of(entry), entry.xattrs.clone());
    }

    fn plan(&mut self, path: &Path, attributes: Attributes, xattrs: Xattrs) {
        let opaque = self.is_opaque(path);
        let plan = Plan {
            attributes,
            xattrs,
            opaque,
        };
        self.planned.insert(path.to_owned(), plan);
    }

    /// The directory shows nothing of the layers below.
    pub(super) fn opaque(&mut self, path: &Path) {
        if let Some(plan) = self.planned.get_mut(path) {
            plan.opaque = true;
        }
    }

    pub(super) fn is_opaque(&self, path: &Path) -> bool {
        self.planned.get(path).is_some_and(|plan| plan.opaque)
    }

    /// `path` is gone, and all below it.
    pub(super) fn removed(&mut self, path: &Path) {
        // Paths order by components, so these stand together.
        let later = self.planned.range(path.to_owned()..);
        let below = later.take_while(|(p, _)| p.starts_with(path));
        let gone: Vec<PathBuf> = below.map(|(p, _)| p.clone()).collect();
        for path in gone {
            self.planned.remove(&path);
        }
    }

    /// Applies all, children before their parents, which may become unreadable. Gives the number
    /// of extended attributes left out.
    pub(super) fn finish(self, root: &Dir, process: Owner) -> Result<u64, UnpackError> {
        let mut skipped = 0;
        for (path, plan) in self.planned.into_iter().rev() {
            let raw = [b"/", path.as_os_str().as_bytes()].concat();
            let name = Name::parse(&raw)?;
            let dir = root
                .open_below(&path)
                .map_err(|c| name.failed("reach", c))?;
            let fd = dir.readable().map_err(|c| name.failed("open", c))?;
            if plan.opaque {
                set_opaque(&fd).map_err(|c| name.failed("hide lower layers in", c))?;
            }
            skipped += make::apply(&fd, &plan.attributes, &plan.xattrs, &name, process)?;
        }
        Ok(skipped)
    }
}

fn set_opaque(fd: &OwnedFd) -> io::Result<()> {
    let set = |key: &str| fsetxattr(fd, key, b"y", XattrFlags::empty());
    match set(OPAQUE_KEYS[0]) {
        Err(Errno::PERM | Errno::ACCESS) => Ok(set(OPAQUE_KEYS[1])?),
        other => Ok(other?),
    }
}
