use super::*;
use std::collections::BTreeMap;

use crate::record::event::errno_name;

fn printed(
    nr: u32,
    args: [u64; 6],
    result: Option<i64>,
    decoded: &[(&'static str, Decoded)],
) -> String {
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
        nr,
        name,
        args,
        result,
        errno: result.and_then(errno_name),
        duration_ns: 12_345,
        decoded: decoded
            .iter()
            .map(|(name, value)| (Cow::Borrowed(*name), value.clone()))
            .collect::<BTreeMap<_, _>>(),
        truncated: Vec::new(),
        container: Cow::Borrowed(""),
        image: Cow::Borrowed(""),
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
            "[pid 7] fcntl(3, F_DUPFD_CLOEXEC, 0xa) = 10 <0.000012>",
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
        container: Cow::Borrowed(""),
        image: Cow::Borrowed(""),
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
