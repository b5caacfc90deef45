//! Hearing of a lack of memory.
//!
//! The guest kills processes of its own when the container's limit is reached, and husk counts them in a file of the
//! same form as a control group's `memory.events`; the host kills when the VMM and the guest together reach the
//! control group's limit.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use crate::cgroup::{Cgroup, Table};

/// Calls `tell` each time the control group ran out of memory, from a thread that ends with the group.
///
/// # Errors
/// When the host does not tell.
pub fn watch(cgroup: &Cgroup, tell: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
    match cgroup {
        Cgroup::V1(controllers) => match controllers.get("memory") {
            Some(path) => version_1(path, tell),
            None => Ok(()),
        },
        Cgroup::V2(path) => Kills::watch(path.join("memory.events"), tell).map(drop),
    }
}

/// The kernel writes to an eventfd (`cgroup-v1/memory.rst`, "OOM Control"), also when the group is removed.
fn version_1(path: &Path, tell: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
    let control = path.join("memory.oom_control");
    let file = OpenOptions::new().read(true).open(&control)?;
    let event = eventfd(0, EventfdFlags::CLOEXEC)?;
    let order = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
    fs::write(path.join("cgroup.event_control"), order)?;
    thread::spawn(move || {
        let mut count = [0; 8];
        let _file = file;
        while rustix::io::read(&event, &mut count).is_ok() && control.exists() {
            tell();
        }
    });
    Ok(())
}

fn kills(path: &Path) -> Option<u64> {
    Some(Table::parse(&fs::read_to_string(path).ok()?).get("oom_kill"))
}

/// Least time between two tellings: a guest can run out of memory as fast as it likes.
const PAUSE: Duration = Duration::from_millis(100);

/// The count of a `memory.events` file (`cgroup-v2.rst`), and what of it was told.
#[derive(Clone)]
pub struct Kills {
    path: PathBuf,
    told: Arc<Mutex<u64>>,
    tell: Arc<dyn Fn() + Send + Sync>,
}

impl Kills {
    /// Calls `tell` each time the count has grown, from a thread that ends with the file.
    ///
    /// # Errors
    /// When the host does not tell of changes.
    pub fn watch(path: PathBuf, tell: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let watcher = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        let changes = inotify::WatchFlags::MODIFY;
        inotify::add_watch(&watcher, &path, changes)?;
        let this = Self {
            told: Arc::new(Mutex::new(kills(&path).unwrap_or(0))),
            path,
            tell: Arc::new(tell),
        };
        let own = this.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while rustix::io::read(&watcher, &mut buffer).is_ok() && own.look() {
                thread::sleep(PAUSE);
            }
        });
        Ok(this)
    }

    /// Whether anything was told.
    pub fn have_been_told(&self) -> bool {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) > 0
    }

    /// Tells now what was not told yet; false when the file is gone.
    pub fn look(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(now) = kills(&self.path) else {
            return false;
        };
        if now > *told {
            *told = now;
            (self.tell)();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn each_growth_of_the_count_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("memory.events");
        fs::write(&file, "oom 0\noom_kill 1\n").unwrap();
        let (sender, told) = channel();
        let sender = Mutex::new(sender);
        let kills = Kills::watch(file.clone(), move || {
            let _ = sender.lock().unwrap().send(());
        })
        .unwrap();
        fs::write(&file, "oom 1\noom_kill 1\n").unwrap();
        fs::write(&file, "oom 1\noom_kill 2\n").unwrap();
        assert!(told.recv_timeout(Duration::from_secs(30)).is_ok());
        // Nobody has to wait for the thread, and nothing is told twice.
        assert!(kills.look());
        assert!(told.try_recv().is_err());
        fs::write(&file, "oom_kill 00003\n").unwrap();
        assert!(kills.look());
        assert!(told.recv_timeout(Duration::from_secs(30)).is_ok());
        assert!(told.try_recv().is_err());
        fs::remove_file(&file).unwrap();
        assert!(!kills.look());
    }
}
