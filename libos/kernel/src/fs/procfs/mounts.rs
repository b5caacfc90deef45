//! `mounts`, `mountinfo` and `mountstats`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general;

use super::subject::Subject;
use super::text::Text;
use crate::fs::{Mount, devfs};
use crate::{Result, Thread};

/// What separates fields, and so is escaped in them.
const SPECIAL: &[u8] = b" \t\n";

/// Mount flags in the order Linux shows them.
const OPTIONS: [(u32, &str); 4] = [
    (general::MS_NOSUID, ",nosuid"),
    (general::MS_NODEV, ",nodev"),
    (general::MS_NOEXEC, ",noexec"),
    (general::MS_NODIRATIME, ",nodiratime"),
];

/// The options of a mount.
pub(super) fn options(text: &mut Text, flags: u32) {
    let read_only = flags & general::MS_RDONLY != 0;
    write!(text, "{}", if read_only { "ro" } else { "rw" });
    for (flag, name) in OPTIONS {
        if flags & flag != 0 {
            write!(text, "{name}");
        }
    }
    if flags & general::MS_NOATIME != 0 {
        write!(text, ",noatime");
    } else if flags & general::MS_RELATIME != 0 {
        write!(text, ",relatime");
    }
    if flags & general::MS_NOSYMFOLLOW != 0 {
        write!(text, ",nosymfollow");
    }
}

/// The mounts in the order they were made, as Linux lists them.
fn in_order(subject: &Subject) -> Vec<Arc<Mount>> {
    let mut mounts = subject.kernel.fs.mounts();
    mounts.sort_by_key(|mount| mount.id);
    mounts
}

/// `mounts`.
pub(super) fn mounts(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    subject.process()?;
    for mount in in_order(subject) {
        text.push_escaped(&mount.source, SPECIAL);
        text.push(b" ");
        text.push_escaped(mount.path(), SPECIAL);
        write!(text, " {} ", mount.fs.kind());
        options(text, mount.flags());
        text.push(&mount.fs.options());
        text.push(b" 0 0\n");
    }
    Ok(())
}

/// `mountinfo`.
pub(super) fn mountinfo(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    subject.process()?;
    for mount in in_order(subject) {
        let parent = mount.point.as_ref().map_or(mount.id, |at| at.mount.id);
        let (major, minor) = devfs::split(mount.root.attributes().dev);
        write!(text, "{} {parent} {major}:{minor} ", mount.id);
        text.push_escaped(&mount.root_path, SPECIAL);
        text.push(b" ");
        text.push_escaped(mount.path(), SPECIAL);
        text.push(b" ");
        options(text, mount.flags());
        write!(text, " - {} ", mount.fs.kind());
        text.push_escaped(&mount.source, SPECIAL);
        text.push(if mount.fs.is_read_only() {
            b" ro"
        } else {
            b" rw"
        });
        text.push(&mount.fs.options());
        text.push(b"\n");
    }
    Ok(())
}

/// `mountstats`.
pub(super) fn mountstats(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    subject.process()?;
    for mount in in_order(subject) {
        text.push(b"device ");
        text.push_escaped(&mount.source, SPECIAL);
        text.push(b" mounted on ");
        text.push_escaped(mount.path(), SPECIAL);
        write!(text, " with fstype {}\n", mount.fs.kind());
    }
    Ok(())
}
