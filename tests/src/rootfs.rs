//! A container's root file system as a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cache::Scratch;
use crate::image::Image;

/// The root of one container: it may write to it, and nobody else sees that.
pub(crate) struct Rootfs {
    path: PathBuf,
    _overlay: Option<Overlay>,
}

impl Rootfs {
    /// `scratch/rootfs`, with the files of `image`: unpacked there, or an overlay where the image is large.
    pub(crate) fn of(image: &Image, scratch: &Path) -> Result<Self> {
        let path = scratch.join("rootfs");
        let overlay = match image.shared_rootfs() {
            None => {
                unpack(&image.rootfs_tar(), &path)?;
                None
            }
            Some(shared) => {
                unpack_shared(&image.rootfs_tar(), &shared)?;
                Some(Overlay::mount(&shared, scratch, path.clone())?)
            }
        };
        Ok(Self {
            path,
            _overlay: overlay,
        })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// GNU tar, because it also restores the directories' times.
pub(crate) fn unpack(tar: &Path, rootfs: &Path) -> Result<()> {
    fs::create_dir(rootfs)?;
    run(Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(tar)
        .arg("-C")
        .arg(rootfs))
}

/// Once for all containers and test processes.
fn unpack_shared(tar: &Path, shared: &Path) -> Result<()> {
    let scratch = Scratch::new("unpack")?;
    if shared.exists() {
        return Ok(());
    }
    let rootfs = scratch.path().join("rootfs");
    unpack(tar, &rootfs)?;
    match fs::rename(&rootfs, shared) {
        Err(error) if !shared.exists() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Runs a tool that must succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_os_string();
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", name.display()))?;
    ensure!(
        output.status.success(),
        "{}: {}",
        name.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A writable view of a directory, unmounted when it goes.
struct Overlay(PathBuf);

impl Overlay {
    fn mount(lower: &Path, scratch: &Path, at: PathBuf) -> Result<Self> {
        let (upper, work) = (scratch.join("upper"), scratch.join("work"));
        for dir in [&upper, &work, &at] {
            fs::create_dir(dir)?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        run(Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&at))?;
        Ok(Self(at))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.0)) {
            eprintln!("cannot unmount {}: {error:#}", self.0.display());
        }
    }
}
