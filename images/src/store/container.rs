//! The roots of containers: an image's layers, with one on top that the container writes to.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::{Image, OwnDir, Store, StoreError, failed, make_dir};
use crate::progress::Progress;
use crate::unpack::{UnpackError, Unpacker};

/// The root of one container, writable and its own. What was written goes when the value does, or with the next
/// [`Store::open`] after its process was killed.
#[derive(Debug)]
pub struct ContainerRoot {
    root: OwnedFd,
    is_copy: bool,
    _dir: OwnDir,
}

impl ContainerRoot {
    /// Its top directory.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether it is a copy of the image, because this host stacks no layers for us.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.is_copy
    }
}

impl Store {
    /// Makes a root for a container of `image`: an overlayfs mounted nowhere, so that nothing is left to be unmounted
    /// when its process dies; where that cannot be had, for lack of rights or on a file system that cannot hold its upper
    /// layer, a copy.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn container_root(
        &self,
        image: &Image,
        progress: &mut dyn Progress,
    ) -> Result<ContainerRoot, StoreError> {
        let dir = self.own_dir("container")?;
        let (root, is_copy) = match self.stacked(image, dir.path())? {
            Ok(root) => (root, false),
            Err(errno) => {
                progress.begin(&format!("copying the image (overlayfs: {errno})"), None);
                let root = self.copied(image, dir.path())?;
                progress.end();
                (root, true)
            }
        };
        Ok(ContainerRoot {
            root,
            is_copy,
            _dir: dir,
        })
    }

    /// The image's layers below a new one in `dir`; the inner error is overlayfs'.
    fn stacked(&self, image: &Image, dir: &Path) -> Result<Result<OwnedFd, Errno>, StoreError> {
        if image.layers.is_empty() {
            return Ok(Err(Errno::NOENT));
        }
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        make_dir(&upper)?;
        make_dir(&work)?;
        // A stack's topmost directory gives the root its attributes.
        self.fill(image, &upper, |_| Ok(()))?;
        Ok(overlay(&image.layers, &upper, &work))
    }

    /// All of the image in `dir`.
    pub(super) fn copied(&self, image: &Image, dir: &Path) -> Result<OwnedFd, StoreError> {
        let copy = dir.join("copy");
        make_dir(&copy)?;
        self.fill(image, &copy, Unpacker::copy_lower)?;
        handle(&copy).map_err(|errno| failed("open", &copy, errno.into()))
    }

    /// Gives `target` what `how` takes of the image, and the attributes of its root.
    fn fill(
        &self,
        image: &Image,
        target: &Path,
        how: impl FnOnce(&mut Unpacker) -> Result<(), UnpackError>,
    ) -> Result<(), StoreError> {
        let lower = self.root(image)?;
        let mut unpacker = Unpacker::new(target, lower).map_err(StoreError::Unpack)?;
        how(&mut unpacker).map_err(StoreError::Unpack)?;
        unpacker.finish().map_err(StoreError::Unpack)?;
        Ok(())
    }
}

/// A directory, to be named and walked from only.
fn handle(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

/// Mounts `layers`, topmost first, below `upper`, and gives the top directory: the mount is in no mount namespace, and ends
/// with the last handle of it.
fn overlay(layers: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // The names of open files: `fsconfig(2)` takes no string of more than 255 bytes.
    let named = |path: &Path| -> Result<(OwnedFd, String), Errno> {
        let handle = handle(path)?;
        let name = format!("/proc/self/fd/{}", handle.as_raw_fd());
        Ok((handle, name))
    };
    let set = |key: &CStr, value: &str| fsconfig_set_string(&context, key, value);
    let lower: Vec<_> = layers
        .iter()
        .map(|layer| named(layer))
        .collect::<Result<_, _>>()?;
    for (index, (_, name)) in lower.iter().enumerate() {
        match set(c"lowerdir+", name) {
            // Linux before 6.5 takes them all at once.
            Err(Errno::INVAL) if index == 0 => {
                let names: Vec<&str> = lower.iter().map(|(_, name)| name.as_str()).collect();
                set(c"lowerdir", &names.join(":"))?;
                break;
            }
            other => other?,
        }
    }
    let (_upper, upper) = named(upper)?;
    let (_work, work) = named(work)?;
    set(c"upperdir", &upper)?;
    set(c"workdir", &work)?;
    // Directories of the image can be renamed, and a file keeps its names when it is first written to. A kernel that
    // knows less of this does without.
    let _ = set(c"redirect_dir", "on");
    let _ = set(c"index", "on");
    // The upper layer goes with the container: nothing of it need survive the host's crash.
    let _ = fsconfig_set_flag(&context, c"volatile");
    fsconfig_create(&context)?;
    // The container's devices, set-user-id bits and programs are the guest's business.
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::NoProgress;
    use crate::testing::{Scratch, Tar, docker_archive, listing, source_of};

    fn image(scratch: &Scratch) -> (Store, Image) {
        let layers = [
            Tar::new()
                .dir("d")
                .pax("SCHILY.xattr.user.k", b"value")
                .file("d/one", vec![7; 10_000])
                .hard_link("two", "d/one")
                .symlink("link", "d/one")
                .file("gone", "")
                .end(),
            Tar::new().file(".wh.gone", "").file("d/new", "new").end(),
        ];
        let source = source_of(scratch, "docker-archive", &docker_archive(&layers), "");
        let store = Store::open(&scratch.path().join("store")).unwrap();
        let image = store.add(&source, |_| Vec::new(), &mut NoProgress).unwrap();
        (store, image)
    }

    fn path(fd: &impl AsFd) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/.", fd.as_fd().as_raw_fd()))
    }

    #[test]
    fn a_stack_and_a_copy_show_the_same() {
        let scratch = Scratch::new();
        let (store, image) = image(&scratch);
        let stacked = store.container_root(&image, &mut NoProgress).unwrap();
        let dir = scratch.dir("copied");
        let copied = store.copied(&image, &dir).unwrap();
        let seen = listing(&path(&copied), true);
        assert!(seen.iter().any(|line| line.contains("d/new")), "{seen:#?}");
        assert!(!seen.iter().any(|line| line.contains("gone")), "{seen:#?}");
        assert_eq!(listing(&path(&stacked.directory()), true), seen);
    }

    #[test]
    fn what_one_container_writes_is_its_own_and_goes() {
        let scratch = Scratch::new();
        let (store, image) = image(&scratch);
        let root = || store.container_root(&image, &mut NoProgress).unwrap();
        let (one, other) = (root(), root());
        std::fs::write(path(&one.directory()).join("d/one"), "changed").unwrap();
        let two =
            |root: &ContainerRoot| std::fs::read(path(&root.directory()).join("two")).unwrap();
        if !one.is_copy() {
            // The names of one file stay that.
            assert_eq!(two(&one), b"changed");
        }
        assert_eq!(two(&other), vec![7; 10_000]);
        // A killed process' is removed by whoever opens the store next, a living one's is not.
        Store::open(&scratch.path().join("store")).unwrap();
        assert_eq!(two(&other), vec![7; 10_000]);
        drop((one, other));
        assert_eq!(std::fs::read_dir(&store.tmp).unwrap().count(), 0);
    }
}
