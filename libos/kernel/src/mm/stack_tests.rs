use super::*;

const TOP: u64 = 0x7fff_ffff_f000;

fn word(image: &StackImage, at: u64) -> u64 {
    let from = (at - image.pointer) as usize;
    u64::from_le_bytes(image.bytes[from..from + 8].try_into().unwrap())
}

fn string(image: &StackImage, at: u64) -> &[u8] {
    let bytes = &image.bytes[(at - image.pointer) as usize..];
    bytes.split(|byte| *byte == 0).next().unwrap()
}

fn strings(list: &[&[u8]]) -> Vec<Vec<u8>> {
    list.iter().map(|s| s.to_vec()).collect()
}

#[test]
fn layout() {
    for shift in 0..64 {
        let (argv, envp) = (strings(&[b"ls", b"-l", b""]), strings(&[b"A=1", b"PATH=/"]));
        let image = build(
            TOP,
            &Contents {
                argv: &argv,
                envp: &envp,
                execfn: b"/bin/ls",
                random: [7; 16],
                shift,
                auxv: &[(6, 4096), (9, 0x40_1000)],
            },
        );
        assert_eq!(image.pointer % 16, 0);
        assert_eq!(image.pointer + image.bytes.len() as u64, TOP);
        assert_eq!(word(&image, TOP - 8), 0);
        let mut at = image.pointer;
        let mut next = || {
            at += 8;
            word(&image, at - 8)
        };
        assert_eq!(next(), 3);
        let args: Vec<_> = (0..3).map(|_| next()).collect();
        assert_eq!(args[0], image.arg_start);
        assert_eq!(string(&image, args[1]), b"-l");
        assert_eq!(string(&image, args[2]), b"");
        assert_eq!(next(), 0);
        let env = [next(), next()];
        assert_eq!(env[0], image.env_start);
        assert_eq!(image.env_start, image.arg_end);
        assert_eq!(string(&image, env[1]), b"PATH=/");
        assert_eq!(next(), 0);
        let mut auxv = Vec::new();
        loop {
            let (kind, value) = (next(), next());
            if kind == 0 {
                break;
            }
            auxv.push((kind, value));
        }
        assert_eq!(image.auxv_bytes, (auxv.len() as u64 + 1) * 16);
        let find = |kind| auxv.iter().find(|pair| pair.0 == kind).unwrap().1;
        assert_eq!(find(6), 4096);
        assert_eq!(string(&image, find(31)), b"/bin/ls");
        assert_eq!(find(31), image.env_end);
        assert_eq!(string(&image, find(15)), b"x86_64");
        assert_eq!(
            word(&image, find(25).next_multiple_of(8)),
            0x0707_0707_0707_0707
        );
    }
}

#[test]
fn no_arguments_at_all() {
    let image = build(
        TOP,
        &Contents {
            argv: &[],
            envp: &[],
            execfn: b"",
            random: [0; 16],
            shift: 0,
            auxv: &[],
        },
    );
    assert_eq!(word(&image, image.pointer), 0);
    assert_eq!(image.arg_start, image.env_end);
}

#[test]
fn size_limits() {
    let big = vec![b'x'; 128 << 10];
    let fits = |count: usize, stack| check_size(&vec![big[1..].to_vec(); count], &[], stack);
    assert_eq!(
        check_size(core::slice::from_ref(&big), &[], 8 << 20),
        Err(Errno::E2BIG)
    );
    assert_eq!(fits(15, 8 << 20), Ok(()));
    assert_eq!(fits(16, 8 << 20), Err(Errno::E2BIG));
    assert_eq!(fits(47, u64::MAX), Ok(()));
    assert_eq!(fits(48, u64::MAX), Err(Errno::E2BIG));
    assert_eq!(check_size(&strings(&[b"a"]), &[], 0), Ok(()));
}
