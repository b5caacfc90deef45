//! Layers onto directories: what shall come out, and what hostile ones must not do.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::testing::{Random, Scratch, Tar, flatten, is_root, listing, mutate, unpack_layers};

/// A target directory beside a secret that must stay as it is.
struct Ground {
    scratch: Scratch,
    target: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let scratch = Scratch::new();
        let target = scratch.dir("target");
        fs::create_dir(scratch.path().join("outside")).unwrap();
        fs::write(scratch.path().join("outside/secret"), "secret").unwrap();
        Self { scratch, target }
    }

    fn apply(&self, layers: &[Vec<u8>]) -> Result<Unpacked, UnpackError> {
        if let [layer] = layers {
            let mut unpacker = Unpacker::new(&self.target, Stack::open(&[]).unwrap())?;
            unpacker.apply(&mut layer.as_slice())?;
            return unpacker.finish();
        }
        let scratch = Scratch::new();
        let (paths, done) = unpack_layers(scratch.path(), layers)?;
        flatten(&Stack::open(&paths).unwrap(), &self.target);
        Ok(done)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.target.join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn exists(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    /// Nothing but the target and the secret is there.
    fn assert_outside_untouched(&self) {
        let mut names: Vec<_> = fs::read_dir(self.scratch.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["outside", "target"]);
        let outside = self.scratch.path().join("outside");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(
            fs::read_to_string(outside.join("secret")).unwrap(),
            "secret"
        );
        assert_eq!(fs::metadata(outside.join("secret")).unwrap().nlink(), 1);
    }
}

fn apply(layers: &[Vec<u8>]) -> Ground {
    let ground = Ground::new();
    ground.apply(layers).unwrap();
    ground.assert_outside_untouched();
    ground
}

/// Applies a layer that must be refused, and gives the message.
fn refused(layer: Tar) -> (UnpackError, String) {
    let ground = Ground::new();
    let error = ground.apply(&[layer.end()]).unwrap_err();
    ground.assert_outside_untouched();
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    (error, text)
}

#[test]
fn kinds_modes_and_times() {
    let ground = apply(&[Tar::new()
        .dir("./")
        .raw(b'5', b"tmp/", 0o1777, b"", b"")
        .raw(b'5', b"shut/", 0o555, b"", b"")
        .file("shut/in", "x")
        .raw(b'0', b"su", 0o4755, b"", b"data")
        .raw(b'0', b"sg", 0o2711, b"", b"")
        .symlink("abs", "/etc/passwd")
        .symlink("dangling", "../../../x/y")
        .hard_link("su2", "su")
        .raw(b'6', b"fifo", 0o620, b"", b"")
        .pax("mtime", b"1234567890.123456789")
        .file("fine", "")
        .end()]);
    let mode = |path: &str| ground.at(path).symlink_metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("shut")), (0o1777, 0o555));
    assert_eq!(
        (mode("su"), mode("sg"), mode("fifo")),
        (0o4755, 0o2711, 0o620)
    );
    assert_eq!(mode(""), 0o755);
    assert_eq!(
        fs::read_link(ground.at("abs")).unwrap(),
        Path::new("/etc/passwd")
    );
    assert_eq!(
        fs::read_link(ground.at("dangling")).unwrap(),
        Path::new("../../../x/y")
    );
    let (a, b) = (
        ground.at("su").metadata().unwrap(),
        ground.at("su2").metadata().unwrap(),
    );
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    assert!(
        ground
            .at("fifo")
            .symlink_metadata()
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let fine = ground.at("fine").metadata().unwrap();
    assert_eq!(
        (fine.mtime(), fine.mtime_nsec()),
        (1_234_567_890, 123_456_789)
    );
    // Filled after it was made, and still with the time of its entry.
    for path in ["", "tmp", "shut", "su", "abs", "fifo"] {
        assert_eq!(
            ground.at(path).symlink_metadata().unwrap().mtime(),
            1000,
            "{path}"
        );
    }
}

#[test]
fn missing_parents_are_made_alike_every_time() {
    let ground = apply(&[Tar::new().file("a/b/c", "x").end()]);
    for path in ["", "a", "a/b"] {
        let meta = ground.at(path).metadata().unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o755, 0), "{path}");
    }
}

#[test]
fn absolute_names_count_from_the_root() {
    let ground = apply(&[Tar::new().file("/etc/x", "1").file("a/../b", "2").end()]);
    assert_eq!(
        (ground.read("etc/x"), ground.read("b")),
        ("1".into(), "2".into())
    );
    assert!(!ground.exists("a"));
}

#[test]
fn owners_need_root() {
    let layer = Tar::new()
        .owner(1234, 4321)
        .dir("d")
        .file("f", "")
        .symlink("l", "f")
        .end();
    let ground = Ground::new();
    let result = ground.apply(&[layer]);
    if !is_root() {
        assert!(matches!(result, Err(UnpackError::Privilege { .. })));
        return;
    }
    result.unwrap();
    for path in ["d", "f", "l"] {
        let meta = ground.at(path).symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 4321), "{path}");
    }
}

#[test]
fn setuid_survives_a_change_of_owner() {
    if !is_root() {
        return;
    }
    let ground = apply(&[Tar::new()
        .owner(7, 8)
        .raw(b'0', b"su", 0o6755, b"", b"")
        .end()]);
    let meta = ground.at("su").metadata().unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (7, 0o6755));
}

fn device(name: &str, major: u32, minor: u32) -> Tar {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_mode(0o600);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_size(0);
    header.set_mtime(1000);
    header.set_entry_type(tar::EntryType::Char);
    header.set_device_major(major).unwrap();
    header.set_device_minor(minor).unwrap();
    header.set_cksum();
    Tar::new().block(&header, b"")
}

#[test]
fn device_nodes_or_a_typed_error() {
    let ground = Ground::new();
    match ground.apply(&[device("null", 1, 3).end()]) {
        Ok(_) => {
            let meta = ground.at("null").metadata().unwrap();
            assert!(meta.file_type().is_char_device());
            assert_eq!(meta.rdev(), rustix::fs::makedev(1, 3));
            assert_eq!(meta.mode() & 0o7777, 0o600);
        }
        Err(error) => {
            assert!(matches!(error, UnpackError::Privilege { .. }), "{error}");
            assert!(error.to_string().contains("CAP_MKNOD"), "{error}");
        }
    }
}

#[test]
fn extended_attributes_where_permitted() {
    // A version 2 capability: cap_net_bind_service, effective; its bytes hold a newline value too.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let ground = Ground::new();
    let done = ground.apply(&[Tar::new()
        .pax("SCHILY.xattr.user.note", b"a\nb\0c")
        .file("f", "")
        .pax("SCHILY.xattr.security.capability", &capability)
        .owner(0, 0)
        .raw(b'0', b"ping", 0o755, b"", b"")
        .pax("SCHILY.xattr.trusted.overlay.opaque", b"y")
        .pax("SCHILY.xattr.security.selinux", b"x")
        .pax("SCHILY.xattr.user.dir", b"d")
        .dir("d")
        .end()]);
    if !is_root() {
        return;
    }
    let done = done.unwrap();
    let get = |path: &str, name: &str| {
        let path = CString::new(ground.at(path).as_os_str().as_bytes()).unwrap();
        let mut value = [0; 64];
        let len = rustix::fs::lgetxattr(path.as_c_str(), name, &mut value[..]).ok()?;
        Some(value[..len].to_vec())
    };
    assert_eq!(get("d", "trusted.overlay.opaque"), None);
    assert!(done.skipped_xattrs >= 2);
    // File systems without attributes of one kind skip and count them.
    if done.skipped_xattrs == 2 {
        assert_eq!(get("f", "user.note").unwrap(), b"a\nb\0c");
        assert_eq!(get("ping", "security.capability").unwrap(), capability);
        assert_eq!(get("d", "user.dir").unwrap(), b"d");
    }
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    let lower = Tar::new()
        .file("a", "")
        .file("d/x", "")
        .file("d/sub/y", "")
        .file("keep", "")
        .end();
    let upper = Tar::new()
        .file("new", "")
        .file(".wh.new", "")
        .file(".wh.a", "")
        .file(".wh.absent", "")
        .file("absent-dir/.wh.x", "")
        .file("d/z", "")
        .file(".wh.d", "")
        .end();
    let ground = apply(&[lower, upper]);
    assert!(ground.exists("new") && ground.exists("keep") && ground.exists("d/z"));
    for gone in ["a", "d/x", "d/sub", ".wh.a", "absent-dir"] {
        assert!(!ground.exists(gone), "{gone}");
    }
}

#[test]
fn opaque_directories_in_any_order() {
    let lower = Tar::new()
        .file("d/old", "")
        .file("d/sub/old", "")
        .file("e/old", "")
        .end();
    let first = Tar::new()
        .file("d/.wh..wh..opq", "")
        .file("d/sub/new", "")
        .end();
    let last = Tar::new()
        .dir("d")
        .file("d/sub/new", "")
        .file("d/.wh..wh..opq", "")
        .end();
    for upper in [first, last] {
        let ground = apply(&[lower.clone(), upper]);
        assert!(ground.exists("d/sub/new") && ground.exists("e/old"));
        assert!(!ground.exists("d/old") && !ground.exists("d/sub/old"));
        assert!(!ground.exists("d/.wh..wh..opq"));
    }
    let all = Tar::new().file(".wh..wh..opq", "").file("only", "").end();
    let ground = apply(&[lower, all]);
    assert_eq!(fs::read_dir(&ground.target).unwrap().count(), 1);
}

#[test]
fn kinds_replace_each_other() {
    let lower = Tar::new()
        .dir("d")
        .file("d/x", "")
        .file("f", "old")
        .symlink("l", "d")
        .end();
    let upper = Tar::new()
        .file("d", "file")
        .dir("f")
        .file("f/in", "")
        .dir("l")
        .file("l/y", "")
        .end();
    let ground = apply(&[lower, upper]);
    assert_eq!(ground.read("d"), "file");
    assert!(ground.exists("f/in") && ground.exists("l/y"));
    assert!(!ground.at("l").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn directories_merge_and_take_the_upper_attributes() {
    let lower = Tar::new().dir("d").file("d/x", "").end();
    let upper = Tar::new()
        .raw(b'5', b"d", 0o700, b"", b"")
        .file("d/y", "")
        .end();
    let ground = apply(&[lower, upper]);
    assert!(ground.exists("d/x") && ground.exists("d/y"));
    assert_eq!(ground.at("d").metadata().unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn hard_links_to_lower_layers_and_links() {
    let lower = Tar::new().file("f", "data").symlink("s", "/nowhere").end();
    let upper = Tar::new()
        .hard_link("g", "/f")
        .hard_link("t", "./s")
        .hard_link("f", "f")
        .file("g2", "other")
        .hard_link("g2", "g")
        .end();
    let ground = apply(&[lower, upper]);
    assert_eq!(ground.at("f").metadata().unwrap().nlink(), 3);
    assert_eq!(ground.read("g2"), "data");
    assert_eq!(
        fs::read_link(ground.at("t")).unwrap(),
        Path::new("/nowhere")
    );
}

#[test]
fn a_file_is_never_written_through_a_link() {
    let ground = Ground::new();
    let secret = ground.scratch.path().join("outside/secret");
    let text = secret.to_str().unwrap();
    let layer = Tar::new()
        .symlink("s", "/x")
        .file("s", "mine")
        .pax("linkpath", text.as_bytes())
        .raw(b'2', b"p", 0o777, b"", b"")
        .file("p", "mine")
        .file("h", "1")
        .hard_link("h2", "h")
        .file("h", "2")
        .end();
    ground.apply(&[layer]).unwrap();
    ground.assert_outside_untouched();
    assert_eq!(
        (ground.read("s"), ground.read("p")),
        ("mine".into(), "mine".into())
    );
    assert_eq!(
        (ground.read("h"), ground.read("h2")),
        ("2".into(), "1".into())
    );
}

#[test]
fn links_in_the_way_resolve_inside_the_root() {
    let ground = Ground::new();
    let outside = ground.scratch.path().join("outside");
    let inside_name = format!("{}/made", outside.display());
    let layer = Tar::new()
        .symlink("up", "../../../../..")
        .file("up/at-root", "")
        .pax("linkpath", outside.as_os_str().as_bytes())
        .raw(b'2', b"abs", 0o777, b"", b"")
        .file("abs/made", "")
        .symlink("run", "/var/run/./x//")
        .file("run/pid", "")
        .dir("a/b")
        .symlink("a/b/c", "../../z")
        .file("a/b/c/f", "")
        .symlink("one", "two")
        .symlink("two", "a")
        .file("one/g", "")
        .end();
    ground.apply(&[layer]).unwrap();
    ground.assert_outside_untouched();
    assert!(ground.exists("at-root"));
    assert!(ground.exists(inside_name.trim_start_matches('/')));
    assert!(ground.exists("var/run/x/pid") && ground.exists("z/f") && ground.exists("a/g"));
}

#[test]
fn links_that_are_there_already_are_not_followed_out() {
    // As if another process had put them there between two entries.
    let ground = Ground::new();
    symlink(ground.scratch.path().join("outside"), ground.at("d")).unwrap();
    symlink(ground.scratch.path().join("outside/secret"), ground.at("f")).unwrap();
    let layer = Tar::new()
        .file("d/x", "")
        .file("f", "mine")
        .file("d/.wh..wh..opq", "")
        .end();
    ground.apply(&[layer]).unwrap();
    ground.assert_outside_untouched();
}

#[test]
fn whiteouts_through_links_stay_inside() {
    let ground = Ground::new();
    let outside = ground.scratch.path().join("outside");
    let lower = Tar::new()
        .pax("linkpath", outside.as_os_str().as_bytes())
        .raw(b'2', b"out", 0o777, b"", b"")
        .symlink("up", "..")
        .file("x", "")
        .end();
    let upper = Tar::new()
        .file("out/.wh.secret", "")
        .file("out/.wh..wh..opq", "")
        .file("up/.wh.outside", "")
        .file("up/.wh.x", "")
        .file(".wh.out", "")
        .end();
    ground.apply(&[lower, upper]).unwrap();
    ground.assert_outside_untouched();
    assert!(!ground.exists("x") && !ground.exists("out") && ground.exists("up"));
}

#[test]
fn names_that_leave_the_root_are_refused() {
    for name in [
        "../x",
        "..",
        "a/../../x",
        "/../x",
        "./../outside/secret",
        "a/b/../../../x",
    ] {
        for flag in [b'0', b'1', b'2', b'5', b'6'] {
            let (error, text) = refused(Tar::new().raw(flag, name.as_bytes(), 0o644, b"x", b""));
            assert!(matches!(error, UnpackError::Escape { .. }), "{text}");
            assert!(text.contains(name), "{text}");
        }
    }
    let (error, _) = refused(Tar::new().pax("path", b"../../pax").file("innocent", ""));
    assert!(matches!(error, UnpackError::Escape { .. }));
    let (error, _) = refused(
        Tar::new()
            .raw(b'L', b"l", 0, b"", b"../gnu\0")
            .file("innocent", ""),
    );
    assert!(matches!(error, UnpackError::Escape { .. }));
    let (error, _) = refused(Tar::new().file("../.wh.outside", ""));
    assert!(matches!(error, UnpackError::Escape { .. }));
}

#[test]
fn hard_links_that_leave_the_root_are_refused() {
    for target in [
        "../outside/secret",
        "/../outside/secret",
        "a/../../outside/secret",
    ] {
        let (error, text) = refused(Tar::new().dir("a").hard_link("h", target));
        assert!(matches!(error, UnpackError::LinkEscape { .. }), "{text}");
        assert!(text.contains("\"h\"") && text.contains(target), "{text}");
    }
    // Through a link the target is looked for inside, where it is not.
    let layer = Tar::new()
        .symlink("s", "../outside")
        .hard_link("h", "s/secret");
    assert!(matches!(refused(layer).0, UnpackError::LinkTarget { .. }));
    for target in ["absent", "d", "", ".", "/"] {
        let (error, text) = refused(Tar::new().dir("d").hard_link("h", target));
        assert!(
            matches!(error, UnpackError::LinkTarget { .. }),
            "{target}: {text}"
        );
    }
    // The target lies in what makes way for the link.
    let layer = Tar::new().file("d/f", "").hard_link("d", "d/f");
    assert!(matches!(refused(layer).0, UnpackError::LinkTarget { .. }));
}

#[test]
fn impossible_names_are_refused() {
    let (error, _) = refused(Tar::new().file("", ""));
    assert!(matches!(error, UnpackError::Name { .. }));
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."] {
        let (error, text) = refused(Tar::new().dir("d").file("d/x", "").file(name, ""));
        assert!(matches!(error, UnpackError::Whiteout { .. }), "{text}");
    }
    for name in [".", "./", "/", "a/.."] {
        for flag in [b'0', b'2'] {
            let (error, text) = refused(Tar::new().raw(flag, name.as_bytes(), 0o644, b"x", b""));
            assert!(matches!(error, UnpackError::Root { .. }), "{text}");
        }
    }
    let (error, _) = refused(Tar::new().pax("path", &b"x/".repeat(3000)).file("i", ""));
    assert!(matches!(error, UnpackError::Name { .. }));
    let (error, _) = refused(Tar::new().pax("path", &b"x/".repeat(300)).file("i", ""));
    assert!(matches!(error, UnpackError::TooDeep { .. }));
    let (error, text) = refused(Tar::new().pax("path", &[b'n'; 300]).file("i", ""));
    assert!(matches!(error, UnpackError::Io { .. }), "{text}");
    let (error, text) = refused(Tar::new().file("f", "").file("f/x", ""));
    assert!(matches!(error, UnpackError::NotADirectory { .. }), "{text}");
    let (error, _) = refused(Tar::new().symlink("e", ""));
    assert!(matches!(error, UnpackError::Io { .. }));
    let (_, text) = refused(Tar::new().file("../a\n\u{1b}[2J", ""));
    assert!(text.contains("\\n\\u{1b}"), "{text}");
}

#[test]
fn link_loops_end() {
    let layer = Tar::new()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/x", "");
    assert!(matches!(refused(layer).0, UnpackError::TooManyLinks { .. }));
    let layer = Tar::new().symlink("a", "a/a").file("a/x", "");
    assert!(matches!(refused(layer).0, UnpackError::TooManyLinks { .. }));
    // Depth cannot be had by way of links either.
    let mut layer = Tar::new();
    for i in 0..30 {
        let deep = format!("s{i}/{}", "d/".repeat(10));
        layer = layer.symlink(&format!("s{}", i + 1), &deep);
        layer = layer.dir(&deep.replace("s0/", ""));
    }
    assert!(matches!(refused(layer).0, UnpackError::TooDeep { .. }));
}

#[test]
fn holes_stay_holes() {
    let data = [b"A".repeat(512), b"B".repeat(100)].concat();
    let check = |ground: &Ground, name: &str| {
        let bytes = fs::read(ground.at(name)).unwrap();
        assert_eq!(bytes.len(), 1 << 20, "{name}");
        assert_eq!(bytes[4096..4608], data[..512], "{name}");
        assert_eq!(bytes[65536..65636], data[512..], "{name}");
        assert_eq!(bytes.iter().filter(|b| **b != 0).count(), 612, "{name}");
        assert!(
            ground.at(name).metadata().unwrap().blocks() * 512 < 1 << 20,
            "{name}"
        );
    };
    let map = b"4096,512,65536,100";
    let one_zero = [
        b"2\n4096\n512\n65536\n100\n".to_vec(),
        vec![0; 491],
        data.clone(),
    ]
    .concat();
    let ground = apply(&[Tar::new()
        .pax("GNU.sparse.size", b"1048576")
        .pax("GNU.sparse.map", map)
        .file("p01", &data)
        .pax("GNU.sparse.size", b"1048576")
        .pax("GNU.sparse.numblocks", b"2")
        .pax("GNU.sparse.offset", b"4096")
        .pax("GNU.sparse.numbytes", b"512")
        .pax("GNU.sparse.offset", b"65536")
        .pax("GNU.sparse.numbytes", b"100")
        .file("p00", &data)
        .pax("GNU.sparse.major", b"1")
        .pax("GNU.sparse.minor", b"0")
        .pax("GNU.sparse.name", b"p10")
        .pax("GNU.sparse.realsize", b"1048576")
        .file("GNUSparseFile.0/p10", &one_zero)
        .file("after", "z")
        .end()]);
    for name in ["p00", "p01", "p10"] {
        check(&ground, name);
    }
    assert_eq!(ground.read("after"), "z");
}

#[test]
fn every_cut_is_an_error_or_whole_entries() {
    // The digests tell a cut between entries; here a cut inside one must be an error.
    let layer = Tar::new()
        .pax("mtime", b"5")
        .file("a", "x".repeat(700))
        .dir("d")
        .cut();
    for len in 0..layer.len() {
        let ground = Ground::new();
        let result = ground.apply(&[layer[..len].to_vec()]);
        let between = len == 0 || len == layer.len() - 512;
        assert_eq!(result.is_ok(), between, "{len}: {result:?}");
        ground.assert_outside_untouched();
    }
}

#[test]
fn random_damage_never_panics_or_escapes() {
    let layer = Tar::new()
        .pax("SCHILY.xattr.user.a", b"b")
        .file("a/b", "data")
        .symlink("s", "/a")
        .file("s/c", "")
        .hard_link("h", "a/b")
        .file("a/.wh.b", "")
        .end();
    let mut random = Random::new(1);
    for _ in 0..1500 {
        let mut damaged = layer.clone();
        for _ in 0..3 {
            let at = random.below(damaged.len());
            damaged[at] = random.below(256) as u8;
        }
        // Headers get their checksum back, so that the fields are looked at.
        for block in damaged
            .chunks_mut(512)
            .filter(|b| b.len() == 512 && b[257] == b'u')
        {
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        let ground = Ground::new();
        let _ = ground.apply(&[damaged]);
        ground.assert_outside_untouched();
    }
}

#[test]
fn the_umask_does_not_matter() {
    // These bits are what the usual umask of 022 takes away.
    let ground = apply(&[Tar::new()
        .raw(b'0', b"w", 0o666, b"", b"")
        .raw(b'5', b"d", 0o777, b"", b"")
        .end()]);
    assert_eq!(
        ground.at("w").metadata().unwrap().permissions().mode() & 0o7777,
        0o666
    );
    assert_eq!(
        ground.at("d").metadata().unwrap().permissions().mode() & 0o7777,
        0o777
    );
}

#[test]
fn trees_are_removed_without_following_links() {
    let ground = Ground::new();
    symlink(ground.scratch.path().join("outside"), ground.at("l")).unwrap();
    for (dir, mode) in [("d", 0o000), ("e", 0o555)] {
        fs::create_dir(ground.at(dir)).unwrap();
        fs::write(ground.at(dir).join("f"), "").unwrap();
        fs::set_permissions(ground.at(dir), fs::Permissions::from_mode(mode)).unwrap();
    }
    remove_tree(&ground.target).unwrap();
    remove_tree(&ground.target).unwrap();
    assert!(!ground.target.exists());
    assert!(ground.scratch.path().join("outside/secret").exists());
}

#[test]
fn archives_of_gnu_tar_come_out_as_they_went_in() {
    let ground = Ground::new();
    let source = ground.scratch.path().join("outside");
    let at = |name: &str| source.join(name);
    let deep = "long-directory-name/".repeat(12);
    fs::create_dir_all(at(&deep)).unwrap();
    fs::write(at(&deep).join("n".repeat(200)), "deep").unwrap();
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/f"), "data").unwrap();
    fs::hard_link(at("d/f"), at("d/g")).unwrap();
    symlink("t".repeat(300), at("d/long-link")).unwrap();
    symlink("f", at("d/link")).unwrap();
    // Twelve islands: the old sparse format needs a continuation block.
    let holes = File::create_new(at("holes")).unwrap();
    for i in 0..12 {
        std::os::unix::fs::FileExt::write_at(&holes, b"island", i * 1_000_000).unwrap();
    }
    holes.set_len(20_000_000).unwrap();
    fs::set_permissions(at("d/f"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(at("d"), fs::Permissions::from_mode(0o1755)).unwrap();
    for options in [
        &["--format=gnu", "-S"][..],
        &["--format=pax", "-S"],
        &["--format=pax", "-S", "--sparse-version=0.1"],
        &["--format=pax", "-S", "--sparse-version=0.0"],
    ] {
        let tar = std::process::Command::new("tar")
            .args(options)
            .arg("-cC")
            .arg(&source)
            .arg(".")
            .output();
        let Ok(tar) = tar.map(|t| t.stdout).map_err(drop) else {
            return; // Not installed.
        };
        let target = ground.scratch.dir("gnu");
        let mut unpacker = Unpacker::new(&target, Stack::open(&[]).unwrap()).unwrap();
        unpacker.apply(&mut tar.as_slice()).unwrap();
        unpacker.finish().unwrap();
        let strip = |lines: Vec<String>| -> Vec<String> {
            // The GNU format has whole seconds.
            let whole = options[0] == "--format=gnu";
            let cut = |l: String| match (whole, l.find('.')) {
                (true, Some(dot)) => {
                    format!("{}{}", &l[..dot], l[dot..].split_once(' ').unwrap().1)
                }
                _ => l,
            };
            lines.into_iter().map(cut).collect()
        };
        assert_eq!(
            strip(listing(&source, true)),
            strip(listing(&target, true)),
            "{options:?}"
        );
        assert!(
            target.join("holes").metadata().unwrap().blocks() < 1000,
            "{options:?}"
        );
        remove_tree(&target).unwrap();
    }
}

/// What `fuzz/fuzz_targets/layers.rs` does without end, for a moment: layers on layers without the digests that would keep
/// a mutation out.
#[test]
fn mutated_layers_stay_inside() {
    let lower = Tar::new()
        .dir("d")
        .file("d/f", "x".repeat(600))
        .symlink("l", "d")
        .hard_link("h", "d/f")
        .pax("SCHILY.xattr.user.n", b"v")
        .file("attr", "y")
        .end();
    let upper = Tar::new()
        .file("l/new", "z")
        .file(".wh.h", "")
        .file("d/.wh..wh..opq", "")
        .pax("GNU.sparse.size", b"1048576")
        .pax("GNU.sparse.map", b"4096,1")
        .file("sparse", "s")
        .end();
    let mut random = Random::new(23);
    let mut applied = 0;
    for round in 0..2000 {
        let mut layers = [lower.clone(), upper.clone()];
        mutate(&mut random, &mut layers[round % 2]);
        let ground = Ground::new();
        match ground.apply(&layers) {
            Ok(_) => applied += 1,
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
        ground.assert_outside_untouched();
    }
    assert!(
        (200..1800).contains(&applied),
        "{applied} of them were good"
    );
}
