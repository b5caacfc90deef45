//! The image is what a dynamic linker and a program expect of it.
#![allow(unsafe_code, reason = "the test maps the image and calls into it")]

use std::collections::BTreeSet;

use elf::ElfBytes;
use elf::abi::{DT_RELASZ, DT_RELSZ, PF_R, PF_X, PT_DYNAMIC, PT_LOAD, PT_NOTE, SHN_UNDEF};
use elf::endian::LittleEndian;
use husk_abi::boundary::clock::VDSO_WALL_CLOCK_SLOT;

use super::IMAGE;

const NAMES: [&str; 5] = [
    "clock_gettime",
    "gettimeofday",
    "time",
    "clock_getres",
    "getcpu",
];

fn image() -> ElfBytes<'static, LittleEndian> {
    ElfBytes::minimal_parse(IMAGE).expect("an ELF file")
}

#[test]
fn one_segment_from_the_first_byte() {
    let segments: Vec<_> = image()
        .segments()
        .expect("program headers")
        .iter()
        .collect();
    let loads: Vec<_> = segments.iter().filter(|s| s.p_type == PT_LOAD).collect();
    let [load] = loads[..] else {
        panic!("{} segments", loads.len());
    };
    assert_eq!((load.p_offset, load.p_vaddr), (0, 0));
    assert_eq!(load.p_flags, PF_R | PF_X);
    assert_eq!(load.p_filesz, load.p_memsz);
    // Each page costs a process a page-table entry.
    assert!(IMAGE.len() <= 4096, "{} bytes", IMAGE.len());
    for wanted in [PT_DYNAMIC, PT_NOTE] {
        assert!(segments.iter().any(|s| s.p_type == wanted));
    }
    assert_eq!(IMAGE.as_ptr().addr() % 4096, 0);
}

#[test]
fn symbols_have_their_version() {
    let image = image();
    let (symbols, names) = image.dynamic_symbol_table().expect("dynsym").expect("one");
    let versions = image
        .symbol_version_table()
        .expect("versions")
        .expect("some");
    let mut found = BTreeSet::new();
    for (index, symbol) in symbols.iter().enumerate().skip(1) {
        assert_ne!(symbol.st_shndx, SHN_UNDEF, "symbol {index} is undefined");
        let name = names.get(symbol.st_name as usize).expect("a name");
        // The version's own name is an absolute symbol.
        if name == "LINUX_2.6" {
            continue;
        }
        let mut version = versions
            .get_definition(index)
            .expect("a version")
            .expect("one");
        let version = version.names.next().expect("a name").expect("one");
        assert_eq!(version, "LINUX_2.6", "{name}");
        found.insert(name.to_owned());
    }
    let wanted: BTreeSet<_> = NAMES
        .iter()
        .flat_map(|name| [(*name).to_owned(), format!("__vdso_{name}")])
        .collect();
    assert_eq!(found, wanted);
}

#[test]
fn both_hash_tables_find_them() {
    let image = image();
    let common = image.find_common_data().expect("tables");
    let (symbols, names) = (
        common.dynsyms.expect("dynsym"),
        common.dynsyms_strs.expect("dynstr"),
    );
    let (sysv, gnu) = (
        common.sysv_hash.expect("DT_HASH"),
        common.gnu_hash.expect("DT_GNU_HASH"),
    );
    for name in NAMES {
        let name = name.as_bytes();
        assert!(sysv.find(name, &symbols, &names).expect("parses").is_some());
        assert!(gnu.find(name, &symbols, &names).expect("parses").is_some());
    }
}

#[test]
fn nothing_to_relocate() {
    let dynamic = image().dynamic().expect("parses").expect("PT_DYNAMIC");
    assert!(
        !dynamic
            .iter()
            .any(|entry| matches!(entry.d_tag, DT_RELASZ | DT_RELSZ))
    );
}

#[test]
fn one_slot_for_the_wall_clock() {
    let slots = IMAGE
        .chunks_exact(8)
        .filter(|word| **word == VDSO_WALL_CLOCK_SLOT.to_le_bytes());
    assert_eq!(slots.count(), 1);
}

/// The image mapped as a process has it.
struct Mapped(usize);

impl Mapped {
    fn new() -> Self {
        let len = IMAGE.len().next_multiple_of(4096);
        // SAFETY: a fresh private mapping, filled and then made executable.
        unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(at, libc::MAP_FAILED);
            std::ptr::copy_nonoverlapping(IMAGE.as_ptr(), at.cast(), IMAGE.len());
            assert_eq!(
                libc::mprotect(at, len, libc::PROT_READ | libc::PROT_EXEC),
                0
            );
            Self(at as usize)
        }
    }

    fn symbol(&self, name: &str) -> usize {
        let image = image();
        let (symbols, names) = image.dynamic_symbol_table().expect("dynsym").expect("one");
        let symbol = symbols
            .iter()
            .find(|symbol| names.get(symbol.st_name as usize).ok() == Some(name))
            .expect("the symbol");
        self.0 + symbol.st_value as usize
    }
}

/// On the host there is no kvmclock page, so only what goes to the system call, or needs no page, can run.
#[test]
fn runs_on_the_host() {
    let image = Mapped::new();
    // SAFETY: the symbols are functions of these types in executable memory.
    let (gettime, getres, gettimeofday, time) = unsafe {
        type Clock = unsafe extern "C" fn(i32, *mut libc::timespec) -> i32;
        type Day = unsafe extern "C" fn(*mut libc::timeval, *mut libc::timezone) -> i32;
        type Seconds = unsafe extern "C" fn(*mut i64) -> i64;
        (
            std::mem::transmute::<usize, Clock>(image.symbol("clock_gettime")),
            std::mem::transmute::<usize, Clock>(image.symbol("__vdso_clock_getres")),
            std::mem::transmute::<usize, Day>(image.symbol("gettimeofday")),
            std::mem::transmute::<usize, Seconds>(image.symbol("time")),
        )
    };
    let mut at = libc::timespec {
        tv_sec: -1,
        tv_nsec: -1,
    };
    let mut day = libc::timeval {
        tv_sec: 0,
        tv_usec: -1,
    };
    let mut seconds = 0;
    // SAFETY: valid pointers.
    unsafe {
        assert_eq!(gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut at), 0);
        assert!(at.tv_sec >= 0 && at.tv_nsec >= 0);
        assert_eq!(gettime(99, &raw mut at), -libc::EINVAL);
        assert_eq!(
            gettime(libc::CLOCK_MONOTONIC, std::ptr::null_mut()),
            -libc::EFAULT
        );
        assert_eq!(getres(libc::CLOCK_MONOTONIC, &raw mut at), 0);
        assert_eq!((at.tv_sec, at.tv_nsec), (0, 1));
        assert_eq!(getres(libc::CLOCK_TAI, std::ptr::null_mut()), 0);
        assert_eq!(getres(77, &raw mut at), -libc::EINVAL);
        // The slot is not filled in, so these go to the host, whose time(2) reads a coarse clock: a tick behind.
        assert_eq!(gettimeofday(&raw mut day, std::ptr::null_mut()), 0);
        assert_eq!(time(&raw mut seconds), seconds);
    }
    assert!(seconds >= day.tv_sec - 1 && day.tv_sec > 1_700_000_000 && day.tv_usec >= 0);
}
