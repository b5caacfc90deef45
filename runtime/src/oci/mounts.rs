//! `mounts`: which of them the libOS makes, and with what flags.
//!
//! What only makes sense inside (`proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, `cgroup`) is made by the libOS; all
//! others are made by the host and shown by the guest's root.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use husk_abi::boundary::config::{Mount, MountKind};
use husk_abi::linux::general as linux;
use oci_spec::runtime::Spec;

use super::spec::Error;

/// An option's effect on the flags: what it sets, what it clears.
struct Effect(&'static str, u32, u32);

/// Options of `mount(8)` that are flags. Those of propagation have nothing to work on in a guest: there is one
/// mount namespace.
const OPTIONS: [Effect; 28] = [
    Effect("async", 0, linux::MS_SYNCHRONOUS),
    Effect("atime", 0, linux::MS_NOATIME),
    Effect("bind", linux::MS_BIND, 0),
    Effect("defaults", 0, 0),
    Effect("dev", 0, linux::MS_NODEV),
    Effect("diratime", 0, linux::MS_NODIRATIME),
    Effect("dirsync", linux::MS_DIRSYNC, 0),
    Effect("exec", 0, linux::MS_NOEXEC),
    // What these do is `idmap`'s business.
    Effect("idmap", 0, 0),
    Effect("noatime", linux::MS_NOATIME, 0),
    Effect("nodev", linux::MS_NODEV, 0),
    Effect("nodiratime", linux::MS_NODIRATIME, 0),
    Effect("noexec", linux::MS_NOEXEC, 0),
    Effect("norelatime", 0, linux::MS_RELATIME),
    Effect("nostrictatime", 0, linux::MS_STRICTATIME),
    Effect("nosuid", linux::MS_NOSUID, 0),
    Effect("nosymfollow", linux::MS_NOSYMFOLLOW, 0),
    Effect("rbind", linux::MS_BIND | linux::MS_REC, 0),
    Effect("relatime", linux::MS_RELATIME, 0),
    Effect("ridmap", 0, 0),
    Effect("ro", linux::MS_RDONLY, 0),
    Effect("rro", linux::MS_RDONLY, 0),
    Effect("rw", 0, linux::MS_RDONLY),
    Effect("strictatime", linux::MS_STRICTATIME, 0),
    Effect("suid", 0, linux::MS_NOSUID),
    Effect("symfollow", 0, linux::MS_NOSYMFOLLOW),
    Effect("sync", linux::MS_SYNCHRONOUS, 0),
    Effect("remount", 0, 0),
];

const PROPAGATION: [&str; 8] = [
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
];

/// All names of options that are flags, for `husk features`.
pub fn option_names() -> Vec<&'static str> {
    let mut names: Vec<_> = OPTIONS.iter().map(|effect| effect.0).collect();
    names.extend(PROPAGATION);
    names.push("tmpcopyup");
    names.extend(RECURSIVE);
    names.sort_unstable();
    names
}

/// What `rnosuid` and its like do (config-linux.md, "Linux mount options"; `mount_setattr(2)`): the host sets them on all
/// that is mounted below, and the guest shows all that as one mount.
fn recursive(option: &str) -> Option<&'static Effect> {
    let plain = RECURSIVE
        .iter()
        .find(|name| **name == option)?
        .strip_prefix('r')?;
    OPTIONS.iter().find(|effect| effect.0 == plain)
}

/// Recursive forms of options; `rro` is among the others.
const RECURSIVE: [&str; 17] = [
    "ratime",
    "rdev",
    "rdiratime",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "rrelatime",
    "rrw",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
];

/// Flags and the file system's own options of a mount's `options`.
fn options(options: &[String]) -> (u32, Vec<u8>, bool) {
    let (mut flags, mut data, mut copy_up) = (0, Vec::new(), false);
    for option in options {
        if let Some(Effect(_, set, clear)) = OPTIONS.iter().find(|effect| effect.0 == option) {
            flags = flags & !clear | set;
        } else if let Some(Effect(_, set, clear)) = recursive(option) {
            flags = flags & !clear | set;
        } else if option == "tmpcopyup" {
            copy_up = true;
        } else if !PROPAGATION.contains(&option.as_str()) && !option.is_empty() {
            if !data.is_empty() {
                data.push(b',');
            }
            data.extend_from_slice(option.as_bytes());
        }
    }
    (flags, data, copy_up)
}

/// What the libOS makes of file-system type `kind`; `None` for what the host mounts.
fn guest_kind(kind: &str, flags: u32, copy_up: bool) -> Option<MountKind> {
    if flags & linux::MS_BIND != 0 {
        return None;
    }
    Some(match kind {
        "proc" => MountKind::Proc,
        "sysfs" => MountKind::Sysfs,
        "tmpfs" => MountKind::Tmpfs(copy_up),
        "devpts" => MountKind::Devpts,
        "mqueue" => MountKind::Mqueue,
        "cgroup" | "cgroup2" => MountKind::Cgroup,
        _ => return None,
    })
}

/// Whether the libOS makes this mount itself.
pub fn is_guests(mount: &oci_spec::runtime::Mount) -> bool {
    let (flags, ..) = options(mount.options().as_deref().unwrap_or_default());
    mount
        .typ()
        .as_deref()
        .is_some_and(|kind| guest_kind(kind, flags, false).is_some())
}

/// A destination without `.`, `..` and doubled slashes; it starts at the container's root.
pub fn destination(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// The mounts in the order of the specification, as the libOS makes or shows them.
///
/// # Errors
/// [`Error`], naming the field.
pub fn guest(spec: &Spec) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let field = format!("mounts[{index}]");
        if mount.destination().as_os_str().is_empty() {
            return Err(Error::field(
                format!("{field}.destination"),
                "must not be empty",
            ));
        }
        super::idmap::wanted(index, mount)?;
        let typed = mount.options().as_deref().unwrap_or_default();
        let (mut flags, data, copy_up) = options(typed);
        let kind = mount.typ().as_deref().unwrap_or_default();
        if kind == "bind" {
            flags |= linux::MS_BIND;
        }
        let source = mount.source().as_deref();
        let kind = guest_kind(kind, flags, copy_up).unwrap_or(MountKind::Host);
        check_data(kind, &data, &field)?;
        if kind == MountKind::Host && flags & linux::MS_BIND != 0 {
            check_source(source, &field)?;
        }
        mounts.push(Mount {
            kind,
            target: destination(mount.destination())
                .as_os_str()
                .as_bytes()
                .to_vec(),
            source: source.map_or_else(
                || b"none".to_vec(),
                |path| path.as_os_str().as_bytes().to_vec(),
            ),
            flags,
            data,
        });
    }
    Ok(mounts)
}

/// Options that the libOS's file systems have; others of `proc` hide what they are asked to hide only if they are obeyed.
fn check_data(kind: MountKind, data: &[u8], field: &str) -> Result<(), Error> {
    let names: &[&str] = match kind {
        MountKind::Tmpfs(_) => &["gid", "mode", "nr_blocks", "nr_inodes", "size", "uid"],
        MountKind::Devpts => &["gid", "max", "mode", "newinstance", "ptmxmode", "uid"],
        MountKind::Proc => &["gid"],
        _ => return Ok(()),
    };
    let text = String::from_utf8_lossy(data);
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let name = option.split('=').next().unwrap_or_default();
        if matches!(option, "hidepid=0" | "hidepid=off") || names.contains(&name) {
            continue;
        }
        return Err(Error::unsupported(
            format!("{field}.options"),
            format!("{option:?}"),
        ));
    }
    Ok(())
}

fn check_source(source: Option<&Path>, field: &str) -> Result<(), Error> {
    let field = format!("{field}.source");
    let source = source
        .filter(|source| !source.as_os_str().is_empty())
        .ok_or_else(|| Error::field(&field, "is missing"))?;
    // A relative one is below the bundle, which the caller has made its working directory.
    std::fs::metadata(source)
        .map(drop)
        .map_err(|cause| Error::field(field, format!("{}: {cause}", source.display())))
}

/// The mounts of `runc spec`'s specification, which containers without a bundle get.
pub fn default_mounts() -> Vec<Mount> {
    let mount = |kind, target: &str, source: &str, flags, data: &str| Mount {
        kind,
        target: target.into(),
        source: source.into(),
        flags,
        data: data.into(),
    };
    let quiet = linux::MS_NOSUID | linux::MS_NODEV | linux::MS_NOEXEC;
    vec![
        mount(MountKind::Proc, "/proc", "proc", 0, ""),
        mount(
            MountKind::Tmpfs(false),
            "/dev",
            "tmpfs",
            linux::MS_NOSUID | linux::MS_STRICTATIME,
            "mode=755,size=65536k",
        ),
        mount(
            MountKind::Devpts,
            "/dev/pts",
            "devpts",
            linux::MS_NOSUID | linux::MS_NOEXEC,
            "newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        mount(
            MountKind::Tmpfs(false),
            "/dev/shm",
            "shm",
            quiet,
            "mode=1777,size=65536k",
        ),
        mount(MountKind::Mqueue, "/dev/mqueue", "mqueue", quiet, ""),
        mount(
            MountKind::Sysfs,
            "/sys",
            "sysfs",
            quiet | linux::MS_RDONLY,
            "",
        ),
        mount(
            MountKind::Cgroup,
            "/sys/fs/cgroup",
            "cgroup",
            quiet | linux::MS_RELATIME | linux::MS_RDONLY,
            "",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(list: &[&str]) -> (u32, Vec<u8>, bool) {
        options(
            &list
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn options_become_flags() {
        let (flags, data, copy_up) = parsed(&[
            "nosuid",
            "strictatime",
            "mode=755",
            "size=65536k",
            "rprivate",
            "tmpcopyup",
        ]);
        assert_eq!(flags, linux::MS_NOSUID | linux::MS_STRICTATIME);
        assert_eq!(data, b"mode=755,size=65536k");
        assert!(copy_up);
        assert_eq!(parsed(&["ro", "rw"]).0, 0);
        assert_eq!(
            parsed(&["rnosuid", "noexec", "rexec"]),
            (linux::MS_NOSUID, Vec::new(), false)
        );
        assert_eq!(
            parsed(&["rbind", "ro"]).0,
            linux::MS_BIND | linux::MS_REC | linux::MS_RDONLY
        );
    }

    #[test]
    fn destinations_are_clean() {
        for (typed, clean) in [
            ("/a//b/.", "/a/b"),
            ("a", "/a"),
            ("/../x/../y", "/y"),
            ("/", "/"),
        ] {
            assert_eq!(destination(Path::new(typed)), Path::new(clean));
        }
    }

    #[test]
    fn kinds() {
        assert_eq!(guest_kind("tmpfs", 0, true), Some(MountKind::Tmpfs(true)));
        assert_eq!(guest_kind("cgroup2", 0, false), Some(MountKind::Cgroup));
        assert_eq!(guest_kind("bind", linux::MS_BIND, false), None);
        assert_eq!(guest_kind("tmpfs", linux::MS_BIND, false), None);
        assert_eq!(guest_kind("overlay", 0, false), None);
    }
}
