//! Roots from archives, good and hostile.

use husk_abi::linux::general::*;

use husk_abi::boundary::boot::GuestRange;
use husk_hal::phys::{self, Frame};

use super::cpio::{self, CpioError, CpioErrorAt};
use super::testing::{Program, Random};
use super::tmpfs::{Options, Tmpfs};
use crate::process::testing::test_thread_with_root;

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    data: &'a [u8],
    ino: u32,
    nlink: u32,
}

fn file<'a>(name: &'a str, data: &'a [u8]) -> Entry<'a> {
    Entry {
        name,
        mode: S_IFREG | 0o644,
        data,
        ino: 0,
        nlink: 1,
    }
}

/// Appends an entry, its data aligned to a page if it is that long.
fn append(archive: &mut Vec<u8>, entry: &Entry<'_>) {
    let mut name = entry.name.as_bytes().to_vec();
    name.push(0);
    let end = archive.len() + 110 + name.len();
    let align = if entry.data.len() >= 4096 { 4096 } else { 4 };
    let padding = end.next_multiple_of(align) - end;
    if align == 4096 {
        name.resize(name.len() + padding, 0);
    }
    let fields = [
        entry.ino,
        entry.mode,
        7,
        8,
        entry.nlink,
        1_600_000_000,
        entry.data.len() as u32,
        0,
        1,
        0,
        0,
        name.len() as u32,
        0,
    ];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(&name);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(entry.data);
    archive.resize(archive.len().next_multiple_of(4), 0x55);
}

fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        append(&mut bytes, entry);
    }
    append(&mut bytes, &file("TRAILER!!!", b""));
    bytes
}

fn with_root(archive: &[u8]) -> crate::Result<Program> {
    test_thread_with_root(archive).map(|t| Program { t })
}

#[test]
fn fills_the_root() {
    let big: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    let mut entries = vec![
        Entry {
            mode: S_IFDIR | 0o700,
            ..file(".", b"")
        },
        Entry {
            mode: S_IFDIR | 0o755,
            ..file("bin", b"")
        },
        Entry {
            mode: S_IFREG | 0o4755,
            ..file("bin/big", &big)
        },
        file("./small", b"tiny"),
        file("deep/not/mentioned", b"x"),
        Entry {
            mode: S_IFLNK | 0o777,
            ..file("link", b"bin/big")
        },
        Entry {
            mode: S_IFCHR | 0o666,
            ..file("null", b"")
        },
    ];
    for (name, data) in [("h1", b"".as_slice()), ("h2", b""), ("h3", b"linked")] {
        entries.push(Entry {
            ino: 9,
            nlink: 3,
            ..file(name, data)
        });
    }
    let p = with_root(&archive(&entries)).unwrap();
    assert_eq!(p.contents("/bin/big").unwrap(), big);
    assert_eq!(p.contents("/link").unwrap(), big);
    assert_eq!(p.contents("/small").unwrap(), b"tiny");
    assert_eq!(p.contents("/deep/not/mentioned").unwrap(), b"x");
    assert_eq!(p.contents("/h1").unwrap(), b"linked");
    let stat = p.stat("/bin/big", 0).unwrap();
    assert_eq!(
        (stat.st_mode, stat.st_uid, stat.st_gid),
        (S_IFREG | 0o4755, 7, 8)
    );
    assert_eq!(
        (stat.st_mtime, stat.st_size, stat.st_blocks),
        (1_600_000_000, 10_000, 24)
    );
    assert_eq!(p.stat("/h2", 0).unwrap().st_nlink, 3);
    assert_eq!(p.stat("/", 0).unwrap().st_mode, S_IFDIR | 0o700);
    assert_eq!(
        p.stat("/null", AT_SYMLINK_NOFOLLOW).unwrap().st_mode & S_IFMT,
        S_IFCHR
    );
    // Reading used no memory for contents; writing copies the page, and leaves the rest.
    let used = || p.t.kernel.frames.usage().used_bytes;
    let before = used();
    let fd = p.open("/bin/big", O_RDWR, 0).unwrap();
    p.pwrite(fd, b"###", 5000).unwrap();
    assert_eq!(used() - before, 4096);
    let mut expected = big.clone();
    expected[5000..5003].copy_from_slice(b"###");
    assert_eq!(p.contents("/bin/big").unwrap(), expected);
    assert_eq!(p.stat("/bin/big", 0).unwrap().st_blocks, 24);
    // Past the archive's bytes there are zeros, not the next entry.
    super::attr::ftruncate(&p.t, fd, 12_000).unwrap();
    expected.resize(12_000, 0);
    assert_eq!(p.contents("/bin/big").unwrap(), expected);
    super::attr::ftruncate(&p.t, fd, 4100).unwrap();
    super::attr::ftruncate(&p.t, fd, 5000).unwrap();
    expected.truncate(4100);
    expected.resize(5000, 0);
    assert_eq!(p.contents("/bin/big").unwrap(), expected);
}

#[test]
fn mapped_pages() {
    let big: Vec<u8> = (0..9000u32).map(|n| (n / 7) as u8).collect();
    let p = with_root(&archive(&[file("f", &big)])).unwrap();
    let location = p.t.kernel.fs.find(b"/f").unwrap();
    let mappable = location.inode.mappable().unwrap();
    let mut page = [0; 4096];
    let read = |index: u64, page: &mut [u8; 4096]| {
        let frame = mappable.page(index, false).unwrap();
        husk_hal::phys::read(frame, 0, page);
    };
    read(1, &mut page);
    assert_eq!(page, big[4096..8192]);
    // The last page is a copy with zeros after the end.
    read(2, &mut page);
    assert_eq!(page[..808], big[8192..]);
    assert!(page[808..].iter().all(|byte| *byte == 0));
    assert_eq!(mappable.page(3, false), Err(crate::Errno::ENXIO));
    // A shared mapping and write(2) see each other.
    let frame = mappable.page(0, true).unwrap();
    husk_hal::phys::write(frame, 1, b"map");
    let fd = p.open("/f", O_RDWR, 0).unwrap();
    p.pwrite(fd, b"W", 0).unwrap();
    assert_eq!(&p.contents("/f").unwrap()[..4], b"Wmap");
    let mut page = [0; 4096];
    read(0, &mut page);
    assert_eq!(&page[..4], b"Wmap");
}

/// One kernel and a place for archives.
struct Bench {
    p: Program,
    gpa: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            p: Program::new(),
            gpa: crate::mm::testing::arena(1).start,
        }
    }

    fn fill(&self, archive: &[u8]) -> Result<usize, CpioErrorAt> {
        for (at, chunk) in (self.gpa..).step_by(4096).zip(archive.chunks(4096)) {
            phys::write(Frame::containing(at), 0, chunk);
        }
        let fs = Tmpfs::new(self.p.t.kernel, Options::default(), 0o755, 0, 0);
        let range = GuestRange {
            gpa: self.gpa,
            len: archive.len() as u64,
        };
        cpio::fill(&fs, range)
    }
}

#[test]
fn malformed_archives_are_refused() {
    let bench = Bench::new();
    let good = archive(&[file("a", b"1"), file("b/c", b"22")]);
    assert_eq!(bench.fill(&good), Ok(2));
    let trailer = good.len() - 124;
    for cut in 0..trailer + 110 {
        let error = bench.fill(&good[..cut]).unwrap_err();
        assert_eq!(error.error, CpioError::Truncated, "cut at {cut}");
    }
    for name in ["../x", "a/../../x", "a/..", ".."] {
        let error = bench.fill(&archive(&[file(name, b"")])).unwrap_err();
        assert_eq!(error.error, CpioError::BadName, "{name}");
    }
    let below_file = archive(&[file("a", b""), file("a/b", b"")]);
    let error = bench.fill(&below_file).unwrap_err();
    assert_eq!((error.error, error.offset), (CpioError::Conflict, 112));
    let type_0 = archive(&[Entry {
        mode: 0o644,
        ..file("x", b"")
    }]);
    assert_eq!(bench.fill(&type_0).unwrap_err().error, CpioError::BadType);
    let long = "x".repeat(300);
    let error = bench.fill(&archive(&[file(&long, b"")])).unwrap_err();
    assert_eq!(error.error, CpioError::BadName);
    for (field, error) in [(54, CpioError::Truncated), (94, CpioError::BadName)] {
        let mut huge = good.clone();
        huge[field..field + 8].copy_from_slice(b"ffffffff");
        assert_eq!(bench.fill(&huge).unwrap_err().error, error);
    }
}

/// Random damage never panics, and everything is given back.
#[test]
fn damaged_archives_do_no_harm() {
    let good = archive(&[
        file("a", b"1"),
        Entry {
            mode: S_IFDIR | 0o755,
            ..file("b", b"")
        },
        file("b/c", b"22"),
        Entry {
            mode: S_IFLNK | 0o777,
            ..file("l", b"a")
        },
        Entry {
            ino: 1,
            nlink: 2,
            ..file("h1", b"")
        },
        Entry {
            ino: 1,
            nlink: 2,
            ..file("h2", b"hh")
        },
    ]);
    let bench = Bench::new();
    let used = || bench.p.t.kernel.frames.usage().used_bytes;
    let before = used();
    let mut random = Random(42);
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bad.len() as u64) as usize;
            bad[at] = b"0123456789abcdef/.\0\xff"[random.below(20) as usize];
        }
        let _ = bench.fill(&bad);
    }
    assert_eq!(used(), before);
}

#[test]
fn ten_thousand_files_fill_fast() {
    let names: Vec<String> = (0..10_000)
        .map(|n| format!("usr/lib/dir{}/file{n}", n / 50))
        .collect();
    let entries: Vec<Entry<'_>> = names.iter().map(|name| file(name, b"x")).collect();
    let bytes = archive(&entries);
    let start = std::time::Instant::now();
    let p = with_root(&bytes).unwrap();
    std::eprintln!("10,000 entries: {:?}", start.elapsed());
    assert_eq!(p.contents("/usr/lib/dir199/file9999").unwrap(), b"x");
}
