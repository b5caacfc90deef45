//! Error numbers, as `errno(3)` names them.

use linux_raw_sys::errno as raw;

/// A Linux error number; positive, as in `errno(3)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Errno(i32);

impl Errno {
    /// The number to hand to user space as `-errno`.
    #[must_use]
    pub const fn code(self) -> i32 {
        self.0
    }

    /// The error with number `code`, for values that came over the boundary.
    #[must_use]
    pub const fn from_code(code: i32) -> Self {
        Self(code)
    }

    /// The symbolic name, or `None` for a number Linux does not define.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES
            .iter()
            .find(|(code, _)| *code == self.0)
            .map(|(_, name)| *name)
    }
}

impl core::fmt::Debug for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

macro_rules! errnos {
    ($($name:ident)*) => {
        #[allow(missing_docs, reason = "errno(3) documents each")]
        impl Errno {
            $(pub const $name: Self = Self(raw::$name as i32);)*
        }
        const NAMES: &[(i32, &str)] = &[$((raw::$name as i32, stringify!($name)),)*];
    };
}

errnos! {
    EPERM
    ENOENT
    ESRCH
    EINTR
    EIO
    ENXIO
    E2BIG
    ENOEXEC
    EBADF
    ECHILD
    EAGAIN
    ENOMEM
    EACCES
    EFAULT
    ENOTBLK
    EBUSY
    EEXIST
    EXDEV
    ENODEV
    ENOTDIR
    EISDIR
    EINVAL
    ENFILE
    EMFILE
    ENOTTY
    ETXTBSY
    EFBIG
    ENOSPC
    ESPIPE
    EROFS
    EMLINK
    EPIPE
    EDOM
    ERANGE
    EDEADLK
    ENAMETOOLONG
    ENOLCK
    ENOSYS
    ENOTEMPTY
    ELOOP
    ENOMSG
    EIDRM
    ECHRNG
    EL2NSYNC
    EL3HLT
    EL3RST
    ELNRNG
    EUNATCH
    ENOCSI
    EL2HLT
    EBADE
    EBADR
    EXFULL
    ENOANO
    EBADRQC
    EBADSLT
    EBFONT
    ENOSTR
    ENODATA
    ETIME
    ENOSR
    ENONET
    ENOPKG
    EREMOTE
    ENOLINK
    EADV
    ESRMNT
    ECOMM
    EPROTO
    EMULTIHOP
    EDOTDOT
    EBADMSG
    EOVERFLOW
    ENOTUNIQ
    EBADFD
    EREMCHG
    ELIBACC
    ELIBBAD
    ELIBSCN
    ELIBMAX
    ELIBEXEC
    EILSEQ
    ERESTART
    ESTRPIPE
    EUSERS
    ENOTSOCK
    EDESTADDRREQ
    EMSGSIZE
    EPROTOTYPE
    ENOPROTOOPT
    EPROTONOSUPPORT
    ESOCKTNOSUPPORT
    EOPNOTSUPP
    EPFNOSUPPORT
    EAFNOSUPPORT
    EADDRINUSE
    EADDRNOTAVAIL
    ENETDOWN
    ENETUNREACH
    ENETRESET
    ECONNABORTED
    ECONNRESET
    ENOBUFS
    EISCONN
    ENOTCONN
    ESHUTDOWN
    ETOOMANYREFS
    ETIMEDOUT
    ECONNREFUSED
    EHOSTDOWN
    EHOSTUNREACH
    EALREADY
    EINPROGRESS
    ESTALE
    EUCLEAN
    ENOTNAM
    ENAVAIL
    EISNAM
    EREMOTEIO
    EDQUOT
    ENOMEDIUM
    EMEDIUMTYPE
    ECANCELED
    ENOKEY
    EKEYEXPIRED
    EKEYREVOKED
    EKEYREJECTED
    EOWNERDEAD
    ENOTRECOVERABLE
    ERFKILL
    EHWPOISON
}

/// Restart codes the kernel uses between a handler and the signal code; never seen by programs
/// (`include/linux/errno.h`).
impl Errno {
    /// Restart after a signal if the handler has `SA_RESTART` or there is no handler; else `EINTR`.
    pub const ERESTARTSYS: Self = Self(512);
    /// Restart whether or not the handler has `SA_RESTART`.
    pub const ERESTARTNOINTR: Self = Self(513);
    /// Restart if no handler runs; else `EINTR`.
    pub const ERESTARTNOHAND: Self = Self(514);
    /// Restart through `restart_syscall` if no handler runs; else `EINTR`.
    pub const ERESTART_RESTARTBLOCK: Self = Self(516);
}

#[cfg(test)]
mod tests {
    use super::Errno;

    #[test]
    fn names_and_numbers() {
        assert_eq!(Errno::ENOSYS.code(), 38);
        assert_eq!(Errno::from_code(2).name(), Some("ENOENT"));
        assert_eq!(Errno::ERESTARTSYS.name(), None);
    }
}
