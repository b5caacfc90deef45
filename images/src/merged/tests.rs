//! Layers seen together, with the kernel's overlayfs as the judge.

use std::fs;
use std::process::Command;

use super::*;
use crate::testing::{Random, Scratch, Tar, flatten, is_root, listing, unpack_layers};

/// A read-only overlayfs mount, which goes away with the value.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounts layers, topmost first; `None` where that is not to be had.
    fn new(layers: &[PathBuf], at: PathBuf) -> Option<Self> {
        let overlay = fs::read_to_string("/proc/filesystems")
            .unwrap()
            .contains("\toverlay\n");
        if !is_root() || !overlay {
            return None;
        }
        let lower: Vec<&str> = layers.iter().map(|path| path.to_str().unwrap()).collect();
        let mut command = Command::new("mount");
        let options = format!("lowerdir={}", lower.join(":"));
        command
            .args(["-t", "overlay", "husk-test", "-o", &options])
            .arg(&at);
        assert!(command.status().unwrap().success(), "{options}");
        Some(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(
            Command::new("umount")
                .arg(&self.0)
                .status()
                .unwrap()
                .success()
        );
    }
}

/// What we see of layers must be what overlayfs shows of them.
fn agrees(layers: &[Vec<u8>], what: &str) {
    let scratch = Scratch::new();
    let (paths, _) = unpack_layers(scratch.path(), layers).unwrap();
    let flat = scratch.dir("flat");
    flatten(&Stack::open(&paths).unwrap(), &flat);
    // Overlayfs wants two layers at least.
    let (mut paths, mount) = (paths, scratch.dir("mount"));
    paths.push(scratch.dir("empty"));
    if let Some(mounted) = Mounted::new(&paths, mount) {
        // Overlayfs counts names that are hidden as well.
        assert_eq!(listing(&flat, false), listing(&mounted.0, false), "{what}");
    }
}

#[test]
fn overlayfs_shows_the_same() {
    let lower = Tar::new()
        .raw(b'5', b"d", 0o750, b"", b"")
        .file("d/x", "lower")
        .file("d/sub/y", "lower")
        .file("e/f", "lower")
        .hard_link("e/g", "e/f")
        .symlink("l", "d/sub")
        .file("o/p/q", "lower")
        .end();
    let middle = Tar::new()
        .file("l/through", "middle")
        .file("d/.wh.x", "")
        .hard_link("h", "e/g")
        .file("o/.wh..wh..opq", "")
        .file("o/new", "")
        .end();
    let upper = Tar::new()
        .file("d/x", "again")
        .file(".wh.o", "")
        .dir("o")
        .file("e", "a file")
        .end();
    agrees(&[lower.clone(), middle.clone()], "two");
    agrees(&[lower.clone(), middle.clone(), upper.clone()], "three");
    // What the layer on top changes of a directory below is not lost by one that is only on the way.
    let scratch = Scratch::new();
    let (paths, _) = unpack_layers(scratch.path(), &[lower, middle, upper]).unwrap();
    let stack = Stack::open(&paths).unwrap();
    let read = |path: &str| stack.read(Path::new(path), 100).unwrap();
    assert_eq!(read("/d/x").unwrap(), b"again");
    assert_eq!(read("l/y").unwrap(), b"lower");
    assert_eq!(read("l/../sub/through").unwrap(), b"middle");
    assert_eq!(
        (read("o/new"), read("o/p/q"), read("e/f")),
        (None, None, None)
    );
    assert_eq!(read("h").unwrap(), b"lower");
    assert!(stack.read(Path::new("d"), 1).is_err());
    let d = stack.lookup(&stack.root().unwrap(), b"d").unwrap().unwrap();
    assert_eq!(d.stat.st_mode & 0o7777, 0o750);
}

#[test]
fn loops_end() {
    let scratch = Scratch::new();
    let layer = Tar::new().symlink("a", "b").symlink("b", "a").end();
    let (paths, _) = unpack_layers(scratch.path(), &[layer]).unwrap();
    let stack = Stack::open(&paths).unwrap();
    let error = stack.read(Path::new("a"), 1).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    assert_eq!(stack.read(Path::new("../../x"), 1).unwrap(), None);
    assert!(Stack::open(&[scratch.path().join("absent")]).is_err());
    assert!(Stack::open(&[]).unwrap().root().is_none());
}

/// Layers of random entries over a few names, so that everything meets everything.
fn random_layer(random: &mut Random) -> Vec<u8> {
    let mut tar = Tar::new();
    let parts = ["a", "b", "c"];
    for _ in 0..random.below(12) + 1 {
        let depth = random.below(3) + 1;
        let path: Vec<&str> = (0..depth).map(|_| parts[random.below(3)]).collect();
        let (dir, base) = path.split_at(path.len() - 1);
        let dir: String = dir.iter().map(|part| format!("{part}/")).collect();
        let name = format!("{dir}{}", base[0]);
        tar = match random.below(10) {
            0 | 1 => tar.file(&format!("{dir}.wh.{}", base[0]), ""),
            2 => tar.file(&format!("{dir}.wh..wh..opq"), ""),
            3 | 4 => tar.raw(
                b'5',
                name.as_bytes(),
                0o700 + random.below(8) as u32,
                b"",
                b"",
            ),
            5 => tar.symlink(&name, parts[random.below(3)]),
            6 => tar.hard_link(&name, parts[random.below(3)]),
            7 => tar
                .pax("SCHILY.xattr.user.k", name.as_bytes())
                .file(&name, "x"),
            _ => tar.file(&name, name.as_bytes()),
        };
    }
    tar.end()
}

#[test]
fn random_layers_agree_with_overlayfs() {
    let mut random = Random::new(7);
    let (mut tried, mut good) = (0, 0);
    while good < 80 {
        tried += 1;
        assert!(tried < 10_000, "hardly any layer applies");
        let layers: Vec<Vec<u8>> = (0..random.below(4) + 1)
            .map(|_| random_layer(&mut random))
            .collect();
        let scratch = Scratch::new();
        // A file in the way of a directory, or a link to nothing: images that are refused.
        if unpack_layers(scratch.path(), &layers).is_ok() {
            good += 1;
            agrees(&layers, &format!("seed 7, try {tried}"));
        }
    }
}
