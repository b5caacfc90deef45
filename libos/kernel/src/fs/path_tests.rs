//! Path walking, opening and permissions over a tmpfs.

use husk_abi::linux::Errno;
use husk_abi::linux::general::{self, *};

use super::testing::{CWD, Program, fails, text};
use super::{attr, dir, fdops, link, open, stat};
use crate::user::UserAddr;

fn tree() -> Program {
    let p = Program::new();
    p.mkdir("/a").unwrap();
    p.mkdir("/a/b").unwrap();
    p.create("/a/b/file", b"hello");
    p.symlink("b", "/a/link").unwrap();
    p.symlink("/a/b/file", "/a/abs").unwrap();
    p.symlink("../a/link/../abs", "/a/twisted").unwrap();
    p.symlink("loop", "/a/loop").unwrap();
    p.symlink("nothing", "/a/dangling").unwrap();
    p
}

#[test]
fn finds() {
    let p = tree();
    for path in [
        "/a/b/file",
        "//a/./b//file",
        "/../../a/b/file",
        "/a/link/file",
        "/a/abs",
        "/a/twisted",
        "a/b/../b/file",
        "/a/link/../b/file",
    ] {
        assert_eq!(
            p.contents(path).as_deref(),
            Ok(b"hello".as_slice()),
            "{path}"
        );
    }
    for (path, errno) in [
        ("", Errno::ENOENT),
        ("/a/x", Errno::ENOENT),
        ("/a/x/y", Errno::ENOENT),
        ("/a/b/file/", Errno::ENOTDIR),
        ("/a/b/file/x", Errno::ENOTDIR),
        ("/a/b/file/..", Errno::ENOTDIR),
        ("/a/abs/", Errno::ENOTDIR),
        ("/a/loop", Errno::ELOOP),
        ("/a/loop/x", Errno::ELOOP),
        ("/a/dangling", Errno::ENOENT),
    ] {
        assert_eq!(p.contents(path), Err(errno), "{path}");
    }
    let long = format!("/a/{}", "x".repeat(256));
    assert_eq!(p.contents(&long), Err(Errno::ENAMETOOLONG));
    let long = "/a/..".repeat(1000);
    assert_eq!(p.contents(&long), Err(Errno::ENAMETOOLONG));
}

#[test]
fn forty_links_and_no_more() {
    let p = Program::new();
    p.create("/l0", b"end");
    for n in 1..=41 {
        p.symlink(&format!("l{}", n - 1), &format!("/l{n}"))
            .unwrap();
    }
    assert_eq!(p.contents("/l40").unwrap(), b"end");
    assert_eq!(p.contents("/l41"), Err(Errno::ELOOP));
}

#[test]
fn open_flags() {
    let p = tree();
    assert_eq!(p.open("/a/b", O_WRONLY, 0), Err(Errno::EISDIR));
    assert_eq!(p.open("/a/b", O_CREAT, 0), Err(Errno::EISDIR));
    assert_eq!(p.open("/a/b/", O_CREAT, 0), Err(Errno::EISDIR));
    assert_eq!(p.open("/a/new/", O_CREAT | O_WRONLY, 0), Err(Errno::EISDIR));
    assert_eq!(p.open("/a/b/file", O_DIRECTORY, 0), Err(Errno::ENOTDIR));
    assert_eq!(p.open("/a/b/file", O_CREAT | O_EXCL, 0), Err(Errno::EEXIST));
    assert_eq!(
        p.open("/a/dangling", O_CREAT | O_EXCL, 0),
        Err(Errno::EEXIST)
    );
    assert_eq!(p.open("/a/abs", O_NOFOLLOW, 0), Err(Errno::ELOOP));
    assert_eq!(p.open("/a/b", O_CREAT | O_DIRECTORY, 0), Err(Errno::EINVAL));
    // Creating through a dangling link makes its target.
    let fd = p.open("/a/dangling", O_CREAT | O_RDWR, 0o666).unwrap();
    p.write(fd, b"x").unwrap();
    assert_eq!(p.contents("/a/nothing").unwrap(), b"x");
    assert_eq!(p.stat("/a/nothing", 0).unwrap().st_mode, S_IFREG | 0o644);
    // O_TRUNC.
    p.open("/a/b/file", O_WRONLY | O_TRUNC, 0).unwrap();
    assert_eq!(p.contents("/a/b/file").unwrap(), b"");
    // O_PATH of a link itself, and what can be done with it.
    let fd = p.open("/a/abs", O_PATH | O_NOFOLLOW, 0).unwrap();
    let mut target = [0u8; 64];
    let at = UserAddr(target.as_mut_ptr() as u64);
    assert_eq!(stat::readlinkat(&p.t, fd, text("").at(), at, 64), Ok(9));
    assert_eq!(&target[..9], b"/a/b/file");
    fails(p.read(fd, &mut [0; 4]), Errno::EBADF);
    fails(attr::fchmod(&p.t, fd, 0), Errno::EBADF);
    let dup = fdops::fcntl(&p.t, fd, F_DUPFD as i32, 100).unwrap();
    assert_eq!(dup, 100);
    let flags = fdops::fcntl(&p.t, fd, F_GETFL as i32, 0).unwrap() as u32;
    assert_eq!(flags, O_PATH | O_NOFOLLOW);
    // The lowest free descriptor.
    p.close(0);
    assert_eq!(p.open("/a/b/file", 0, 0), Ok(0));
}

#[test]
fn working_directory() {
    let p = tree();
    assert_eq!(p.getcwd().unwrap(), "/");
    p.chdir("/a/link").unwrap();
    assert_eq!(p.getcwd().unwrap(), "/a/b");
    assert_eq!(p.contents("file").unwrap(), b"hello");
    assert_eq!(p.contents("../abs").unwrap(), b"hello");
    // The path follows renames of what is above.
    p.rename("/a", "/c", 0).unwrap();
    assert_eq!(p.getcwd().unwrap(), "/c/b");
    fails(p.chdir("file"), Errno::ENOTDIR);
    p.unlink("file").unwrap();
    p.rmdir("/c/b").unwrap();
    assert_eq!(p.getcwd(), Err(Errno::ENOENT));
    assert_eq!(p.contents("new"), Err(Errno::ENOENT));
    assert_eq!(p.open("new", O_CREAT, 0), Err(Errno::ENOENT));
    p.chdir("..").unwrap();
    assert_eq!(p.getcwd().unwrap(), "/c");
    let mut small = [0u8; 2];
    let at = UserAddr(small.as_mut_ptr() as u64);
    fails(dir::getcwd(&p.t, at, 2), Errno::ERANGE);
}

#[test]
fn chroot_bounds_walks() {
    let p = tree();
    dir::chroot(&p.t, text("/a").at()).unwrap();
    p.chdir("/").unwrap();
    assert_eq!(p.getcwd().unwrap(), "/");
    assert_eq!(p.contents("/../../b/file").unwrap(), b"hello");
    // An absolute link starts at the new root.
    assert_eq!(p.contents("/abs"), Err(Errno::ENOENT));
    p.chdir("b").unwrap();
    assert_eq!(p.getcwd().unwrap(), "/b");
}

#[test]
fn permissions_on_the_way() {
    let p = tree();
    attr::chmod(&p.t, text("/a").at(), 0o700).unwrap();
    p.become_user(1000);
    assert_eq!(p.contents("/a/b/file"), Err(Errno::EACCES));
    assert_eq!(p.open("/new", O_CREAT, 0o600), Err(Errno::EACCES));
    fails(p.mkdir("/new"), Errno::EACCES);
    fails(p.unlink("/a"), Errno::EACCES);
    fails(attr::chmod(&p.t, text("/a").at(), 0o777), Errno::EPERM);
    fails(attr::chown(&p.t, text("/a").at(), 1000, 1000), Errno::EPERM);
    p.become_root();
    attr::chmod(&p.t, text("/a").at(), 0o711).unwrap();
    p.become_user(1000);
    assert_eq!(p.contents("/a/b/file").unwrap(), b"hello");
    assert_eq!(p.open("/a", 0, 0), Err(Errno::EACCES));
    assert_eq!(p.open("/a/b/file", O_WRONLY, 0), Err(Errno::EACCES));
    assert_eq!(p.open("/a/b/file", O_NOATIME, 0), Err(Errno::EPERM));
}

#[test]
fn sticky_and_inheritance() {
    let p = Program::new();
    p.mkdir("/tmp").unwrap();
    attr::chmod(&p.t, text("/tmp").at(), 0o1777).unwrap();
    p.mkdir("/shared").unwrap();
    attr::chown(&p.t, text("/shared").at(), 0, 77).unwrap();
    attr::chmod(&p.t, text("/shared").at(), 0o2777).unwrap();
    p.become_user(1);
    p.create("/tmp/mine", b"");
    p.symlink("/etc", "/tmp/trap").unwrap();
    p.mkdir("/shared/sub").unwrap();
    p.create("/shared/file", b"");
    let sub = p.stat("/shared/sub", 0).unwrap();
    assert_eq!((sub.st_gid, sub.st_mode), (77, S_IFDIR | 0o2755));
    assert_eq!(p.stat("/shared/file", 0).unwrap().st_gid, 77);
    p.become_user(2);
    fails(p.unlink("/tmp/mine"), Errno::EPERM);
    fails(p.rename("/tmp/mine", "/tmp/x", 0), Errno::EPERM);
    // Protected links: not even root follows what another put there. Files are not protected.
    assert_eq!(p.contents("/tmp/trap/x"), Err(Errno::EACCES));
    p.become_root();
    assert_eq!(p.contents("/tmp/trap"), Err(Errno::EACCES));
    p.open("/tmp/mine", O_CREAT | O_WRONLY, 0).unwrap();
    p.unlink("/tmp/mine").unwrap();
}

#[test]
fn mounts_are_crossed_both_ways() {
    let p = Program::new();
    let null = p.stat("/dev/null", 0).unwrap();
    assert_eq!(null.st_mode & S_IFMT, S_IFCHR);
    assert_ne!(null.st_dev, p.stat("/", 0).unwrap().st_dev);
    let root = p.stat("/", 0).unwrap().st_ino;
    assert_eq!(p.stat("/dev/shm/../..", 0).unwrap().st_ino, root);
    p.chdir("/dev/shm").unwrap();
    assert_eq!(p.getcwd().unwrap(), "/dev/shm");
    p.create("x", b"1");
    let (x, y) = (text("/dev/shm/x"), text("/y"));
    fails(link::link(&p.t, x.at(), y.at()), Errno::EXDEV);
    fails(p.rename("/dev/shm/x", "/y", 0), Errno::EXDEV);
    fails(p.rmdir("/dev/shm"), Errno::EBUSY);
    fails(p.rename("/dev/shm", "/dev/x", 0), Errno::EBUSY);
}

#[test]
fn openat2_restrictions() {
    let p = tree();
    let base = p.open("/a", O_PATH | O_DIRECTORY, 0).unwrap();
    let try_open = |path: &str, resolve: u32| {
        let how = [0u64, 0, u64::from(resolve)];
        let path = text(path);
        let result = open::openat2(&p.t, base, path.at(), UserAddr(how.as_ptr() as u64), 24);
        result.map(|fd| p.close(fd as i32))
    };
    assert_eq!(try_open("b/file", RESOLVE_BENEATH), Ok(()));
    assert_eq!(try_open("b/../b/file", RESOLVE_BENEATH), Ok(()));
    assert_eq!(try_open("../a/b/file", RESOLVE_BENEATH), Err(Errno::EXDEV));
    assert_eq!(try_open("/a/b/file", RESOLVE_BENEATH), Err(Errno::EXDEV));
    assert_eq!(try_open("abs", RESOLVE_BENEATH), Err(Errno::EXDEV));
    assert_eq!(try_open("/b/file", RESOLVE_IN_ROOT), Ok(()));
    assert_eq!(try_open("../../b/file", RESOLVE_IN_ROOT), Ok(()));
    assert_eq!(try_open("abs", RESOLVE_IN_ROOT), Err(Errno::ENOENT));
    assert_eq!(
        try_open("link/file", RESOLVE_NO_SYMLINKS),
        Err(Errno::ELOOP)
    );
    assert_eq!(try_open("../dev/null", RESOLVE_NO_XDEV), Err(Errno::EXDEV));
    assert_eq!(try_open("b/file", 1 << 20), Err(Errno::EINVAL));
    let (path, how) = (text("b"), [0u64, 0, 0, 1]);
    let at = UserAddr(how.as_ptr() as u64);
    fails(open::openat2(&p.t, base, path.at(), at, 32), Errno::E2BIG);
    fails(open::openat2(&p.t, base, path.at(), at, 8), Errno::EINVAL);
}

#[test]
fn calls_by_descriptor() {
    let p = tree();
    let fd = p.open("/a/b/file", 0, 0).unwrap();
    let empty = text("");
    let mut buf = [0u64; 18];
    let at = UserAddr(buf.as_mut_ptr() as u64);
    stat::newfstatat(&p.t, fd, empty.at(), at, general::AT_EMPTY_PATH).unwrap();
    fails(stat::newfstatat(&p.t, fd, empty.at(), at, 0), Errno::ENOENT);
    fails(
        stat::newfstatat(&p.t, 99, empty.at(), at, AT_EMPTY_PATH),
        Errno::EBADF,
    );
    fails(
        stat::newfstatat(&p.t, fd, text("x").at(), at, 0),
        Errno::ENOTDIR,
    );
    fails(
        stat::newfstatat(&p.t, fd, empty.at(), at, 1 << 30),
        Errno::EINVAL,
    );
    fails(stat::access(&p.t, text("/a/b/file").at(), 8), Errno::EINVAL);
    // Not even root executes what nobody may.
    fails(stat::access(&p.t, text("/a/b/file").at(), 1), Errno::EACCES);
    assert_eq!(stat::faccessat(&p.t, CWD, text("/a/b/file").at(), 6), Ok(0));
}

#[test]
fn executing_and_writing_exclude_each_other() {
    let p = tree();
    fails_file(
        open::open_for_exec(&p.t, CWD, b"/a/b/file", 0),
        Errno::EACCES,
    );
    attr::chmod(&p.t, text("/a/b/file").at(), 0o755).unwrap();
    let running = open::open_for_exec(&p.t, CWD, b"/a/b/file", 0).unwrap();
    assert_eq!(p.open("/a/b/file", O_WRONLY, 0), Err(Errno::ETXTBSY));
    fails(
        attr::truncate(&p.t, text("/a/b/file").at(), 0),
        Errno::ETXTBSY,
    );
    let mut bytes = [0; 8];
    assert_eq!(running.read_kernel(&p.t, 1, &mut bytes), Ok(4));
    assert_eq!(&bytes[..4], b"ello");
    drop(running);
    let writer = p.open("/a/b/file", O_WRONLY, 0).unwrap();
    fails_file(
        open::open_for_exec(&p.t, CWD, b"/a/b/file", 0),
        Errno::ETXTBSY,
    );
    p.close(writer);
    fails_file(open::open_for_exec(&p.t, CWD, b"/a/b", 0), Errno::EACCES);
    fails_file(
        open::open_for_exec(&p.t, CWD, b"/a/abs", AT_SYMLINK_NOFOLLOW),
        Errno::ELOOP,
    );
}

fn fails_file(result: crate::Result<super::FileRef>, errno: Errno) {
    assert_eq!(result.err(), Some(errno));
}

#[test]
fn what_was_looked_up_before_is_looked_up_again_when_it_changes() {
    let p = tree();
    p.create("/a/other", b"another");
    let size = |path: &str| {
        let mut sizes: Vec<_> = (0..4)
            .map(|_| p.stat(path, 0).map(|stat| stat.st_size))
            .collect();
        sizes.dedup();
        assert_eq!(sizes.len(), 1, "{path}");
        sizes.remove(0)
    };
    for path in ["/a/b/file", "/a/link/file", "/a/abs", "a/b/file"] {
        assert_eq!(size(path), Ok(5), "{path}");
    }
    // The file, a directory, a link on the way.
    p.rename("/a/other", "/a/b/file", 0).unwrap();
    assert_eq!(size("/a/link/file"), Ok(7));
    p.rename("/a/b", "/a/c", 0).unwrap();
    assert_eq!(size("/a/b/file"), Err(Errno::ENOENT));
    assert_eq!(size("/a/abs"), Err(Errno::ENOENT));
    assert_eq!(size("/a/c/file"), Ok(7));
    p.unlink("/a/link").unwrap();
    p.symlink("c", "/a/link").unwrap();
    assert_eq!(size("/a/link/file"), Ok(7));
    // Where relative paths start.
    assert_eq!(size("c/file"), Err(Errno::ENOENT));
    p.chdir("/a").unwrap();
    assert_eq!(size("c/file"), Ok(7));
    p.chdir("/").unwrap();
    assert_eq!(size("c/file"), Err(Errno::ENOENT));
    // Who may.
    p.become_user(1000);
    assert_eq!(size("/a/c/file"), Ok(7));
    p.become_root();
    assert_eq!(attr::chmod(&p.t, text("/a/c").at(), 0o700), Ok(0));
    assert_eq!(size("/a/c/file"), Ok(7));
    p.become_user(1000);
    assert_eq!(size("/a/c/file"), Err(Errno::EACCES));
    p.become_root();
    // A file that is gone, and one of the same name.
    p.unlink("/a/c/file").unwrap();
    assert_eq!(size("/a/c/file"), Err(Errno::ENOENT));
    p.create("/a/c/file", b"new");
    assert_eq!(size("/a/c/file"), Ok(3));
    assert_eq!(p.contents("/a/c/file").unwrap(), b"new");
}
