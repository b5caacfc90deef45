//! Signal-driven input and output (`F_SETOWN`, `F_SETSIG`, `O_ASYNC` of `fcntl(2)`).
//!
//! Whose file can do it says so by [`FileOps::async_queues`](super::FileOps::async_queues): a wake-up there is a signal
//! for the file's owner.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use husk_abi::linux::general;

use super::open::O_ASYNC;
use super::{File, FileRef, WeakFile};
use crate::signal::{self, Info, set::is_valid};
use crate::sync::{Listener, SpinLock, WaitQueue, Waiter};
use crate::user::UserAddr;
use crate::{Errno, Kernel, Process, Result, SysResult, Thread};

/// What a file that is woken somewhere can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    /// Be read.
    In,
    /// Be written.
    Out,
}

impl Band {
    /// `si_code` and `si_band`.
    fn codes(self) -> (u32, u64) {
        let bits = match self {
            Self::In => general::POLLIN | general::POLLRDNORM,
            Self::Out => general::POLLOUT | general::POLLWRNORM | general::POLLWRBAND,
        };
        let code = match self {
            Self::In => general::POLL_IN,
            Self::Out => general::POLL_OUT,
        };
        (code, u64::from(bits))
    }
}

/// Whom the signals are for.
#[derive(Clone, Debug, Default)]
enum Target {
    #[default]
    Nobody,
    Thread(Weak<Thread>),
    Process(Weak<Process>),
    Group(u32),
}

/// Who gets a file's signals, which, and on whose authority.
#[derive(Clone, Debug, Default)]
struct Owner {
    target: Target,
    /// 0 is `SIGIO` without details.
    signal: i32,
    uid: u32,
    euid: u32,
}

/// A file's part in it.
#[derive(Debug, Default)]
pub struct AsyncIo {
    owner: SpinLock<Owner>,
    watch: SpinLock<Option<Watch>>,
}

/// Presence on a file's queues while `O_ASYNC` is set.
#[derive(Debug)]
struct Watch {
    sources: Vec<(Arc<WaitQueue>, Arc<Waiter>)>,
    _listeners: Vec<Arc<Source>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        for (queue, waiter) in &self.sources {
            queue.unregister(waiter);
        }
    }
}

/// One queue of one file.
#[derive(Debug)]
struct Source {
    kernel: &'static Kernel,
    file: WeakFile,
    fd: i32,
    band: Band,
}

impl Listener for Source {
    fn woken(&self) {
        if let Some(file) = self.file.upgrade()
            && file.ops.is_async_news(self.band)
        {
            let owner = file.async_io.owner.lock().clone();
            owner.notify(self.kernel, self.fd, self.band);
        }
    }
}

impl Owner {
    fn info(&self, fd: i32, band: Band) -> Info {
        if self.signal == 0 {
            return Info::kernel(general::SIGIO.cast_signed());
        }
        let (code, bits) = band.codes();
        Info::io(self.signal, code, bits, fd)
    }

    fn may_signal(&self, process: &Process) -> bool {
        process.any_thread().is_none_or(|thread| {
            let to = thread.credentials();
            self.euid == 0
                || [self.uid, self.euid]
                    .iter()
                    .any(|uid| *uid == to.uid || *uid == to.suid)
        })
    }

    fn notify(&self, kernel: &'static Kernel, fd: i32, band: Band) {
        let info = self.info(fd, band);
        let plain = Info::kernel(general::SIGIO.cast_signed());
        let to_process = |process: &Arc<Process>| {
            if self.may_signal(process) && signal::send_process(process, &info).is_err() {
                // No room in the queue: at least something is heard.
                let _ = signal::send_process(process, &plain);
            }
        };
        match &self.target {
            Target::Nobody => {}
            Target::Thread(thread) => {
                if let Some(thread) = thread.upgrade()
                    && self.may_signal(&thread.process)
                    && signal::send_thread(&thread, &info).is_err()
                {
                    let _ = signal::send_thread(&thread, &plain);
                }
            }
            Target::Process(process) => {
                if let Some(process) = process.upgrade() {
                    to_process(&process);
                }
            }
            Target::Group(pgid) => kernel
                .tasks
                .processes()
                .iter()
                .filter(|process| process.pgid() == *pgid)
                .for_each(to_process),
        }
    }
}

impl Target {
    fn find(t: &Thread, kind: u32, id: i32) -> Result<Self> {
        if id == 0 {
            return Ok(Self::Nobody);
        }
        let id = u32::try_from(id).map_err(|_| Errno::ESRCH)?;
        let tasks = &t.kernel.tasks;
        match kind {
            general::F_OWNER_TID => tasks
                .thread(id)
                .map(|thread| Self::Thread(Arc::downgrade(&thread))),
            general::F_OWNER_PID => tasks
                .process(id)
                .map(|process| Self::Process(Arc::downgrade(&process))),
            general::F_OWNER_PGRP => tasks
                .processes()
                .iter()
                .any(|process| process.pgid() == id)
                .then_some(Self::Group(id)),
            _ => return Err(Errno::EINVAL),
        }
        .ok_or(Errno::ESRCH)
    }

    /// Kind and id; the id of who is gone is 0.
    fn describe(&self) -> (u32, i32) {
        let (kind, id) = match self {
            Self::Nobody => (general::F_OWNER_TID, None),
            Self::Thread(thread) => (
                general::F_OWNER_TID,
                thread.upgrade().map(|thread| thread.tid()),
            ),
            Self::Process(process) => (
                general::F_OWNER_PID,
                process.upgrade().map(|process| process.pid),
            ),
            Self::Group(pgid) => (general::F_OWNER_PGRP, Some(*pgid)),
        };
        (kind, id.unwrap_or(0).cast_signed())
    }
}

fn set_target(t: &Thread, file: &File, target: Target) {
    let credentials = t.credentials();
    let mut owner = file.async_io.owner.lock();
    *owner = Owner {
        target,
        signal: owner.signal,
        uid: credentials.uid,
        euid: credentials.euid,
    };
}

/// The commands of `fcntl(2)` about owners and their signals; `None` for others.
pub fn fcntl(t: &Thread, file: &File, command: u32, arg: u64) -> Option<SysResult> {
    let number = arg as i32;
    let describe = || file.async_io.owner.lock().target.describe();
    Some(match command {
        general::F_SETOWN => {
            let kind = if number < 0 {
                general::F_OWNER_PGRP
            } else {
                general::F_OWNER_PID
            };
            number
                .checked_abs()
                .ok_or(Errno::EINVAL)
                .and_then(|id| Target::find(t, kind, id))
                .map(|target| {
                    set_target(t, file, target);
                    0
                })
        }
        general::F_GETOWN => {
            let (kind, id) = describe();
            let id = if kind == general::F_OWNER_PGRP {
                -id
            } else {
                id
            };
            Ok(id as usize)
        }
        general::F_SETOWN_EX => set_owner(t, file, UserAddr(arg)),
        general::F_GETOWN_EX => {
            let (kind, id) = describe();
            UserAddr(arg).write(&[kind.cast_signed(), id]).map(|()| 0)
        }
        general::F_SETSIG => {
            if number != 0 && !is_valid(number) {
                Err(Errno::EINVAL)
            } else {
                file.async_io.owner.lock().signal = number;
                Ok(0)
            }
        }
        general::F_GETSIG => Ok(file.async_io.owner.lock().signal as usize),
        _ => return None,
    })
}

/// `F_SETOWN_EX`, of a `struct f_owner_ex`.
fn set_owner(t: &Thread, file: &File, from: UserAddr) -> SysResult {
    let [kind, id] = from.read::<[i32; 2]>()?;
    let kind = u32::try_from(kind).map_err(|_| Errno::EINVAL)?;
    if kind > general::F_OWNER_PGRP {
        return Err(Errno::EINVAL);
    }
    set_target(t, file, Target::find(t, kind, id)?);
    Ok(0)
}

/// `O_ASYNC` goes up or down for `file`, reached by descriptor `fd`. Whether the file can do it.
pub fn set_async(t: &Thread, file: &FileRef, fd: i32, on: bool) -> bool {
    if !on {
        let old = file.async_io.watch.lock().take();
        drop(old);
        file.set_flags(file.flags() & !O_ASYNC);
        return true;
    }
    let queues = file.ops.async_queues();
    if queues.is_empty() {
        return false;
    }
    let mut watch = Watch {
        sources: Vec::new(),
        _listeners: Vec::new(),
    };
    for (queue, band) in queues {
        let source = Arc::new(Source {
            kernel: t.kernel,
            file: FileRef::downgrade(file),
            fd,
            band,
        });
        let listener: Arc<dyn Listener> = source.clone();
        let waiter = Waiter::for_listener(Arc::downgrade(&listener));
        queue.register(&waiter);
        watch.sources.push((queue, waiter));
        watch._listeners.push(source);
    }
    let old = file.async_io.watch.lock().replace(watch);
    drop(old);
    file.set_flags(file.flags() | O_ASYNC);
    true
}

/// A file's part in it, made on first use; most files never have one.
#[derive(Debug, Default)]
pub struct LazyAsyncIo(spin::Once<Box<AsyncIo>>);

impl core::ops::Deref for LazyAsyncIo {
    type Target = AsyncIo;

    fn deref(&self) -> &AsyncIo {
        self.0.call_once(Box::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_with_and_without_details() {
        let mut owner = Owner::default();
        let plain = owner.info(7, Band::In);
        assert_eq!(plain.signo, 29);
        owner.signal = 40;
        let bytes = owner.info(7, Band::Out).to_bytes();
        assert_eq!((bytes[0], bytes[8]), (40, 2));
        assert_eq!((bytes[16], bytes[17], bytes[24]), (4, 3, 7));
        // For signals whose codes mean something of their own.
        owner.signal = 17;
        assert_eq!(owner.info(7, Band::In).code, general::SI_SIGIO);
    }

    #[test]
    fn nobody_is_the_default() {
        assert_eq!(Target::default().describe(), (general::F_OWNER_TID, 0));
        assert_eq!(Target::Group(5).describe(), (general::F_OWNER_PGRP, 5));
        assert_eq!(
            Target::Process(Weak::new()).describe(),
            (general::F_OWNER_PID, 0)
        );
    }
}
