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
}
