//! Sockets that a process was handed from outside: connected there, or listening there for whoever is outside.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::host::Remote;
use super::{Identity, Name, PATH_AT, Phase, UnixSocket};
use crate::fs::PollEvents;
use crate::fs::fuse::Channel;
use crate::net::control::Ucred;
use crate::net::{Patience, Socket};
use crate::{Errno, Kernel, Result, Thread};

/// A handed socket of type `kind`; `names` are its address and its peer's, empty if it is not connected, and `peer` is whose
/// the other side is.
#[must_use]
pub fn handed(
    kernel: &'static Kernel,
    kind: u32,
    channel: Arc<Channel>,
    listens: bool,
    names: &[Vec<u8>; 2],
    peer: [u32; 2],
) -> Arc<dyn Socket> {
    let phase = match (listens, names[1].is_empty()) {
        (true, _) => Phase::Listening,
        (false, true) => Phase::Unconnected,
        (false, false) => Phase::Connected,
    };
    let remote = Remote {
        channel,
        name: names[1].clone(),
    };
    let name = (names[0].len() > PATH_AT).then(|| Arc::from(&names[0][..]));
    UnixSocket::outside(kernel, kind, phase, remote, name, peer)
}

impl UnixSocket {
    /// A socket whose other side is outside.
    fn outside(
        kernel: &'static Kernel,
        kind: u32,
        phase: Phase,
        remote: Remote,
        name: Option<Name>,
        [uid, gid]: [u32; 2],
    ) -> Arc<Self> {
        let socket = Self::new(kernel, kind);
        if let Some(name) = name {
            socket.outlet.set_name(name);
        }
        {
            let mut inner = socket.inner.lock();
            inner.phase = phase;
            // Its process is not one of the container's.
            let ucred = Ucred { pid: 0, uid, gid };
            inner.peer_identity = (phase == Phase::Connected).then(|| Identity {
                ucred,
                groups: Vec::new(),
            });
        }
        let old = socket.remote.lock().replace(Arc::new(remote));
        drop(old);
        socket
    }

    /// `accept(2)` of a socket that listens outside.
    pub(super) fn accept_outside(
        &self,
        t: &Thread,
        remote: &Remote,
        patience: Patience,
    ) -> Result<Arc<UnixSocket>> {
        if self.inner.lock().shut.receiving {
            return Err(Errno::EINVAL);
        }
        let channel = &remote.channel;
        let accepted = channel.wait(t, patience, PollEvents::IN, || channel.accept())?;
        let (uid, gid) = accepted.peer;
        let family = (husk_abi::linux::net::AF_UNIX as u16).to_ne_bytes();
        let remote = Remote {
            channel: accepted,
            name: family.to_vec(),
        };
        let (kernel, kind, name) = (self.base.kernel, self.base.kind, self.outlet.name());
        let socket = Self::outside(kernel, kind, Phase::Connected, remote, name, [uid, gid]);
        let inherited = self.base.options();
        socket.base.edit_options(|options| *options = inherited);
        Ok(socket)
    }
}
