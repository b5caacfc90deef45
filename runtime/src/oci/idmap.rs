//! Id-mapped mounts (config.md, "Mounts": `uidMappings`, `idmap`; mount_setattr(2), "ID-mapped mounts"): made on the host as mounts
//! that are nowhere, and handed to the VMM, which serves each as a tree of its own.
#![allow(unsafe_code, reason = "a system call that nix and rustix do not offer")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use oci_spec::runtime::{Mount, Spec};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::Error;
use super::spec::Error as SpecError;
use super::userns::{self, Maps, Source, UserNamespace};

/// What is asked of one mount.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its own maps; without them it has those of the container's user namespace.
    maps: Option<Maps>,
    /// Whether what is mounted below is mapped, too.
    is_recursive: bool,
}

/// A mount whose ids are mapped.
#[derive(Debug)]
pub struct IdMapped {
    /// Which of the specification's mounts.
    pub index: usize,
    /// Its top, where nobody but its holder can reach it.
    pub tree: OwnedFd,
}

/// What is asked of `mount`, number `index`; `None` if its ids are as they are.
///
/// # Errors
/// [`SpecError`], naming the field.
pub fn wanted(index: usize, mount: &Mount) -> Result<Option<Wanted>, SpecError> {
    let field = format!("mounts[{index}]");
    let options = mount.options().as_deref().unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option == name);
    let maps = userns::maps(
        &field,
        mount.uid_mappings().as_deref(),
        mount.gid_mappings().as_deref(),
    )?;
    if maps.is_none() && !has("idmap") && !has("ridmap") {
        return Ok(None);
    }
    if mount.typ().as_deref() != Some("bind") && !has("bind") && !has("rbind") {
        return Err(SpecError::field(
            field,
            "id-mapped mounts are only supported for bind-mounts",
        ));
    }
    Ok(Some(Wanted {
        maps,
        is_recursive: has("ridmap"),
    }))
}

/// Makes those of the specification's mounts whose ids are mapped; `container` is the container's user namespace.
///
/// # Errors
/// [`Error`]: a field, or what the host refuses.
pub fn make(spec: &Spec, container: Option<&UserNamespace>) -> Result<Vec<IdMapped>, Error> {
    let mut made = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let Some(wanted) = wanted(index, mount)? else {
            continue;
        };
        let field = format!("mounts[{index}]");
        let own = wanted
            .maps
            .map(|maps| UserNamespace::open(&Source::New(maps), false))
            .transpose()
            .map_err(Error::host("make a user namespace for a mount's ids"))?;
        let namespace = own.as_ref().or(container).ok_or_else(|| {
            let what = "an id-mapped mount needs mappings, its own or the container's";
            SpecError::field(format!("{field}.uidMappings"), what)
        })?;
        let options = mount.options().as_deref().unwrap_or_default();
        let takes_all = options.iter().any(|option| option == "rbind");
        let source = mount.source().as_deref().unwrap_or(Path::new(""));
        let tree = clone(source, takes_all)
            .and_then(|tree| {
                map(tree.as_fd(), namespace.file.as_fd(), wanted.is_recursive)?;
                Ok(tree)
            })
            .map_err(Error::host(format!(
                "map the ids of {} ({field})",
                source.display()
            )))?;
        made.push(IdMapped { index, tree });
    }
    Ok(made)
}

/// A mount of what is at `source`, nowhere.
fn clone(source: &Path, takes_all: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if takes_all {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(rustix::fs::CWD, source, flags)?)
}

/// Maps the ids of the mount `tree` by those of `namespace`.
fn map(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>, is_recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(namespace.as_raw_fd().unsigned_abs()),
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if is_recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let empty: &CStr = c"";
    // SAFETY: the path is a string, the attributes are of the size that is given, and the kernel changes neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    Errno::result(done).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(mount: Value) -> Result<Option<Wanted>, String> {
        let mount: Mount = serde_json::from_value(mount).unwrap();
        wanted(3, &mount).map_err(|error| error.to_string())
    }

    #[test]
    fn which_are_mapped() {
        let map = json!([{"containerID": 0, "hostID": 7, "size": 2}]);
        let plain =
            json!({"destination": "/v", "type": "bind", "source": "/v", "options": ["rbind"]});
        assert_eq!(of(plain.clone()), Ok(None));
        let with = |change: &dyn Fn(&mut Value)| {
            let mut mount = plain.clone();
            change(&mut mount);
            of(mount)
        };
        let by_option = with(&|mount| mount["options"] = json!(["rbind", "ridmap"]));
        assert_eq!(
            by_option,
            Ok(Some(Wanted {
                maps: None,
                is_recursive: true
            }))
        );
        let by_maps = with(&|mount| {
            mount["uidMappings"] = map.clone();
            mount["gidMappings"] = map.clone();
        });
        assert!(by_maps.unwrap().unwrap().maps.is_some());
        let half = with(&|mount| mount["uidMappings"] = map.clone());
        assert!(half.unwrap_err().contains("mounts[3].gidMappings"));
        let tmpfs = of(json!({"destination": "/v", "type": "tmpfs", "options": ["idmap"]}));
        assert!(tmpfs.unwrap_err().contains("mounts[3]"));
    }
}
