//! gdb's remote protocol: `husk run --gdb SOCKET|ADDR`.
//!
//! The guest stops before its first instruction and waits for gdb. gdb's threads are the vCPUs (ids from
//! [`VCPU_TID`] on) and the guest's threads that do not run right now; memory is read through the page tables of the
//! selected one. `monitor help` lists what else there is. After `detach` the guest runs on and gdb may come again.

mod connection;
mod monitor;
mod session;
mod target;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::vmm::End;
use crate::vmm::debug::Inspector;

/// Thread id of vCPU 0 in gdb; above all ids of guest threads.
pub const VCPU_TID: usize = 100_000;
/// How long gdb may take to hear of the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where gdb connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GdbAddress {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port of the loopback interface.
    Tcp(SocketAddr),
}

impl FromStr for GdbAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let bad =
            || format!("{text:?} is neither a socket's path (with a /) nor a loopback HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        let port: u16 = port.parse().map_err(|_| bad())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (host, port)
            .to_socket_addrs()
            .map_err(|_| bad())?
            // Who can connect can do anything with the guest.
            .find(|address| address.ip().is_loopback())
            .map(Self::Tcp)
            .ok_or_else(bad)
    }
}

/// What can go wrong in starting.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot listen for gdb at {}: {source}", path.display())]
    Unix { path: PathBuf, source: io::Error },
    #[error("cannot listen for gdb at {address}: {source}")]
    Tcp {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot start a thread for gdb: {0}")]
    Thread(io::Error),
}

/// Listens for gdb. Made by the command, which sees the host's files; the VMM that accepts may not.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Listens at `address`.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(address: &GdbAddress) -> Result<Self, Error> {
        match address {
            GdbAddress::Unix(path) => {
                remove_stale_socket(path);
                UnixListener::bind(path)
                    .map(|listener| Self(listener.into()))
                    .map_err(|source| Error::Unix {
                        path: path.clone(),
                        source,
                    })
            }
            GdbAddress::Tcp(address) => TcpListener::bind(address)
                .map(|listener| Self(listener.into()))
                .map_err(|source| Error::Tcp {
                    address: *address,
                    source,
                }),
        }
    }

    /// One that was handed over.
    #[must_use]
    pub fn inherited(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// The socket, for handing it over.
    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.0
    }

    fn accept(&self) -> io::Result<OwnedFd> {
        let stream = rustix::net::accept_with(&self.0, rustix::net::SocketFlags::CLOEXEC)?;
        // Not all of them are TCP's.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&stream, true);
        Ok(stream)
    }
}

impl GdbAddress {
    /// Removes the socket, when nobody listens any more.
    pub fn remove(&self) {
        if let Self::Unix(path) = self {
            remove_stale_socket(path);
        }
    }
}

/// A socket that a debugged husk left behind; anything else is not touched.
fn remove_stale_socket(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        let _ = fs::remove_file(path);
    }
}

/// How the machine ended, once it has.
#[derive(Debug, Default)]
struct Ending {
    end: Mutex<Option<End>>,
    /// gdb knows, or is not there.
    told: Mutex<bool>,
    changed: Condvar,
}

impl Ending {
    fn get(&self) -> Option<End> {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, told: bool) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
        self.changed.notify_all();
    }
}

/// The debugger's side of a machine.
#[derive(Debug)]
pub struct Debugger {
    ending: Arc<Ending>,
    inspector: Arc<Inspector>,
}

/// Serves gdb, one at a time.
///
/// # Errors
/// Without a thread.
pub fn serve(listener: Listener, inspector: Arc<Inspector>) -> Result<Debugger, Error> {
    let ending = Arc::new(Ending::default());
    ending.tell(true);
    let debugger = Debugger {
        ending: ending.clone(),
        inspector: inspector.clone(),
    };
    std::thread::Builder::new()
        .name("gdb".to_owned())
        .spawn(move || {
            while let Ok(stream) = listener.accept() {
                ending.tell(false);
                session::run(stream, &inspector, &ending);
                ending.tell(true);
            }
        })
        .map_err(Error::Thread)?;
    Ok(debugger)
}

impl Debugger {
    /// Tells gdb, if it is there, that the machine has ended; `None` is a time-out. Waits until it knows.
    pub fn finish(self, end: Option<End>) {
        *self
            .ending
            .end
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(end.unwrap_or(End::Shutdown(9)));
        self.inspector.debug.announce();
        let told = self
            .ending
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        drop(
            self.ending
                .changed
                .wait_timeout_while(told, FAREWELL, |told| !*told),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |text: &str| text.parse::<GdbAddress>();
        assert_eq!(parse("/run/x"), Ok(GdbAddress::Unix("/run/x".into())));
        assert_eq!(parse("./x"), Ok(GdbAddress::Unix("./x".into())));
        for text in ["127.0.0.1:1234", ":1234", "localhost:1234", "[::1]:1234"] {
            assert!(matches!(parse(text), Ok(GdbAddress::Tcp(_))), "{text}");
        }
        for text in ["x", "0.0.0.0:1", "192.168.1.1:1", ":", ":99999", "1234", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
