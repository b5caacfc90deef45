//! The store: layers and images by their digests, and names for images.
//!
//! ```text
//! ROOT/v2/layers/sha256-<hex>/   a layer on those it was made for, named by its chain id
//!           diff/                  its files in overlayfs' form, see [`crate::merged`]
//!           layer.json             its diff_id, its parent, its length
//! ROOT/v2/images/sha256-<hex>/   an image, named by its id (the digest of its configuration)
//!           config.json            the configuration, byte for byte
//!           root.cpio              its root for the guest, made for the first run, see [`crate::cpio`]
//! ROOT/v2/names/<hex>            what a name stands for, named by the digest of the name
//! ROOT/v2/tmp/                   what is being made or removed, and what running containers write
//! ROOT/v2/locks/                 see below
//! ```
//!
//! **At any moment** what stands in `layers/` and `images/` is complete: it gets there by one `rename`, after its
//! content is on disk, and leaves by one. Layers come before the image that names them, the image before its name, and
//! they leave in the opposite order. A killed process leaves its work in `tmp/` with the lock free; the next
//! [`Store::open`] removes it. Layers without an image stay until a sweep.
//!
//! **References are counted by looking**: a layer is in use if the configuration of a stored image leads to it. There is
//! no number that a kill could leave wrong.
//!
//! **Locks** (`flock`, which the kernel frees when a process dies), taken in this order:
//! 1. `locks/store`: shared by all that add, name, find or remove images; exclusive for a sweep, which removes layers.
//! 2. `locks/layer-<id>`, `locks/root-<id>`, `locks/container-<n>`, `locks/trash-<n>`: for a directory of that name in `tmp/`.
//! 3. `images/<id>/config.json`: shared by whoever uses the image, as long as its [`Image`] lives; exclusive to remove it.
//!
//! `v2` is the version of this layout and of the root archive: another version stands beside it. It is open to its
//! owner only: the layers hold setuid files of strangers.

mod container;
mod error;
mod layers;
mod lock;
mod names;
mod remove;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::config::{self, ConfigDocument, ImageConfig};
use crate::cpio;
use crate::digest::{Algorithm, Digest};
use crate::merged::Stack;
use crate::progress::{NoProgress, Progress};
use crate::read::{self, FoundImage};
use crate::source::Source;
use crate::unpack;
pub use container::ContainerRoot;
pub use error::StoreError;
use error::{failed, not_found};
use lock::Lock;
pub use names::{Name, Named};
pub use remove::Removed;

const VERSION: &str = "v2";
const CONFIG: &str = "config.json";
const ROOT_ARCHIVE: &str = "root.cpio";
/// The lock of the whole store, and the note that a sweep is due, which stands beside it.
const STORE_LOCK: &str = "store";
const SWEEP_DUE: &str = "sweep-due";
const LASTING: [&str; 2] = [STORE_LOCK, SWEEP_DUE];

/// A store of unpacked images. Several processes may use one at the same time.
#[derive(Debug, Clone)]
pub struct Store {
    layers: PathBuf,
    images: PathBuf,
    names: PathBuf,
    tmp: PathBuf,
    locks: PathBuf,
}

/// A stored image. While one that was found or added lives, it is not removed; those of a list are only looked at. Its files are shared by all who run it and must not be changed.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration: what Docker calls the image ID.
    pub digest: Digest,
    /// What it says about running it.
    pub config: ImageConfig,
    /// The configuration's own bytes.
    pub config_bytes: Vec<u8>,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// The directories of its layers, topmost first, as overlayfs' `lowerdir` wants them; absolute.
    pub layers: Vec<PathBuf>,
    /// Length of the uncompressed layers in bytes.
    pub bytes: u64,
    /// Where [`Store::root_archive`] puts the archive.
    archive: PathBuf,
    /// Keeps the image from being removed.
    _lease: Option<Arc<File>>,
}

impl Store {
    /// Opens the store in the directory `root`, making it where missing, and removes what killed
    /// runs left.
    ///
    /// # Errors
    /// [`StoreError::Store`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        make_dir(root)?;
        let root = root.canonicalize().map_err(|c| failed("open", root, c))?;
        let version = root.join(VERSION);
        let store = Self {
            layers: version.join("layers"),
            images: version.join("images"),
            names: version.join("names"),
            tmp: version.join("tmp"),
            locks: version.join("locks"),
        };
        for dir in [
            &version,
            &store.layers,
            &store.images,
            &store.names,
            &store.tmp,
            &store.locks,
        ] {
            make_dir(dir)?;
        }
        let lock = store.locks.join(STORE_LOCK);
        lock::open(&lock).map_err(|c| failed("create", &lock, c))?;
        store.remove_leftovers()?;
        store.sweep_if_due()?;
        Ok(store)
    }

    /// Finds the image `source` names and stores it unless that has been done, under the names given. Waits while
    /// another process unpacks the same layer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add(
        &self,
        source: &Source,
        names: impl FnOnce(&FoundImage) -> Vec<Name>,
        progress: &mut dyn Progress,
    ) -> Result<Image, StoreError> {
        let found = read::find(source, &self.tmp).map_err(StoreError::Read)?;
        let shared = self.share(progress)?;
        let result = self.add_found(&found, progress).and_then(|image| {
            for name in names(&found) {
                self.put_name(&name, &image.digest)?;
            }
            Ok(image)
        });
        drop(shared);
        if result.is_err() {
            // Layers below the one that failed are whole but of no use.
            self.sweep_soon();
        }
        result
    }

    /// The image that `wanted` names: `name[:tag][@digest]`, an id, or at least its first [`MIN_ID`] digits.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] and others.
    pub fn find(&self, wanted: &str, progress: &mut dyn Progress) -> Result<Image, StoreError> {
        let _shared = self.share(progress)?;
        let id = self.resolve(wanted)?;
        self.leased_image(&id)?.ok_or_else(|| not_found(wanted))
    }

    /// All images, in no order, and the error of each that is damaged.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn images(
        &self,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Result<Image, StoreError>>, StoreError> {
        let _shared = self.share(progress)?;
        let ids = self.image_ids()?;
        Ok(ids
            .iter()
            .filter_map(|id| self.image(id).transpose())
            .collect())
    }

    /// Where the image's files are, for looking into it.
    ///
    /// # Errors
    /// [`StoreError::Store`].
    pub fn root(&self, image: &Image) -> Result<Stack, StoreError> {
        Stack::open(&image.layers).map_err(|c| failed("open", &image.archive, c))
    }

    /// The image's root as one cpio file, made now unless it has been.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn root_archive(
        &self,
        image: &Image,
        progress: &mut dyn Progress,
    ) -> Result<File, StoreError> {
        let path = &image.archive;
        loop {
            match File::open(path) {
                Ok(file) => return Ok(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(c) => return Err(failed("open", path, c)),
            }
            let work = format!("root-{}", key(&image.digest));
            self.make(&work, path, progress, |dir, progress| {
                let root = self.root(image)?;
                let new = dir.join(ROOT_ARCHIVE);
                let file = File::create_new(&new).map_err(|c| failed("create", &new, c))?;
                cpio::write_root_archive(&root, &file, progress)
                    .map_err(StoreError::RootArchive)?;
                progress.begin("writing to disk", None);
                file.sync_all().map_err(|c| failed("write out", &new, c))?;
                progress.end();
                Ok(new)
            })?;
        }
    }

    /// Stores layers and configuration. The caller shares the store.
    pub(crate) fn add_found(
        &self,
        found: &FoundImage,
        progress: &mut dyn Progress,
    ) -> Result<Image, StoreError> {
        self.add_layers(found, progress)?;
        let home = self.images.join(key(&found.digest));
        loop {
            // Another process may remove it between the two.
            if let Some(image) = self.leased_image(&found.digest)? {
                return Ok(image);
            }
            let work = format!("image-{}", key(&found.digest));
            self.make(&work, &home, progress, |dir, _| {
                let path = dir.join(CONFIG);
                write_new(&path, &found.config_bytes)?;
                sync_parent(&path)?;
                Ok(dir.to_owned())
            })?;
        }
    }

    /// Makes `home` unless it is there: `fill` works in a directory in `tmp/`, writes it out to the disk, and says what of
    /// it is to be moved there. One process works, others wait for it.
    fn make(
        &self,
        work: &str,
        home: &Path,
        progress: &mut dyn Progress,
        fill: impl FnOnce(&Path, &mut dyn Progress) -> Result<PathBuf, StoreError>,
    ) -> Result<(), StoreError> {
        let lock_path = self.locks.join(work);
        let what = "waiting for another process that makes the same";
        let lock = Lock::wait(&lock_path, what, progress);
        let lock = lock.map_err(|c| failed("lock", &lock_path, c))?;
        let made = (|| {
            // Whoever held the lock may have made it meanwhile.
            if home.exists() {
                return Ok(());
            }
            let dir = self.tmp.join(work);
            // Left by a run killed after this store was opened.
            unpack::remove_tree(&dir).map_err(|c| failed("remove", &dir, c))?;
            // What stays here after an error, or beside what is moved, is of no more use.
            let _scaffold = Scaffold { dir: &dir };
            make_dir(&dir)?;
            let ready = fill(&dir, progress)?;
            fs::rename(&ready, home).map_err(|c| failed("create", home, c))?;
            sync_parent(home)
        })();
        lock.remove();
        made
    }

    /// A stored image with a lease on it; `None` when it is not there.
    fn leased_image(&self, id: &Digest) -> Result<Option<Image>, StoreError> {
        let path = self.images.join(key(id)).join(CONFIG);
        loop {
            let lease = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(c) => return Err(failed("open", &path, c)),
            };
            flock_retrying(&lease, FlockOperation::LockShared)
                .map_err(|c| failed("lock", &path, c))?;
            // If it was removed while we waited, another may stand there.
            if lock::is_named(&lease, &path).map_err(|c| failed("open", &path, c))? {
                let lease = Some(Arc::new(lease));
                return Ok(self.image(id)?.map(|image| Image {
                    _lease: lease,
                    ..image
                }));
            }
        }
    }

    /// Reads a stored image; `None` when it is not there. The caller shares the store.
    fn image(&self, id: &Digest) -> Result<Option<Image>, StoreError> {
        let home = self.images.join(key(id));
        let path = home.join(CONFIG);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(c) => return Err(failed("read", &path, c)),
        };
        let document = self.document(id, &path, &bytes)?;
        let chain = layers::chain_ids(&document.diff_ids);
        let mut total = 0;
        for chain_id in &chain {
            total += self.layer_record(chain_id)?.bytes;
        }
        Ok(Some(Image {
            digest: id.clone(),
            config: document.config,
            config_bytes: bytes,
            diff_ids: document.diff_ids,
            layers: chain.iter().rev().map(|id| self.layer_dir(id)).collect(),
            bytes: total,
            archive: home.join(ROOT_ARCHIVE),
            _lease: None,
        }))
    }

    fn document(
        &self,
        id: &Digest,
        path: &Path,
        bytes: &[u8],
    ) -> Result<ConfigDocument, StoreError> {
        let damaged = |why| StoreError::Damaged {
            path: path.to_owned(),
            why,
        };
        let found = Digest::of(Algorithm::Sha256, bytes);
        if found != *id {
            return Err(damaged(format!("its digest is {found}")));
        }
        config::parse(bytes).map_err(damaged)
    }

    /// Whether an image is stored. Another process may remove it at once.
    #[cfg(feature = "registry")]
    pub(crate) fn has_image(&self, id: &Digest) -> bool {
        self.images.join(key(id)).is_dir()
    }

    /// A directory in `tmp/` that goes away with the value.
    pub(crate) fn own_dir(&self, prefix: &str) -> Result<OwnDir, StoreError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        let (lock_path, path) = (self.locks.join(&name), self.tmp.join(&name));
        // Only a process of another PID namespace might have it.
        let lock = Lock::wait(&lock_path, "waiting for another process", &mut NoProgress);
        let lock = lock.map_err(|c| failed("lock", &lock_path, c))?;
        let dir = OwnDir {
            path,
            lock: Some(lock),
        };
        // Left by a killed process that had our number.
        unpack::remove_tree(&dir.path).map_err(|c| failed("remove", &dir.path, c))?;
        make_dir(&dir.path)?;
        Ok(dir)
    }

    fn image_ids(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(entries(&self.images)?
            .iter()
            .filter_map(|name| from_key(name))
            .collect())
    }

    /// Keeps layers from being swept away while the result lives.
    pub(crate) fn share(&self, progress: &mut dyn Progress) -> Result<File, StoreError> {
        self.store_lock(
            FlockOperation::LockShared,
            FlockOperation::NonBlockingLockShared,
            progress,
        )
    }

    fn store_lock(
        &self,
        wait: FlockOperation,
        attempt: FlockOperation,
        progress: &mut dyn Progress,
    ) -> Result<File, StoreError> {
        let path = self.locks.join(STORE_LOCK);
        let lock_failed = |c| failed("lock", &path, c);
        let file = lock::open(&path).map_err(lock_failed)?;
        match flock(&file, attempt) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(e) => return Err(lock_failed(e.into())),
        }
        progress.begin("waiting for other processes that use the image store", None);
        flock_retrying(&file, wait).map_err(lock_failed)?;
        progress.end();
        Ok(file)
    }

    /// Removes what in `tmp` and `locks` belongs to processes that are gone.
    fn remove_leftovers(&self) -> Result<(), StoreError> {
        let mut names: BTreeSet<String> = entries(&self.tmp)?.into_iter().collect();
        names.extend(entries(&self.locks)?);
        for name in names {
            if LASTING.contains(&name.as_str()) {
                continue;
            }
            let (path, lock_path) = (self.tmp.join(&name), self.locks.join(&name));
            // Expanded archives lose their name as soon as they are made, so one that has it is left
            // over or about to lose it: no lock is needed.
            let is_file = path.symlink_metadata().is_ok_and(|meta| !meta.is_dir());
            let lock = match is_file {
                true => None,
                false => match Lock::try_take(&lock_path) {
                    Ok(Some(lock)) => Some(lock),
                    Ok(None) => continue,
                    Err(c) => return Err(failed("lock", &lock_path, c)),
                },
            };
            unpack::remove_tree(&path).map_err(|c| failed("remove", &path, c))?;
            if let Some(lock) = lock {
                lock.remove();
            }
        }
        Ok(())
    }
}

/// Removes a directory in `tmp/` when the work is done or given up.
struct Scaffold<'a> {
    dir: &'a Path,
}

impl Drop for Scaffold<'_> {
    fn drop(&mut self) {
        // The error that brought us here counts; what stays is removed by the next `open`.
        let _ = unpack::remove_tree(self.dir);
    }
}

/// A directory in `tmp/` with its lock.
#[derive(Debug)]
pub(crate) struct OwnDir {
    path: PathBuf,
    /// Always there until the end.
    lock: Option<Lock>,
}

impl OwnDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OwnDir {
    fn drop(&mut self) {
        // What stays is removed by the next `open`.
        let _ = unpack::remove_tree(&self.path);
        if let Some(lock) = self.lock.take() {
            lock.remove();
        }
    }
}

/// Fewest digits of an id that name an image.
pub const MIN_ID: usize = 4;

/// Directory and lock name of a layer or an image.
fn key(digest: &Digest) -> String {
    digest.to_string().replace(':', "-")
}

fn from_key(key: &str) -> Option<Digest> {
    key.replacen('-', ":", 1).parse().ok()
}

/// The names in a directory of the store. What is no text was not put there by a store.
fn entries(dir: &Path) -> Result<Vec<String>, StoreError> {
    let read = |c| failed("read", dir, c);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(read)? {
        names.extend(entry.map_err(read)?.file_name().into_string().ok());
    }
    Ok(names)
}

fn flock_retrying(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Writes a small file, down to the disk.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|c| failed("write", path, c))
}

/// Writes out the directory that `path` has been put into.
fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(path);
    let synced = File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(|c| failed("write out", parent, c))
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|c| failed("create", path, c))
}

#[cfg(test)]
mod tests;
