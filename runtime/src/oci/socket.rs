//! Unix sockets by paths that may be longer than a socket's address may (`unix(7)`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Name of a container's control socket in its directory.
pub const CONTROL: &str = "control";

/// A short path for `path`, good while the directory is held.
fn short(path: &Path) -> io::Result<(PathBuf, File)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    let dir = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(dir)?;
    let short = Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name);
    Ok((short, dir))
}

/// Listens at `path`.
///
/// # Errors
/// What making the socket gives.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let (short, _dir) = short(path)?;
    UnixListener::bind(short)
}

/// Connects to the socket at `path`.
///
/// # Errors
/// What connecting gives.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (short, _dir) = short(path)?;
    UnixStream::connect(short)
}
