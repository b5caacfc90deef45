//! POSIX message queues: `mq_open(2)` and its kin, and the file system they are seen in (`mq_overview(7)`).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use husk_abi::linux::general;

use crate::fs::anon::AnonInode;
use crate::fs::permission::{self, Access};
use crate::fs::poll::PollTable;
use crate::fs::{
    Attributes, Create, DirEntry, DirFile, File, FileKind, FileOps, FileRef, FileSystem,
    FsStatistics, Inode, PollEvents, SetAttributes,
};
use crate::process::Process;
use crate::signal::{self, Info};
use crate::sync::{Interruptible, SpinLock, WaitError, WaitQueue};
use crate::syscall::{Fd, Len, Mode, OpenFlags, Path, Ptr, Uint};
use crate::user::{IoBuf, UserAddr};
use crate::{Errno, Result, SysResult, Thread, time};

/// Queues of a namespace (`/proc/sys/fs/mqueue/queues_max`).
pub const MAX_QUEUES: usize = 256;
/// Messages of a queue, at most and without a word.
pub const MAX_MESSAGES: i64 = 10;
/// Bytes of a message, at most and without a word.
pub const MAX_BYTES: i64 = 8192;
/// What not even `CAP_SYS_RESOURCE` exceeds.
const HARD_MESSAGES: i64 = 65536;
const HARD_BYTES: i64 = 16 << 20;
/// `MQ_PRIO_MAX`.
const PRIORITIES: u32 = 32768;
const NAME_MAX: usize = 255;
/// What Linux counts for a message beside its bytes, and for a priority.
const OVERHEAD: u64 = 48;
/// Size of a queue's file (`FILENT_SIZE`).
const FILE_SIZE: u64 = 80;
const MAGIC: u32 = 0x1980_0202;
const ROOT_INO: u64 = 1;

const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD: i32 = 2;

/// The file system.
#[derive(Debug)]
pub struct MqueueFs {
    root: Arc<Root>,
}

/// Its one directory.
#[derive(Debug)]
struct Root {
    weak: Weak<Root>,
    looks: AnonInode,
    device: u64,
    queues: SpinLock<BTreeMap<Vec<u8>, Arc<Queue>>>,
    /// Bytes of each user's queues (`RLIMIT_MSGQUEUE`), those without a name included.
    bytes: SpinLock<BTreeMap<u32, u64>>,
}

/// Who wants to know of the first message.
#[derive(Debug)]
struct Notify {
    process: Weak<Process>,
    pid: u32,
    how: i32,
    signo: i32,
    value: u64,
}

#[derive(Debug, Default)]
struct State {
    /// By priority.
    messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    count: i64,
    bytes: u64,
    /// Threads that sleep for a message.
    receivers: u32,
    notify: Option<Notify>,
}

/// A queue.
#[derive(Debug)]
struct Queue {
    root: Weak<Root>,
    looks: AnonInode,
    owner: u32,
    charged: u64,
    max_messages: i64,
    max_bytes: i64,
    state: SpinLock<State>,
    news: Arc<WaitQueue>,
    room: Arc<WaitQueue>,
}

impl MqueueFs {
    /// Without a queue; `device` is its number.
    #[must_use]
    pub fn new(device: u64) -> Arc<Self> {
        let looks = AnonInode::owned_by(0, 0, FileKind::Directory, 0o1777);
        looks.edit(|attributes| {
            (attributes.dev, attributes.ino, attributes.nlink) = (device, ROOT_INO, 2);
        });
        let root = Arc::new_cyclic(|weak| Root {
            weak: weak.clone(),
            looks,
            device,
            queues: SpinLock::default(),
            bytes: SpinLock::default(),
        });
        Arc::new(Self { root })
    }
}

impl FileSystem for MqueueFs {
    fn kind(&self) -> &'static str {
        "mqueue"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statistics(&self) -> FsStatistics {
        FsStatistics {
            magic: MAGIC,
            block_size: 4096,
            ..FsStatistics::default()
        }
    }
}

impl Root {
    /// Makes the queue `name`; `size` is messages and bytes of each.
    ///
    /// # Errors
    /// `EEXIST`, `ENOSPC`, `EMFILE`.
    fn make(
        &self,
        name: &[u8],
        what: &Create<'_>,
        size: (i64, i64),
        limit: u64,
        privileged: bool,
    ) -> Result<Arc<Queue>> {
        let (messages, bytes) = (size.0.cast_unsigned(), size.1.cast_unsigned());
        let charged =
            messages * bytes + messages * OVERHEAD + messages.min(u64::from(PRIORITIES)) * OVERHEAD;
        {
            let mut used = self.bytes.lock();
            let used = used.entry(what.uid).or_default();
            if *used + charged > limit {
                return Err(Errno::EMFILE);
            }
            *used += charged;
        }
        let looks = AnonInode::owned_by(what.uid, what.gid, FileKind::Regular, what.mode);
        looks.edit(|attributes| (attributes.dev, attributes.size) = (self.device, FILE_SIZE));
        // From here on dropping it gives the bytes back.
        let queue = Arc::new(Queue {
            root: self.weak.clone(),
            looks,
            owner: what.uid,
            charged,
            max_messages: size.0,
            max_bytes: size.1,
            state: SpinLock::default(),
            news: Arc::default(),
            room: Arc::default(),
        });
        let mut queues = self.queues.lock();
        if queues.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if queues.len() >= MAX_QUEUES && !privileged {
            return Err(Errno::ENOSPC);
        }
        queues.insert(name.to_vec(), queue.clone());
        Ok(queue)
    }

    fn find(&self, name: &[u8]) -> Result<Arc<Queue>> {
        self.queues.lock().get(name).cloned().ok_or(Errno::ENOENT)
    }
}

impl Inode for Root {
    fn attributes(&self) -> Attributes {
        self.looks.attributes()
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        self.looks.set_attributes(change)
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Ok(self.find(name)?)
    }

    fn create(&self, name: &[u8], what: &Create<'_>) -> Result<Arc<dyn Inode>> {
        if what.kind != FileKind::Regular {
            return Err(Errno::EPERM);
        }
        let limit = husk_hal::cpu::with_current(|t: &Thread| limit(t)).unwrap_or(Ok(u64::MAX))?;
        Ok(self.make(name, what, (MAX_MESSAGES, MAX_BYTES), limit, false)?)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let queue = self.queues.lock().remove(name).ok_or(Errno::ENOENT)?;
        queue.looks.edit(|attributes| attributes.nlink = 0);
        Ok(())
    }

    fn read_dir(&self, position: u64, sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        let entry = |next: usize, ino: u64, kind: FileKind, name: &[u8]| DirEntry {
            next: next as u64,
            ino,
            kind,
            name: name.to_vec(),
        };
        let mut all = alloc::vec![
            entry(1, ROOT_INO, FileKind::Directory, b"."),
            entry(2, ROOT_INO, FileKind::Directory, b".."),
        ];
        for (name, queue) in self.queues.lock().iter() {
            all.push(entry(
                all.len() + 1,
                queue.looks.ino(),
                FileKind::Regular,
                name,
            ));
        }
        let from = usize::try_from(position).unwrap_or(usize::MAX);
        for entry in all.into_iter().skip(from) {
            if !sink(entry) {
                break;
            }
        }
        Ok(())
    }

    fn open(self: Arc<Self>, _t: &Thread, _flags: u32) -> Result<Arc<dyn FileOps>> {
        Ok(DirFile::new(self))
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

impl Inode for Queue {
    fn attributes(&self) -> Attributes {
        self.looks.attributes()
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        self.looks.set_attributes(change)
    }

    fn open(self: Arc<Self>, _t: &Thread, _flags: u32) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(QueueFile(self)))
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

impl Queue {
    /// Puts a message in; the notification that is due then.
    fn push(&self, state: &mut State, priority: u32, text: Vec<u8>) -> Option<Notify> {
        let was_empty = state.count == 0;
        state.count += 1;
        state.bytes += text.len() as u64;
        state.messages.entry(priority).or_default().push_back(text);
        if was_empty && state.receivers == 0 {
            state.notify.take()
        } else {
            None
        }
    }

    /// Takes the oldest message of the highest priority.
    fn pop(state: &mut State) -> Option<(u32, Vec<u8>)> {
        let mut highest = state.messages.last_entry()?;
        let priority = *highest.key();
        let text = highest.get_mut().pop_front()?;
        if highest.get().is_empty() {
            highest.remove();
        }
        state.count -= 1;
        state.bytes -= text.len() as u64;
        Some((priority, text))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(root) = self.root.upgrade()
            && let Some(used) = root.bytes.lock().get_mut(&self.owner)
        {
            *used -= self.charged;
        }
    }
}

/// An open queue.
#[derive(Debug)]
struct QueueFile(Arc<Queue>);

impl FileOps for QueueFile {
    fn read(&self, _t: &Thread, _file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let text = {
            let state = self.0.state.lock();
            let notify = state.notify.as_ref();
            let (how, signo, pid) = notify.map_or((0, 0, 0), |notify| {
                let signo = if notify.how == SIGEV_SIGNAL {
                    notify.signo
                } else {
                    0
                };
                (notify.how, signo, notify.pid)
            });
            alloc::format!(
                "QSIZE:{:<10} NOTIFY:{how:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n",
                state.bytes
            )
        };
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(text.len());
        buf.put(&text.as_bytes()[from..])
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn poll(&self, _t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.0.news);
            table.register(&self.0.room);
        }
        let state = self.0.state.lock();
        let mut events = PollEvents::empty();
        events.set(PollEvents::IN | PollEvents::RDNORM, state.count > 0);
        events.set(
            PollEvents::OUT | PollEvents::WRNORM,
            state.count < self.0.max_messages,
        );
        events
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

fn root(t: &Thread) -> Arc<Root> {
    t.namespaces().ipc.mqueue.root.clone()
}

fn limit(t: &Thread) -> Result<u64> {
    Ok(t.process.limit(general::RLIMIT_MSGQUEUE)?.rlim_cur)
}

/// A queue's name: one component.
fn read_name(name: Path) -> Result<Vec<u8>> {
    let name = name.read_path()?;
    match name.as_slice() {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EACCES),
        name if name.contains(&b'/') => Err(Errno::EACCES),
        name if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ => Ok(name),
    }
}

/// What `struct mq_attr` asks for: messages, and bytes of each.
fn check_size(attributes: [i64; 8], privileged: bool) -> Result<(i64, i64)> {
    let [_, messages, bytes, ..] = attributes;
    let (most, longest) = if privileged {
        (HARD_MESSAGES, HARD_BYTES)
    } else {
        (MAX_MESSAGES, MAX_BYTES)
    };
    if messages <= 0 || bytes <= 0 || messages > most || bytes > longest {
        return Err(Errno::EINVAL);
    }
    Ok((messages, bytes))
}

/// `mq_open(2)`.
///
/// # Errors
/// `EACCES`, `EEXIST`, `EFAULT`, `EINVAL`, `EMFILE`, `ENAMETOOLONG`, `ENOENT`, `ENOSPC`.
pub fn mq_open(t: &Thread, name: Path, flags: OpenFlags, mode: Mode, attributes: Ptr) -> SysResult {
    let attributes = attributes.read_opt::<[i64; 8]>()?;
    let name = read_name(name)?;
    let root = root(t);
    let credentials = t.credentials();
    let creates = flags & general::O_CREAT != 0;
    let access = match flags & general::O_ACCMODE {
        general::O_RDONLY => Access::READ,
        general::O_WRONLY => Access::WRITE,
        general::O_RDWR => Access::READ | Access::WRITE,
        _ => return Err(Errno::EINVAL),
    };
    let queue = match root.find(&name) {
        Ok(_) if creates && flags & general::O_EXCL != 0 => return Err(Errno::EEXIST),
        Ok(queue) => {
            permission::check(&credentials, &queue.attributes(), access)?;
            queue
        }
        Err(_) if creates => {
            permission::check(&credentials, &root.attributes(), Access::WRITE)?;
            let privileged = t.is_capable(general::CAP_SYS_RESOURCE);
            let size = match attributes {
                Some(attributes) => check_size(attributes, privileged)?,
                None => (MAX_MESSAGES, MAX_BYTES),
            };
            let what = Create {
                kind: FileKind::Regular,
                mode: mode & 0o7777 & !t.fs().umask(),
                uid: credentials.fsuid,
                gid: credentials.fsgid,
                rdev: 0,
                target: &[],
            };
            root.make(&name, &what, size, limit(t)?, privileged)?
        }
        Err(errno) => return Err(errno),
    };
    let ops = queue.clone().open(t, flags)?;
    let mut path = b"/".to_vec();
    path.extend_from_slice(&name);
    let kept = general::O_ACCMODE | general::O_NONBLOCK;
    let file = File::new(ops, queue, path, flags & kept);
    Ok(t.files().alloc(t, file, true)? as usize)
}

/// `mq_unlink(2)`.
///
/// # Errors
/// `EACCES`, `ENAMETOOLONG`, `ENOENT`.
pub fn mq_unlink(t: &Thread, name: Path) -> SysResult {
    let name = read_name(name)?;
    let root = root(t);
    let queue = root.find(&name)?;
    let credentials = t.credentials();
    permission::check(&credentials, &root.attributes(), Access::WRITE)?;
    permission::check_sticky(&credentials, &root.attributes(), &queue.attributes())?;
    root.unlink(&name)?;
    Ok(0)
}

/// The queue `fd` is open on.
///
/// # Errors
/// `EBADF`.
fn of_file(file: &FileRef) -> Result<Arc<Queue>> {
    let queue = file.ops.as_any().downcast_ref::<QueueFile>();
    queue.map(|file| file.0.clone()).ok_or(Errno::EBADF)
}

/// When to give up, on the monotonic clock, of a time of the wall clock.
fn read_deadline(at: UserAddr) -> Result<Option<u64>> {
    let Some(time) = at.read_opt()? else {
        return Ok(None);
    };
    let wall = i64::try_from(time::timespec_ns(&time)?).unwrap_or(i64::MAX);
    let monotonic = wall.saturating_sub(husk_hal::clock::wall_offset_ns());
    Ok(Some(u64::try_from(monotonic).unwrap_or(0)))
}

fn waiting(error: WaitError) -> Errno {
    error.errno(Errno::ERESTARTSYS)
}

/// `mq_timedsend(2)`.
///
/// # Errors
/// `EAGAIN`, `EBADF`, `EFAULT`, `EINTR`, `EINVAL`, `EMSGSIZE`, `ETIMEDOUT`.
pub fn mq_timedsend(
    t: &Thread,
    fd: Fd,
    from: Ptr,
    len: Len,
    priority: Uint,
    timeout: Ptr,
) -> SysResult {
    let deadline = read_deadline(timeout)?;
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL);
    }
    let file = t.file(fd)?;
    let queue = of_file(&file)?;
    if !file.is_writable() {
        return Err(Errno::EBADF);
    }
    if len > queue.max_bytes as usize {
        return Err(Errno::EMSGSIZE);
    }
    let mut text = alloc::vec![0; len];
    from.read_bytes(&mut text)?;
    let mut text = Some(text);
    let attempt = || -> Option<Result<Option<Notify>>> {
        let mut state = queue.state.lock();
        if state.count >= queue.max_messages {
            return file.is_nonblocking().then_some(Err(Errno::EAGAIN));
        }
        Some(Ok(queue.push(&mut state, priority, text.take()?)))
    };
    let done = queue.room.wait(t, Interruptible::Yes, deadline, attempt);
    let notify = done.map_err(waiting)??;
    if let Some(notify) = notify
        && notify.how == SIGEV_SIGNAL
        && let Some(process) = notify.process.upgrade()
    {
        let uid = t.credentials().uid;
        let info = Info::message(notify.signo, t.process.pid, uid, notify.value);
        // A queue of signals that is full loses it, as on Linux.
        let _ = signal::send_process(&process, &info);
    }
    queue.news.wake_all();
    Ok(0)
}

/// `mq_timedreceive(2)`.
///
/// # Errors
/// `EAGAIN`, `EBADF`, `EFAULT`, `EINTR`, `EINVAL`, `EMSGSIZE`, `ETIMEDOUT`.
pub fn mq_timedreceive(
    t: &Thread,
    fd: Fd,
    to: Ptr,
    len: Len,
    priority: Ptr,
    timeout: Ptr,
) -> SysResult {
    let deadline = read_deadline(timeout)?;
    let file = t.file(fd)?;
    let queue = of_file(&file)?;
    if !file.is_readable() {
        return Err(Errno::EBADF);
    }
    if len < queue.max_bytes as usize {
        return Err(Errno::EMSGSIZE);
    }
    let mut sleeps = false;
    let attempt = || -> Option<Result<(u32, Vec<u8>)>> {
        let mut state = queue.state.lock();
        if core::mem::take(&mut sleeps) {
            state.receivers -= 1;
        }
        match Queue::pop(&mut state) {
            Some(message) => Some(Ok(message)),
            None if file.is_nonblocking() => Some(Err(Errno::EAGAIN)),
            None => {
                state.receivers += 1;
                sleeps = true;
                None
            }
        }
    };
    let done = queue.news.wait(t, Interruptible::Yes, deadline, attempt);
    if sleeps {
        queue.state.lock().receivers -= 1;
    }
    let (from, text) = done.map_err(waiting)??;
    queue.room.wake_all();
    to.write_bytes(&text)?;
    priority.write_opt(&from)?;
    Ok(text.len())
}

/// `mq_notify(2)`.
///
/// # Errors
/// `EBADF`, `EBUSY`, `EFAULT`, `EINVAL`; `ENOSYS` for `SIGEV_THREAD`.
pub fn mq_notify(t: &Thread, fd: Fd, event: Ptr) -> SysResult {
    let wanted = match event.read_opt::<[u64; 2]>()? {
        None => None,
        Some([value, words]) => {
            let (signo, how) = (words as i32, (words >> 32) as i32);
            match how {
                SIGEV_NONE => {}
                SIGEV_SIGNAL if (0..=64).contains(&signo) => {}
                // Told over a netlink socket, which is not there.
                SIGEV_THREAD => return Err(Errno::ENOSYS),
                _ => return Err(Errno::EINVAL),
            }
            Some(Notify {
                process: Arc::downgrade(&t.process),
                pid: t.process.pid,
                how,
                signo,
                value,
            })
        }
    };
    let file = t.file(fd)?;
    let queue = of_file(&file)?;
    let mut state = queue.state.lock();
    let current = state.notify.as_ref();
    // A process that is gone wants to know nothing.
    let holder = current.filter(|notify| notify.process.strong_count() > 0);
    match (wanted, holder.map(|notify| notify.pid)) {
        (None, Some(pid)) if pid == t.process.pid => state.notify = None,
        (None, _) => {}
        (Some(_), Some(_)) => return Err(Errno::EBUSY),
        (wanted, None) => state.notify = wanted,
    }
    Ok(0)
}

/// `mq_getsetattr(2)`.
///
/// # Errors
/// `EBADF`, `EFAULT`, `EINVAL`.
pub fn mq_getsetattr(t: &Thread, fd: Fd, new: Ptr, old: Ptr) -> SysResult {
    const NONBLOCK: i64 = general::O_NONBLOCK as i64;
    let new = new.read_opt::<[i64; 8]>()?;
    if new.is_some_and(|new| new[0] & !NONBLOCK != 0) {
        return Err(Errno::EINVAL);
    }
    let file = t.file(fd)?;
    let queue = of_file(&file)?;
    let count = queue.state.lock().count;
    let flags = i64::from(file.flags() & general::O_NONBLOCK);
    if let Some(new) = new {
        let other = file.flags() & !general::O_NONBLOCK;
        file.set_flags(other | new[0] as u32);
    }
    let (most, longest) = (queue.max_messages, queue.max_bytes);
    old.write_opt::<[i64; 8]>(&[flags, most, longest, count, 0, 0, 0, 0])?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(root: &Root, name: &[u8], limit: u64) -> Result<Arc<Queue>> {
        let what = Create {
            kind: FileKind::Regular,
            mode: 0o600,
            uid: 5,
            gid: 5,
            rdev: 0,
            target: &[],
        };
        root.make(name, &what, (10, 100), limit, false)
    }

    #[test]
    fn highest_priority_first_then_the_oldest() {
        let fs = MqueueFs::new(1);
        let queue = queue(&fs.root, b"q", u64::MAX).unwrap();
        let mut state = State::default();
        for (priority, text) in [(1, b"a"), (7, b"b"), (1, b"c"), (7, b"d"), (0, b"e")] {
            assert!(queue.push(&mut state, priority, text.to_vec()).is_none());
        }
        assert_eq!((state.count, state.bytes), (5, 5));
        let all: Vec<u8> = core::iter::from_fn(|| Queue::pop(&mut state))
            .flat_map(|(_, text)| text)
            .collect();
        assert_eq!(all, b"bdace");
        assert_eq!((state.count, state.bytes), (0, 0));
    }

    #[test]
    fn users_have_so_many_bytes() {
        let fs = MqueueFs::new(1);
        let each = 10 * (100 + 2 * OVERHEAD);
        let first = queue(&fs.root, b"a", 2 * each).unwrap();
        assert_eq!(queue(&fs.root, b"a", 2 * each).unwrap_err(), Errno::EEXIST);
        queue(&fs.root, b"b", 2 * each).unwrap();
        assert_eq!(queue(&fs.root, b"c", 2 * each).unwrap_err(), Errno::EMFILE);
        fs.root.unlink(b"a").unwrap();
        assert_eq!(queue(&fs.root, b"c", 2 * each).unwrap_err(), Errno::EMFILE);
        drop(first);
        queue(&fs.root, b"c", 2 * each).unwrap();
    }

    #[test]
    fn sizes() {
        let of = |messages, bytes| [0, messages, bytes, 0, 0, 0, 0, 0];
        assert_eq!(check_size(of(10, 8192), false), Ok((10, 8192)));
        for (messages, bytes) in [(0, 1), (1, 0), (-1, 1), (11, 1), (1, 8193)] {
            assert_eq!(check_size(of(messages, bytes), false), Err(Errno::EINVAL));
        }
        assert_eq!(check_size(of(11, 8193), true), Ok((11, 8193)));
        assert_eq!(check_size(of(65537, 1), true), Err(Errno::EINVAL));
    }
}
