use super::*;
use crate::mm::load::{Image, Loaded, Setup, load_images};
use crate::mm::{Access, MapName, testing};
use crate::process::Credentials;

/// An ELF file: `segments` are (flags, vaddr, offset, bytes in the file, bytes in memory).
fn elf(kind: u16, entry: u64, interp: bool, segments: &[(u32, u64, u64, u64, u64)]) -> Vec<u8> {
    let mut file = vec![0u8; 0x5000];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let phnum = segments.len() + usize::from(interp);
    file[16..18].copy_from_slice(&kind.to_le_bytes());
    file[18..20].copy_from_slice(&62u16.to_le_bytes());
    file[24..32].copy_from_slice(&entry.to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&(phnum as u16).to_le_bytes());
    file[0x800..0x808].copy_from_slice(b"/lib/ld\0");
    let mut headers = Vec::new();
    let mut push = |kind: u32, flags: u32, words: [u64; 6]| {
        headers.extend_from_slice(&kind.to_le_bytes());
        headers.extend_from_slice(&flags.to_le_bytes());
        words
            .iter()
            .for_each(|word| headers.extend_from_slice(&word.to_le_bytes()));
    };
    if interp {
        push(3, 4, [0x800, 0, 0, 8, 8, 1]);
    }
    for (flags, vaddr, offset, file_bytes, mem_bytes) in segments {
        push(
            1,
            *flags,
            [*offset, *vaddr, 0, *file_bytes, *mem_bytes, PAGE],
        );
    }
    file[64..64 + headers.len()].copy_from_slice(&headers);
    file[0x2000..].fill(0xd5);
    file
}

const STATIC: [(u32, u64, u64, u64, u64); 3] = [
    (4, 0x40_0000, 0, 0x1000, 0x1000),
    (5, 0x40_1000, 0x1000, 0x1000, 0x1000),
    (6, 0x40_3010, 0x2010, 0x20, 0x3000),
];
const DYNAMIC: [(u32, u64, u64, u64, u64); 2] =
    [(5, 0, 0, 0x1800, 0x1800), (6, 0x2800, 0x1800, 0x100, 0x200)];

fn image(frames: &'static Frames, contents: &[u8], path: &[u8]) -> Image {
    Image {
        mappable: Arc::new(TestFile::new(frames, contents)),
        path: Arc::from(path),
    }
}

fn credentials() -> Credentials {
    Credentials {
        uid: 0,
        euid: 0,
        suid: 0,
        fsuid: 0,
        gid: 0,
        egid: 0,
        sgid: 0,
        fsgid: 0,
        groups: Vec::new(),
        cap_bounding: 0,
        cap_effective: 0,
        cap_inheritable: 0,
        cap_permitted: 0,
        cap_ambient: 0,
        no_new_privileges: false,
        securebits: 0,
    }
}

fn run(frames: &'static Frames, contents: &[u8], interpreter: Option<&[u8]>) -> Result<Loaded> {
    let argv = [b"prog".to_vec()];
    let credentials = credentials();
    let vdso: Arc<dyn Mappable> = Arc::new(TestFile::numbered(frames, 2));
    load_images(
        &space(frames),
        &image(frames, contents, b"/bin/prog"),
        &mut |path| {
            assert!(!path.contains(&0));
            let contents = interpreter.ok_or(Errno::ENOENT)?;
            Ok(image(frames, contents, b"/lib/ld"))
        },
        &Setup {
            argv: &argv,
            envp: &[],
            execfn: b"/bin/prog",
            vdso: Some(vdso),
            credentials: &credentials,
            secure: false,
            limits: Limits::DEFAULT,
            randomize: true,
        },
    )
}

/// A value of the auxiliary vector on a loaded program's stack.
fn auxv(loaded: &Loaded, kind: u64) -> u64 {
    let places = loaded.mm.places();
    let mut at = places.auxv_start;
    loop {
        let found = load(&loaded.mm, at).unwrap();
        assert_ne!(found, 0, "no AT_ {kind}");
        if found == kind {
            return load(&loaded.mm, at + 8).unwrap();
        }
        at += 16;
    }
}

#[test]
fn a_static_program() {
    let frames = testing::frames(32);
    let loaded = run(frames, &elf(2, 0x40_1000, false, &STATIC), None).unwrap();
    assert_eq!(loaded.entry, 0x40_1000);
    let mm = &loaded.mm;
    // Argument count and the first argument's string.
    assert_eq!(load(mm, loaded.stack), Ok(1));
    let argument = load(mm, loaded.stack + 8).unwrap();
    assert_eq!(
        load(mm, argument).unwrap() & 0xff_ffff_ffff,
        u64::from_le_bytes(*b"prog\0\0\0\0")
    );
    // Data, then zeros from the end of the file's part on, through the last page.
    assert_eq!(load(mm, 0x40_3028), Ok(0xd5d5_d5d5_d5d5_d5d5));
    assert_eq!(load(mm, 0x40_3030), Ok(0));
    assert_eq!(load(mm, 0x40_3ff8), Ok(0));
    assert_eq!(load(mm, 0x40_6000), Ok(0));
    assert!(load(mm, 0x40_7000).is_err());
    assert!(mm.access(0x40_1000, Access::Write).is_err());
    assert_eq!(auxv(&loaded, 3), 0x40_0040);
    assert_eq!(auxv(&loaded, 9), 0x40_1000);
    assert_eq!(auxv(&loaded, 7), 0);
    let places = mm.places();
    assert_eq!((places.start_code, places.end_code), (0x40_1000, 0x40_2000));
    assert_eq!((places.start_data, places.end_data), (0x40_3010, 0x40_3030));
    assert!((0x40_7000..0x40_7000 + (32 << 20)).contains(&places.start_brk));
    assert_eq!(auxv(&loaded, 33), places.vdso);
    let lines = mm.maps(false);
    let named = |name| {
        lines
            .iter()
            .filter(|l| l.name == MapName::Special(name))
            .count()
    };
    assert_eq!(
        (named("[stack]"), named("[vdso]"), named("[heap]")),
        (1, 1, 0)
    );
    let stack = lines.last().unwrap();
    assert_eq!(stack.perms(), *b"rw-p");
    assert!(stack.end - stack.start >= 128 << 10);
    drop(loaded);
    assert_eq!(used(frames), 0);
}

#[test]
fn a_program_with_an_interpreter() {
    let frames = testing::frames(32);
    let program = elf(3, 0x1000, true, &DYNAMIC);
    let interpreter = elf(3, 0x1100, false, &DYNAMIC);
    let loaded = run(frames, &program, Some(&interpreter)).unwrap();
    let base = auxv(&loaded, 7);
    assert_eq!(loaded.entry, base + 0x1100);
    let bias = auxv(&loaded, 9) - 0x1000;
    assert!((0x5555_5555_4000..0x6555_5555_5000).contains(&bias));
    assert!(base > bias && base < loaded.mm.places().mmap_base);
    assert_eq!(auxv(&loaded, 3), bias + 64);
    assert_eq!(load(&loaded.mm, base + 64 + 16), Ok(0), "mapped");

    let again = run(frames, &program, Some(&interpreter)).unwrap();
    assert_ne!(auxv(&again, 9) - 0x1000, bias, "randomized");
    assert_eq!(run(frames, &program, None).unwrap_err(), Errno::ENOENT);
    assert_eq!(
        run(frames, &program, Some(b"#!/bin/sh")).unwrap_err(),
        Errno::ELIBBAD
    );
}

#[test]
fn what_is_no_program() {
    let frames = testing::frames(64);
    let good = elf(2, 0x40_1000, false, &STATIC);
    assert_eq!(run(frames, b"", None).unwrap_err(), Errno::ENOEXEC);
    assert_eq!(
        run(frames, b"#!/bin/sh\n", None).unwrap_err(),
        Errno::ENOEXEC
    );
    assert_eq!(run(frames, &good[..80], None).unwrap_err(), Errno::ENOEXEC);
    let low = elf(2, 0, false, &[(5, 0, 0, 0x1000, 0x1000)]);
    assert_eq!(run(frames, &low, None).unwrap_err(), Errno::EPERM);
    let far = elf(3, 0, false, &[(5, 0x7000_0000_0000, 0, 0x1000, 0x1000)]);
    let _ = run(frames, &far, None);
    assert_eq!(used(frames), 0);
}

#[test]
fn hostile_files_never_panic() {
    let frames = testing::frames(64);
    let good = elf(3, 0x1000, true, &DYNAMIC);
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let values = [0u8, 1, 0x0f, 0x10, 0x7f, 0x80, 0xff];
    for _ in 0..1500 {
        let mut bad = good.clone();
        for _ in 0..1 + next() % 6 {
            let at = (next() % 240) as usize;
            bad[at] = values[(next() % 7) as usize];
        }
        let _ = run(frames, &bad, Some(&bad));
    }
    assert_eq!(used(frames), 0);
}
