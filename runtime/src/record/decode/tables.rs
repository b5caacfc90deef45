//! Names of the flags and commands that arguments hold.

use husk_abi::linux::{general, ioctl};

use super::flags::{Names, bits, choice, names, signal};

pub const ACCESS: Names = names!(general: R_OK W_OK X_OK);

pub const SIG_HOW: Names = names!(general: SIG_BLOCK SIG_UNBLOCK SIG_SETMASK);

pub const WHENCE: Names = names!(general: SEEK_SET SEEK_CUR SEEK_END SEEK_DATA SEEK_HOLE);

pub const CLOCK: Names = names!(general:
    CLOCK_REALTIME CLOCK_MONOTONIC CLOCK_PROCESS_CPUTIME_ID CLOCK_THREAD_CPUTIME_ID CLOCK_MONOTONIC_RAW
    CLOCK_REALTIME_COARSE CLOCK_MONOTONIC_COARSE CLOCK_BOOTTIME CLOCK_REALTIME_ALARM
    CLOCK_BOOTTIME_ALARM CLOCK_TAI
);

/// As the path calls use them; `AT_EACCESS` and `AT_REMOVEDIR` are one bit.
pub const AT: Names = names!(general:
    AT_SYMLINK_NOFOLLOW AT_REMOVEDIR AT_SYMLINK_FOLLOW AT_NO_AUTOMOUNT AT_EMPTY_PATH
    AT_STATX_FORCE_SYNC AT_STATX_DONT_SYNC AT_RECURSIVE
);

pub const PROT: Names =
    names!(general: PROT_READ PROT_WRITE PROT_EXEC PROT_SEM PROT_GROWSDOWN PROT_GROWSUP);

pub const FCNTL: Names = names!(general:
    F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_GETLK F_SETLK F_SETLKW F_SETOWN F_GETOWN F_SETSIG F_GETSIG
    F_SETOWN_EX F_GETOWN_EX F_GETOWNER_UIDS F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW F_SETLEASE F_GETLEASE
    F_NOTIFY F_CANCELLK F_DUPFD_CLOEXEC F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS F_GET_SEALS F_GET_RW_HINT
    F_SET_RW_HINT F_GET_FILE_RW_HINT F_SET_FILE_RW_HINT
);

pub const IOCTL: Names = names!(ioctl:
    TCGETS TCSETS TCSETSW TCSETSF TCGETA TCSETA TCSETAW TCSETAF TCSBRK TCXONC TCFLSH TIOCEXCL TIOCNXCL
    TIOCSCTTY TIOCGPGRP TIOCSPGRP TIOCOUTQ TIOCSTI TIOCGWINSZ TIOCSWINSZ TIOCNOTTY TIOCGSID TIOCGPTN
    TIOCSPTLCK TIOCGPTPEER FIONREAD FIONBIO FIOCLEX FIONCLEX FIOASYNC
);

const OPEN: Names = names!(general:
    O_CREAT O_EXCL O_NOCTTY O_TRUNC O_APPEND O_NONBLOCK O_SYNC O_DSYNC O_DIRECT O_LARGEFILE O_TMPFILE
    O_DIRECTORY O_NOFOLLOW O_NOATIME O_CLOEXEC O_PATH
);
const OPEN_MODE: Names = names!(general: O_RDONLY O_WRONLY O_RDWR O_ACCMODE);

/// Flags of open(2): how, and then the rest.
pub fn open_flags(flags: u32) -> String {
    let how = choice(flags & general::O_ACCMODE, OPEN_MODE);
    let rest = bits(u64::from(flags & !general::O_ACCMODE), OPEN, "");
    if rest.is_empty() {
        how
    } else {
        format!("{how}|{rest}")
    }
}

const MAP_TYPES: Names =
    names!(general: MAP_FILE MAP_SHARED MAP_PRIVATE MAP_SHARED_VALIDATE MAP_DROPPABLE);
const MAP: Names = names!(general:
    MAP_FIXED MAP_ANONYMOUS MAP_32BIT MAP_ABOVE4G MAP_GROWSDOWN MAP_DENYWRITE MAP_EXECUTABLE MAP_LOCKED
    MAP_NORESERVE MAP_POPULATE MAP_NONBLOCK MAP_STACK MAP_HUGETLB MAP_SYNC MAP_FIXED_NOREPLACE
);

/// Flags of mmap(2): whose, and then the rest.
pub fn map_flags(flags: u32) -> String {
    let whose = choice(flags & general::MAP_TYPE, MAP_TYPES);
    let rest = bits(u64::from(flags & !general::MAP_TYPE), MAP, "");
    if rest.is_empty() {
        whose
    } else {
        format!("{whose}|{rest}")
    }
}

const CLONE: Names = names!(general:
    CLONE_VM CLONE_FS CLONE_FILES CLONE_SIGHAND CLONE_PIDFD CLONE_PTRACE CLONE_VFORK CLONE_PARENT
    CLONE_THREAD CLONE_NEWNS CLONE_SYSVSEM CLONE_SETTLS CLONE_PARENT_SETTID CLONE_CHILD_CLEARTID
    CLONE_DETACHED CLONE_UNTRACED CLONE_CHILD_SETTID CLONE_NEWCGROUP CLONE_NEWUTS CLONE_NEWIPC
    CLONE_NEWUSER CLONE_NEWPID CLONE_NEWNET CLONE_IO
);
/// Bits of clone(2)'s flags that hold the signal for the parent.
const CSIGNAL: u64 = 0xff;

/// Flags of clone(2) and the signal for the parent.
pub fn clone_flags(flags: u64) -> String {
    let mut text = bits(flags & !CSIGNAL, CLONE, "");
    if flags & CSIGNAL != 0 {
        if !text.is_empty() {
            text.push('|');
        }
        text.push_str(&signal(u32::try_from(flags & CSIGNAL).unwrap_or(0)));
    }
    if text.is_empty() {
        text.push('0');
    }
    text
}

const FUTEX: Names = names!(general:
    FUTEX_WAIT FUTEX_WAKE FUTEX_FD FUTEX_REQUEUE FUTEX_CMP_REQUEUE FUTEX_WAKE_OP FUTEX_LOCK_PI
    FUTEX_UNLOCK_PI FUTEX_TRYLOCK_PI FUTEX_WAIT_BITSET FUTEX_WAKE_BITSET FUTEX_WAIT_REQUEUE_PI
    FUTEX_CMP_REQUEUE_PI FUTEX_LOCK_PI2
);
const FUTEX_OPTIONS: Names = names!(general: FUTEX_PRIVATE_FLAG FUTEX_CLOCK_REALTIME);

/// Operation of futex(2): what, and then the options.
pub fn futex_op(op: u32) -> String {
    let options = general::FUTEX_PRIVATE_FLAG | general::FUTEX_CLOCK_REALTIME;
    let what = choice(op & !options, FUTEX);
    match op & options {
        0 => what,
        set => format!("{what}|{}", bits(u64::from(set), FUTEX_OPTIONS, "")),
    }
}
