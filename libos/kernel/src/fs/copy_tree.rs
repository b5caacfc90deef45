//! Copying a directory's contents into a fresh file system (`tmpcopyup`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general::{O_RDONLY, O_WRONLY};

use super::{Create, File, FileKind, FileRef, Inode, SetAttributes};
use crate::user::IoBuf;
use crate::{Errno, Result, Thread};

/// Copies what is below the directory `from` into the directory `to`, which also takes `from`'s owner and mode.
///
/// # Errors
/// What reading and writing gives, `ENOSPC` above all.
pub fn copy(t: &Thread, from: &Arc<dyn Inode>, to: &Arc<dyn Inode>) -> Result<()> {
    let attributes = from.attributes();
    to.set_attributes(&SetAttributes {
        mode: Some(attributes.mode),
        uid: Some(attributes.uid),
        gid: Some(attributes.gid),
        ..SetAttributes::default()
    })?;
    let mut names = Vec::new();
    from.read_dir(0, &mut |entry| {
        names.push(entry.name);
        true
    })?;
    for name in names
        .into_iter()
        .filter(|name| name != b"." && name != b"..")
    {
        let child = from.lookup(&name)?;
        let attributes = child.attributes();
        let target = match attributes.kind {
            FileKind::Symlink => child.read_link(t)?,
            _ => Vec::new(),
        };
        let what = Create {
            kind: attributes.kind,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            rdev: attributes.rdev,
            target: &target,
        };
        let made = to.create(&name, &what)?;
        match attributes.kind {
            FileKind::Directory => copy(t, &child, &made)?,
            FileKind::Regular => contents(t, child, made)?,
            _ => {}
        }
    }
    Ok(())
}

fn contents(t: &Thread, from: Arc<dyn Inode>, to: Arc<dyn Inode>) -> Result<()> {
    let size = from.attributes().size;
    let open = |inode: Arc<dyn Inode>, flags| -> Result<FileRef> {
        let ops = inode.clone().open(t, flags)?;
        Ok(File::new(ops, inode, Vec::new(), flags))
    };
    let (reader, writer) = (open(from, O_RDONLY)?, open(to, O_WRONLY)?);
    let mut at = 0;
    let mut bytes = alloc::vec![0; 64 << 10];
    while at < size {
        let got = reader.read_kernel(t, at, &mut bytes)?;
        if got == 0 {
            break;
        }
        let mut buf = IoBuf::kernel(&mut bytes[..got]);
        while buf.remaining() > 0 {
            let offset = at + buf.done() as u64;
            if writer.ops.write(t, &writer, &mut buf, offset)? == 0 {
                return Err(Errno::EIO);
            }
        }
        at += got as u64;
    }
    Ok(())
}
