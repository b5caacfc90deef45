//! The system calls of sockets.

mod create;
mod names;
mod options;
mod transfer;

use alloc::sync::Arc;

pub use create::{socket, socketpair};
pub use names::{accept, accept4, bind, connect, getpeername, getsockname, listen, shutdown};
pub use options::{getsockopt, setsockopt};
pub use transfer::{recvfrom, recvmmsg, recvmsg, sendmmsg, sendmsg, sendto};

use super::socket::{self, Socket};
use crate::fs::FileRef;
use crate::{Result, Thread};

/// An open file that is a socket.
struct Open(FileRef);

impl Open {
    fn get(t: &Thread, fd: i32) -> Result<Self> {
        let file = t.files().get(fd)?;
        socket::of_file(&file)?;
        Ok(Self(file))
    }

    fn socket(&self) -> Result<&Arc<dyn Socket>> {
        socket::of_file(&self.0)
    }
}
