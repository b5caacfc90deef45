//! The store: one directory per image, named by the image's digest.
//!
//! ```text
//! ROOT/v1/images/sha256-<hex>/   complete images
//!         rootfs/                  the unpacked root
//!         root.cpio                the same for the guest, see [`crate::cpio`]
//!         config.json              the image's configuration, byte for byte
//! ROOT/v1/tmp/sha256-<hex>/      an image while it is made
//! ROOT/v1/locks/sha256-<hex>     locked (flock) by whoever makes or removes it
//! ```
//!
//! An image appears in `images/` by one `rename`, after its content is on disk, so what is there
//! is complete, also after a power cut. Two runs that want the same image at once: one makes it, the
//! other waits for the lock and then finds it. A killed run leaves its directory in `tmp/` with
//! the lock free; the next [`Store::open`] removes it. `v1` is the version of this layout and of the
//! root archive: another version stands beside it.
//!
//! `ROOT/v1` is open to its owner only: the roots hold setuid files of strangers.

mod lock;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::config::ImageConfig;
use crate::cpio::{self, CpioError};
use crate::digest::Digest;
use crate::progress::Progress;
use crate::read::{self, FoundImage, ReadError};
use crate::source::Source;
use crate::unpack::{self, UnpackError, Unpacker};
use lock::Lock;

const VERSION: &str = "v1";
const ROOTFS: &str = "rootfs";
const ROOT_ARCHIVE: &str = "root.cpio";
const CONFIG: &str = "config.json";

/// A store of unpacked images. Several processes may use one at the same time.
#[derive(Debug, Clone)]
pub struct Store {
    images: PathBuf,
    tmp: PathBuf,
    locks: PathBuf,
}

/// An unpacked image. Its files are shared by all who run it and must not be changed.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration: what Docker calls the image ID.
    pub digest: Digest,
    /// The name the source gives it, where it gives one.
    pub reference: Option<String>,
    /// What it says about running it.
    pub config: ImageConfig,
    /// The unpacked root directory; absolute.
    pub rootfs: PathBuf,
    /// The same as one cpio file, see [`crate::cpio`]; absolute.
    pub root_archive: PathBuf,
}

/// Why an image could not be prepared. Nothing half-made is left.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The source is at fault.
    #[error("{0}")]
    Read(ReadError),
    /// The root could not be completed.
    #[error("{0}")]
    Unpack(UnpackError),
    /// The root archive could not be made.
    #[error("{0}")]
    RootArchive(CpioError),
    /// The store itself is at fault.
    #[error("cannot {action} {}: {cause}; check the image store's disk and permissions", path.display())]
    Store {
        /// `create`, `lock` and the like.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
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
            images: version.join("images"),
            tmp: version.join("tmp"),
            locks: version.join("locks"),
        };
        for dir in [&version, &store.images, &store.tmp, &store.locks] {
            make_dir(dir)?;
        }
        store.remove_leftovers()?;
        Ok(store)
    }

    /// Finds the image `source` names and unpacks it unless that has been done. Waits while another
    /// process unpacks the same image.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn prepare(
        &self,
        source: &Source,
        progress: &mut dyn Progress,
    ) -> Result<Image, StoreError> {
        let found = read::find(source, &self.tmp).map_err(StoreError::Read)?;
        let key = key(&found.digest);
        let home = self.images.join(&key);
        if !home.is_dir() {
            let lock_path = self.locks.join(&key);
            let lock =
                Lock::wait(&lock_path, progress).map_err(|c| failed("lock", &lock_path, c))?;
            // Whoever held the lock may have made it meanwhile.
            if !home.is_dir()
                && let Err(error) = self.make(&found, &key, &home, progress)
            {
                lock.remove();
                return Err(error);
            }
            drop(lock);
        }
        Ok(Image {
            digest: found.digest,
            reference: found.reference,
            config: found.config,
            rootfs: home.join(ROOTFS),
            root_archive: home.join(ROOT_ARCHIVE),
        })
    }

    /// Makes the image in `tmp` and moves it into place. The caller holds its lock.
    fn make(
        &self,
        found: &FoundImage,
        key: &str,
        home: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(), StoreError> {
        let dir = self.tmp.join(key);
        // Left by a run killed after this store was opened.
        unpack::remove_tree(&dir).map_err(|c| failed("remove", &dir, c))?;
        let unfinished = Unfinished { dir: &dir };
        let rootfs = dir.join(ROOTFS);
        make_dir(&rootfs)?;

        let mut unpacker = Unpacker::new(&rootfs).map_err(StoreError::Unpack)?;
        found
            .unpack(&mut unpacker, progress)
            .map_err(StoreError::Read)?;
        unpacker.finish().map_err(StoreError::Unpack)?;

        let archive_path = dir.join(ROOT_ARCHIVE);
        let archive = File::create_new(&archive_path);
        let archive = archive.map_err(|c| failed("create", &archive_path, c))?;
        cpio::write_root_archive(&rootfs, &archive, progress).map_err(StoreError::RootArchive)?;

        let config_path = dir.join(CONFIG);
        File::create_new(&config_path)
            .and_then(|mut file| file.write_all(&found.config_bytes))
            .map_err(|c| failed("write", &config_path, c))?;

        // One call writes out all the files above, thousands often, and the directories.
        progress.begin("writing to disk", None);
        rustix::fs::syncfs(&archive).map_err(|e| failed("write out", &dir, e.into()))?;
        fs::rename(&dir, home).map_err(|c| failed("create", home, c))?;
        File::open(&self.images)
            .and_then(|images| images.sync_all())
            .map_err(|c| failed("write out", &self.images, c))?;
        progress.end();
        std::mem::forget(unfinished);
        Ok(())
    }

    /// Removes directories in `tmp` whose makers are gone.
    fn remove_leftovers(&self) -> Result<(), StoreError> {
        let read = |c| failed("read", &self.tmp, c);
        for entry in fs::read_dir(&self.tmp).map_err(read)? {
            let entry = entry.map_err(read)?;
            let (path, lock_path) = (entry.path(), self.locks.join(entry.file_name()));
            // Expanded archives lose their name as soon as they are made, so one that has it is left
            // over or about to lose it: no lock is needed.
            let lock = match entry.file_type() {
                Ok(kind) if !kind.is_dir() => None,
                _ => match Lock::try_take(&lock_path) {
                    Ok(Some(lock)) => Some(lock),
                    Ok(None) => continue,
                    Err(c) => return Err(failed("lock", &lock_path, c)),
                },
            };
            unpack::remove_tree(&path).map_err(|c| failed("remove", &path, c))?;
            drop(lock);
        }
        Ok(())
    }
}

/// Removes the directory of an image that does not get finished.
struct Unfinished<'a> {
    dir: &'a Path,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // The error that brought us here counts; what stays is removed by the next `open`.
        let _ = unpack::remove_tree(self.dir);
    }
}

/// Directory and lock name of an image.
fn key(digest: &Digest) -> String {
    digest.to_string().replace(':', "-")
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|c| failed("create", path, c))
}

fn failed(action: &'static str, path: &Path, cause: io::Error) -> StoreError {
    StoreError::Store {
        action,
        path: path.to_owned(),
        cause,
    }
}

#[cfg(test)]
mod tests;
