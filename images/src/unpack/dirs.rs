//! What directories shall be once everything is in them.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::UnpackError;
use super::make::{self, Owner};
use super::name::Name;
use super::walk::Root;
use crate::tarball::Entry;

/// The attributes of every directory of the image, by its path from the root.
#[derive(Default)]
pub(super) struct Dirs {
    planned: BTreeMap<PathBuf, Plan>,
}

struct Plan {
    owner: Owner,
    mode: u32,
    mtime: (i64, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Dirs {
    /// A directory was made because an entry needs it.
    pub(super) fn made(&mut self, path: &Path, owner: Owner) {
        let plan = Plan {
            owner,
            mode: 0o755,
            mtime: (0, 0),
            xattrs: Vec::new(),
        };
        self.planned.insert(path.to_owned(), plan);
    }

    /// An entry describes the directory; the last one counts.
    pub(super) fn listed(&mut self, path: &Path, entry: &Entry) {
        let plan = Plan {
            owner: make::owner_of(entry),
            mode: entry.mode,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
        };
        self.planned.insert(path.to_owned(), plan);
    }

    /// `path` is gone, and all below it.
    pub(super) fn removed(&mut self, path: &Path) {
        let later = self.planned.range(path.to_owned()..);
        let gone = super::below(later.map(|(p, _)| p), path);
        for path in gone {
            self.planned.remove(&path);
        }
    }

    /// Applies all, children before their parents, which may become unreadable. Gives the number
    /// of extended attributes left out.
    pub(super) fn finish(self, root: &Root, process: Owner) -> Result<u64, UnpackError> {
        let mut skipped = 0;
        for (path, plan) in self.planned.into_iter().rev() {
            let raw = [b"/", path.as_os_str().as_bytes()].concat();
            let name = Name::parse(&raw)?;
            let dir = root.reopen(&path).map_err(|e| e.of(&name))?;
            let fd = dir.readable().map_err(|c| name.failed("open", c))?;
            let attributes = (plan.owner, plan.mode, plan.mtime);
            skipped += make::dir_attributes(&fd, attributes, &plan.xattrs, &name, process)?;
        }
        Ok(skipped)
    }
}
