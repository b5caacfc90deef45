//! What `/proc/net` shows.

use alloc::vec::Vec;

use super::Socket;
use crate::Kernel;

/// A line of `/proc/net/unix`.
#[derive(Debug)]
pub struct UnixLine {
    /// Open files and others that keep it.
    pub references: usize,
    /// `__SO_ACCEPTCON` if listening.
    pub flags: u32,
    /// `SOCK_*`.
    pub kind: u32,
    /// `SS_*`.
    pub state: u32,
    /// Inode number; 0 if nobody has accepted it yet.
    pub ino: u64,
    /// The path, or `@` and the abstract name; empty without a name.
    pub path: Vec<u8>,
}

/// The lines of `/proc/net/unix`.
#[must_use]
pub fn unix(kernel: &Kernel) -> Vec<UnixLine> {
    let sockets = kernel.net.unix.sockets();
    sockets
        .iter()
        .map(|socket| {
            let (flags, state) = socket.summary();
            let is_connected = matches!(state, 2 | 3);
            UnixLine {
                references: 2 + usize::from(is_connected),
                flags,
                kind: socket.base().kind,
                state,
                ino: socket.base().ino(),
                path: socket.bound_name().map_or_else(Vec::new, |name| {
                    let path = &name[super::unix::PATH_AT..];
                    match path.strip_suffix(&[0]) {
                        Some(path) if path.first().is_some_and(|byte| *byte != 0) => path.to_vec(),
                        // Abstract names are shown with @ for NUL.
                        _ => path
                            .iter()
                            .map(|byte| if *byte == 0 { b'@' } else { *byte })
                            .collect(),
                    }
                }),
            }
        })
        .collect()
}
