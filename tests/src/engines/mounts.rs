//! What engines leave mounted.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// Unmounts everything below `dir`, what was mounted last first.
pub fn unmount_below(dir: &Path) -> Result<()> {
    let dir = dir.canonicalize()?;
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").context("cannot see what is mounted")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let below: Vec<&str> = points
        .filter(|point| Path::new(point).starts_with(&dir))
        .collect();
    for point in below.iter().rev() {
        // One that stays is seen when the directory is removed.
        let _ = Command::new("umount").args(["-l", point]).output();
    }
    Ok(())
}

/// Removes a cgroup of the daemon's from every hierarchy, with the empty ones in it.
pub fn remove_cgroup(name: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
    for hierarchy in hierarchies.flatten() {
        let _ = Command::new("find")
            .arg(hierarchy.path().join(name))
            .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
            .output();
    }
}
