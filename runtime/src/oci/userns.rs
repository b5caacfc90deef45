//! User namespaces (user_namespaces(7)): made for a container, entered by its VMM, and what maps the ids of a mount.
//!
//! libcontainer sets a container up in the host's own namespace, where it may reach every mount's source and write to every
//! cgroup; its process enters the container's when all that is done, before `create` returns.
#![allow(unsafe_code, reason = "fork, in a process of one thread")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use husk_abi::boundary::config::{self, IdRange};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{self, ForkResult, Gid, Pid, Uid};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec};

use super::spec::{Bundle, Error as SpecError};
use super::{Error, network};

/// What is written to `uid_map` and `gid_map`, in this order.
pub type Maps = [Vec<IdRange>; 2];

/// Where a user namespace comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is made.
    New(Maps),
    /// It is there already.
    Joined {
        /// Where.
        path: PathBuf,
        /// What its maps are said to be, if anything is said.
        expected: Option<Maps>,
    },
}

/// A user namespace that is held open.
#[derive(Debug)]
pub struct UserNamespace {
    /// The namespace.
    pub file: OwnedFd,
    /// A new network namespace that is its, if one was asked for.
    pub network: Option<OwnedFd>,
    /// Its maps.
    pub guest: config::UserNamespace,
}

/// The ranges that the specification gives.
fn ranges(list: &[LinuxIdMapping]) -> Vec<IdRange> {
    let range = |mapping: &LinuxIdMapping| IdRange {
        inside: mapping.container_id(),
        outside: mapping.host_id(),
        count: mapping.size(),
    };
    list.iter().map(range).collect()
}

/// A pair of maps of the specification, `None` if there are none.
///
/// # Errors
/// [`SpecError`], naming the field below `of`, if there is one of them only or one cannot be.
pub fn maps(
    of: &str,
    uids: Option<&[LinuxIdMapping]>,
    gids: Option<&[LinuxIdMapping]>,
) -> Result<Option<Maps>, SpecError> {
    let lists = [uids.unwrap_or_default(), gids.unwrap_or_default()];
    if lists.iter().all(|list| list.is_empty()) {
        return Ok(None);
    }
    for (list, name) in lists.iter().zip(["uidMappings", "gidMappings"]) {
        let field = |at: usize| format!("{of}.{name}[{at}]");
        if list.is_empty() {
            return Err(SpecError::field(
                format!("{of}.{name}"),
                "is missing, or empty, and the other of uidMappings and gidMappings is not",
            ));
        }
        for (at, mapping) in list.iter().enumerate() {
            let ends = [mapping.container_id(), mapping.host_id()]
                .map(|first| first.checked_add(mapping.size()));
            if mapping.size() == 0 || ends.contains(&None) {
                return Err(SpecError::field(field(at), "is no range of ids"));
            }
        }
    }
    Ok(Some(lists.map(ranges)))
}

/// The user namespace a specification asks for.
///
/// # Errors
/// [`SpecError`], naming the field.
pub fn wanted(linux: &Linux) -> Result<Option<Source>, SpecError> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let namespace = namespaces
        .iter()
        .find(|namespace| namespace.typ() == LinuxNamespaceType::User);
    let maps = maps(
        "linux",
        linux.uid_mappings().as_deref(),
        linux.gid_mappings().as_deref(),
    )?;
    match (namespace, maps) {
        // As runc: maps of nothing.
        (None, _) => Ok(None),
        (Some(namespace), maps) => match (namespace.path(), maps) {
            (Some(path), expected) => Ok(Some(Source::Joined {
                path: path.clone(),
                expected,
            })),
            (None, None) => Err(SpecError::field(
                "linux.uidMappings",
                "user namespaces enabled, but no user mapping found",
            )),
            (None, Some(maps)) => Ok(Some(Source::New(maps))),
        },
    }
}

/// The user namespace `bundle` asks for, made or opened; with its network namespace, if that is new, too.
///
/// # Errors
/// [`Error`]: a field, or what the host refuses.
pub fn of_bundle(bundle: &Bundle) -> Result<Option<UserNamespace>, Error> {
    let Some(linux) = bundle.spec.linux() else {
        return Ok(None);
    };
    let Some(source) = wanted(linux)? else {
        return Ok(None);
    };
    let what = match &source {
        Source::New(_) => "make the container's user namespace".to_owned(),
        Source::Joined { path, .. } => format!("join the user namespace {}", path.display()),
    };
    let namespace =
        UserNamespace::open(&source, network::is_new(&bundle.raw)).map_err(Error::host(what))?;
    check_users(&bundle.spec, &namespace.guest)?;
    Ok(Some(namespace))
}

/// Checks that the ids the VMM and the container's first process have are in its namespace.
///
/// # Errors
/// [`SpecError`], naming the field.
fn check_users(spec: &Spec, namespace: &config::UserNamespace) -> Result<(), SpecError> {
    let check = |map: &[IdRange], id: u32, field: String| {
        if config::UserNamespace::has(map, id) {
            Ok(())
        } else {
            let what = format!("{id} is not mapped in the container's user namespace");
            Err(SpecError::field(field, what))
        }
    };
    check(&namespace.uids, 0, "linux.uidMappings".to_owned())?;
    check(&namespace.gids, 0, "linux.gidMappings".to_owned())?;
    let Some(process) = spec.process() else {
        return Ok(());
    };
    let user = process.user();
    check(&namespace.uids, user.uid(), "process.user.uid".to_owned())?;
    check(&namespace.gids, user.gid(), "process.user.gid".to_owned())?;
    for (at, gid) in user.additional_gids().iter().flatten().enumerate() {
        let field = format!("process.user.additionalGids[{at}]");
        check(&namespace.gids, *gid, field)?;
    }
    Ok(())
}

impl UserNamespace {
    /// Makes or opens a user namespace, `with_network` with a new network namespace that belongs to it.
    ///
    /// # Errors
    /// When the host refuses, or the namespace that is there is another than expected.
    pub fn open(source: &Source, with_network: bool) -> io::Result<Self> {
        let joined = match source {
            Source::New(_) => None,
            Source::Joined { path, .. } => Some(File::open(path)?),
        };
        let holder = Holder::start(joined.as_ref(), with_network)?;
        if let Source::New(maps) = source {
            for (name, map) in ["uid_map", "gid_map"].into_iter().zip(maps) {
                fs::write(holder.file(name), text(map)).map_err(|cause| about(&cause, name))?;
            }
        }
        let [uids, gids] = [
            read_map(&holder.file("uid_map"))?,
            read_map(&holder.file("gid_map"))?,
        ];
        if let Source::Joined {
            path,
            expected: Some(expected),
        } = source
            && !expected
                .iter()
                .zip([&uids, &gids])
                .all(|(a, b)| is_same(a, b))
        {
            let what = format!(
                "{}: its mappings are not those of the specification",
                path.display()
            );
            return Err(io::Error::other(what));
        }
        let setgroups = fs::read_to_string(holder.file("setgroups"))?;
        let open = |name: &str| File::open(holder.file(name));
        let network = with_network.then(|| open("ns/net")).transpose()?;
        if let Some(network) = &network {
            network::loopback_up(network.try_clone()?)?;
        }
        Ok(Self {
            file: open("ns/user")?.into(),
            network: network.map(OwnedFd::from),
            guest: config::UserNamespace {
                uids,
                gids,
                may_setgroups: setgroups.trim_end() != "deny",
            },
        })
    }
}

/// Whether both map alike: the order of ranges says nothing.
fn is_same(a: &[IdRange], b: &[IdRange]) -> bool {
    a.len() == b.len() && a.iter().all(|range| b.contains(range))
}

fn about(cause: &io::Error, name: &str) -> io::Error {
    io::Error::new(cause.kind(), format!("{name}: {cause}"))
}

fn text(map: &[IdRange]) -> String {
    map.iter()
        .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count))
        .collect()
}

fn read_map(path: &Path) -> io::Result<Vec<IdRange>> {
    let line = |line: &str| -> Option<IdRange> {
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(IdRange {
            inside: next()?,
            outside: next()?,
            count: next()?,
        })
    };
    let text = fs::read_to_string(path)?;
    let map: Option<Vec<IdRange>> = text.lines().map(line).collect();
    map.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
}

/// A process that lives in the namespaces until they are open. It ends with this value, or with its maker.
struct Holder {
    pid: Pid,
    /// It ends when the other end of this closes.
    keep: Option<io::PipeWriter>,
}

impl Holder {
    fn start(joined: Option<&File>, with_network: bool) -> io::Result<Self> {
        let (wait, keep) = io::pipe()?;
        let (mut ready, mut tell) = io::pipe()?;
        // SAFETY: only one thread runs here yet; even so the child makes nothing but system calls and ends by _exit.
        match unsafe { unistd::fork() }? {
            ForkResult::Child => {
                drop(keep);
                let entered = enter_holder(joined, with_network);
                let errno = entered.map_or_else(|errno| errno as i32, |()| 0);
                let _ = tell.write_all(&errno.to_ne_bytes());
                let _ = (&wait).read(&mut [0]);
                // SAFETY: it takes a number.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                drop(tell);
                let holder = Self {
                    pid: child,
                    keep: Some(keep),
                };
                let mut errno = [0; 4];
                ready.read_exact(&mut errno)?;
                match i32::from_ne_bytes(errno) {
                    0 => Ok(holder),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.keep.take());
        let _ = waitpid(self.pid, None);
    }
}

fn enter_holder(joined: Option<&File>, with_network: bool) -> nix::Result<()> {
    match joined {
        Some(namespace) => setns(namespace, CloneFlags::CLONE_NEWUSER)?,
        None => unshare(CloneFlags::CLONE_NEWUSER)?,
    }
    if with_network {
        unshare(CloneFlags::CLONE_NEWNET)?;
    }
    Ok(())
}

/// Makes this process root of `namespace`, with every capability there and none outside. It has one thread.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `EINVAL` if root is not mapped.
pub fn enter(namespace: impl AsFd) -> nix::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWUSER)?;
    let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
    match unistd::setgroups(&[]) {
        // Not allowed in some, which have no groups to leave then.
        Ok(()) | Err(nix::Error::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    unistd::setresgid(group, group, group)?;
    unistd::setresuid(root, root, root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;
    use serde_json::json;

    fn mapping(inside: u32, outside: u32, count: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default()
            .container_id(inside)
            .host_id(outside)
            .size(count)
            .build()
            .unwrap()
    }

    #[test]
    fn maps_that_cannot_be_are_named() {
        let good = [mapping(0, 1000, 10)];
        let complaint = |uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]| {
            maps("linux", Some(uids), Some(gids))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(maps("linux", None, Some(&[])).unwrap(), None);
        let both = maps("linux", Some(&good), Some(&good)).unwrap().unwrap();
        assert_eq!(text(&both[0]), "0 1000 10\n");
        assert!(complaint(&good, &[]).contains("linux.gidMappings"));
        assert!(complaint(&[], &good).contains("linux.uidMappings"));
        assert!(complaint(&good, &[mapping(0, 5, 0)]).contains("linux.gidMappings[0]"));
        let beyond = [mapping(0, 5, 1), mapping(1, u32::MAX, 2)];
        assert!(complaint(&beyond, &good).contains("linux.uidMappings[1]"));
    }

    #[test]
    fn order_of_ranges() {
        let [a, b] = [0, 10].map(|inside| IdRange {
            inside,
            outside: 5,
            count: 1,
        });
        assert!(is_same(&[a, b], &[b, a]));
        assert!(!is_same(&[a], &[a, b]) && !is_same(&[a], &[b]));
    }

    #[test]
    fn what_is_asked_for() {
        let of = |linux| wanted(&serde_json::from_value::<Linux>(linux).unwrap());
        let map = json!([{"containerID": 0, "hostID": 7, "size": 2}]);
        assert_eq!(of(json!({"namespaces": []})).unwrap(), None);
        let new = of(json!({
            "namespaces": [{"type": "user"}], "uidMappings": map, "gidMappings": map,
        }));
        let range = IdRange {
            inside: 0,
            outside: 7,
            count: 2,
        };
        assert_eq!(new.unwrap(), Some(Source::New([vec![range], vec![range]])));
        let joined = of(json!({"namespaces": [{"type": "user", "path": "/x"}]})).unwrap();
        assert!(matches!(
            joined,
            Some(Source::Joined { expected: None, .. })
        ));
        let of_nothing = json!({"namespaces": [], "uidMappings": map, "gidMappings": map});
        assert_eq!(of(of_nothing).unwrap(), None);
        let complaint = of(json!({"namespaces": [{"type": "user"}]}))
            .unwrap_err()
            .to_string();
        assert!(complaint.contains("linux.uidMappings"), "{complaint}");
    }
}
