//! Descriptors, attributes, extended attributes, mounts and copying, as programs call them.

use husk_abi::linux::Errno;
use husk_abi::linux::general::*;

use super::testing::{CWD, Program, fails, text};
use super::{attr, fdops, locks, mount_calls, rw, transfer, xattr};
use crate::user::UserAddr;

fn addr<T>(value: &T) -> UserAddr {
    UserAddr(core::ptr::from_ref(value) as u64)
}

#[test]
fn duplicating() {
    let p = Program::new();
    p.create("/f", b"0123456789");
    let fd = p.open("/f", O_RDONLY | O_CLOEXEC, 0).unwrap();
    assert_eq!(fdops::dup(&p.t, fd), Ok(1));
    assert_eq!(fdops::dup2(&p.t, fd, 7), Ok(7));
    assert_eq!(fdops::dup2(&p.t, 7, 7), Ok(7));
    fails(fdops::dup3(&p.t, 7, 7, 0), Errno::EINVAL);
    fails(fdops::dup2(&p.t, 99, 99), Errno::EBADF);
    fails(fdops::dup2(&p.t, fd, 1 << 30), Errno::EBADF);
    // They share the position, not the descriptor flag.
    let mut bytes = [0; 4];
    p.read(fd, &mut bytes).unwrap();
    p.read(7, &mut bytes).unwrap();
    assert_eq!(&bytes, b"4567");
    let get = |fd: i32| fdops::fcntl(&p.t, fd, F_GETFD as i32, 0);
    assert_eq!((get(fd), get(7)), (Ok(1), Ok(0)));
    assert_eq!(fdops::fcntl(&p.t, fd, F_DUPFD_CLOEXEC as i32, 5), Ok(5));
    fails(
        fdops::fcntl(&p.t, fd, F_DUPFD as i32, u64::MAX),
        Errno::EINVAL,
    );
    p.t.files().close_on_exec();
    assert_eq!(p.t.files().open_fds(), [1, 7]);
    fdops::close_range(&p.t, 2, u32::MAX, 0).unwrap();
    assert_eq!(p.t.files().open_fds(), [1]);
    fails(fdops::close_range(&p.t, 3, 2, 0), Errno::EINVAL);
    // A copy of the table is its own.
    let copy = p.t.files().fork();
    p.close(1);
    assert_eq!(copy.open_fds(), [1]);
}

#[test]
fn descriptor_limit() {
    let p = Program::new();
    let limit = p.t.process.limit(RLIMIT_NOFILE).unwrap().rlim_cur as usize;
    let fd = p.open("/", O_RDONLY, 0).unwrap();
    for _ in 1..limit {
        fdops::dup(&p.t, fd).unwrap();
    }
    fails(fdops::dup(&p.t, fd), Errno::EMFILE);
    assert_eq!(p.open("/new", O_CREAT, 0o600), Err(Errno::EMFILE));
    assert_eq!(p.contents("/new"), Err(Errno::EMFILE));
    p.close(5);
    assert_eq!(p.open("/new", O_RDONLY, 0), Err(Errno::ENOENT));
}

#[test]
fn status_flags() {
    let p = Program::new();
    p.create("/f", b"abc");
    let fd = p.open("/f", O_RDWR | O_CLOEXEC, 0).unwrap();
    let get = || fdops::fcntl(&p.t, fd, F_GETFL as i32, 0).unwrap() as u32;
    assert_eq!(get(), O_RDWR | O_LARGEFILE);
    let all = u64::from(O_APPEND | O_NONBLOCK | O_CREAT | O_WRONLY);
    fdops::fcntl(&p.t, fd, F_SETFL as i32, all).unwrap();
    assert_eq!(get(), O_RDWR | O_LARGEFILE | O_APPEND | O_NONBLOCK);
    p.write(fd, b"d").unwrap();
    assert_eq!(p.contents("/f").unwrap(), b"abcd");
    let left = [0i32];
    rw::lseek(&p.t, fd, 1, SEEK_SET as i32).unwrap();
    fdops::ioctl(&p.t, fd, husk_abi::linux::ioctl::FIONREAD, addr(&left).0).unwrap();
    assert_eq!(addr(&left).read::<i32>(), Ok(3));
    fails(fdops::ioctl(&p.t, fd, 0x1234, 0), Errno::ENOTTY);
}

fn lock(kind: u32, start: i64, len: i64) -> flock {
    flock {
        l_type: kind as i16,
        l_whence: SEEK_SET as i16,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

#[test]
fn record_locks_between_tables() {
    let p = Program::new();
    p.create("/f", b"0123456789");
    let fd = p.open("/f", O_RDWR, 0).unwrap();
    let second = p.open("/f", O_RDWR, 0).unwrap();
    let set =
        |fd: i32, command: u32, lock: &flock| fdops::fcntl(&p.t, fd, command as i32, addr(lock).0);
    set(fd, F_SETLK, &lock(F_WRLCK, 2, 3)).unwrap();
    // An open file's lock is somebody else's even in the same process.
    fails(set(fd, F_OFD_SETLK, &lock(F_RDLCK, 4, 1)), Errno::EAGAIN);
    set(fd, F_OFD_SETLK, &lock(F_RDLCK, 5, 0)).unwrap();
    let asked = lock(F_WRLCK, 0, 0);
    set(fd, F_OFD_GETLK, &asked).unwrap();
    let found: flock = addr(&asked).read().unwrap();
    assert_eq!(
        (found.l_start, found.l_len, found.l_type),
        (2, 3, F_WRLCK as i16)
    );
    assert_eq!(found.l_pid, p.t.process.pid as i32);
    // Closing any descriptor of the file drops the process's locks, not the open file's.
    p.close(second);
    let asked = lock(F_WRLCK, 0, 5);
    set(fd, F_OFD_GETLK, &asked).unwrap();
    assert_eq!(addr(&asked).read::<flock>().unwrap().l_type, F_UNLCK as i16);
    fails(set(fd, F_SETLK, &lock(F_WRLCK, 9, 1)), Errno::EAGAIN);
    fails(set(fd, F_SETLK, &lock(F_WRLCK, -1, 1)), Errno::EINVAL);
    fails(set(fd, F_SETLK, &lock(9, 0, 1)), Errno::EINVAL);
    let reader = p.open("/f", O_RDONLY, 0).unwrap();
    fails(set(reader, F_SETLK, &lock(F_WRLCK, 0, 1)), Errno::EBADF);
}

#[test]
fn whole_file_locks() {
    let p = Program::new();
    p.create("/f", b"");
    let a = p.open("/f", O_RDONLY, 0).unwrap();
    let b = p.open("/f", O_RDONLY, 0).unwrap();
    let flock = |fd: i32, operation: u32| locks::flock(&p.t, fd, (operation | LOCK_NB) as i32);
    flock(a, LOCK_SH).unwrap();
    flock(b, LOCK_SH).unwrap();
    fails(flock(a, LOCK_EX), Errno::EAGAIN);
    flock(b, LOCK_UN).unwrap();
    flock(a, LOCK_EX).unwrap();
    fails(flock(b, LOCK_SH), Errno::EAGAIN);
    let dup = fdops::dup(&p.t, a).unwrap() as i32;
    p.close(a);
    fails(flock(b, LOCK_SH), Errno::EAGAIN);
    p.close(dup);
    flock(b, LOCK_EX).unwrap();
    fails(flock(b, 16), Errno::EINVAL);
}

#[test]
fn times() {
    let p = Program::new();
    p.create("/f", b"x");
    let set = |times: [(i64, i64); 2]| {
        let times = times.map(|(tv_sec, tv_nsec)| __kernel_timespec { tv_sec, tv_nsec });
        attr::utimensat(&p.t, CWD, text("/f").at(), addr(&times), 0)
    };
    const OMIT: i64 = 0x3fff_fffe;
    set([(5, 6), (7, 8)]).unwrap();
    set([(0, OMIT), (9, 1)]).unwrap();
    let stat = p.stat("/f", 0).unwrap();
    assert_eq!((stat.st_atime, stat.st_atime_nsec), (5, 6));
    assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (9, 1));
    fails(set([(0, 1_000_000_000), (0, 0)]), Errno::EINVAL);
    p.become_user(3);
    fails(set([(1, 1), (1, 1)]), Errno::EPERM);
    fails(
        attr::utimensat(&p.t, CWD, text("/f").at(), UserAddr(0), 0),
        Errno::EACCES,
    );
}

#[test]
fn extended_attributes() {
    let p = Program::new();
    p.create("/f", b"");
    let (path, name, value) = (text("/f"), text("user.color"), text("blue"));
    let set = |name: &super::testing::Text, flags: u32| {
        xattr::setxattr(&p.t, path.at(), name.at(), value.at(), 4, flags as i32)
    };
    fails(set(&name, XATTR_REPLACE), Errno::ENODATA);
    set(&name, XATTR_CREATE).unwrap();
    fails(set(&name, XATTR_CREATE), Errno::EEXIST);
    fails(set(&text("nospace"), 0), Errno::EOPNOTSUPP);
    fails(set(&text("user."), 0), Errno::EINVAL);
    set(&text("trusted.t"), 0).unwrap();
    let buf = [0u8; 64];
    let at = addr(&buf);
    assert_eq!(xattr::getxattr(&p.t, path.at(), name.at(), at, 0), Ok(4));
    fails(
        xattr::getxattr(&p.t, path.at(), name.at(), at, 3),
        Errno::ERANGE,
    );
    assert_eq!(xattr::getxattr(&p.t, path.at(), name.at(), at, 64), Ok(4));
    assert_eq!(at.read::<[u8; 4]>().unwrap(), *b"blue");
    assert_eq!(xattr::listxattr(&p.t, path.at(), at, 64), Ok(21));
    p.become_user(9);
    assert_eq!(xattr::listxattr(&p.t, path.at(), at, 64), Ok(11));
    fails(set(&name, 0), Errno::EACCES);
    fails(set(&text("trusted.t"), 0), Errno::EPERM);
    p.become_root();
    xattr::removexattr(&p.t, path.at(), name.at()).unwrap();
    fails(
        xattr::removexattr(&p.t, path.at(), name.at()),
        Errno::ENODATA,
    );
}

#[test]
fn mounting() {
    let p = Program::new();
    p.mkdir("/mnt").unwrap();
    p.create("/mnt/below", b"");
    let mount = |source: &str, target: &str, kind: &str, flags: u32, data: &str| {
        let [source, target, kind, data] = [source, target, kind, data].map(text);
        let (source, target, kind) = (source.at(), target.at(), kind.at());
        mount_calls::mount(&p.t, source, target, kind, u64::from(flags), data.at())
    };
    let umount = |target: &str, flags: u64| mount_calls::umount2(&p.t, text(target).at(), flags);
    mount("x", "/mnt", "tmpfs", 0, "size=8k,mode=700").unwrap();
    assert_eq!(p.contents("/mnt/below"), Err(Errno::ENOENT));
    assert_eq!(p.stat("/mnt", 0).unwrap().st_mode, S_IFDIR | 0o700);
    p.create("/mnt/f", b"inside");
    let fd = p.open("/mnt/f", O_RDWR, 0).unwrap();
    assert_eq!(p.pwrite(fd, &[1; 20_000], 0), Ok(8192));
    fails(p.pwrite(fd, &[1; 1], 8192), Errno::ENOSPC);
    fails(umount("/mnt", 0), Errno::EBUSY);
    p.close(fd);
    mount("", "/mnt", "", MS_REMOUNT | MS_RDONLY, "").unwrap();
    assert_eq!(p.open("/mnt/f", O_WRONLY, 0), Err(Errno::EROFS));
    fails(p.mkdir("/mnt/d"), Errno::EROFS);
    fails(p.mkdir("/mnt/f"), Errno::EEXIST);
    fails(p.unlink("/mnt/f"), Errno::EROFS);
    // A mount over a mount, and a bind mount of a part.
    mount("y", "/mnt", "tmpfs", 0, "").unwrap();
    assert_eq!(p.contents("/mnt/f"), Err(Errno::ENOENT));
    umount("/mnt", 0).unwrap();
    p.mkdir("/other").unwrap();
    p.create("/other/o", b"bound");
    mount("/other", "/mnt", "", MS_BIND, "").unwrap();
    assert_eq!(p.contents("/mnt/o").unwrap(), b"bound");
    assert_eq!(
        p.stat("/mnt/..", 0).unwrap().st_ino,
        p.stat("/", 0).unwrap().st_ino
    );
    umount("/mnt", 0).unwrap();
    umount("/mnt", 2).unwrap();
    assert_eq!(p.contents("/mnt/below").unwrap(), b"");
    fails(umount("/mnt", 0), Errno::EINVAL);
    fails(mount("x", "/mnt", "ext4", 0, ""), Errno::ENODEV);
    fails(mount("x", "/mnt", "tmpfs", 0, "bad=1"), Errno::EINVAL);
    p.become_user(1);
    fails(mount("x", "/mnt", "tmpfs", 0, ""), Errno::EPERM);
    fails(umount("/dev/shm", 0), Errno::EPERM);
}

#[test]
fn copying_between_files() {
    let p = Program::new();
    let data: Vec<u8> = (0..200_000u32).map(|n| (n / 3) as u8).collect();
    p.create("/from", &data);
    let from = p.open("/from", O_RDONLY, 0).unwrap();
    let to = p.open("/to", O_CREAT | O_RDWR, 0o600).unwrap();
    rw::lseek(&p.t, from, 10, SEEK_SET as i32).unwrap();
    let sent = transfer::sendfile(&p.t, to, from, UserAddr(0), 150_000);
    assert_eq!(sent, Ok(150_000));
    assert_eq!(rw::lseek(&p.t, from, 0, SEEK_CUR as i32), Ok(150_010));
    let mut bytes = vec![0; 150_000];
    assert_eq!(p.pread(to, &mut bytes, 0), Ok(150_000));
    assert_eq!(bytes, data[10..150_010]);
    let offset = [199_990i64];
    assert_eq!(
        transfer::sendfile(&p.t, to, from, addr(&offset), 100),
        Ok(10)
    );
    assert_eq!(addr(&offset).read::<i64>(), Ok(200_000));
    fails(
        transfer::copy_file_range(&p.t, to, UserAddr(0), from, UserAddr(0), 1, 0),
        Errno::EBADF,
    );
    let (a, b) = ([0i64], [5i64]);
    fails(
        transfer::copy_file_range(&p.t, to, addr(&a), to, addr(&b), 100, 0),
        Errno::EINVAL,
    );
    let b = [1000i64];
    let copied = transfer::copy_file_range(&p.t, to, addr(&a), to, addr(&b), 100, 0);
    assert_eq!(copied, Ok(100));
    let mut bytes = [0; 100];
    p.pread(to, &mut bytes, 1000).unwrap();
    assert_eq!(bytes, data[10..110]);
}

#[test]
fn magic_links() {
    let p = Program::new();
    p.create("/f", b"through the link");
    let fd = p.open("/f", O_RDONLY, 0).unwrap();
    let path = format!("/proc/{}/fd/{fd}", p.t.process.pid);
    assert_eq!(p.contents(&path).unwrap(), b"through the link");
    p.unlink("/f").unwrap();
    assert_eq!(p.contents(&path).unwrap(), b"through the link");
    assert_eq!(p.open(&path, O_NOFOLLOW, 0), Err(Errno::ELOOP));
    p.chdir("/proc").unwrap();
    assert_eq!(p.getcwd().unwrap(), "/proc");
    p.chdir("..").unwrap();
    assert_eq!(p.getcwd().unwrap(), "/");
}
