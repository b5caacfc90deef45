//! `/proc/PID/ns`: links to namespaces, which can be opened and entered (`setns(2)`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::row::{Row, What, link};
use super::subject::Subject;
use crate::fs::anon::AnonInode;
use crate::fs::internal::InternalFs;
use crate::fs::{Attributes, File, FileKind, FileOps, Inode, Location, SetAttributes};
use crate::process::namespaces::Namespace;
use crate::{Errno, Result, Thread};

/// Device number of namespaces' files (`nsfs`).
const NSFS_DEV: u64 = 4;

/// A namespace there is only one of.
macro_rules! only {
    ($name:literal, $text:literal) => {
        link($name, |_, subject| {
            subject.process()?;
            Ok($text.to_vec())
        })
    };
}

const fn magic(name: &'static str, text: super::row::LinkText, to: super::row::Target) -> Row {
    Row {
        name,
        mode: 0o777,
        what: What::Magic(text, to),
    }
}

/// The directory's table.
pub(super) const TABLE: &[Row] = &[
    only!("cgroup", b"cgroup:[4026531835]"),
    magic(
        "ipc",
        |_, subject| text(&ipc(subject)?),
        |t, subject| place(t, ipc(subject)?),
    ),
    only!("mnt", b"mnt:[4026531841]"),
    only!("net", b"net:[4026531840]"),
    only!("pid", b"pid:[4026531836]"),
    only!("pid_for_children", b"pid:[4026531836]"),
    only!("time", b"time:[4026531834]"),
    only!("time_for_children", b"time:[4026531834]"),
    only!("user", b"user:[4026531837]"),
    magic(
        "uts",
        |_, subject| text(&uts(subject)?),
        |t, subject| place(t, uts(subject)?),
    ),
];

fn ipc(subject: &Subject) -> Result<Namespace> {
    Ok(Namespace::Ipc(subject.thread()?.namespaces().ipc.clone()))
}

fn uts(subject: &Subject) -> Result<Namespace> {
    Ok(Namespace::Uts(subject.thread()?.namespaces().uts.clone()))
}

fn name(namespace: &Namespace) -> (&'static str, u32) {
    match namespace {
        Namespace::Ipc(ipc) => ("ipc", ipc.number()),
        Namespace::Uts(uts) => ("uts", uts.number()),
    }
}

fn text(namespace: &Namespace) -> Result<Vec<u8>> {
    let (kind, number) = name(namespace);
    Ok(alloc::format!("{kind}:[{number}]").into_bytes())
}

fn place(t: &Thread, namespace: Namespace) -> Result<Location> {
    let path = text(&namespace)?;
    let looks = AnonInode::owned_by(0, 0, FileKind::Regular, 0o444);
    let number = name(&namespace).1;
    looks.edit(|attributes| (attributes.dev, attributes.ino) = (NSFS_DEV, number.into()));
    let vfs = &t.kernel.fs;
    Ok(Location {
        mount: vfs.internal_mount(|| InternalFs::new(vfs.new_device())),
        inode: Arc::new(NamespaceInode { looks, namespace }),
        path,
    })
}

/// The namespace `file` is.
pub(super) fn of_file(file: &File) -> Option<Namespace> {
    let file = file.ops.as_any().downcast_ref::<NamespaceFile>()?;
    Some(file.0.clone())
}

#[derive(Debug)]
struct NamespaceInode {
    looks: AnonInode,
    namespace: Namespace,
}

impl Inode for NamespaceInode {
    fn attributes(&self) -> Attributes {
        self.looks.attributes()
    }

    fn set_attributes(&self, _change: &SetAttributes) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn open(self: Arc<Self>, _t: &Thread, _flags: u32) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(NamespaceFile(self.namespace.clone())))
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// An open namespace.
#[derive(Debug)]
struct NamespaceFile(Namespace);

impl FileOps for NamespaceFile {
    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
