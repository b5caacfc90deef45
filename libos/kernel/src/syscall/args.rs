//! Argument kinds of the syscall table as Rust types.

use crate::user::UserAddr;

/// A type a register can be read as. C's conversions: the low bits count.
pub trait FromRegister {
    /// Reads the register.
    fn from_register(value: u64) -> Self;
}

macro_rules! from_register {
    ($($ty:ty),*) => {
        $(impl FromRegister for $ty {
            fn from_register(value: u64) -> Self {
                value as $ty
            }
        })*
    };
}
from_register!(i32, u32);

impl FromRegister for u64 {
    fn from_register(value: u64) -> Self {
        value
    }
}

impl FromRegister for usize {
    fn from_register(value: u64) -> Self {
        value as usize
    }
}

impl FromRegister for i64 {
    fn from_register(value: u64) -> Self {
        value as i64
    }
}

impl FromRegister for UserAddr {
    fn from_register(value: u64) -> Self {
        Self(value)
    }
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $kind:ident = $ty:ty;)*) => {
        $(
            #[doc = concat!("Rust type of `ArgKind::", stringify!($kind), "`.")]
            pub type $kind = $ty;
        )*
    };
}

kinds! {
    Fd = i32;
    DirFd = i32;
    Path = UserAddr;
    BufIn = UserAddr;
    BufOut = UserAddr;
    Iov = UserAddr;
    Argv = UserAddr;
    Envp = UserAddr;
    Ptr = UserAddr;
    Addr = u64;
    Len = usize;
    Off = i64;
    Int = i32;
    Uint = u32;
    Hex = u64;
    Mode = u32;
    Pid = i32;
    Uid = u32;
    Signal = i32;
    SigHow = i32;
    OpenFlags = u32;
    AtFlags = u32;
    Prot = u32;
    MapFlags = u32;
    CloneFlags = u64;
    FutexOp = i32;
    FcntlCmd = i32;
    Ioctl = u32;
    Whence = i32;
    Clock = i32;
    FdFlags = u32;
    SockDomain = i32;
    SockType = u64;
    SockFlags = u64;
    SockProto = i32;
    SockLevel = i32;
    SockOpt = i32;
    SockOptIn = UserAddr;
    SockOptOut = UserAddr;
    SockAddrIn = UserAddr;
    SockAddrOut = UserAddr;
    SockLen = UserAddr;
    MsgFlags = u64;
    MsgHdr = UserAddr;
    ShutHow = i32;
    MremapFlags = u64;
    MsyncFlags = u64;
    Advice = i32;
    Fadvice = i32;
    MlockallFlags = i32;
    Mlock2Flags = i32;
    WaitOptions = u64;
    WaitStatus = UserAddr;
    IdType = i32;
    Siginfo = UserAddr;
    ArchCode = u64;
    MountFlags = u64;
    UmountFlags = u64;
    TimerFlags = u64;
    FallocMode = u64;
    SfdFlags = u64;
    EfdFlags = u64;
    EpollFlags = u64;
    EpollOp = i32;
    EpollEvent = UserAddr;
    EpollEvents = UserAddr;
    SpliceFlags = u64;
    RenameFlags = u64;
    RandomFlags = u64;
    MemfdFlags = u64;
    StatxMask = u64;
    RwFlags = u64;
    CloseRangeFlags = u64;
    Dev = u64;
    NodeMode = u32;
    AccessMode = u32;
    Resource = i32;
    RusageWho = i32;
    ItimerWhich = i32;
    PrioWhich = i32;
    SchedPolicy = i32;
    Membarrier = i32;
    FlockOp = i32;
    XattrFlags = i32;
    Prctl = i32;
    TfdFlags = u32;
    TfdSetFlags = u32;
    PidfdFlags = u32;
    IoctlArg = u64;
    FcntlArg = u64;
    Stat = UserAddr;
    Statx = UserAddr;
    Timespec = UserAddr;
    TimespecOut = UserAddr;
    Timespecs = UserAddr;
    TimevalIn = UserAddr;
    TimevalOut = UserAddr;
    Timevals = UserAddr;
    ItimerspecIn = UserAddr;
    ItimerspecOut = UserAddr;
    ItimervalIn = UserAddr;
    ItimervalOut = UserAddr;
    SigSet = UserAddr;
    SigSetOut = UserAddr;
    SigActionIn = UserAddr;
    SigActionOut = UserAddr;
    StackIn = UserAddr;
    StackOut = UserAddr;
    RlimitIn = UserAddr;
    RlimitOut = UserAddr;
    PollFds = UserAddr;
    FdPair = UserAddr;
    Utsname = UserAddr;
    CloneArgs = UserAddr;
    OpenHow = UserAddr;
    OffIn = UserAddr;
    UidOut = UserAddr;
    IntOut = UserAddr;
    SchedParam = UserAddr;
    Name = UserAddr;
}
