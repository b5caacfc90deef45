//! Message queues: `msgget(2)`, `msgsnd(2)`, `msgrcv(2)`, `msgctl(2)`.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general;

use super::objects::{Common, NOWAIT, Object, READ, WRITE};
use super::wire::{self, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, MSQID_BYTES, Struct};
use super::{Namespace, now};
use crate::sync::{Interruptible, SpinLock, WaitQueue};
use crate::syscall::{Hex, Int, Len, Off, Ptr};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// Bytes of a message (`kernel.msgmax`).
pub const MAX_BYTES: usize = 8192;
/// Bytes of a queue (`kernel.msgmnb`).
pub const QUEUE_BYTES: u64 = 16384;
/// Queues (`kernel.msgmni`).
pub const MAX_QUEUES: usize = 32000;

const MSG_NOERROR: u64 = 0o10000;
const MSG_EXCEPT: u64 = 0o20000;
const MSG_COPY: u64 = 0o40000;
const MSG_STAT: i32 = 11;
const MSG_INFO: i32 = 12;
const MSG_STAT_ANY: i32 = 13;

#[derive(Debug)]
struct Message {
    kind: i64,
    text: Vec<u8>,
}

/// What changes.
#[derive(Debug, Default)]
pub(super) struct State {
    messages: VecDeque<Message>,
    pub bytes: u64,
    max_bytes: u64,
    pub sent: i64,
    pub received: i64,
    pub sender: u32,
    pub receiver: u32,
}

impl State {
    pub fn len(&self) -> usize {
        self.messages.len()
    }
}

/// A message queue.
#[derive(Debug)]
pub struct Queue {
    common: Common,
    pub(super) state: SpinLock<State>,
    /// Whoever waits for room, and for messages.
    room: WaitQueue,
    news: WaitQueue,
}

impl Object for Queue {
    fn common(&self) -> &Common {
        &self.common
    }
}

/// Which messages a receiver wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Any,
    Kind(i64),
    Not(i64),
    /// The one of the lowest kind up to this.
    UpTo(i64),
    /// A copy of the one at this place.
    Copy(i64),
}

impl Wanted {
    fn new(kind: i64, flags: u64) -> Self {
        match kind {
            _ if flags & MSG_COPY != 0 => Wanted::Copy(kind),
            0 => Wanted::Any,
            kind if kind < 0 => Wanted::UpTo(kind.checked_neg().unwrap_or(i64::MAX)),
            kind if flags & MSG_EXCEPT != 0 => Wanted::Not(kind),
            kind => Wanted::Kind(kind),
        }
    }

    /// The place of the message.
    fn find(self, messages: &VecDeque<Message>) -> Option<usize> {
        let mut all = messages.iter();
        match self {
            Wanted::Any => (!messages.is_empty()).then_some(0),
            Wanted::Kind(kind) => all.position(|message| message.kind == kind),
            Wanted::Not(kind) => all.position(|message| message.kind != kind),
            Wanted::UpTo(most) => {
                let fit = all.enumerate().filter(|(_, message)| message.kind <= most);
                // Of equal ones the first.
                let lowest = fit.min_by_key(|(at, message)| (message.kind, *at));
                lowest.map(|(at, _)| at)
            }
            Wanted::Copy(at) => usize::try_from(at).ok().filter(|at| *at < messages.len()),
        }
    }
}

fn namespace(t: &Thread) -> Arc<Namespace> {
    t.namespaces().ipc.clone()
}

fn get(t: &Thread, id: i32) -> Result<Arc<Queue>> {
    namespace(t).queues.lock().get(id)
}

/// `msgget(2)`.
///
/// # Errors
/// `EACCES`, `EEXIST`, `ENOENT`, `ENOSPC`.
pub fn msgget(t: &Thread, key: Int, flags: Hex) -> SysResult {
    let namespace = namespace(t);
    let make = |common| {
        Ok(Queue {
            common,
            state: SpinLock::new(State {
                max_bytes: namespace.limits.queue_bytes,
                ..State::default()
            }),
            room: WaitQueue::new(),
            news: WaitQueue::new(),
        })
    };
    let credentials = t.credentials();
    let mut queues = namespace.queues.lock();
    let limit = namespace.limits.queues;
    let id = queues.find_or_make(&credentials, key, flags, limit, |_| Ok(()), make)?;
    Ok(id as usize)
}

/// `msgsnd(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EACCES`, `EAGAIN`, `EIDRM`, `EINTR`.
pub fn msgsnd(t: &Thread, id: Int, message: Ptr, len: Len, flags: Hex) -> SysResult {
    let kind: i64 = message.read()?;
    if len > namespace(t).limits.message_bytes || id < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let mut text = alloc::vec![0; len];
    message.add(8).read_bytes(&mut text)?;
    let queue = get(t, id)?;
    let credentials = t.credentials();
    let mut message = Some(Message { kind, text });
    let attempt = || -> Option<Result<()>> {
        if let Err(errno) = queue.common.check(&credentials, WRITE) {
            return Some(Err(errno));
        }
        let mut state = queue.state.lock();
        if let Err(errno) = queue.common.check_alive() {
            return Some(Err(errno));
        }
        let has_room = state.bytes + len as u64 <= state.max_bytes
            && (state.messages.len() as u64) < state.max_bytes;
        if has_room {
            state.messages.extend(message.take());
            state.bytes += len as u64;
            state.sender = t.process.pid;
            state.sent = now();
            return Some(Ok(()));
        }
        (flags & NOWAIT != 0).then_some(Err(Errno::EAGAIN))
    };
    let done = queue.room.wait(t, Interruptible::Yes, None, attempt);
    done.map_err(|error| error.errno(Errno::ERESTARTNOHAND))??;
    queue.news.wake_all();
    Ok(0)
}

/// `msgrcv(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EACCES`, `E2BIG`, `ENOMSG`, `EIDRM`, `EINTR`.
pub fn msgrcv(t: &Thread, id: Int, to: Ptr, len: Len, kind: Off, flags: Hex) -> SysResult {
    if id < 0 || isize::try_from(len).is_err() {
        return Err(Errno::EINVAL);
    }
    if flags & MSG_COPY != 0 && (flags & MSG_EXCEPT != 0 || flags & NOWAIT == 0) {
        return Err(Errno::EINVAL);
    }
    let wanted = Wanted::new(kind, flags);
    let queue = get(t, id)?;
    let credentials = t.credentials();
    let attempt = || -> Option<Result<Message>> {
        if let Err(errno) = queue.common.check(&credentials, READ) {
            return Some(Err(errno));
        }
        let mut state = queue.state.lock();
        if let Err(errno) = queue.common.check_alive() {
            return Some(Err(errno));
        }
        let Some(at) = wanted.find(&state.messages) else {
            return (flags & NOWAIT != 0).then_some(Err(Errno::ENOMSG));
        };
        if state.messages[at].text.len() > len && flags & MSG_NOERROR == 0 {
            return Some(Err(Errno::E2BIG));
        }
        if let Wanted::Copy(_) = wanted {
            let Message { kind, text } = &state.messages[at];
            return Some(Ok(Message {
                kind: *kind,
                text: text.clone(),
            }));
        }
        let message = state.messages.remove(at)?;
        state.bytes -= message.text.len() as u64;
        state.receiver = t.process.pid;
        state.received = now();
        Some(Ok(message))
    };
    let done = queue.news.wait(t, Interruptible::Yes, None, attempt);
    let message = done.map_err(|error| error.errno(Errno::ERESTARTNOHAND))??;
    queue.room.wake_all();
    let got = message.text.len().min(len);
    to.write(&message.kind)?;
    to.add(8).write_bytes(&message.text[..got])?;
    Ok(got)
}

/// `msgctl(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EACCES`, `EPERM`, `EIDRM`.
pub fn msgctl(t: &Thread, id: Int, command: Int, buf: Ptr) -> SysResult {
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        IPC_INFO | MSG_INFO => info(t, command, buf),
        IPC_STAT | MSG_STAT | MSG_STAT_ANY => stat(t, id, command, buf),
        IPC_SET => {
            let (bytes, perm) = wire::read::<MSQID_BYTES>(buf)?;
            let max = bytes[88..]
                .first_chunk()
                .copied()
                .map_or(0, u64::from_ne_bytes);
            let queue = get(t, id)?;
            let credentials = t.credentials();
            queue.common.check_owner(&credentials)?;
            if max > namespace(t).limits.queue_bytes && !t.is_capable(general::CAP_SYS_RESOURCE) {
                return Err(Errno::EPERM);
            }
            queue.common.change(perm)?;
            queue.state.lock().max_bytes = max;
            queue.news.wake_all();
            queue.room.wake_all();
            Ok(0)
        }
        IPC_RMID => {
            let queue = get(t, id)?;
            queue.common.check_owner(&t.credentials())?;
            let removed = namespace(t).queues.lock().remove(&queue);
            drop(removed);
            queue.news.wake_all();
            queue.room.wake_all();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn info(t: &Thread, command: i32, buf: UserAddr) -> SysResult {
    const BYTES: usize = 32;
    const SEGMENT: i32 = 16;
    const SEGMENTS: i32 = 0xffff;
    let namespace = namespace(t);
    let limits = &namespace.limits;
    let queue_bytes = limits.queue_bytes as i32;
    let (highest, used, messages, bytes) = {
        let queues = namespace.queues.lock();
        let sums = queues.iter().fold((0, 0), |(messages, bytes), queue| {
            let state = queue.state.lock();
            (messages + state.messages.len(), bytes + state.bytes)
        });
        (queues.highest(), queues.len(), sums.0, sums.1)
    };
    let [pool, map, headers] = if command == MSG_INFO {
        [used as i32, messages as i32, bytes as i32]
    } else {
        let pool = (limits.queues as u64).saturating_mul(limits.queue_bytes) / 1024;
        [pool as i32, queue_bytes, queue_bytes]
    };
    let limits = [
        limits.message_bytes as i32,
        queue_bytes,
        limits.queues as i32,
    ];
    let mut out = Struct::default();
    for value in [pool, map].into_iter().chain(limits) {
        out.int(value);
    }
    for value in [SEGMENT, headers, SEGMENTS] {
        out.int(value);
    }
    out.write(buf, BYTES)?;
    Ok(highest)
}

fn stat(t: &Thread, id: i32, command: i32, buf: UserAddr) -> SysResult {
    let namespace = namespace(t);
    let queue = if command == IPC_STAT {
        namespace.queues.lock().get(id)?
    } else {
        namespace.queues.lock().at(id)?
    };
    if command != MSG_STAT_ANY {
        queue.common.check(&t.credentials(), READ)?;
    }
    let perm = *queue.common.perm.lock();
    let mut out = Struct::of(&perm, queue.common.id);
    {
        let state = queue.state.lock();
        for time in [state.sent, state.received, perm.changed] {
            out.long(time.cast_unsigned());
        }
        for count in [state.bytes, state.messages.len() as u64, state.max_bytes] {
            out.long(count);
        }
        out.int(state.sender as i32);
        out.int(state.receiver as i32);
    }
    out.write(buf, MSQID_BYTES)?;
    Ok(if command == IPC_STAT {
        0
    } else {
        queue.common.id as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_message() {
        let kinds = [5, 3, 7, 3, 1 << 40];
        let text = Vec::new;
        let messages: VecDeque<_> = kinds.map(|kind| Message { kind, text: text() }).into();
        let find = |kind, flags| Wanted::new(kind, flags).find(&messages);
        assert_eq!(find(0, 0), Some(0));
        assert_eq!(find(3, 0), Some(1));
        assert_eq!(find(5, MSG_EXCEPT), Some(1));
        assert_eq!(find(-6, 0), Some(1));
        assert_eq!(find(-2, 0), None);
        assert_eq!(find(i64::MIN, 0), Some(1));
        assert_eq!(find(4, MSG_COPY), Some(4));
        assert_eq!(find(5, MSG_COPY), None);
    }
}
