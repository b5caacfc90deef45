//! The file in a container's directory that says how many processes were killed inside because memory ran out.
//!
//! It has the form of a control group's `memory.events`, so that whoever watches that (a containerd shim, with
//! `inotify(7)`) watches this alike; and it is there still when the VMM has ended, so that nobody comes too late.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// The file, and the number it shows.
#[derive(Debug)]
pub struct MemoryEvents {
    file: File,
    shown: Mutex<u64>,
}

/// As wide as the largest number: the file keeps its size, whatever a guest tells.
fn line(kills: u64) -> String {
    format!("oom_kill {kills:020}\n")
}

impl MemoryEvents {
    /// Over a file that was opened for writing.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self {
            file,
            shown: Mutex::new(0),
        }
    }

    /// What a file shows before anything was killed.
    ///
    /// # Errors
    /// What writing gives.
    pub fn init(file: &File) -> io::Result<()> {
        file.write_all_at(line(0).as_bytes(), 0)
    }

    /// So many were killed until now. Nothing happens if that is no more than is shown.
    pub fn killed(&self, kills: u64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if kills <= *shown {
            return;
        }
        *shown = kills;
        if let Err(error) = self.file.write_all_at(line(kills).as_bytes(), 0) {
            tracing::warn!("cannot tell of a lack of memory: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_file_keeps_its_size_and_never_goes_back() {
        let path = std::env::temp_dir().join(format!("husk-kills-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        MemoryEvents::init(&file).unwrap();
        let size = fs::metadata(&path).unwrap().len();
        let events = MemoryEvents::new(file);
        for kills in [1, u64::MAX, 3] {
            events.killed(kills);
            assert_eq!(fs::metadata(&path).unwrap().len(), size);
        }
        let text = fs::read_to_string(&path).unwrap();
        let _ = fs::remove_file(&path);
        assert_eq!(text, format!("oom_kill {}\n", u64::MAX));
    }
}
