//! What the targets share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A directory in memory, removed when dropped, with another around it in which an escape would show.
pub struct Dir(PathBuf);

impl Dir {
    /// A new empty one.
    pub fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("husk-fuzz-{}-{number}", std::process::id());
        let outer = Path::new("/dev/shm").join(name);
        fs::create_dir_all(outer.join("inner")).expect("/dev/shm takes a directory");
        Self(outer)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.0.join("inner")
    }

    /// Checks that nothing but `names` is in it, and nothing beside it.
    pub fn assert_only(&self, names: &[&str]) {
        for (dir, known) in [(self.0.clone(), &["inner"][..]), (self.path(), names)] {
            for entry in fs::read_dir(dir).expect("it is there") {
                let name = entry.expect("it can be listed").file_name();
                assert!(known.iter().any(|known| name == *known), "{name:?} has been made");
            }
        }
    }
}

impl Default for Dir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // A layer may have left directories that only root removes.
        let _ = fs::remove_dir_all(&self.0);
    }
}
