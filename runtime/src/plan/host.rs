//! What a plan needs to know of the host.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use husk_abi::boundary::config::StreamKind;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{SFlag, fstat, major, minor};

use super::{Error, MemorySize};

/// The host.
#[derive(Clone, Debug)]
pub struct Host {
    /// RAM.
    pub memory: MemorySize,
    /// CPUs this process may use.
    pub cpus: u32,
    /// Soft and hard `RLIMIT_NOFILE` of this process.
    pub open_files: (u64, u64),
    /// Kinds of standard input, output and error.
    pub streams: [StreamKind; 3],
}

impl Host {
    /// Looks.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn look() -> Result<Self, Error> {
        let fail = |what| move |source| Error::Host { what, source };
        let meminfo = fs::read_to_string("/proc/meminfo").map_err(fail("/proc/meminfo"))?;
        let cpus = std::thread::available_parallelism().map_err(fail("its CPUs"))?;
        let open_files = getrlimit(Resource::RLIMIT_NOFILE)
            .map_err(|errno| fail("its limits")(io::Error::from(errno)))?;
        Ok(Self {
            memory: total_memory(&meminfo)
                .ok_or_else(|| fail("/proc/meminfo")(io::Error::other("it names no MemTotal")))?,
            cpus: u32::try_from(cpus.get()).unwrap_or(u32::MAX),
            open_files,
            streams: [
                stream_kind(io::stdin().as_fd()),
                stream_kind(io::stdout().as_fd()),
                stream_kind(io::stderr().as_fd()),
            ],
        })
    }

    /// Whether a terminal is attached to standard input.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        self.streams[0] == StreamKind::Terminal
    }
}

/// `MemTotal`, of the text of `/proc/meminfo`.
fn total_memory(meminfo: &str) -> Option<MemorySize> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(MemorySize {
        bytes: kib.checked_mul(1024)?,
    })
}

/// What kind of file a descriptor is, as the guest's `fstat` and `isatty` will show it.
#[must_use]
pub fn stream_kind(fd: BorrowedFd<'_>) -> StreamKind {
    let Ok(stat) = fstat(fd) else {
        return StreamKind::Closed;
    };
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFIFO => StreamKind::Pipe,
        SFlag::S_IFSOCK => StreamKind::Socket,
        SFlag::S_IFCHR if nix::unistd::isatty(fd).unwrap_or(false) => StreamKind::Terminal,
        SFlag::S_IFCHR if (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3) => StreamKind::Null,
        SFlag::S_IFCHR => StreamKind::CharDevice,
        _ => StreamKind::File,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_meminfo() {
        let text = "MemTotal:       24683948 kB\nMemFree: 1 kB\n";
        assert_eq!(
            total_memory(text),
            Some(MemorySize {
                bytes: 24_683_948 << 10
            })
        );
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
        assert_eq!(total_memory("MemTotal: x kB\n"), None);
    }

    #[test]
    fn kinds_of_streams() {
        let null = fs::File::open("/dev/null").unwrap();
        assert_eq!(stream_kind(null.as_fd()), StreamKind::Null);
        let zero = fs::File::open("/dev/zero").unwrap();
        assert_eq!(stream_kind(zero.as_fd()), StreamKind::CharDevice);
        let file = fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(stream_kind(file.as_fd()), StreamKind::File);
        let (read, _write) = nix::unistd::pipe().unwrap();
        assert_eq!(stream_kind(read.as_fd()), StreamKind::Pipe);
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(stream_kind(socket.as_fd()), StreamKind::Socket);
    }
}
