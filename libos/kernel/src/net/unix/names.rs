//! Names of unix sockets: path names, abstract names and those the kernel picks.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use husk_abi::linux::{general, net};

use super::UnixSocket;
use crate::fs::create::{self, New};
use crate::fs::path::{Last, Lookup, lookup_at, parent_at};
use crate::fs::permission::{self, Access};
use crate::fs::{FileKind, Inode};
use crate::net::address;
use crate::sync::SpinLock;
use crate::{Errno, Result, Thread};

/// An address as `getsockname(2)` gives it: the family, then the path with its NUL, or NUL and the abstract
/// name.
pub type Name = Arc<[u8]>;

/// Bytes before `sun_path`.
pub const PATH_AT: usize = 2;
/// Largest address.
const MAX_BYTES: usize = size_of::<net::sockaddr_un>();

/// How an inode is known while a socket keeps it.
type InodeKey = (u64, u64);

/// What a bound socket keeps besides its name.
#[derive(Debug)]
pub enum Bound {
    /// The inode of its path name.
    Path(Arc<dyn Inode>),
    /// Its abstract name.
    Abstract,
}

/// Which socket has which name.
#[derive(Debug, Default)]
pub struct Names {
    paths: SpinLock<BTreeMap<InodeKey, Weak<UnixSocket>>>,
    /// Sockets of different types do not see each other here.
    abstracts: SpinLock<BTreeMap<(Name, u32), Weak<UnixSocket>>>,
    next_automatic: AtomicU32,
}

fn key(inode: &Arc<dyn Inode>) -> InodeKey {
    let attributes = inode.attributes();
    (attributes.dev, attributes.ino)
}

/// The bytes of a name; of a socket without one, just the family.
#[must_use]
pub fn to_bytes(name: Option<Name>) -> Vec<u8> {
    match name {
        Some(name) => name.to_vec(),
        None => (net::AF_UNIX as u16).to_ne_bytes().to_vec(),
    }
}

/// What an address means.
enum Address<'a> {
    Path(&'a [u8]),
    Abstract(&'a [u8]),
}

impl<'a> Address<'a> {
    fn parse(address: &'a [u8]) -> Result<Self> {
        if address.len() <= PATH_AT
            || address.len() > MAX_BYTES
            || address::family(address) != Some(net::AF_UNIX as u16)
        {
            return Err(Errno::EINVAL);
        }
        let path = &address[PATH_AT..];
        if path[0] == 0 {
            return Ok(Address::Abstract(address));
        }
        let end = path
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(path.len());
        Ok(Address::Path(&path[..end]))
    }
}

/// Checks the form of an address.
///
/// # Errors
/// `EINVAL`.
pub fn check(address: &[u8]) -> Result<()> {
    Address::parse(address).map(drop)
}

impl UnixSocket {
    /// `bind(2)`.
    pub(super) fn bind_name(&self, t: &Thread, address: &[u8]) -> Result<()> {
        if address.len() == PATH_AT && address::family(address) == Some(net::AF_UNIX as u16) {
            return self.bind_automatically();
        }
        match Address::parse(address)? {
            Address::Path(path) => self.bind_path(t, path),
            Address::Abstract(name) => self.bind_abstract(Arc::from(name)),
        }
    }

    fn bind_path(&self, t: &Thread, path: &[u8]) -> Result<()> {
        let mode = self
            .base
            .inode()
            .map_or(0o777, |inode| inode.attributes().mode);
        let parent = parent_at(t, general::AT_FDCWD, path)?;
        let Last::Name(name) = &parent.last else {
            return Err(Errno::EADDRINUSE);
        };
        match parent.directory.inode.lookup(name) {
            Ok(_) => return Err(Errno::EADDRINUSE),
            Err(Errno::ENOENT) if parent.trailing_slash => return Err(Errno::ENOENT),
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
        let new = New {
            kind: FileKind::Socket,
            mode,
            rdev: 0,
            target: &[],
        };
        let inode =
            create::create(t, &parent.directory, name, &new).map_err(|error| match error {
                Errno::EEXIST => Errno::EADDRINUSE,
                error => error,
            })?;
        let _binding = self.binding.lock();
        if self.outlet.name().is_some() {
            let _ = parent.directory.inode.unlink(name);
            return Err(Errno::EINVAL);
        }
        let mut bytes = (net::AF_UNIX as u16).to_ne_bytes().to_vec();
        bytes.extend_from_slice(path);
        bytes.push(0);
        let names = &self.base.kernel.net.unix.names;
        names.paths.lock().insert(key(&inode), self.weak.clone());
        self.inner.lock().bound = Some(Bound::Path(inode));
        self.outlet.set_name(Arc::from(bytes));
        Ok(())
    }

    fn bind_abstract(&self, name: Name) -> Result<()> {
        let _binding = self.binding.lock();
        if self.outlet.name().is_some() {
            return Err(Errno::EINVAL);
        }
        if self.take_abstract(&name) {
            Ok(())
        } else {
            Err(Errno::EADDRINUSE)
        }
    }

    /// Makes an abstract name this socket's, if it is free.
    fn take_abstract(&self, name: &Name) -> bool {
        let names = &self.base.kernel.net.unix.names;
        let key = (name.clone(), self.base.kind);
        {
            let mut abstracts = names.abstracts.lock();
            if abstracts.contains_key(&key) {
                return false;
            }
            abstracts.insert(key, self.weak.clone());
        }
        self.inner.lock().bound = Some(Bound::Abstract);
        self.outlet.set_name(name.clone());
        true
    }

    /// Gives it an abstract name of five hexadecimal digits, unless it has a name.
    pub(super) fn bind_automatically(&self) -> Result<()> {
        const NAMES: u32 = 1 << 20;
        let _binding = self.binding.lock();
        if self.outlet.name().is_some() {
            return Ok(());
        }
        let next = &self.base.kernel.net.unix.names.next_automatic;
        for _ in 0..NAMES {
            let number = next.fetch_add(1, Ordering::Relaxed) % NAMES;
            let mut bytes = (net::AF_UNIX as u16).to_ne_bytes().to_vec();
            bytes.push(0);
            bytes.extend_from_slice(alloc::format!("{number:05x}").as_bytes());
            if self.take_abstract(&Arc::from(bytes)) {
                return Ok(());
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Binds a sender whose name the receiver may want (`SO_PASSCRED`).
    pub(super) fn name_for_credentials(&self) -> Result<()> {
        if self.passes_credentials() && self.outlet.name().is_none() {
            self.bind_automatically()?;
        }
        Ok(())
    }

    /// The socket's name is free again; its inode, if it had one, is returned to be dropped without locks.
    pub(super) fn give_up_name(&self, bound: Option<Bound>) {
        let names = &self.base.kernel.net.unix.names;
        match bound {
            Some(Bound::Path(inode)) => {
                names.paths.lock().remove(&key(&inode));
            }
            Some(Bound::Abstract) => {
                if let Some(name) = self.outlet.name() {
                    names.abstracts.lock().remove(&(name, self.base.kind));
                }
            }
            None => {}
        }
    }

    /// The inode `address` leads to if no socket of the guest has that name: somebody outside may.
    ///
    /// # Errors
    /// `EINVAL`, `EACCES`, and what walking the path gives.
    pub(super) fn find_outside(
        &self,
        t: &Thread,
        address: &[u8],
    ) -> Result<Option<Arc<dyn Inode>>> {
        let Address::Path(path) = Address::parse(address)? else {
            return Ok(None);
        };
        let location = lookup_at(t, general::AT_FDCWD, path, Lookup::FOLLOW)?;
        let attributes = location.inode.attributes();
        permission::check(&t.credentials(), &attributes, Access::WRITE)?;
        let names = &self.base.kernel.net.unix.names;
        let is_ours = names.paths.lock().contains_key(&key(&location.inode));
        Ok((attributes.kind == FileKind::Socket && !is_ours).then_some(location.inode))
    }

    /// The socket that `address` names, for connecting and sending.
    ///
    /// # Errors
    /// `EINVAL`; `ECONNREFUSED` if there is none; `EPROTOTYPE` if it is of another type; `EACCES` and what
    /// walking the path gives.
    pub(super) fn find(&self, t: &Thread, address: &[u8]) -> Result<Arc<UnixSocket>> {
        let names = &self.base.kernel.net.unix.names;
        match Address::parse(address)? {
            Address::Path(path) => {
                let location = lookup_at(t, general::AT_FDCWD, path, Lookup::FOLLOW)?;
                let attributes = location.inode.attributes();
                permission::check(&t.credentials(), &attributes, Access::WRITE)?;
                if attributes.kind != FileKind::Socket {
                    return Err(Errno::ECONNREFUSED);
                }
                let found = names.paths.lock().get(&key(&location.inode)).cloned();
                let found = found
                    .and_then(|socket| socket.upgrade())
                    .ok_or(Errno::ECONNREFUSED)?;
                if found.base.kind != self.base.kind {
                    return Err(Errno::EPROTOTYPE);
                }
                Ok(found)
            }
            Address::Abstract(name) => {
                let key = (Name::from(name), self.base.kind);
                let found = names.abstracts.lock().get(&key).cloned();
                found
                    .and_then(|socket| socket.upgrade())
                    .ok_or(Errno::ECONNREFUSED)
            }
        }
    }
}
