//! Descriptors that callers want passed on beyond the first three: `--preserve-fds` and socket activation (sd_listen_fds(3)).
//!
//! Each is looked at here, by its caller's process: what it is goes into the guest's configuration, itself to the VMM. What
//! cannot be carried into a guest is refused by name, before anything is made.
#![allow(unsafe_code, reason = "descriptors that were inherited by number")]

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;

use husk_abi::boundary::config::{FIRST_HANDED, Handed, HandedKind, MAX_HANDED};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{FileStat, SFlag, fstat, major};
use rustix::net::{AddressFamily, SocketType, sockopt as rustix_options};

use super::Error;
use crate::gate;

/// Descriptors to pass on, and what they are.
#[derive(Debug, Default)]
pub struct Preserved {
    /// What the guest is told.
    pub described: Vec<Handed>,
    /// What the VMM gets.
    pub descriptors: Vec<OwnedFd>,
    /// How many of them are socket activation's.
    pub listening: u32,
}

impl Preserved {
    /// Takes the descriptors that `--preserve-fds count` names; to be called once, before descriptors of one's own.
    ///
    /// # Errors
    /// [`Error::NoPreservedFd`] for one that is not open, [`Error::PreserveFds`] for one that cannot be passed on,
    /// [`Error::ManyPreservedFds`].
    pub fn take(count: u32) -> Result<Self, Error> {
        let mut all = Self::default();
        all.add(FIRST_HANDED, count)?;
        Ok(all)
    }

    /// As [`Preserved::take`], after the sockets that whoever started this process handed over (`LISTEN_FDS`), which the
    /// container is to get.
    ///
    /// # Errors
    /// As [`Preserved::take`].
    pub fn take_activated(count: u32) -> Result<Self, Error> {
        let mut all = Self {
            listening: activated(),
            ..Self::default()
        };
        all.add(FIRST_HANDED, all.listening)?;
        all.add(FIRST_HANDED + all.listening, count)?;
        Ok(all)
    }

    /// Variables of the container's process that tell of socket activation, as runc sets them.
    #[must_use]
    pub fn environment(&self) -> Vec<Vec<u8>> {
        match self.listening {
            0 => Vec::new(),
            count => vec![
                format!("LISTEN_FDS={count}").into_bytes(),
                b"LISTEN_PID=1".to_vec(),
            ],
        }
    }

    fn add(&mut self, first: u32, count: u32) -> Result<(), Error> {
        if self.descriptors.len() + count as usize > MAX_HANDED {
            return Err(Error::ManyPreservedFds);
        }
        for at in 0..count {
            let number = first + at;
            let missing = || Error::NoPreservedFd {
                number,
                at,
                of: count,
            };
            let fd = inherited(number).ok_or_else(missing)?;
            let what = fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
            let refused = |why| Error::PreserveFds { number, what, why };
            let (handed, fd) = describe(fd).map_err(refused)?;
            self.described.push(handed);
            self.descriptors.push(fd);
        }
        Ok(())
    }
}

/// How many sockets socket activation hands to this very process.
fn activated() -> u32 {
    let own = std::process::id().to_string();
    let is_ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == own);
    let sockets = std::env::var("LISTEN_FDS").ok().filter(|_| is_ours);
    sockets.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Descriptor `number` if it is open and was inherited: this process makes all of its own to be closed by `execve(2)`.
fn inherited(number: u32) -> Option<OwnedFd> {
    let number = RawFd::try_from(number).ok()?;
    // SAFETY: only asked for its flags, which fails if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = FdFlag::from_bits_truncate(fcntl(borrowed, FcntlArg::F_GETFD).ok()?);
    if flags.contains(FdFlag::FD_CLOEXEC) {
        return None;
    }
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: inherited, so nothing in this process owns it; with the flag set it is not found here again.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Why something cannot be passed on.
type Refusal = &'static str;

const UNKNOWN: Refusal = "it cannot be looked at";

/// What `fd` is, and the descriptor to be handed over for it.
fn describe(fd: OwnedFd) -> Result<(Handed, OwnedFd), Refusal> {
    let stat = fstat(&fd).map_err(|_| UNKNOWN)?;
    let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(|_| UNKNOWN)?;
    let status = OFlag::from_bits_retain(flags);
    if status.contains(OFlag::O_PATH) {
        return Err("it was opened with O_PATH");
    }
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map_err(|_| UNKNOWN)?
        .into_os_string()
        .into_vec();
    let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => HandedKind::File { name: link },
        SFlag::S_IFIFO => stream(&stat, b"pipe".to_vec(), false),
        SFlag::S_IFCHR if nix::unistd::isatty(&fd).unwrap_or(false) => stream(&stat, link, true),
        // Memory devices: null, zero, full, random, urandom and their like.
        SFlag::S_IFCHR if major(stat.st_rdev) == 1 => stream(&stat, link, false),
        SFlag::S_IFSOCK => socket(&fd)?,
        SFlag::S_IFDIR => return Err("a directory is shown to a container by a bind mount"),
        SFlag::S_IFCHR | SFlag::S_IFBLK => return Err("a device of the host has no driver inside"),
        _ if link == b"anon_inode:[eventfd]" => stream(&stat, link, false),
        _ => return Err("it means nothing to the guest's kernel"),
    };
    let mut fd = fd;
    if let HandedKind::Stream { name, .. } = &kind
        && (name.as_slice() == b"pipe"
            || matches!(
                &kind,
                HandedKind::Stream {
                    is_terminal: true,
                    ..
                }
            ))
        && let Ok(own) = opened_anew(&fd, status)
    {
        fd = own;
    }
    Ok((
        Handed {
            kind,
            flags: flags.cast_unsigned(),
        },
        fd,
    ))
}

fn stream(stat: &FileStat, name: Vec<u8>, is_terminal: bool) -> HandedKind {
    HandedKind::Stream {
        mode: stat.st_mode,
        rdev: stat.st_rdev,
        name,
        is_terminal,
    }
}

/// The same pipe or terminal, opened so that the VMM never waits for it: its flags are its own, not those that others see.
fn opened_anew(fd: &OwnedFd, status: OFlag) -> io::Result<OwnedFd> {
    let access = status & OFlag::O_ACCMODE;
    let file = OpenOptions::new()
        .read(access != OFlag::O_WRONLY)
        .write(access != OFlag::O_RDONLY)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(file.into())
}

fn socket(fd: &OwnedFd) -> Result<HandedKind, Refusal> {
    let family = rustix_options::socket_domain(fd).map_err(|_| UNKNOWN)?;
    let kind = rustix_options::socket_type(fd).map_err(|_| UNKNOWN)?;
    let listens = rustix_options::socket_acceptconn(fd).map_err(|_| UNKNOWN)?;
    let [own, peer] = gate::socket_names(fd);
    match family {
        AddressFamily::UNIX => {
            let credentials = getsockopt(fd, sockopt::PeerCredentials);
            let peer_ids = credentials.map_or([u32::MAX; 2], |of| [of.uid(), of.gid()]);
            Ok(HandedKind::Unix {
                kind: kind.as_raw(),
                listens,
                names: [own, peer],
                peer: peer_ids,
            })
        }
        AddressFamily::INET | AddressFamily::INET6
            if matches!(kind, SocketType::STREAM | SocketType::DGRAM) =>
        {
            Ok(HandedKind::Inet {
                family: u32::from(family.as_raw()),
                kind: kind.as_raw(),
                listens,
                connected: !peer.is_empty(),
            })
        }
        _ => Err("a socket of this kind leads nowhere inside"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn described(fd: impl Into<OwnedFd>) -> HandedKind {
        describe(fd.into()).unwrap().0.kind
    }

    #[test]
    fn what_can_be_passed_on_is_told() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let (handed, own) = describe(read).unwrap();
        assert!(matches!(&handed.kind, HandedKind::Stream { name, .. } if name == b"pipe"));
        assert_eq!(handed.flags & 3, 0);
        let flags = OFlag::from_bits_retain(fcntl(&own, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_NONBLOCK));
        let others = OFlag::from_bits_retain(fcntl(&write, FcntlArg::F_GETFL).unwrap());
        assert!(!others.contains(OFlag::O_NONBLOCK));
        let file = File::open("/proc/self/exe").unwrap();
        assert!(matches!(described(file), HandedKind::File { .. }));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(
            described(tcp),
            HandedKind::Inet {
                listens: true,
                connected: false,
                ..
            }
        ));
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(
            matches!(described(one), HandedKind::Unix { listens: false, names: [_, peer], .. } if !peer.is_empty())
        );
        let path = std::env::temp_dir().join(format!("husk-handed-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let HandedKind::Unix { listens, names, .. } = described(listener) else {
            panic!("no unix socket");
        };
        assert!(listens && names[1].is_empty());
        assert!(names[0].windows(5).any(|part| part == b"/husk"));
    }

    #[test]
    fn what_cannot_is_refused() {
        assert!(describe(File::open("/").unwrap().into()).is_err());
        let epoll =
            nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::empty()).unwrap();
        assert!(describe(epoll.0).is_err());
        // Opened to be closed by execve, so it cannot have been inherited.
        let null = File::open("/dev/null").unwrap();
        assert!(inherited(null.as_raw_fd().cast_unsigned()).is_none());
        assert!(inherited(1 << 20).is_none());
    }
}
