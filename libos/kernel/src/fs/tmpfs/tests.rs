//! Contents against a model, names and renames against the manual pages.

use husk_abi::linux::Errno;
use husk_abi::linux::general::*;

use crate::fs::testing::{Program, Random, fails, text};
use crate::fs::{attr, link, rw};

#[test]
fn contents_against_a_model() {
    let p = Program::new();
    let fd = p.open("/f", O_CREAT | O_RDWR, 0o600).unwrap();
    let mut model: Vec<u8> = Vec::new();
    let mut random = Random(0x1234_5678_9abc_def1);
    const SPAN: u64 = 40_000;
    for round in 0..3000u32 {
        let at = random.below(SPAN);
        let len = random.below(9000) as usize;
        match random.below(10) {
            0..=3 => {
                let bytes: Vec<u8> = (0..len).map(|n| (n as u32 ^ round) as u8).collect();
                assert_eq!(p.pwrite(fd, &bytes, at), Ok(len));
                let end = at as usize + len;
                if len > 0 && end > model.len() {
                    model.resize(end, 0);
                }
                if len > 0 {
                    model[at as usize..end].copy_from_slice(&bytes);
                }
            }
            4 => {
                attr::ftruncate(&p.t, fd, at as i64).unwrap();
                model.resize(at as usize, 0);
            }
            5 => {
                let mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
                let result = attr::fallocate(&p.t, fd, u64::from(mode), at as i64, len as i64);
                if len == 0 {
                    fails(result, Errno::EINVAL);
                    continue;
                }
                let end = (at as usize + len).min(model.len());
                if (at as usize) < end {
                    model[at as usize..end].fill(0);
                }
            }
            6 => {
                if len > 0 {
                    attr::fallocate(&p.t, fd, 0, at as i64, len as i64).unwrap();
                    let end = at as usize + len;
                    model.resize(model.len().max(end), 0);
                }
            }
            _ => {
                let mut bytes = vec![0xee; len];
                let got = p.pread(fd, &mut bytes, at).unwrap();
                let start = (at as usize).min(model.len());
                let expected = &model[start..(start + len).min(model.len())];
                assert_eq!(&bytes[..got], expected, "round {round}");
            }
        }
        assert_eq!(rw::lseek(&p.t, fd, 0, SEEK_END as i32), Ok(model.len()));
    }
    // Everything is given back.
    let used = p.t.kernel.frames.usage().used_bytes;
    p.unlink("/f").unwrap();
    assert_eq!(p.t.kernel.frames.usage().used_bytes, used);
    p.close(fd);
    assert!(p.t.kernel.frames.usage().used_bytes < used);
}

#[test]
fn holes_and_data() {
    let p = Program::new();
    let fd = p.open("/f", O_CREAT | O_RDWR, 0o600).unwrap();
    p.pwrite(fd, b"x", 8192).unwrap();
    attr::ftruncate(&p.t, fd, 20_000).unwrap();
    let seek = |at: i64, whence: u32| rw::lseek(&p.t, fd, at, whence as i32);
    assert_eq!(seek(0, SEEK_DATA), Ok(8192));
    assert_eq!(seek(0, SEEK_HOLE), Ok(0));
    assert_eq!(seek(8192, SEEK_HOLE), Ok(12288));
    fails(seek(12288, SEEK_DATA), Errno::ENXIO);
    assert_eq!(seek(15000, SEEK_HOLE), Ok(15000));
    fails(seek(20_000, SEEK_HOLE), Errno::ENXIO);
    fails(seek(-1, SEEK_SET), Errno::EINVAL);
    fails(seek(0, 9), Errno::EINVAL);
    assert_eq!(p.stat("/f", 0).unwrap().st_blocks, 8);
}

#[test]
fn appending_and_positions() {
    let p = Program::new();
    p.create("/f", b"12345");
    let a = p.open("/f", O_WRONLY | O_APPEND, 0).unwrap();
    let r = p.open("/f", O_RDWR, 0).unwrap();
    p.write(a, b"67").unwrap();
    assert_eq!(rw::lseek(&p.t, a, 0, SEEK_CUR as i32), Ok(7));
    p.pwrite(a, b"89", 0).unwrap();
    let mut bytes = [0; 4];
    p.read(r, &mut bytes).unwrap();
    p.read(r, &mut bytes).unwrap();
    assert_eq!(&bytes, b"5678");
    assert_eq!(p.read(r, &mut bytes), Ok(1));
    assert_eq!(p.read(r, &mut bytes), Ok(0));
    fails(p.read(a, &mut bytes), Errno::EBADF);
}

#[test]
fn rename_rules() {
    let p = Program::new();
    for path in ["/d", "/d/sub", "/d/sub/deep", "/e", "/full", "/full/x"] {
        p.mkdir(path).unwrap();
    }
    p.create("/f", b"f");
    p.create("/g", b"g");
    for (from, to, flags, errno) in [
        ("/d", "/d/sub/deep/x", 0, Errno::EINVAL),
        ("/d", "/d/sub", 0, Errno::EINVAL),
        ("/d/sub/deep", "/d", 0, Errno::ENOTEMPTY),
        ("/d", "/full", 0, Errno::ENOTEMPTY),
        ("/d", "/f", 0, Errno::ENOTDIR),
        ("/f", "/d", 0, Errno::EISDIR),
        ("/nope", "/x", 0, Errno::ENOENT),
        ("/f", "/nope/x", 0, Errno::ENOENT),
        ("/f", "/g", RENAME_NOREPLACE, Errno::EEXIST),
        ("/f", "/nope", RENAME_EXCHANGE, Errno::ENOENT),
        ("/d", "/d/sub/deep", RENAME_EXCHANGE, Errno::EINVAL),
        (
            "/f",
            "/g",
            RENAME_EXCHANGE | RENAME_NOREPLACE,
            Errno::EINVAL,
        ),
        ("/f", "/g", 8, Errno::EINVAL),
        ("/f/", "/x", 0, Errno::ENOTDIR),
        ("/f", "/x/", 0, Errno::ENOTDIR),
        ("/d/.", "/x", 0, Errno::EBUSY),
        ("/d", "/", 0, Errno::EBUSY),
    ] {
        assert_eq!(p.rename(from, to, flags), Err(errno), "{from} {to} {flags}");
    }
    p.rename("/f", "/g", RENAME_EXCHANGE).unwrap();
    assert_eq!(p.contents("/f").unwrap(), b"g");
    p.rename("/f", "/g", 0).unwrap();
    assert_eq!(p.contents("/g").unwrap(), b"g");
    assert_eq!(p.contents("/f"), Err(Errno::ENOENT));
    // Over an empty directory, across directories, link counts kept right.
    let links = |path: &str| p.stat(path, 0).unwrap().st_nlink;
    let root = links("/");
    p.rename("/d", "/e", 0).unwrap();
    assert_eq!(links("/"), root - 1);
    p.rename("/e/sub", "/full/sub", 0).unwrap();
    assert_eq!((links("/e"), links("/full")), (2, 4));
    let dotdot = p.stat("/full/sub/..", 0).unwrap().st_ino;
    assert_eq!(dotdot, p.stat("/full", 0).unwrap().st_ino);
    p.rename("/e", "/full/sub", RENAME_EXCHANGE).unwrap();
    assert_eq!((links("/e"), links("/full/sub")), (3, 2));
    // Two names of one file: nothing happens.
    link::link(&p.t, text("/g").at(), text("/h").at()).unwrap();
    p.rename("/g", "/h", 0).unwrap();
    assert_eq!(p.stat("/g", 0).unwrap().st_nlink, 2);
}

#[test]
fn removing() {
    let p = Program::new();
    p.mkdir("/d").unwrap();
    p.create("/d/f", b"data");
    for (result, errno) in [
        (p.rmdir("/d"), Errno::ENOTEMPTY),
        (p.rmdir("/d/f"), Errno::ENOTDIR),
        (p.rmdir("/d/."), Errno::EINVAL),
        (p.rmdir("/d/.."), Errno::ENOTEMPTY),
        (p.rmdir("/"), Errno::EBUSY),
        (p.unlink("/d"), Errno::EISDIR),
        (p.unlink("/d/f/"), Errno::ENOTDIR),
        (p.unlink("/d/x"), Errno::ENOENT),
        (p.mkdir("/d"), Errno::EEXIST),
        (p.mkdir("/"), Errno::EEXIST),
        (p.mkdir("/x/y"), Errno::ENOENT),
    ] {
        assert_eq!(result, Err(errno));
    }
    let fd = p.open("/d/f", O_RDONLY, 0).unwrap();
    p.unlink("/d/f").unwrap();
    let mut bytes = [0; 4];
    assert_eq!(p.read(fd, &mut bytes), Ok(4));
    p.rmdir("/d").unwrap();
    p.mkdir("/e/").unwrap();
}

#[test]
fn listing_survives_changes() {
    let p = Program::new();
    p.mkdir("/d").unwrap();
    for n in 0..100 {
        p.create(&format!("/d/stay{n}"), b"");
        p.create(&format!("/d/go{n}"), b"");
    }
    let fd = p.open("/d", O_DIRECTORY, 0).unwrap();
    let mut seen = Vec::new();
    let mut round = 0;
    loop {
        let names = p.list(fd, 128).unwrap();
        if names.is_empty() {
            break;
        }
        seen.extend(names);
        if round < 100 {
            let _ = p.unlink(&format!("/d/go{round}"));
            p.create(&format!("/d/new{round}"), b"");
            let _ = p.unlink(&format!("/d/new{round}"));
        }
        round += 1;
    }
    for n in 0..100 {
        let name = format!("stay{n}");
        assert_eq!(seen.iter().filter(|seen| **seen == name).count(), 1);
    }
    assert_eq!(seen.iter().filter(|name| name.starts_with('.')).count(), 2);
    // A buffer too small for one entry; rewinding.
    rw::lseek(&p.t, fd, 0, SEEK_SET as i32).unwrap();
    assert_eq!(p.list(fd, 20), Err(Errno::EINVAL));
    assert_eq!(p.list(fd, 24).unwrap(), ["."]);
    let file = p.open("/d/stay1", 0, 0).unwrap();
    assert_eq!(p.list(file, 100), Err(Errno::ENOTDIR));
}

#[test]
fn unnamed_files() {
    let p = Program::new();
    p.mkdir("/d").unwrap();
    let fd = p.open("/d", O_TMPFILE | O_RDWR, 0o600).unwrap();
    p.write(fd, b"secret").unwrap();
    let proc = format!("/proc/self/fd/{fd}");
    let (empty, to) = (text(""), text("/d/named"));
    link::linkat(&p.t, fd, empty.at(), -100, to.at(), AT_EMPTY_PATH).unwrap();
    assert_eq!(p.contents("/d/named").unwrap(), b"secret");
    let _ = proc;
    assert_eq!(p.open("/d", O_TMPFILE, 0o600), Err(Errno::EINVAL));
    let fd = p.open("/d", O_TMPFILE | O_RDWR | O_EXCL, 0o600).unwrap();
    let to = text("/d/never");
    fails(
        link::linkat(&p.t, fd, empty.at(), -100, to.at(), AT_EMPTY_PATH),
        Errno::ENOENT,
    );
}

#[test]
fn set_id_bits_go_when_written() {
    let p = Program::new();
    p.create("/f", b"x");
    attr::chown(&p.t, text("/f").at(), 5, 5).unwrap();
    attr::chmod(&p.t, text("/f").at(), 0o6777).unwrap();
    p.become_user(5);
    let fd = p.open("/f", O_WRONLY, 0).unwrap();
    p.write(fd, b"y").unwrap();
    assert_eq!(p.stat("/f", 0).unwrap().st_mode & 0o7777, 0o777);
}

#[test]
fn limits_of_the_mount() {
    let p = Program::new();
    let fd = p.open("/dev/shm/f", O_CREAT | O_RDWR, 0o600).unwrap();
    // 64 MiB is more than the test's memory: whichever limit is met first, the file stays usable.
    let chunk = vec![1u8; 1 << 20];
    let mut written = 0;
    while let Ok(len) = p.write(fd, &chunk) {
        written += len;
    }
    assert!(written > 1 << 20);
    attr::ftruncate(&p.t, fd, 0).unwrap();
    assert_eq!(p.write(fd, b"x"), Ok(1));
}
