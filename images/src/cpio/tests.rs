//! Archives of roots, read back by a small reader of our own and by GNU cpio.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};

use rustix::fs::Mode;

use super::*;
use crate::progress::NoProgress;
use crate::testing::{Scratch, Tar};
use crate::unpack::Unpacker;

#[derive(Debug, PartialEq, Eq)]
struct Record {
    name: String,
    fields: Vec<u32>,
    name_size: u64,
    data_at: u64,
    data: Vec<u8>,
}

impl Record {
    fn ino(&self) -> u32 {
        self.fields[0]
    }
    fn mode(&self) -> u32 {
        self.fields[1]
    }
    fn nlink(&self) -> u32 {
        self.fields[4]
    }
    fn mtime(&self) -> u32 {
        self.fields[5]
    }
}

/// Reads as Linux does (init/initramfs.c) and checks the promises of the format.
fn parse(bytes: &[u8]) -> Vec<Record> {
    assert_eq!(bytes.len() as u64 % PAGE, 0);
    let mut at = 0;
    let mut records = Vec::new();
    loop {
        assert_eq!(at % 4, 0);
        assert_eq!(&bytes[at..at + 6], b"070701");
        let hex = |i: usize| {
            let text = std::str::from_utf8(&bytes[at + 6 + 8 * i..at + 14 + 8 * i]).unwrap();
            u32::from_str_radix(text, 16).unwrap()
        };
        let fields: Vec<u32> = (0..11).map(hex).collect();
        let (name_size, size) = (hex(11) as usize, fields[6] as usize);
        assert_eq!(hex(12), 0);
        assert!(name_size as u64 <= MAX_NAMESIZE);
        let field = &bytes[at + 110..at + 110 + name_size];
        let end = field.iter().position(|b| *b == 0).unwrap();
        assert!(field[end..].iter().all(|b| *b == 0));
        let name = String::from_utf8(field[..end].to_vec()).unwrap();
        let data_at = (at + 110 + name_size).next_multiple_of(4);
        if name == "TRAILER!!!" {
            assert!(bytes[data_at..].iter().all(|b| *b == 0));
            return records;
        }
        if fields[1] & 0o170_000 == 0o100_000 && size as u64 >= PAGE {
            assert_eq!(data_at as u64 % PAGE, 0, "{name}");
        }
        records.push(Record {
            name,
            fields,
            name_size: name_size as u64,
            data_at: data_at as u64,
            data: bytes[data_at..data_at + size].to_vec(),
        });
        at = (data_at + size).next_multiple_of(4);
    }
}

/// A directory as a root of one layer.
fn write(root: &Path, out: &File) -> Result<u64, CpioError> {
    let stack = Stack::open(&[root.to_owned()]).unwrap();
    write_root_archive(&stack, out, &mut NoProgress)
}

fn archive(root: &Path) -> Vec<u8> {
    let scratch = Scratch::new();
    let path = scratch.path().join("out");
    let length = write(root, &File::create_new(&path).unwrap());
    let bytes = fs::read(path).unwrap();
    assert_eq!(length.unwrap(), bytes.len() as u64);
    bytes
}

fn sample() -> Scratch {
    let root = Scratch::new();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("b/c")).unwrap();
    fs::write(at("b/c/small"), "small").unwrap();
    fs::write(at("b/page"), vec![7; 4096]).unwrap();
    fs::write(at("b/under"), vec![8; 4095]).unwrap();
    fs::write(
        at("b/big"),
        (0..100_001_u32).map(|i| i as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    fs::write(at("b-"), "").unwrap();
    symlink("/b/../c", at("a-link")).unwrap();
    fs::hard_link(at("b/big"), at("a-name")).unwrap();
    fs::hard_link(at("b/big"), at("z-name")).unwrap();
    fs::hard_link(at("b/c/small"), at("b/c/small2")).unwrap();
    fs::set_permissions(at("b/under"), fs::Permissions::from_mode(0o4751)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    root
}

#[test]
fn order_numbers_and_alignment() {
    let root = sample();
    let records = parse(&archive(root.path()));
    // The root may be repeated to make room.
    let names: Vec<&str> = records
        .iter()
        .enumerate()
        .filter(|(i, r)| *i == 0 || r.name != ".")
        .map(|(_, r)| r.name.as_str())
        .collect();
    let expected = [
        ".",
        "a-link",
        "a-name",
        "b",
        "b/big",
        "b/c",
        "b/c/small",
        "b/c/small2",
        "b/page",
        "b/under",
        "b-",
        "fifo",
        "z-name",
    ];
    let mut sorted = expected.to_vec();
    sorted.sort_by_key(|n| Path::new(*n).to_path_buf());
    assert_eq!(names, sorted);
    let get = |name: &str| records.iter().find(|r| r.name == name).unwrap();
    for name in ["a-name", "b/big"] {
        assert_eq!((get(name).nlink(), get(name).data.len()), (3, 0));
        assert_eq!(get(name).ino(), get("z-name").ino());
    }
    assert_eq!(
        (get("z-name").nlink(), get("z-name").data.len()),
        (3, 100_001)
    );
    assert_eq!(get("b/c/small2").data, b"small");
    assert_eq!(get("a-link").data, b"/b/../c");
    assert_eq!(get("b/under").mode(), 0o104_751);
    assert_eq!((get("b").nlink(), get("fifo").nlink()), (2, 1));
    let meta = root.path().join("b/page").metadata().unwrap();
    assert_eq!(
        u64::from(get("b/page").mtime()),
        meta.mtime().cast_unsigned()
    );
    assert_eq!(get("b/page").fields[2], meta.uid());
}

#[test]
fn equal_roots_give_equal_archives() {
    let (one, two) = (Scratch::new(), Scratch::new());
    // Made in another order, so that inode numbers and directory order differ.
    let mut names: Vec<String> = (0..50).map(|i| format!("f{i}")).collect();
    for root in [&one, &two] {
        for name in &names {
            fs::write(root.path().join(name), name).unwrap();
        }
        fs::hard_link(root.path().join("f7"), root.path().join("link")).unwrap();
        names.reverse();
        for name in names.iter().map(String::as_str).chain([".", "link"]) {
            let file = File::open(root.path().join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
    }
    assert_eq!(archive(one.path()), archive(two.path()));
}

#[test]
fn data_is_aligned_at_every_starting_point() {
    // Names of many lengths before page-sized files sweep the offset over a page, the places
    // where the name cannot make the room among them.
    let root = Scratch::new();
    let mut repeated = 0;
    for i in 0..600 {
        let pad = "n".repeat(1 + (i * 37) % 200);
        fs::write(root.path().join(format!("{i:03}{pad}")), vec![1; i % 97]).unwrap();
        fs::write(
            root.path().join(format!("{i:03}{pad}x")),
            vec![i as u8; 4096 + i * 53 % 4096],
        )
        .unwrap();
    }
    let mut records = parse(&archive(root.path()));
    let dot = records.remove(0);
    records.retain(|r| {
        repeated += usize::from(r.name == ".");
        assert!(r.name != "." || r.fields == dot.fields);
        r.name != "."
    });
    assert_eq!(records.len(), 1200);
    assert!(repeated > 0, "the sweep missed the case it is for");
    assert!(records.iter().any(|r| r.name_size > 4000));
    for (i, pair) in records.chunks(2).enumerate() {
        assert_eq!(pair[0].data, vec![1; i % 97]);
        assert_eq!(pair[1].data, vec![i as u8; 4096 + i * 53 % 4096]);
        assert_eq!(pair[1].data_at % PAGE, 0);
    }
}

#[test]
fn what_the_format_cannot_hold() {
    let refused = |root: &Scratch| {
        let out = Scratch::new();
        let file = File::create_new(out.path().join("o")).unwrap();
        write(root.path(), &file).unwrap_err()
    };
    let root = Scratch::new();
    File::create_new(root.path().join("huge"))
        .unwrap()
        .set_len(1 << 32)
        .unwrap();
    let error = refused(&root);
    assert!(matches!(error, CpioError::TooLarge { .. }), "{error}");
    assert!(
        error.to_string().contains("\"huge\" has 4294967296 bytes"),
        "{error}"
    );

    let root = Scratch::new();
    fs::write(root.path().join("TRAILER!!!"), "").unwrap();
    assert!(matches!(refused(&root), CpioError::Name { .. }));

    let root = Scratch::new();
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("s")).unwrap();
    assert!(matches!(refused(&root), CpioError::Kind { .. }));
}

#[test]
fn the_longest_names_are_aligned_too() {
    for (length, fits) in [
        (4090, true),
        (4091, true),
        (4092, true),
        (4093, true),
        (4094, false),
    ] {
        // Sixteen directories, then a name that makes up the length.
        let path = format!("{}/", "d".repeat(239)).repeat(16) + &"f".repeat(length - 16 * 240);
        let layer = Tar::new()
            .pax("path", path.as_bytes())
            .file("x", vec![3; 5000])
            .end();
        let root = Scratch::new();
        let mut unpacker = Unpacker::new(root.path(), Stack::open(&[]).unwrap()).unwrap();
        unpacker.apply(&mut layer.as_slice()).unwrap();
        unpacker.finish().unwrap();
        if fits {
            let records = parse(&archive(root.path()));
            assert_eq!(records.last().unwrap().name, path);
            assert_eq!(records.last().unwrap().data, vec![3; 5000]);
        } else {
            let out = Scratch::new();
            let file = File::create_new(out.path().join("o")).unwrap();
            let result = write(root.path(), &file);
            assert!(matches!(result, Err(CpioError::Name { .. })), "{length}");
        }
    }
}

#[test]
fn times_are_clamped() {
    let root = Scratch::new();
    for (name, seconds) in [("old", -5_i64), ("new", 1 << 33)] {
        let file = File::create_new(root.path().join(name)).unwrap();
        let time = rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&file, &times).unwrap();
    }
    let records = parse(&archive(root.path()));
    let mtime = |name: &str| records.iter().find(|r| r.name == name).unwrap().mtime();
    assert_eq!(mtime("old"), 0);
    assert!(mtime("new") > 1 << 31);
}

/// Runs GNU cpio in `dir` with the archive as input; `None` where it is not installed.
fn gnu_cpio(args: &[&str], dir: &Path, archive: &Path) -> Option<String> {
    let child = Command::new("cpio")
        .args(args)
        .current_dir(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::from(File::open(archive).unwrap()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .ok()?;
    let errors = String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(child.status.success(), "{errors}");
    Some(String::from_utf8(child.stdout).unwrap())
}

#[test]
fn gnu_cpio_reads_it() {
    let (root, out) = (sample(), Scratch::new());
    let path = out.path().join("a.cpio");
    fs::write(&path, archive(root.path())).unwrap();
    let Some(list) = gnu_cpio(&["-itv", "--quiet"], out.path(), &path) else {
        return;
    };
    for expected in [
        "a-link -> /b/../c",
        " b/c/small2",
        " z-name",
        "-rwsr-x--x",
        "prw-------",
    ] {
        assert!(list.contains(expected), "{list}");
    }
    let copy = out.dir("copy");
    gnu_cpio(
        &["-idm", "--quiet", "--no-absolute-filenames"],
        &copy,
        &path,
    );
    let compare = |name: &str| {
        let (a, b) = (root.path().join(name), copy.join(name));
        assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap(), "{name}");
        let (a, b) = (a.metadata().unwrap(), b.metadata().unwrap());
        assert_eq!(
            (a.mode(), a.nlink(), a.mtime()),
            (b.mode(), b.nlink(), b.mtime()),
            "{name}"
        );
    };
    for name in [
        "b/c/small",
        "b/c/small2",
        "b/page",
        "b/big",
        "a-name",
        "z-name",
        "b-",
    ] {
        compare(name);
    }
    assert_eq!(
        fs::read_link(copy.join("a-link")).unwrap(),
        Path::new("/b/../c")
    );
}
