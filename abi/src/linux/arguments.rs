//! What arguments of system calls mean: how the libOS types them, what of a program's memory belongs to them, and
//! (by their names) how a trace prints them.

use linux_raw_sys::{general, ioctl};

/// What an argument means: how the libOS types it and how a trace prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// A file descriptor.
    Fd,
    /// A directory descriptor or `AT_FDCWD`.
    DirFd,
    /// Address of a NUL-terminated path or name.
    Path,
    /// Address of bytes the kernel reads; the length is the next argument.
    BufIn,
    /// Address of bytes the kernel writes; the length is the next argument.
    BufOut,
    /// Address of an `iovec` array; the count is the next argument.
    Iov,
    /// Address of a NULL-terminated array of strings.
    Argv,
    /// Address of a NULL-terminated array of strings that are not recorded: they may hold secrets.
    Envp,
    /// Address of a struct.
    Ptr,
    /// A plain address of user memory.
    Addr,
    /// A size or count in `size_t`.
    Len,
    /// A signed file offset.
    Off,
    /// A C `int`.
    Int,
    /// A C `unsigned int`.
    Uint,
    /// An unsigned long shown in hexadecimal: flags without a decoder of their own, opaque values.
    Hex,
    /// Permission bits, shown in octal.
    Mode,
    /// A process, thread or group id.
    Pid,
    /// A user or group id.
    Uid,
    /// A signal number.
    Signal,
    /// `SIG_BLOCK`, `SIG_UNBLOCK`, `SIG_SETMASK`.
    SigHow,
    /// `O_*`.
    OpenFlags,
    /// `AT_*`.
    AtFlags,
    /// `PROT_*`.
    Prot,
    /// `MAP_*`.
    MapFlags,
    /// `CLONE_*`.
    CloneFlags,
    /// `FUTEX_*`.
    FutexOp,
    /// `F_*` of fcntl(2).
    FcntlCmd,
    /// An ioctl(2) request.
    Ioctl,
    /// `SEEK_*`.
    Whence,
    /// `CLOCK_*`.
    Clock,
    /// `O_*` of a new descriptor, without an access mode.
    FdFlags,
    /// `AF_*`.
    SockDomain,
    /// `SOCK_*`.
    SockType,
    /// `SOCK_CLOEXEC`, `SOCK_NONBLOCK`.
    SockFlags,
    /// A protocol of the first argument's domain.
    SockProto,
    /// `SOL_*`.
    SockLevel,
    /// An option of the level before it.
    SockOpt,
    /// Address of an option's value; its size is the next argument.
    SockOptIn,
    /// Address of an option's value; its size is where the next argument points.
    SockOptOut,
    /// Address of a socket address the kernel reads; its size is the next argument.
    SockAddrIn,
    /// Address of a socket address the kernel writes; its size is where the next argument points.
    SockAddrOut,
    /// Address of a `socklen_t` the kernel reads and writes.
    SockLen,
    /// `MSG_*`.
    MsgFlags,
    /// Address of a `struct msghdr`.
    MsgHdr,
    /// `SHUT_*`.
    ShutHow,
    /// `MREMAP_*`.
    MremapFlags,
    /// `MS_*` of msync(2).
    MsyncFlags,
    /// `MADV_*`.
    Advice,
    /// `POSIX_FADV_*`.
    Fadvice,
    /// `MCL_*`.
    MlockallFlags,
    /// `MLOCK_*`.
    Mlock2Flags,
    /// `WNOHANG` and its like.
    WaitOptions,
    /// Address of a wait status the kernel writes.
    WaitStatus,
    /// `P_PID` and its like.
    IdType,
    /// Address of a `siginfo_t` the kernel writes.
    Siginfo,
    /// `ARCH_*`.
    ArchCode,
    /// `MS_*` of mount(2).
    MountFlags,
    /// `MNT_*`, `UMOUNT_NOFOLLOW`.
    UmountFlags,
    /// `TIMER_ABSTIME`.
    TimerFlags,
    /// `FALLOC_FL_*`.
    FallocMode,
    /// `SFD_*`.
    SfdFlags,
    /// `EFD_*`.
    EfdFlags,
    /// `EPOLL_CLOEXEC`.
    EpollFlags,
    /// `EPOLL_CTL_*`.
    EpollOp,
    /// Address of a `struct epoll_event` the kernel reads.
    EpollEvent,
    /// Address of an array of `struct epoll_event`; the result says how many were written.
    EpollEvents,
    /// `SPLICE_F_*`.
    SpliceFlags,
    /// `RENAME_*`.
    RenameFlags,
    /// `GRND_*`.
    RandomFlags,
    /// `MFD_*`.
    MemfdFlags,
    /// `STATX_*`.
    StatxMask,
    /// `RWF_*`.
    RwFlags,
    /// `CLOSE_RANGE_*`.
    CloseRangeFlags,
    /// A device number.
    Dev,
    /// A file type and permission bits.
    NodeMode,
    /// `R_OK` and its like.
    AccessMode,
    /// `RLIMIT_*`.
    Resource,
    /// `RUSAGE_*`.
    RusageWho,
    /// `ITIMER_*`.
    ItimerWhich,
    /// `PRIO_*`.
    PrioWhich,
    /// `SCHED_*`.
    SchedPolicy,
    /// `MEMBARRIER_CMD_*`.
    Membarrier,
    /// `LOCK_*`.
    FlockOp,
    /// `XATTR_*`.
    XattrFlags,
    /// `PR_*`.
    Prctl,
    /// `TFD_CLOEXEC`, `TFD_NONBLOCK`.
    TfdFlags,
    /// `TFD_TIMER_*`.
    TfdSetFlags,
    /// `PIDFD_*`.
    PidfdFlags,
    /// What the ioctl(2) request before it takes.
    IoctlArg,
    /// What the fcntl(2) command before it takes.
    FcntlArg,
    /// Address of a `struct stat` the kernel writes.
    Stat,
    /// Address of a `struct statx` the kernel writes.
    Statx,
    /// Address of a `struct timespec` the kernel reads.
    Timespec,
    /// Address of a `struct timespec` the kernel writes.
    TimespecOut,
    /// Address of two `struct timespec`.
    Timespecs,
    /// Address of a `struct timeval` the kernel reads.
    TimevalIn,
    /// Address of a `struct timeval` the kernel writes.
    TimevalOut,
    /// Address of two `struct timeval`.
    Timevals,
    /// Address of a `struct itimerspec` the kernel reads.
    ItimerspecIn,
    /// Address of a `struct itimerspec` the kernel writes.
    ItimerspecOut,
    /// Address of a `struct itimerval` the kernel reads.
    ItimervalIn,
    /// Address of a `struct itimerval` the kernel writes.
    ItimervalOut,
    /// Address of a signal set the kernel reads.
    SigSet,
    /// Address of a signal set the kernel writes.
    SigSetOut,
    /// Address of a `struct sigaction` the kernel reads.
    SigActionIn,
    /// Address of a `struct sigaction` the kernel writes.
    SigActionOut,
    /// Address of a `stack_t` the kernel reads.
    StackIn,
    /// Address of a `stack_t` the kernel writes.
    StackOut,
    /// Address of a `struct rlimit` the kernel reads.
    RlimitIn,
    /// Address of a `struct rlimit` the kernel writes.
    RlimitOut,
    /// Address of an array of `struct pollfd`; the count is the next argument.
    PollFds,
    /// Address of two descriptors the kernel writes.
    FdPair,
    /// Address of a `struct utsname` the kernel writes.
    Utsname,
    /// Address of a `struct clone_args`; its size is the next argument.
    CloneArgs,
    /// Address of a `struct open_how`; its size is the next argument.
    OpenHow,
    /// Address of a file offset the kernel reads and writes.
    OffIn,
    /// Address of a user or group id the kernel writes.
    UidOut,
    /// Address of an `int` the kernel writes.
    IntOut,
    /// Address of a `struct sched_param` the kernel reads.
    SchedParam,
    /// Address of a NUL-terminated string that is no path.
    Name,
}

/// How many bytes an argument points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As many.
    Fixed(u16),
    /// The next argument's value.
    NextValue,
    /// The `int` the next argument points to.
    NextPointee,
    /// Elements of this size, as many as the next argument says.
    NextCount(u16),
    /// Elements of this size, as many as the call's result says.
    ResultCount(u16),
    /// A string with its NUL.
    String,
    /// Strings: an array of addresses that a NULL ends.
    Strings,
    /// What the ioctl(2) request before it takes.
    Ioctl,
    /// What the fcntl(2) command before it takes.
    Fcntl,
}

/// What of a program's memory belongs to an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointee {
    /// How much.
    pub extent: Extent,
    /// The kernel reads it: it is worth looking at before the call.
    pub is_input: bool,
    /// The kernel writes it: it is worth looking at after the call, if that succeeds.
    pub is_output: bool,
}

impl ArgKind {
    /// What a record shows of the memory an argument of this kind points to, if anything.
    #[must_use]
    pub const fn pointee(self) -> Option<Pointee> {
        use Extent::{
            Fcntl, Fixed, Ioctl, NextCount, NextPointee, NextValue, ResultCount, String, Strings,
        };
        let (is_input, is_output, extent) = match self {
            Self::Path | Self::Name => (true, false, String),
            Self::Argv => (true, false, Strings),
            Self::SockAddrIn | Self::SockOptIn | Self::CloneArgs | Self::OpenHow => {
                (true, false, NextValue)
            }
            Self::SockAddrOut | Self::SockOptOut => (false, true, NextPointee),
            Self::SockLen => (true, true, Fixed(4)),
            Self::MsgHdr => (true, false, Fixed(56)),
            Self::Iov => (true, false, NextCount(16)),
            Self::WaitStatus | Self::UidOut | Self::IntOut => (false, true, Fixed(4)),
            Self::Siginfo => (false, true, Fixed(40)),
            Self::SchedParam => (true, false, Fixed(4)),
            Self::EpollEvent => (true, false, Fixed(12)),
            Self::EpollEvents => (false, true, ResultCount(12)),
            Self::PollFds => (true, true, NextCount(8)),
            Self::Stat => (false, true, Fixed(144)),
            Self::Statx => (false, true, Fixed(144)),
            Self::Timespec | Self::TimevalIn | Self::RlimitIn => (true, false, Fixed(16)),
            Self::TimespecOut | Self::TimevalOut | Self::RlimitOut => (false, true, Fixed(16)),
            Self::Timespecs | Self::Timevals | Self::ItimerspecIn | Self::ItimervalIn => {
                (true, false, Fixed(32))
            }
            Self::ItimerspecOut | Self::ItimervalOut | Self::SigActionOut => {
                (false, true, Fixed(32))
            }
            Self::SigActionIn => (true, false, Fixed(32)),
            Self::SigSet | Self::OffIn => (true, false, Fixed(8)),
            Self::SigSetOut | Self::FdPair => (false, true, Fixed(8)),
            Self::StackIn => (true, false, Fixed(24)),
            Self::StackOut => (false, true, Fixed(24)),
            Self::Utsname => (false, true, Fixed(390)),
            Self::IoctlArg => (true, true, Ioctl),
            Self::FcntlArg => (true, true, Fcntl),
            _ => return None,
        };
        Some(Pointee {
            extent,
            is_input,
            is_output,
        })
    }

    /// Whether it is a file's name: what a filter by path looks at.
    #[must_use]
    pub const fn is_path(self) -> bool {
        matches!(self, Self::Path)
    }

    /// Whether it is a file descriptor.
    #[must_use]
    pub const fn is_descriptor(self) -> bool {
        matches!(self, Self::Fd | Self::DirFd)
    }
}

/// What an ioctl(2) request's argument points to: bytes, whether the kernel reads them and whether it writes them;
/// `None` if it is a plain value, or unknown.
#[must_use]
pub const fn ioctl_pointee(request: u32) -> Option<(u16, bool, bool)> {
    Some(match request {
        ioctl::TIOCGWINSZ => (8, false, true),
        ioctl::TIOCSWINSZ => (8, true, false),
        ioctl::TIOCGPGRP
        | ioctl::TIOCGSID
        | ioctl::TIOCGPTN
        | ioctl::TIOCGPTLCK
        | ioctl::TIOCGPKT
        | ioctl::TIOCGEXCL
        | ioctl::TIOCGDEV
        | ioctl::TIOCGETD
        | ioctl::TIOCGSOFTCAR
        | ioctl::TIOCOUTQ
        | ioctl::FIONREAD => (4, false, true),
        ioctl::TIOCSPGRP
        | ioctl::TIOCSPTLCK
        | ioctl::TIOCPKT
        | ioctl::TIOCSETD
        | ioctl::TIOCSSOFTCAR
        | ioctl::FIONBIO
        | ioctl::FIOASYNC => (4, true, false),
        ioctl::TIOCSTI => (1, true, false),
        // The kernel's termios, which is shorter than libc's.
        ioctl::TCGETS => (36, false, true),
        ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => (36, true, false),
        ioctl::TCGETS2 => (44, false, true),
        ioctl::TCSETS2 | ioctl::TCSETSW2 | ioctl::TCSETSF2 => (44, true, false),
        _ => return None,
    })
}

/// The same for fcntl(2)'s commands.
#[must_use]
pub const fn fcntl_pointee(command: u32) -> Option<(u16, bool, bool)> {
    Some(match command {
        general::F_SETLK | general::F_SETLKW | general::F_OFD_SETLK | general::F_OFD_SETLKW => {
            (32, true, false)
        }
        general::F_GETLK | general::F_OFD_GETLK => (32, true, true),
        general::F_SETOWN_EX => (8, true, false),
        general::F_GETOWN_EX => (8, false, true),
        _ => return None,
    })
}
