//! Removing names, images and what nothing leads to any more.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::names::Named;
use super::{
    CONFIG, OwnDir, STORE_LOCK, SWEEP_DUE, Store, StoreError, entries, failed, key, layers,
    not_found,
};
use crate::digest::Digest;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::text::shown;

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names taken away.
    pub names: Vec<Reference>,
    /// Ids of images that are gone.
    pub images: Vec<Digest>,
    /// Layers that are gone.
    pub layers: usize,
    /// What these took on disk, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Takes a name away, and with the last name the image. `wanted` may be an id of an image with at most one name, or
    /// with `force` any number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove(
        &self,
        wanted: &str,
        force: bool,
        progress: &mut dyn Progress,
    ) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        let shared = self.share(progress)?;
        let id = self.resolve(wanted)?;
        let mut names = self.names_of(&id)?;
        let meant: Vec<Named> = match wanted.parse::<Reference>() {
            Ok(reference) => names
                .extract_if(.., |named| named.fits(&reference))
                .collect(),
            Err(_) => Vec::new(),
        };
        // Nothing fitted, so it was the id: all names are meant.
        let (meant, others) = match meant.is_empty() {
            true => (names, Vec::new()),
            false => (meant, names),
        };
        let by_id = !meant
            .iter()
            .any(|named| wanted.parse().is_ok_and(|r| named.fits(&r)));
        if by_id && meant.len() > 1 && !force {
            let list: Vec<String> = meant.iter().map(|n| n.name.reference.to_string()).collect();
            return Err(StoreError::SeveralNames {
                id: id.hex()[..12].to_owned(),
                names: list.join(", "),
            });
        }
        let lease = match others.is_empty() {
            true => Some(self.take_over(&id)?.ok_or_else(|| not_found(wanted))?),
            false => None,
        };
        if let Some(Taken::Used) = lease {
            return Err(StoreError::InUse {
                wanted: shown(wanted),
            });
        }
        for named in meant {
            if self.remove_name(&named.name.reference)? {
                removed.names.push(named.name.reference);
            }
        }
        if let Some(Taken::Ours(_lease)) = lease {
            self.remove_image(&id, &mut removed)?;
        }
        drop(shared);
        self.sweep_if_idle(&mut removed)?;
        Ok(removed)
    }

    /// Removes images without a name, or with `all` those that no container uses, and layers of no image.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn prune(&self, all: bool, progress: &mut dyn Progress) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        let shared = self.share(progress)?;
        for id in self.image_ids()? {
            if !all && !self.names_of(&id)?.is_empty() {
                continue;
            }
            let Some(Taken::Ours(_lease)) = self.take_over(&id)? else {
                continue;
            };
            // Once more: only now nobody can give it a name.
            let names = self.names_of(&id)?;
            if !all && !names.is_empty() {
                continue;
            }
            for named in names {
                if self.remove_name(&named.name.reference)? {
                    removed.names.push(named.name.reference);
                }
            }
            self.remove_image(&id, &mut removed)?;
        }
        drop(shared);
        let alone = self.store_lock(
            FlockOperation::LockExclusive,
            FlockOperation::NonBlockingLockExclusive,
            progress,
        )?;
        self.sweep(alone, &mut removed)?;
        Ok(removed)
    }

    /// Sweeps after an error, if nobody else is at work; else whoever opens the store next does.
    pub(crate) fn sweep_soon(&self) {
        // The error that brought us here counts.
        let _ = self
            .mark_due()
            .and_then(|()| self.sweep_if_idle(&mut Removed::default()));
    }

    /// Does a sweep that a killed or busy process left to be done.
    pub(super) fn sweep_if_due(&self) -> Result<(), StoreError> {
        if self.due_path().exists() {
            self.sweep_if_idle(&mut Removed::default())?;
        }
        Ok(())
    }

    fn names_of(&self, id: &Digest) -> Result<Vec<Named>, StoreError> {
        let mut names = self.names()?;
        names.retain(|named| named.image == *id);
        Ok(names)
    }

    /// Takes an image from all who might use it; `None` when it is not there.
    fn take_over(&self, id: &Digest) -> Result<Option<Taken>, StoreError> {
        let path = self.images.join(key(id)).join(CONFIG);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(c) => return Err(failed("open", &path, c)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Some(Taken::Used)),
            Err(e) => return Err(failed("lock", &path, e.into())),
        }
        let named = super::lock::is_named(&file, &path).map_err(|c| failed("open", &path, c))?;
        Ok(named.then_some(Taken::Ours(file)))
    }

    /// The caller shares the store and has taken the image over.
    fn remove_image(&self, id: &Digest, removed: &mut Removed) -> Result<(), StoreError> {
        self.mark_due()?;
        let trash = self.to_trash(&self.images.join(key(id)))?;
        removed.bytes += disk_usage(trash.path());
        removed.images.push(id.clone());
        Ok(())
    }

    fn due_path(&self) -> PathBuf {
        self.locks.join(SWEEP_DUE)
    }

    /// Notes that there may be layers of no image. A sweep has the store to itself, so it cannot miss this.
    fn mark_due(&self) -> Result<(), StoreError> {
        let path = self.due_path();
        File::create(&path)
            .map(drop)
            .map_err(|c| failed("create", &path, c))
    }

    fn sweep_if_idle(&self, removed: &mut Removed) -> Result<(), StoreError> {
        let path = self.locks.join(STORE_LOCK);
        let file = super::lock::open(&path).map_err(|c| failed("lock", &path, c))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => self.sweep(file, removed),
            Err(Errno::WOULDBLOCK) => Ok(()),
            Err(e) => Err(failed("lock", &path, e.into())),
        }
    }

    /// Removes layers that no image leads to. `alone` is the store's lock, held exclusively; it is given up as soon as
    /// the layers are out of the way.
    fn sweep(&self, alone: File, removed: &mut Removed) -> Result<(), StoreError> {
        let mut used = BTreeSet::new();
        for id in self.image_ids()? {
            let path = self.images.join(key(&id)).join(CONFIG);
            match fs::read(&path) {
                Ok(bytes) => {
                    // An image that cannot be read any more has no layers; it says so itself when it is asked for.
                    if let Ok(document) = self.document(&id, &path, &bytes) {
                        used.extend(layers::chain_ids(&document.diff_ids).iter().map(key));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(c) => return Err(failed("read", &path, c)),
            }
        }
        let mut trash = Vec::new();
        for name in entries(&self.layers)? {
            if !used.contains(&name) {
                trash.push(self.to_trash(&self.layers.join(&name))?);
                removed.layers += 1;
            }
        }
        self.remove_unfinished_names()?;
        let due = self.due_path();
        match fs::remove_file(&due) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &due, e)),
            _ => {}
        }
        drop(alone);
        for trash in trash {
            removed.bytes += disk_usage(trash.path());
        }
        Ok(())
    }

    /// Moves a layer or an image out of the way in one step.
    fn to_trash(&self, path: &Path) -> Result<OwnDir, StoreError> {
        let trash = self.own_dir("trash")?;
        fs::rename(path, trash.path()).map_err(|c| failed("remove", path, c))?;
        Ok(trash)
    }
}

/// An image whose users have been looked for.
enum Taken {
    /// Nobody uses it, and nobody will while this lives.
    Ours(File),
    Used,
}

/// What a tree takes on disk, in bytes. Only told to the user: what cannot be read counts nothing.
fn disk_usage(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = path.symlink_metadata() else {
        return 0;
    };
    // Names of one file share its blocks.
    let own = if meta.is_dir() {
        meta.blocks() * 512
    } else {
        meta.blocks() * 512 / meta.nlink().max(1)
    };
    let children = match meta.is_dir() {
        true => fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| disk_usage(&e.path()))
            .sum(),
        false => 0,
    };
    own + children
}
