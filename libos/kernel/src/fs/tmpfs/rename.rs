//! Moving names (`rename(2)`). The caller holds the VFS's tree lock, so directories stay where
//! they are, and has made sure that neither of the two contains the other's directory.

use alloc::sync::Arc;

use husk_abi::linux::general;

use super::directory::Directory;
use super::node::Node;
use super::now_ns;
use crate::fs::FileKind;
use crate::sync::SpinLockGuard;
use crate::{Errno, Result};

/// The names of both directories, which may be one.
struct Both<'a> {
    from: SpinLockGuard<'a, Directory>,
    to: Option<SpinLockGuard<'a, Directory>>,
}

impl Both<'_> {
    fn to(&mut self) -> &mut Directory {
        match &mut self.to {
            Some(to) => to,
            None => &mut self.from,
        }
    }
}

/// Moves `from` in `source` to `to` in `target`.
pub(super) fn rename(
    source: &Node,
    from: &[u8],
    target: &Node,
    to: &[u8],
    flags: u32,
) -> Result<()> {
    let exchange = flags & general::RENAME_EXCHANGE != 0;
    let no_replace = flags & general::RENAME_NOREPLACE != 0;
    if flags & !(general::RENAME_EXCHANGE | general::RENAME_NOREPLACE) != 0
        || (exchange && no_replace)
    {
        return Err(Errno::EINVAL);
    }
    let (source_names, target_names) = (source.directory()?, target.directory()?);
    let same = core::ptr::eq(source, target);
    loop {
        let moved = source.get_child(from).ok_or(Errno::ENOENT)?;
        let replaced = target.get_child(to);
        let mut names = Both {
            from: source_names.lock(),
            to: (!same).then(|| target_names.lock()),
        };
        // Names may have come and gone before the locks were taken.
        let is_current =
            |found: Option<&Arc<Node>>, expected: Option<&Arc<Node>>| match (found, expected) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            };
        if !is_current(names.from.get(from), Some(&moved))
            || !is_current(names.to().get(to), replaced.as_ref())
        {
            continue;
        }
        if names.to().removed {
            return Err(Errno::ENOENT);
        }
        return match replaced {
            Some(_) if no_replace => Err(Errno::EEXIST),
            None if exchange => Err(Errno::ENOENT),
            Some(other) if Arc::ptr_eq(&moved, &other) => Ok(()),
            Some(other) if exchange => {
                names.from.replace(from, other.clone());
                names.to().replace(to, moved.clone());
                place(&moved, target, to)?;
                place(&other, source, from)?;
                count_move(source, target, &moved, Some(&other));
                Ok(())
            }
            replaced => {
                if let Some(other) = &replaced {
                    check_replaceable(&moved, other)?;
                }
                names.from.remove(from);
                match &replaced {
                    Some(_) => drop(names.to().replace(to, moved.clone())),
                    None => names.to().insert(to, moved.clone())?,
                }
                place(&moved, target, to)?;
                count_move(source, target, &moved, None);
                if let Some(other) = &replaced {
                    if other.file_kind() == FileKind::Directory {
                        target.meta.lock().nlink -= 1;
                    } else {
                        other.change_links(true);
                    }
                }
                drop(names);
                Ok(())
            }
        };
    }
}

/// Checks that `moved` may take the place of `other`; an empty directory is removed by that.
fn check_replaceable(moved: &Node, other: &Node) -> Result<()> {
    let is_directory = |node: &Node| node.file_kind() == FileKind::Directory;
    match (is_directory(moved), is_directory(other)) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        (true, true) => other.remove_directory(),
        (false, false) => Ok(()),
    }
}

/// Tells `node` where it is now.
fn place(node: &Arc<Node>, parent: &Node, name: &[u8]) -> Result<()> {
    if node.file_kind() == FileKind::Directory {
        let mut own = node.directory()?.lock();
        own.parent = parent
            .arc()
            .map_or_else(Default::default, |arc| Arc::downgrade(&arc));
        own.name = name.into();
    }
    node.meta.lock().ctime_ns = now_ns();
    Ok(())
}

/// Updates times and link counts of the directories.
fn count_move(source: &Node, target: &Node, moved: &Node, back: Option<&Arc<Node>>) {
    let is_directory = |node: &Node| u32::from(node.file_kind() == FileKind::Directory);
    let forth = is_directory(moved);
    let back = back.map_or(0, |node| is_directory(node));
    {
        let mut meta = source.meta.lock();
        meta.nlink = meta.nlink - forth + back;
        meta.touch();
    }
    let mut meta = target.meta.lock();
    meta.nlink = meta.nlink + forth - back;
    meta.touch();
}
