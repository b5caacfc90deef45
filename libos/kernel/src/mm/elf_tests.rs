use super::*;

fn header(kind: u16, phnum: u16) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16..18].copy_from_slice(&kind.to_le_bytes());
    bytes[18..20].copy_from_slice(&62u16.to_le_bytes());
    bytes[24..32].copy_from_slice(&0x40_1000u64.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&phnum.to_le_bytes());
    bytes
}

fn phdr(kind: u32, flags: u32, words: [u64; 6]) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    words
        .iter()
        .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    bytes
}

#[test]
fn file_headers() {
    let parsed = Header::parse(&header(2, 3)).unwrap();
    assert_eq!((parsed.is_dyn, parsed.phnum, parsed.phoff), (false, 3, 64));
    assert!(Header::parse(&header(3, 1)).unwrap().is_dyn);
    for (at, value) in [(0, 0), (4, 1), (5, 2), (16, 1), (18, 3), (54, 32), (56, 0)] {
        let mut bytes = header(2, 3);
        bytes[at] = value;
        assert_eq!(Header::parse(&bytes), Err(Errno::ENOEXEC), "byte {at}");
    }
    assert_eq!(Header::parse(&header(2, 2000)), Err(Errno::ENOEXEC));
}

#[test]
fn program_headers() {
    let bytes = [
        phdr(3, 4, [0x238, 0, 0, 28, 28, 1]),
        phdr(1, 4, [0, 0x40_0000, 0, 0x500, 0x500, 0x1000]),
        phdr(1, 6, [0x1e10, 0x40_2e10, 0, 0x200, 0x900, 0x20_0000]),
        phdr(0x6474_e551, 7, [0; 6]),
    ]
    .concat();
    let program = Program::parse(&bytes).unwrap();
    assert_eq!(program.interpreter, Some((0x238, 28)));
    assert!(program.executable_stack);
    assert_eq!(program.segments.len(), 2);
    assert_eq!(program.span(), 0x40_0000..0x40_4000);
    assert_eq!(program.align(), 0x20_0000);
    let header = Header::parse(&header(2, 4)).unwrap();
    assert_eq!(program.phdr_address(&header), 0x40_0040);
}

#[test]
fn segments_that_cannot_be_mapped() {
    let parse = |words| Program::parse(&phdr(1, 5, words));
    let einval = Err(Errno::EINVAL);
    assert_eq!(Program::parse(&[]), einval);
    assert_eq!(
        parse([0, 0x1000, 0, 0x2000, 0x1000, 0]),
        einval,
        "file > memory"
    );
    assert_eq!(
        parse([1, 0x1000, 0, 0x10, 0x1000, 0]),
        einval,
        "not congruent"
    );
    assert_eq!(parse([0, 0, 0, 0, u64::MAX, 0]), einval, "too long");
    assert_eq!(parse([0, u64::MAX - 4095, 0, 0, 1, 0]), einval, "too high");
    assert_eq!(parse([u64::MAX - 4095, 0, 0, 1 << 13, 1 << 13, 0]), einval);
    assert!(
        parse([0, 0x1000, 0, 0x10, 0x10, 3]).is_ok(),
        "odd alignment"
    );
    let long_path = phdr(3, 4, [0, 0, 0, 5000, 0, 0]);
    assert_eq!(Program::parse(&long_path), Err(Errno::ENOEXEC));
}

#[test]
fn hostile_bytes_never_panic() {
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let interesting = [
        0,
        1,
        0xfff,
        0x1000,
        USER_END,
        u64::MAX,
        1 << 63,
        u64::MAX - 0xfff,
    ];
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..4 {
            let kind = [1, 1, 3, 0x6474_e551][(next() % 4) as usize];
            let words = core::array::from_fn(|_| match next() % 3 {
                0 => next(),
                1 => next() % 0x10_0000,
                _ => interesting[(next() % 8) as usize],
            });
            bytes.extend(phdr(kind, next() as u32, words));
        }
        if let Ok(program) = Program::parse(&bytes) {
            let header = Header {
                is_dyn: true,
                entry: next(),
                phoff: next(),
                phnum: 4,
            };
            let _ = (
                program.span(),
                program.align(),
                program.phdr_address(&header),
            );
        }
    }
}
