//! What `clone(2)` with `CLONE_FS` shares: working directory, root directory, umask.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use super::Location;
use super::known::Known;
use crate::sync::SpinLock;
use crate::{Kernel, Result};

/// Working directory, root, umask.
#[derive(Debug)]
pub struct FsContext {
    places: SpinLock<Places>,
    umask: AtomicU32,
    /// Walks from there.
    pub known: Known,
}

#[derive(Clone, Debug)]
struct Places {
    cwd: Location,
    root: Location,
}

impl FsContext {
    /// The first process's: `/` as root and working directory. The root file system must be mounted.
    ///
    /// # Errors
    /// `ENOENT` before [`super::init`].
    pub fn new_init(kernel: &'static Kernel, umask: u32) -> Result<Arc<Self>> {
        let root = kernel.fs.root()?;
        Ok(Arc::new(Self {
            places: SpinLock::new(Places {
                cwd: root.clone(),
                root,
            }),
            umask: AtomicU32::new(umask & 0o777),
            known: Known::default(),
        }))
    }

    /// A copy (fork without `CLONE_FS`).
    #[must_use]
    pub fn fork(&self) -> Arc<Self> {
        Arc::new(Self {
            places: SpinLock::new(self.places.lock().clone()),
            umask: AtomicU32::new(self.umask()),
            known: Known::default(),
        })
    }

    /// Working directory.
    #[must_use]
    pub fn cwd(&self) -> Location {
        self.places.lock().cwd.clone()
    }

    /// Sets the working directory.
    pub fn set_cwd(&self, cwd: Location) {
        let old = core::mem::replace(&mut self.places.lock().cwd, cwd);
        self.known.clear();
        drop(old);
    }

    /// Root directory: where absolute paths start and `..` ends.
    #[must_use]
    pub fn root(&self) -> Location {
        self.places.lock().root.clone()
    }

    /// Sets the root directory.
    pub fn set_root(&self, root: Location) {
        let old = core::mem::replace(&mut self.places.lock().root, root);
        self.known.clear();
        drop(old);
    }

    /// File mode creation mask.
    #[must_use]
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Sets the mask and returns the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}
