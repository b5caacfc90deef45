//! `/proc/PID/fd` and `/proc/PID/fdinfo`.

use alloc::vec::Vec;

use husk_abi::linux::general;

use super::row::{Row, What, file};
use super::subject::Subject;
use super::text::Text;
use crate::fs::epoll::Epoll;
use crate::fs::eventfd::EventFd;
use crate::fs::inotify::Inotify;
use crate::fs::pidfd::PidFd;
use crate::fs::signalfd::SignalFd;
use crate::fs::{FileKind, FileRef, Location};
use crate::{Errno, Result, Thread};

/// What follows the path of a file without a name.
pub(super) const DELETED: &[u8] = b" (deleted)";

/// `/proc/PID/fd/N`; its mode is [`link_mode`].
pub(super) static LINK: Row = Row {
    name: "",
    mode: 0o777,
    what: What::Magic(text, target),
};

/// `/proc/PID/fdinfo/N`.
pub(super) static INFO: Row = file("", info);

fn open_file(subject: &Subject) -> Result<FileRef> {
    let thread = subject.thread().map_err(|_| Errno::ENOENT)?;
    let files = thread.files_opt().ok_or(Errno::ENOENT)?;
    files.get_any(subject.fd).map_err(|_| Errno::ENOENT)
}

/// Mode of the link: how the file is open.
pub(super) fn link_mode(subject: &Subject) -> Result<u32> {
    let file = open_file(subject)?;
    let read = if file.is_readable() { 0o500 } else { 0o100 };
    let write = if file.is_writable() { 0o300 } else { 0o100 };
    Ok(if file.is_path() { 0 } else { read | write })
}

fn text(_t: &Thread, subject: &Subject) -> Result<Vec<u8>> {
    let file = open_file(subject)?;
    let attributes = file.inode.attributes();
    let is_directory = attributes.kind == FileKind::Directory;
    if is_directory
        && file.mount.is_some()
        && let Some(path) = file.location(subject.kernel).current_path()
    {
        return Ok(path);
    }
    let mut path = file.path.clone();
    if attributes.nlink == 0 || is_directory && file.mount.is_some() {
        path.extend_from_slice(DELETED);
    }
    Ok(path)
}

fn target(_t: &Thread, subject: &Subject) -> Result<Location> {
    Ok(open_file(subject)?.location(subject.kernel))
}

fn info(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let file = open_file(subject)?;
    let files = subject.thread()?.files_opt().ok_or(Errno::ENOENT)?;
    let close_on_exec = files.is_close_on_exec(subject.fd).unwrap_or_default();
    let flags = if close_on_exec {
        file.flags() | general::O_CLOEXEC
    } else {
        file.flags()
    };
    let location = file.location(subject.kernel);
    write!(
        text,
        "pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t{}\nino:\t{}\n",
        *file.position.lock(),
        location.mount.id,
        file.inode.attributes().ino
    );
    let ops = file.ops.as_any();
    if let Some(event) = ops.downcast_ref::<EventFd>() {
        write!(text, "{}", event.fdinfo());
    } else if let Some(epoll) = ops.downcast_ref::<Epoll>() {
        write!(text, "{}", epoll.fdinfo());
    } else if let Some(signals) = ops.downcast_ref::<SignalFd>() {
        write!(text, "{}", signals.fdinfo());
    } else if let Some(inotify) = ops.downcast_ref::<Inotify>() {
        write!(text, "{}", inotify.fdinfo());
    } else if let Some(process) = ops.downcast_ref::<PidFd>() {
        write!(text, "{}", process.fdinfo());
    }
    Ok(())
}
