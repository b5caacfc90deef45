//! Hearing of a control group that ran out of memory.
//!
//! The guest kills processes of its own when the container's limit is reached; the host does when the VMM and the
//! guest together reach the control group's.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use crate::cgroup::{Cgroup, Table};

/// Calls `tell` each time the control group ran out of memory, from a thread that ends with the group.
///
/// # Errors
/// When the host does not tell.
pub fn watch(cgroup: &Cgroup, tell: impl Fn() + Send + 'static) -> io::Result<()> {
    match cgroup {
        Cgroup::V1(controllers) => match controllers.get("memory") {
            Some(path) => version_1(path, tell),
            None => Ok(()),
        },
        Cgroup::V2(path) => version_2(&path.join("memory.events"), tell),
    }
}

/// The kernel writes to an eventfd (`cgroup-v1/memory.rst`, "OOM Control"), also when the group is removed.
fn version_1(path: &Path, tell: impl Fn() + Send + 'static) -> io::Result<()> {
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

/// The file changes (`cgroup-v2.rst`, "memory.events").
fn version_2(path: &Path, tell: impl Fn() + Send + 'static) -> io::Result<()> {
    let watcher = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watcher, path, inotify::WatchFlags::MODIFY)?;
    let path = path.to_owned();
    let mut last = kills(&path).unwrap_or(0);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while rustix::io::read(&watcher, &mut buffer).is_ok() {
            // The file goes with the group.
            let Some(now) = kills(&path) else { return };
            if now > last {
                tell();
            }
            last = last.max(now);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn version_2_counts_kills() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("memory.events");
        fs::write(&file, "oom 0\noom_kill 1\n").unwrap();
        let (sender, told) = channel();
        watch(&Cgroup::V2(directory.path().to_owned()), move || {
            let _ = sender.send(());
        })
        .unwrap();
        fs::write(&file, "oom 1\noom_kill 1\n").unwrap();
        fs::write(&file, "oom 1\noom_kill 2\n").unwrap();
        assert!(told.recv_timeout(Duration::from_secs(30)).is_ok());
        fs::remove_file(&file).unwrap();
        // The watch has gone with the file, and with it the thread and its sender.
        let _ = fs::write(&file, "oom_kill 2\n");
        assert!(told.try_recv().is_err());
    }
}
