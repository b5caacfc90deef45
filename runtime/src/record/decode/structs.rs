//! What arguments point to, where that is a struct: as strace shows it.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use husk_abi::linux::general;
use husk_abi::linux::syscalls::ArgKind;

use super::flags::{Names, bits, choice, names, signal};
use super::{quoted, tables};

/// Little-endian fields of some bytes; what lies behind their end is 0.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn get<const N: usize>(self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        let from = self.0.get(at..).unwrap_or_default();
        let len = from.len().min(N);
        field[..len].copy_from_slice(&from[..len]);
        field
    }

    fn u16(self, at: usize) -> u16 {
        u16::from_le_bytes(self.get(at))
    }

    fn u32(self, at: usize) -> u32 {
        u32::from_le_bytes(self.get(at))
    }

    fn i32(self, at: usize) -> i32 {
        i32::from_le_bytes(self.get(at))
    }

    fn u64(self, at: usize) -> u64 {
        u64::from_le_bytes(self.get(at))
    }

    fn i64(self, at: usize) -> i64 {
        i64::from_le_bytes(self.get(at))
    }
}

/// The struct an argument of `kind` points to; `what` is the argument before it. `None` if it is not shown.
pub fn text(kind: ArgKind, what: u64, bytes: &[u8]) -> Option<String> {
    let fields = Fields(bytes);
    Some(match kind {
        ArgKind::SockAddrIn | ArgKind::SockAddrOut => socket_address(bytes),
        ArgKind::SockOptIn | ArgKind::SockOptOut if bytes.len() == 4 => {
            format!("[{}]", fields.i32(0))
        }
        ArgKind::SockOptIn | ArgKind::SockOptOut => {
            quoted(&bytes.escape_ascii().to_string(), false)
        }
        ArgKind::SockLen | ArgKind::UidOut | ArgKind::IntOut | ArgKind::SchedParam => {
            format!("[{}]", fields.i32(0))
        }
        ArgKind::WaitStatus => wait_status(fields.u32(0)),
        ArgKind::Siginfo => siginfo(fields),
        ArgKind::EpollEvent => epoll_event(fields),
        ArgKind::EpollEvents => list(bytes, 12, epoll_event),
        ArgKind::PollFds => list(bytes, 8, |fields| {
            let events = bits(u64::from(fields.u16(4)), tables::POLL_EVENTS, "0");
            format!("{{fd={}, events={events}}}", fields.i32(0))
        }),
        ArgKind::Iov => list(bytes, 16, |fields| {
            format!(
                "{{iov_base={:#x}, iov_len={}}}",
                fields.u64(0),
                fields.u64(8)
            )
        }),
        ArgKind::MsgHdr => format!(
            "{{msg_name={}, msg_namelen={}, msg_iov={:#x}, msg_iovlen={}, msg_controllen={}, msg_flags={}}}",
            super::pointer(fields.u64(0)),
            fields.i32(8),
            fields.u64(16),
            fields.u64(24),
            fields.u64(40),
            bits(u64::from(fields.u32(48)), tables::MSG, "0")
        ),
        ArgKind::Stat => {
            let mode = fields.u32(24);
            let what = match mode & general::S_IFMT {
                general::S_IFCHR | general::S_IFBLK => {
                    format!("st_rdev={}", tables::device(fields.u64(40)))
                }
                _ => format!("st_size={}", fields.i64(48)),
            };
            format!("{{st_mode={}, {what}, ...}}", tables::file_mode(mode))
        }
        ArgKind::Statx => format!(
            "{{stx_mask={}, stx_attributes={:#x}, stx_mode={}, stx_size={}, ...}}",
            bits(u64::from(fields.u32(0)), tables::STATX, "0"),
            fields.u64(8),
            tables::file_mode(u32::from(fields.u16(28))),
            fields.u64(40)
        ),
        ArgKind::Timespec | ArgKind::TimespecOut => timespec(fields, 0),
        ArgKind::Timespecs => format!("[{}, {}]", timespec_at(fields, 0), timespec_at(fields, 16)),
        ArgKind::TimevalIn | ArgKind::TimevalOut => timeval(fields, 0),
        ArgKind::Timevals => format!("[{}, {}]", timeval(fields, 0), timeval(fields, 16)),
        ArgKind::ItimerspecIn | ArgKind::ItimerspecOut => format!(
            "{{it_interval={}, it_value={}}}",
            timespec(fields, 0),
            timespec(fields, 16)
        ),
        ArgKind::ItimervalIn | ArgKind::ItimervalOut => format!(
            "{{it_interval={}, it_value={}}}",
            timeval(fields, 0),
            timeval(fields, 16)
        ),
        ArgKind::SigSet | ArgKind::SigSetOut => signal_set(fields.u64(0)),
        ArgKind::SigActionIn | ArgKind::SigActionOut => signal_action(fields),
        ArgKind::StackIn | ArgKind::StackOut => format!(
            "{{ss_sp={}, ss_flags={}, ss_size={}}}",
            super::pointer(fields.u64(0)),
            bits(u64::from(fields.u32(8)), tables::STACK, "0"),
            fields.u64(16)
        ),
        ArgKind::RlimitIn | ArgKind::RlimitOut => format!(
            "{{rlim_cur={}, rlim_max={}}}",
            limit(fields.u64(0)),
            limit(fields.u64(8))
        ),
        ArgKind::FdPair => format!("[{}, {}]", fields.i32(0), fields.i32(4)),
        ArgKind::Utsname => {
            let string = |at: usize| quoted(&nul_ended(bytes.get(at..at + 65)), false);
            format!("{{sysname={}, nodename={}, ...}}", string(0), string(65))
        }
        ArgKind::CloneArgs => clone_args(fields, bytes.len()),
        ArgKind::OpenHow => open_how(fields),
        ArgKind::OffIn => format!("[{}]", fields.i64(0)),
        ArgKind::IoctlArg => ioctl(what, fields),
        ArgKind::FcntlArg => flock(fields),
        _ => return None,
    })
}

/// What `after` says beyond `before`, for what a call reads and writes.
pub fn change(kind: ArgKind, before: &[u8], after: &[u8]) -> Option<String> {
    match kind {
        ArgKind::SockLen if before != after => Some(format!(
            "[{} => {}]",
            Fields(before).i32(0),
            Fields(after).i32(0)
        )),
        ArgKind::PollFds => {
            let ready: Vec<String> = after
                .chunks_exact(8)
                .map(Fields)
                .filter(|fields| fields.u16(6) != 0)
                .map(|fields| {
                    let events = bits(u64::from(fields.u16(6)), tables::POLL_EVENTS, "0");
                    format!("{{fd={}, revents={events}}}", fields.i32(0))
                })
                .collect();
            let asked = text(kind, 0, before)?;
            Some(if ready.is_empty() {
                asked
            } else {
                format!("{asked} => [{}]", ready.join(", "))
            })
        }
        _ => None,
    }
}

fn list(bytes: &[u8], size: usize, element: impl Fn(Fields<'_>) -> String) -> String {
    let elements: Vec<String> = bytes
        .chunks_exact(size)
        .map(|bytes| element(Fields(bytes)))
        .collect();
    format!("[{}]", elements.join(", "))
}

fn nul_ended(bytes: Option<&[u8]>) -> String {
    let bytes = bytes.unwrap_or_default();
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn socket_address(bytes: &[u8]) -> String {
    let fields = Fields(bytes);
    let family = fields.u16(0);
    let port = u16::from_be_bytes(fields.get(2));
    let name = choice(u32::from(family), tables::SOCK_DOMAIN);
    match i32::from(family) {
        libc::AF_INET => {
            let address = Ipv4Addr::from(fields.get::<4>(4));
            format!(
                "{{sa_family={name}, sin_port=htons({port}), sin_addr=inet_addr(\"{address}\")}}"
            )
        }
        libc::AF_INET6 => {
            let address = Ipv6Addr::from(fields.get::<16>(8));
            format!(
                "{{sa_family={name}, sin6_port=htons({port}), sin6_flowinfo=htonl({}), \
                 inet_pton(AF_INET6, \"{address}\", &sin6_addr), sin6_scope_id={}}}",
                u32::from_be_bytes(fields.get(4)),
                fields.u32(24)
            )
        }
        libc::AF_UNIX => match bytes.get(2..) {
            None | Some([]) => format!("{{sa_family={name}}}"),
            // A name that is no path's.
            Some([0, rest @ ..]) => {
                let path = String::from_utf8_lossy(rest);
                format!("{{sa_family={name}, sun_path=@{}}}", quoted(&path, false))
            }
            path => format!(
                "{{sa_family={name}, sun_path={}}}",
                quoted(&nul_ended(path), false)
            ),
        },
        libc::AF_NETLINK => format!(
            "{{sa_family={name}, nl_pid={}, nl_groups={:08x}}}",
            fields.u32(4),
            fields.u32(8)
        ),
        _ => format!("{{sa_family={name}, ...}}"),
    }
}

fn wait_status(status: u32) -> String {
    let core = if status & 0x80 == 0 {
        ""
    } else {
        " && WCOREDUMP(s)"
    };
    match (status & 0x7f, status >> 8 & 0xff) {
        _ if status == 0xffff => "[{WIFCONTINUED(s)}]".to_owned(),
        (0, code) => format!("[{{WIFEXITED(s) && WEXITSTATUS(s) == {code}}}]"),
        (0x7f, number) => {
            format!("[{{WIFSTOPPED(s) && WSTOPSIG(s) == {}}}]", signal(number))
        }
        (number, _) => format!(
            "[{{WIFSIGNALED(s) && WTERMSIG(s) == {}{core}}}]",
            signal(number)
        ),
    }
}

const CHILD_CODES: Names = names!(libc:
    CLD_EXITED CLD_KILLED CLD_DUMPED CLD_TRAPPED CLD_STOPPED CLD_CONTINUED
);

fn siginfo(fields: Fields<'_>) -> String {
    let number = fields.u32(0);
    if number == 0 {
        return "{}".to_owned();
    }
    let mut text = format!("{{si_signo={}", signal(number));
    if number == general::SIGCHLD {
        let _ = write!(
            text,
            ", si_code={}, si_pid={}, si_uid={}, si_status={}",
            choice(fields.u32(8), CHILD_CODES),
            fields.i32(16),
            fields.u32(20),
            fields.i32(24)
        );
    } else {
        let _ = write!(text, ", si_code={}", fields.i32(8));
    }
    text.push_str(", ...}");
    text
}

fn epoll_event(fields: Fields<'_>) -> String {
    let events = bits(u64::from(fields.u32(0)), tables::EPOLL_EVENTS, "0");
    let data = fields.u64(4);
    format!("{{events={events}, data={data:#x}}}")
}

fn timespec(fields: Fields<'_>, at: usize) -> String {
    format!(
        "{{tv_sec={}, tv_nsec={}}}",
        fields.i64(at),
        fields.i64(at + 8)
    )
}

/// One of utimensat(2)'s, which have two special values.
fn timespec_at(fields: Fields<'_>, at: usize) -> String {
    match fields.i64(at + 8) {
        0x3fff_ffff => "UTIME_NOW".to_owned(),
        0x3fff_fffe => "UTIME_OMIT".to_owned(),
        _ => timespec(fields, at),
    }
}

fn timeval(fields: Fields<'_>, at: usize) -> String {
    format!(
        "{{tv_sec={}, tv_usec={}}}",
        fields.i64(at),
        fields.i64(at + 8)
    )
}

/// The signals of a set, or those that are not in it if that is shorter, after a `~`.
fn signal_set(set: u64) -> String {
    let (sign, shown) = if set.count_ones() > 42 {
        ("~", !set)
    } else {
        ("", set)
    };
    let names: Vec<String> = (1..=64)
        .filter(|number| shown >> (number - 1) & 1 != 0)
        .map(|number| {
            let name = signal(number);
            name.strip_prefix("SIG").map(str::to_owned).unwrap_or(name)
        })
        .collect();
    format!("{sign}[{}]", names.join(" "))
}

fn signal_action(fields: Fields<'_>) -> String {
    let handler = match fields.u64(0) {
        0 => "SIG_DFL".to_owned(),
        1 => "SIG_IGN".to_owned(),
        handler => format!("{handler:#x}"),
    };
    let flags = fields.u64(8);
    let mut text = format!(
        "{{sa_handler={handler}, sa_mask={}, sa_flags={}",
        signal_set(fields.u64(24)),
        bits(flags & 0xffff_ffff, tables::SIG_ACTION, "0")
    );
    if flags & u64::from(general::SA_RESTORER) != 0 {
        let _ = write!(text, ", sa_restorer={:#x}", fields.u64(16));
    }
    text.push('}');
    text
}

/// A limit, in kibibytes times 1024 where it is a large multiple, as strace has it.
fn limit(value: u64) -> String {
    match value {
        u64::MAX => "RLIM64_INFINITY".to_owned(),
        value if value > 1024 && value % 1024 == 0 => format!("{}*1024", value / 1024),
        value => value.to_string(),
    }
}

fn clone_args(fields: Fields<'_>, len: usize) -> String {
    let flags = fields.u64(0);
    let exit_signal = match fields.u64(32) {
        0 => "0".to_owned(),
        number => signal(u32::try_from(number).unwrap_or(u32::MAX)),
    };
    let mut text = format!(
        "{{flags={}, exit_signal={exit_signal}, stack={}, stack_size={:#x}",
        tables::clone_flags(flags),
        super::pointer(fields.u64(40)),
        fields.u64(48)
    );
    if flags & u64::from(general::CLONE_SETTLS) != 0 {
        let _ = write!(text, ", tls={:#x}", fields.u64(56));
    }
    if len > 64 && fields.u64(72) != 0 {
        let _ = write!(text, ", set_tid_size={}", fields.u64(72));
    }
    text.push('}');
    text
}

fn open_how(fields: Fields<'_>) -> String {
    let flags = fields.u64(0);
    let known = u32::try_from(flags).map_or_else(|_| format!("{flags:#x}"), tables::open_flags);
    let mode = fields.u64(8);
    let resolve = bits(fields.u64(16), tables::RESOLVE, "0");
    if mode == 0 {
        format!("{{flags={known}, resolve={resolve}}}")
    } else {
        format!("{{flags={known}, mode=0{mode:03o}, resolve={resolve}}}")
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the ABI ignores the upper bits"
)]
fn ioctl(request: u64, fields: Fields<'_>) -> String {
    use husk_abi::linux::ioctl;
    match request as u32 {
        ioctl::TIOCGWINSZ | ioctl::TIOCSWINSZ => format!(
            "{{ws_row={}, ws_col={}, ws_xpixel={}, ws_ypixel={}}}",
            fields.u16(0),
            fields.u16(2),
            fields.u16(4),
            fields.u16(6)
        ),
        ioctl::TIOCSTI => format!("{:#x}", fields.i32(0)),
        ioctl::TCGETS
        | ioctl::TCSETS
        | ioctl::TCSETSW
        | ioctl::TCSETSF
        | ioctl::TCGETS2
        | ioctl::TCSETS2
        | ioctl::TCSETSW2
        | ioctl::TCSETSF2 => format!(
            "{{c_iflag={:#x}, c_oflag={:#x}, c_cflag={:#x}, c_lflag={:#x}, ...}}",
            fields.u32(0),
            fields.u32(4),
            fields.u32(8),
            fields.u32(12)
        ),
        _ => format!("[{}]", fields.i32(0)),
    }
}

fn flock(fields: Fields<'_>) -> String {
    if fields.0.len() < 32 {
        return format!("{{type={}, pid={}}}", fields.i32(0), fields.i32(4));
    }
    format!(
        "{{l_type={}, l_whence={}, l_start={}, l_len={}}}",
        choice(u32::from(fields.u16(0)), tables::LOCK_TYPE),
        choice(u32::from(fields.u16(2)), tables::WHENCE),
        fields.i64(8),
        fields.i64(16)
    )
}
