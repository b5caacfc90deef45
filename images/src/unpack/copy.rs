//! All of a root in one directory, for hosts that cannot stack layers.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, linkat};

use super::UnpackError;
use super::name::Name;
use super::tree::{Tree, os};

impl Tree {
    /// Copies everything of the layers below that this one does not have; names of one file stay names of one. Gives the
    /// number of extended attributes left out.
    pub(super) fn copy_all(&mut self) -> Result<u64, UnpackError> {
        let mut linked: HashMap<(u64, u64), PathBuf> = HashMap::new();
        let mut skipped = 0;
        let mut todo = vec![PathBuf::new()];
        while let Some(directory) = todo.pop() {
            let raw = rooted(&directory);
            let of = Name::parse(&raw)?;
            let (place, entries) = self.whole(&directory).map_err(|error| error.of(&of))?;
            for (base, node) in entries {
                let path = directory.join(os(&base));
                if node.dir.is_some() {
                    todo.push(path);
                    continue;
                }
                let raw = rooted(&path);
                let name = Name::parse(&raw)?;
                let failed = |cause| name.failed("copy from the layers", cause);
                let key = (node.stat.st_dev, node.stat.st_ino);
                if let Some(first) = linked.get(&key) {
                    let parent = first.parent().unwrap_or(Path::new(""));
                    let from = self.below(parent).map_err(failed)?;
                    let base_of_first = first.file_name().unwrap_or_default();
                    let to = place.upper().map_err(failed)?;
                    linkat(&from.fd, base_of_first, &to.fd, &*base, AtFlags::empty())
                        .map_err(|errno| failed(errno.into()))?;
                    continue;
                }
                if node.stat.st_nlink > 1 {
                    linked.insert(key, path);
                }
                skipped += self.copy_file(&place, &name, &node)?;
            }
        }
        Ok(skipped)
    }
}

fn rooted(path: &Path) -> Vec<u8> {
    [b"/", path.as_os_str().as_bytes()].concat()
}
