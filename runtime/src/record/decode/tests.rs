use super::*;

use husk_abi::boundary::record::{ENTRY_AFTER, ENTRY_BYTES, EntryHeader, RecordHeader};

use crate::record::event::{Origin, errno_name};

fn printed(
    nr: u32,
    args: [u64; 6],
    result: Option<i64>,
    pointees: &[(&'static str, Decoded)],
) -> String {
    let header = RecordHeader {
        nr,
        args: 6,
        ..RecordHeader::default()
    };
    let call = Call::new(header, args, &[]).unwrap();
    let (mut decoded, _) = arguments_of(&call);
    decoded.extend(
        pointees
            .iter()
            .map(|(name, value)| (Cow::Borrowed(*name), value.clone())),
    );
    let name = lookup(u64::from(nr)).map_or_else(
        || Cow::Owned(format!("syscall_{nr}")),
        |row| Cow::Borrowed(row.name),
    );
    line(&Event::Syscall(Syscall {
        seq: 0,
        time_ns: 0,
        vcpu: 0,
        pid: 1,
        tid: 7,
        comm: Cow::Borrowed(""),
        nr,
        name,
        args: args.to_vec(),
        result,
        errno: result.and_then(errno_name),
        duration_ns: 12_345,
        decoded,
        truncated: Vec::new(),
        origin: Origin::default(),
    }))
}

fn text(text: &str) -> Decoded {
    Decoded::Text(text.to_owned())
}

#[test]
fn golden_lines() {
    let fdcwd = u64::from(general::AT_FDCWD.cast_unsigned());
    let table = [
        (
            printed(
                257,
                [fdcwd, 0x10, 0x80000, 0, 0, 0],
                Some(3),
                &[("path", text("/etc/passwd"))],
            ),
            r#"[pid 7] openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3 <0.000012>"#,
        ),
        (
            printed(
                2,
                [0x10, 0x241, 0o644, 0, 0, 0],
                Some(-13),
                &[("path", text("a\"\n"))],
            ),
            r#"[pid 7] open("a\"\n", O_WRONLY|O_CREAT|O_TRUNC, 0644) = -1 EACCES (Permission denied) <0.000012>"#,
        ),
        (
            printed(
                9,
                [0, 4096, 3, 0x22, u64::MAX, 0],
                Some(0x7f00_0000_1000),
                &[],
            ),
            "[pid 7] mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000001000 <0.000012>",
        ),
        (
            printed(231, [23, 0, 0, 0, 0, 0], None, &[]),
            "[pid 7] exit_group(23) = ?",
        ),
        (
            printed(
                59,
                [0x10, 0x20, 0x30, 0, 0, 0],
                Some(0),
                &[
                    ("path", text("/bin/sh")),
                    (
                        "argv",
                        Decoded::List(vec!["sh".into(), "-c".into(), "x y".into()]),
                    ),
                ],
            ),
            r#"[pid 7] execve("/bin/sh", ["sh", "-c", "x y"], 0x30) = 0 <0.000012>"#,
        ),
        (
            printed(56, [0x0120_0011, 0, 0, 0, 0, 0], Some(9), &[]),
            "[pid 7] clone(CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, NULL, NULL, NULL, NULL) = 9 <0.000012>",
        ),
        (
            printed(202, [0x1000, 0x80, 2, 0, 0, 0], Some(-512), &[]),
            "[pid 7] futex(0x1000, FUTEX_WAIT|FUTEX_PRIVATE_FLAG, 2, 0, NULL, 0) = ? ERESTARTSYS (to be restarted) <0.000012>",
        ),
        (
            printed(62, [u64::from(u32::MAX), 15, 0, 0, 0, 0], Some(0), &[]),
            "[pid 7] kill(-1, SIGTERM) = 0 <0.000012>",
        ),
        (
            printed(72, [3, 1030, 10, 0, 0, 0], Some(10), &[]),
            "[pid 7] fcntl(3, F_DUPFD_CLOEXEC, 10) = 10 <0.000012>",
        ),
        (
            printed(8, [3, (-5i64).cast_unsigned(), 2, 0, 0, 0], Some(-22), &[]),
            "[pid 7] lseek(3, -5, SEEK_END) = -1 EINVAL (Invalid argument) <0.000012>",
        ),
        (
            printed(14, [2, 0, 0x20, 8, 0, 0], Some(0), &[]),
            "[pid 7] rt_sigprocmask(SIG_SETMASK, NULL, 0x20, 8) = 0 <0.000012>",
        ),
        (
            printed(
                21,
                [0x10, 5, 0, 0, 0, 0],
                Some(-2),
                &[("path", Decoded::Unreadable)],
            ),
            "[pid 7] access(0x10, R_OK|X_OK) = -1 ENOENT (No such file or directory) <0.000012>",
        ),
        (
            printed(100_000, [1, 0, 0xff, 0, 0, 0], Some(-38), &[]),
            "[pid 7] syscall_100000(0x1, 0, 0xff, 0, 0, 0) = -1 ENOSYS (Function not implemented) <0.000012>",
        ),
    ];
    for (line, expected) in table {
        assert_eq!(line, expected);
    }
}

#[test]
fn losses() {
    let lost = Event::Lost(Lost {
        seq: 5,
        vcpu: 1,
        count: 3,
        origin: Origin::default(),
    });
    assert_eq!(line(&lost), "--- 3 records of vCPU 1 lost ---");
}

#[test]
fn any_numbers_print() {
    for nr in 0..600 {
        for value in [0, 1, 0x7fff_ffff, 0x8000_0000, 1 << 63, u64::MAX] {
            for result in [
                None,
                Some(0),
                Some(-4095),
                Some(-4096),
                Some(i64::MIN),
                Some(i64::MAX),
            ] {
                let line = printed(nr, [value; 6], result, &[]);
                assert!(!line.contains('\n'));
            }
        }
    }
}

#[test]
fn nothing_drives_the_terminal() {
    assert_eq!(quoted("\x1b[31m\u{9b}", true), r#""\x1b[31m\xc2\x9b"..."#);
    assert_eq!(printable("\x1bx"), "x");
}

/// The line of a call whose argument `index` points to `bytes`.
fn with_struct(nr: u32, mut args: [u64; 6], index: u8, flags: u8, bytes: &[u8]) -> String {
    let header = EntryHeader {
        argument: index,
        kind: ENTRY_BYTES,
        flags,
        reserved: 0,
        bytes: u32::try_from(bytes.len()).unwrap(),
    };
    let mut payload = header.to_bytes().to_vec();
    payload.extend(bytes);
    payload.resize(payload.len().next_multiple_of(8), 0);
    args[usize::from(index)] = 0x1000;
    let header = RecordHeader {
        nr,
        tid: 7,
        args: u16::try_from(lookup(u64::from(nr)).unwrap().args.len()).unwrap(),
        ..RecordHeader::default()
    };
    let labels = crate::record::Labels::default();
    let call = Call::new(header, args, &payload).unwrap();
    let text = line(&Event::Syscall(Syscall::new(0, &call, &labels)));
    let text = text.strip_prefix("[pid 7] ").unwrap();
    text.strip_suffix(" = 0 <0.000000>").unwrap().to_owned()
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn structs() {
    let mut inet = vec![2, 0, 0, 80, 127, 0, 0, 1];
    inet.resize(16, 0);
    let mut stat = vec![0; 144];
    stat[24..28].copy_from_slice(&0o100_644u32.to_le_bytes());
    stat[48] = 12;
    let mut sigaction = words(&[1, 0x1400_0000, 0x42, 1 << 1 | 1 << 16]);
    let poll = [0, 0, 0, 0, 1, 0, 0, 0];
    let table: Vec<(String, &str)> = vec![
        (
            with_struct(42, [3, 0, 16, 0, 0, 0], 1, 0, &inet),
            r#"connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16)"#,
        ),
        (
            with_struct(42, [3, 0, 8, 0, 0, 0], 1, 0, b"\x01\0/a/b\0\0"),
            r#"connect(3, {sa_family=AF_UNIX, sun_path="/a/b"}, 8)"#,
        ),
        (
            with_struct(49, [3, 0, 5, 0, 0, 0], 1, 0, b"\x01\0\0xy"),
            r#"bind(3, {sa_family=AF_UNIX, sun_path=@"xy"}, 5)"#,
        ),
        (
            with_struct(5, [3, 0, 0, 0, 0, 0], 1, ENTRY_AFTER, &stat),
            "fstat(3, {st_mode=S_IFREG|0644, st_size=12, ...})",
        ),
        (
            with_struct(35, [0; 6], 0, 0, &words(&[1, 500])),
            "nanosleep({tv_sec=1, tv_nsec=500}, NULL)",
        ),
        (
            with_struct(13, [15, 0, 0, 8, 0, 0], 1, 0, &sigaction),
            "rt_sigaction(SIGTERM, {sa_handler=SIG_IGN, sa_mask=[INT CHLD], sa_flags=SA_RESTORER|SA_RESTART, sa_restorer=0x42}, NULL, 8)",
        ),
        (
            with_struct(14, [0, 0, 0, 8, 0, 0], 1, 0, &words(&[!(1 << 8)])),
            "rt_sigprocmask(SIG_BLOCK, ~[KILL], NULL, 8)",
        ),
        (
            with_struct(61, [5, 0, 0, 0, 0, 0], 1, ENTRY_AFTER, &[0, 7, 0, 0]),
            "wait4(5, [{WIFEXITED(s) && WEXITSTATUS(s) == 7}], 0, NULL)",
        ),
        (
            with_struct(61, [5, 0, 1, 0, 0, 0], 1, ENTRY_AFTER, &[0x8b, 0, 0, 0]),
            "wait4(5, [{WIFSIGNALED(s) && WTERMSIG(s) == SIGSEGV && WCOREDUMP(s)}], WNOHANG, NULL)",
        ),
        (
            with_struct(293, [0; 6], 0, ENTRY_AFTER, &[3, 0, 0, 0, 4, 0, 0, 0]),
            "pipe2([3, 4], 0)",
        ),
        (
            with_struct(
                302,
                [0, 3, 0, 0, 0, 0],
                3,
                ENTRY_AFTER,
                &words(&[8 << 20, u64::MAX]),
            ),
            "prlimit64(0, RLIMIT_STACK, NULL, {rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY})",
        ),
        (
            with_struct(7, [0, 1, 5, 0, 0, 0], 0, 0, &poll),
            "poll([{fd=0, events=POLLIN}], 1, 5)",
        ),
        (
            with_struct(
                16,
                [1, 0x5413, 0, 0, 0, 0],
                2,
                ENTRY_AFTER,
                &[24, 0, 80, 0, 0, 0, 0, 0],
            ),
            "ioctl(1, TIOCGWINSZ, {ws_row=24, ws_col=80, ws_xpixel=0, ws_ypixel=0})",
        ),
        (
            with_struct(16, [3, 0x5420, 0, 0, 0, 0], 2, 0, &[1, 0, 0, 0]),
            "ioctl(3, TIOCPKT, [1])",
        ),
        (
            with_struct(
                16,
                [3, 0x8004_5430, 0, 0, 0, 0],
                2,
                ENTRY_AFTER,
                &[7, 0, 0, 0],
            ),
            "ioctl(3, TIOCGPTN, [7])",
        ),
        (
            with_struct(
                233,
                [3, 1, 4, 0, 0, 0],
                3,
                0,
                &[1, 0, 0, 0x80, 9, 0, 0, 0, 0, 0, 0, 0],
            ),
            "epoll_ctl(3, EPOLL_CTL_ADD, 4, {events=EPOLLIN|EPOLLET, data=0x9})",
        ),
    ];
    for (line, expected) in table {
        assert_eq!(line, expected);
    }
    // However short: fields that are not there are 0.
    for len in 0..sigaction.len() {
        sigaction.truncate(sigaction.len() - 1);
        for row in husk_abi::linux::syscalls::ALL {
            for (index, (_, kind)) in row.args.iter().enumerate() {
                if kind.pointee().is_some() {
                    let index = u8::try_from(index).unwrap();
                    let _ = with_struct(row.nr, [0; 6], index, 0, &sigaction);
                }
            }
        }
        assert!(len < 32);
    }
}

#[test]
fn flags_by_name() {
    for (line, expected) in [
        (
            printed(41, [2, 0x80001, 6, 0, 0, 0], Some(3), &[]),
            "socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_TCP) = 3",
        ),
        (
            printed(72, [3, 3, 0, 0, 0, 0], Some(0x8402), &[]),
            "fcntl(3, F_GETFL) = 0x8402 (flags O_RDWR|O_APPEND|O_LARGEFILE)",
        ),
        (
            printed(72, [3, 2, 1, 0, 0, 0], Some(0), &[]),
            "fcntl(3, F_SETFD, FD_CLOEXEC) = 0",
        ),
        (
            printed(25, [4096, 8, 9, 1, 0, 0], Some(4096), &[]),
            "mremap(0x1000, 8, 9, MREMAP_MAYMOVE, NULL) = 0x1000",
        ),
        (
            printed(158, [0x1002, 5, 0, 0, 0, 0], Some(0), &[]),
            "arch_prctl(ARCH_SET_FS, 0x5) = 0",
        ),
        (
            printed(133, [0, 0o020_666, 0x103, 0, 0, 0], Some(0), &[]),
            "mknod(NULL, S_IFCHR|0666, makedev(0x1, 0x3)) = 0",
        ),
        (
            printed(48, [3, 2, 0, 0, 0, 0], Some(0), &[]),
            "shutdown(3, SHUT_RDWR) = 0",
        ),
        (
            printed(54, [3, 1, 2, 0, 4, 0], Some(0), &[]),
            "setsockopt(3, SOL_SOCKET, SO_REUSEADDR, NULL, 4) = 0",
        ),
        (
            printed(98, [u64::MAX, 0, 0, 0, 0, 0], Some(0), &[]),
            "getrusage(RUSAGE_CHILDREN, NULL) = 0",
        ),
    ] {
        let line = line.strip_prefix("[pid 7] ").unwrap();
        assert_eq!(line.strip_suffix(" <0.000012>").unwrap(), expected);
    }
}
