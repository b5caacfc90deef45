//! Formats, against lines a Linux kernel printed.

use super::memory::map_line;
use super::mounts::options;
use super::process::limit_line;
use super::row::{Row, What};
use super::status::cpu_list;
use super::sysctl::uuid;
use super::system::{ROOT, memory_line};
use super::text::{Bits, Text};
use super::{process, row};
use crate::mm::{MapLine, MapName, Prot};
use husk_abi::linux::general;

fn made(make: impl FnOnce(&mut Text)) -> String {
    let mut text = Text::default();
    make(&mut text);
    String::from_utf8(text.into_bytes()).unwrap()
}

fn map(start: u64, end: u64, prot: Prot, file: (u64, u64, u64), name: MapName) -> String {
    let (offset, dev, ino) = file;
    made(|text| {
        map_line(
            text,
            &MapLine {
                start,
                end,
                prot,
                shared: false,
                offset,
                dev,
                ino,
                name,
                resident_pages: 0,
                anonymous_pages: 0,
            },
        );
    })
}

#[test]
fn maps_lines() {
    let busybox = MapName::Path(b"/bin/busybox"[..].into());
    assert_eq!(
        map(
            0x40_1000,
            0x58_5000,
            Prot::READ | Prot::EXEC,
            (0x1000, 0xfe00, 10_085_179),
            busybox
        ),
        "00401000-00585000 r-xp 00001000 fe:00 10085179                           /bin/busybox\n"
    );
    assert_eq!(
        map(
            0x5e_5000,
            0x5e_c000,
            Prot::READ | Prot::WRITE,
            (0, 0, 0),
            MapName::None
        ),
        "005e5000-005ec000 rw-p 00000000 00:00 0 \n"
    );
    assert_eq!(
        map(
            0x7ffe_ed7b_b000,
            0x7ffe_ed7d_c000,
            Prot::READ | Prot::WRITE,
            (0, 0, 0),
            MapName::Special("[stack]")
        ),
        "7ffeed7bb000-7ffeed7dc000 rw-p 00000000 00:00 0                          [stack]\n"
    );
    let odd = MapName::Path(b"/a\nb"[..].into());
    assert!(map(0x1000, 0x2000, Prot::READ, (0, 0, 1), odd).ends_with(" /a\\012b\n"));
}

#[test]
fn limits_lines() {
    assert_eq!(
        made(|text| limit_line(text, "Max stack size", 8_388_608, u64::MAX, "bytes")),
        "Max stack size            8388608              unlimited            bytes     \n"
    );
    assert_eq!(
        made(|text| limit_line(text, "Max nice priority", 0, 0, "")),
        "Max nice priority         0                    0                    \n"
    );
}

#[test]
fn mount_options() {
    let show = |flags| made(|text| options(text, flags));
    assert_eq!(
        show(general::MS_NOSUID | general::MS_NODEV | general::MS_NOEXEC | general::MS_RELATIME),
        "rw,nosuid,nodev,noexec,relatime"
    );
    assert_eq!(show(general::MS_RDONLY | general::MS_NOATIME), "ro,noatime");
    assert_eq!(
        show(general::MS_STRICTATIME | general::MS_NOSUID),
        "rw,nosuid"
    );
}

#[test]
fn masks_and_lists() {
    assert_eq!(format!("{}", Bits(3, 2)), "3");
    assert_eq!(format!("{}", Bits(0xff, 8)), "ff");
    assert_eq!(format!("{}", Bits(u64::MAX, 64)), "ffffffff,ffffffff");
    assert_eq!(format!("{}", Bits(0x1_0000_0001, 33)), "1,00000001");
    assert_eq!(made(|text| cpu_list(text, 1)), "0");
    assert_eq!(made(|text| cpu_list(text, 4)), "0-3");
}

#[test]
fn small_lines() {
    assert_eq!(
        made(|text| memory_line(text, "MemTotal", 24_684_096 << 10)),
        "MemTotal:       24684096 kB\n"
    );
    assert_eq!(
        made(|text| memory_line(text, "Inactive(anon)", 0)),
        "Inactive(anon):        0 kB\n"
    );
    let bytes = core::array::from_fn(|index| index as u8 * 17);
    assert_eq!(
        made(|text| uuid(text, bytes)),
        "00112233-4455-6677-8899-aabbccddeeff\n"
    );
    assert_eq!(
        made(|text| text.push_escaped(b"a b\\c", b" ")),
        "a\\040b\\134c"
    );
}

fn check_table(path: &str, table: &'static [Row]) {
    let mut names = std::collections::BTreeSet::new();
    for row in table {
        assert!(names.insert(row.name), "{path}/{} is there twice", row.name);
        assert!(!row.name.is_empty() && !row.name.contains('/'));
        // Numbers belong to processes, threads and descriptors.
        assert!(row.name.parse::<u32>().is_err());
        match row.what {
            What::Directory(_) | What::Dynamic(..) => assert_ne!(row.mode & 0o111, 0),
            What::Link(_) | What::Magic(..) => assert_eq!(row.mode, 0o777),
            What::File(_) | What::Writable(..) | What::Sysctl(_) | What::Memory => {
                assert_ne!(row.mode, 0)
            }
        }
        check_table(&format!("{path}/{}", row.name), row.table());
    }
}

#[test]
fn tables_are_sound() {
    let directories: [(&str, &'static row::Row); 3] = [
        ("", &ROOT),
        ("PID", &process::PROCESS),
        ("TID", &process::THREAD),
    ];
    for (path, row) in directories {
        check_table(path, row.table());
    }
}
