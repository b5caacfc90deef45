//! What the number in an argument register means: flags and commands by name.

use husk_abi::linux::general;
use husk_abi::linux::syscalls::ArgKind;

use super::flags::{bits, choice, signal};
use super::tables;

/// The names in argument `index` of a call with `args`, if its number stands for any.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the ABI ignores the upper bits"
)]
pub fn names(kind: ArgKind, index: usize, args: &[u64]) -> Option<String> {
    let value = *args.get(index)?;
    let int = value as u32;
    let long = u64::from(int);
    let at = |index: usize| args.get(index).copied().unwrap_or(0) as u32;
    let before = at(index.wrapping_sub(1));
    Some(match kind {
        ArgKind::DirFd if int.cast_signed() == general::AT_FDCWD => "AT_FDCWD".to_owned(),
        ArgKind::Signal => signal(int),
        ArgKind::SigHow => choice(int, tables::SIG_HOW),
        ArgKind::OpenFlags => tables::open_flags(int),
        ArgKind::FdFlags => bits(long, tables::FD_FLAGS, "0"),
        ArgKind::AtFlags => bits(long, tables::AT, "0"),
        ArgKind::Prot => bits(value, tables::PROT, "PROT_NONE"),
        ArgKind::MapFlags => tables::map_flags(int),
        ArgKind::CloneFlags => tables::clone_flags(value),
        ArgKind::FutexOp => tables::futex_op(int),
        ArgKind::FcntlCmd => choice(int, tables::FCNTL),
        ArgKind::FcntlArg => return fcntl_argument(before, int),
        ArgKind::Ioctl => choice(int, tables::IOCTL),
        ArgKind::Whence => choice(int, tables::WHENCE),
        ArgKind::Clock => choice(int, tables::CLOCK),
        ArgKind::AccessMode => bits(long, tables::ACCESS, "F_OK"),
        ArgKind::NodeMode => tables::file_mode(int),
        ArgKind::Dev => tables::device(value),
        ArgKind::SockDomain => choice(int, tables::SOCK_DOMAIN),
        ArgKind::SockType => tables::sock_type(int),
        ArgKind::SockFlags => bits(value, tables::SOCK_FLAGS, "0"),
        ArgKind::SockProto => tables::sock_protocol(at(0), int),
        ArgKind::SockLevel => choice(int, tables::SOCK_LEVEL),
        ArgKind::SockOpt => tables::sock_option(before, int),
        ArgKind::MsgFlags => bits(long, tables::MSG, "0"),
        ArgKind::ShutHow => choice(int, tables::SHUT),
        ArgKind::MremapFlags => bits(value, tables::MREMAP, "0"),
        ArgKind::MsyncFlags => bits(value, tables::MSYNC, "0"),
        ArgKind::Advice => choice(int, tables::MADVISE),
        ArgKind::Fadvice => choice(int, tables::FADVISE),
        ArgKind::MlockallFlags => bits(long, tables::MLOCKALL, "0"),
        ArgKind::Mlock2Flags => bits(long, tables::MLOCK2, "0"),
        ArgKind::WaitOptions => bits(value, tables::WAIT, "0"),
        ArgKind::IdType => choice(int, tables::ID_TYPE),
        ArgKind::ArchCode => choice(int, tables::ARCH),
        ArgKind::MountFlags => bits(value, tables::MOUNT, "0"),
        ArgKind::UmountFlags => bits(value, tables::UMOUNT, "0"),
        ArgKind::TimerFlags => bits(value, tables::TIMER, "0"),
        ArgKind::FallocMode => bits(value, tables::FALLOC, "0"),
        ArgKind::SfdFlags => bits(value, tables::SFD, "0"),
        ArgKind::EfdFlags => bits(value, tables::EFD, "0"),
        ArgKind::EpollFlags => bits(value, tables::EPOLL, "0"),
        ArgKind::EpollOp => choice(int, tables::EPOLL_OP),
        ArgKind::SpliceFlags => bits(value, tables::SPLICE, "0"),
        ArgKind::RenameFlags => bits(value, tables::RENAME, "0"),
        ArgKind::RandomFlags => bits(value, tables::RANDOM, "0"),
        ArgKind::MemfdFlags => bits(value, tables::MEMFD, "0"),
        ArgKind::StatxMask => bits(value, tables::STATX, "0"),
        ArgKind::RwFlags => bits(value, tables::RWF, "0"),
        ArgKind::CloseRangeFlags => bits(value, tables::CLOSE_RANGE, "0"),
        ArgKind::Resource => choice(int, tables::RLIMIT),
        ArgKind::RusageWho if int.cast_signed() == general::RUSAGE_CHILDREN => {
            "RUSAGE_CHILDREN".to_owned()
        }
        ArgKind::RusageWho => choice(int, tables::RUSAGE),
        ArgKind::ItimerWhich => choice(int, tables::ITIMER),
        ArgKind::PrioWhich => choice(int, tables::PRIO),
        ArgKind::SchedPolicy => choice(int, tables::SCHED),
        ArgKind::Membarrier => choice(int, tables::MEMBARRIER),
        ArgKind::FlockOp => bits(long, tables::FLOCK, "0"),
        ArgKind::XattrFlags => bits(long, tables::XATTR, "0"),
        ArgKind::Prctl => choice(int, tables::PRCTL),
        ArgKind::TfdFlags => bits(long, tables::TFD, "0"),
        ArgKind::TfdSetFlags => bits(long, tables::TFD_SET, "0"),
        ArgKind::PidfdFlags => bits(long, tables::PIDFD, "0"),
        _ => return None,
    })
}

/// Argument of fcntl(2) where it is flags.
fn fcntl_argument(command: u32, value: u32) -> Option<String> {
    Some(match command {
        general::F_SETFD => bits(u64::from(value), tables::FD_CLOEXEC, "0"),
        general::F_SETFL => tables::open_flags(value),
        general::F_SETSIG => signal(value),
        general::F_DUPFD | general::F_DUPFD_CLOEXEC | general::F_SETOWN | general::F_SETPIPE_SZ => {
            value.cast_signed().to_string()
        }
        _ => return None,
    })
}

/// Whether fcntl(2) looks at its argument.
pub fn has_fcntl_argument(args: &[u64]) -> bool {
    const NONE: [u32; 7] = [
        general::F_GETFD,
        general::F_GETFL,
        general::F_GETOWN,
        general::F_GETSIG,
        general::F_GETLEASE,
        general::F_GETPIPE_SZ,
        general::F_GET_SEALS,
    ];
    !args
        .get(1)
        .is_some_and(|command| NONE.iter().any(|none| u64::from(*none) == *command))
}

/// Names for what a call returned, as strace adds them in parentheses.
pub fn of_result(name: &str, args: &[u64], result: i64) -> Option<String> {
    let value = u32::try_from(result).ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the ABI ignores the upper bits"
    )]
    let command = args.get(1).map_or(0, |arg| *arg as u32);
    match (name, command) {
        ("fcntl", general::F_GETFD) if value != 0 => Some(format!(
            "flags {}",
            bits(result.cast_unsigned(), tables::FD_CLOEXEC, "0")
        )),
        ("fcntl", general::F_GETFL) => Some(format!("flags {}", tables::open_flags(value))),
        _ => None,
    }
}
