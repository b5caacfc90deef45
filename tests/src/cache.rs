//! Where built things lie, and how each is built exactly once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The workspace's root directory.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The harness's own directory below the target directory.
pub fn home() -> PathBuf {
    target().join("husk-tests")
}

/// Lower-case hexadecimal SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A name no other call in any process has used.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(
        "{prefix}-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Returns `home()/NAME`, built by `build` unless it is there already.
///
/// `build` fills a private directory that is renamed into place, so that a half-built one is never seen and several
/// test processes may race: the first wins. `name` must contain the hash of whatever `build` depends on.
pub fn once(name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let finished = home().join(name);
    if finished.exists() {
        return Ok(finished);
    }
    let scratch = Scratch::new("build")?;
    build(scratch.path()).with_context(|| format!("cannot build {name}"))?;
    match fs::rename(scratch.path(), &finished) {
        Ok(()) => Ok(finished),
        Err(_) if finished.exists() => Ok(finished),
        Err(error) => Err(error).with_context(|| format!("cannot move {name} into place")),
    }
}

/// A directory of our own that goes away with the value.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates a new empty one.
    pub fn new(prefix: &str) -> Result<Self> {
        Self::below(&home().join("scratch"), prefix)
    }

    /// Creates a new empty one in `parent`.
    pub fn below(parent: &Path, prefix: &str) -> Result<Self> {
        let path = parent.join(unique(prefix));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("cannot remove {}: {error:#}", self.0.display());
        }
    }
}

/// Removes a directory of ours with all that is in it, unless something is mounted there.
///
/// A runtime under test may leave a mount behind, even one of the host's own `/dev`; removing through it would destroy
/// what is mounted.
pub fn remove(dir: &Path) -> Result<()> {
    let dir = match dir.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").context("cannot see what is mounted")?;
    if let Some(mount) = mount_below(&mounts, &dir) {
        bail!("{mount} is mounted there");
    }
    Ok(fs::remove_dir_all(&dir)?)
}

/// The first mount point at or below `dir`, if any. Mountinfo's fifth field is the mount point.
fn mount_below<'a>(mountinfo: &'a str, dir: &Path) -> Option<&'a str> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .find(|point| Path::new(point).starts_with(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_are_found() {
        let mountinfo = "24 27 0:6 / /dev rw - devtmpfs devtmpfs rw\n43 27 0:6 / /t/scratch/dev rw - devtmpfs devtmpfs rw\n";
        assert_eq!(
            mount_below(mountinfo, Path::new("/t/scratch")),
            Some("/t/scratch/dev")
        );
        assert_eq!(mount_below(mountinfo, Path::new("/t/scr")), None);
        assert_eq!(mount_below(mountinfo, Path::new("/dev")), Some("/dev"));
    }

    #[test]
    fn what_is_not_there_is_removed_already() {
        remove(Path::new("/no/such/directory")).unwrap();
    }
}
