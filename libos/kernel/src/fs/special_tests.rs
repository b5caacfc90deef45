//! The special files through their system calls, on a test kernel.

use std::sync::Arc;

use husk_abi::linux::general::{self, AT_FDCWD, epoll_event, pollfd};

use super::epoll::{epoll_create1, epoll_ctl, epoll_wait};
use super::eventfd::eventfd2;
use super::memfd::memfd_create;
use super::open::openat;
use super::pipe::{pipe2, splice, tee};
use super::poll_calls::poll;
use super::rw::{read, write};
use super::select::select;
use crate::process::testing::test_thread;
use crate::user::UserAddr;
use crate::{Errno, SysResult, Thread};

const NULL: UserAddr = UserAddr(0);
const ADD: i32 = general::EPOLL_CTL_ADD as i32;
const MOD: i32 = general::EPOLL_CTL_MOD as i32;
const DEL: i32 = general::EPOLL_CTL_DEL as i32;

fn addr<T: ?Sized>(value: &mut T) -> UserAddr {
    UserAddr(core::ptr::from_mut(value).cast::<u8>() as u64)
}

fn put(t: &Thread, fd: i32, bytes: &[u8]) -> SysResult {
    write(t, fd, UserAddr(bytes.as_ptr() as u64), bytes.len())
}

fn get(t: &Thread, fd: i32, len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0u8; len];
    let got = read(t, fd, addr(bytes.as_mut_slice()), len)?;
    bytes.truncate(got);
    Ok(bytes)
}

fn pipe(t: &Thread, flags: u32) -> (i32, i32) {
    let mut fds = [0i32; 2];
    pipe2(t, addr(&mut fds), flags).unwrap();
    (fds[0], fds[1])
}

fn close(t: &Thread, fd: i32) {
    t.files().close(fd).unwrap();
}

fn open(t: &Thread, path: &str, flags: u32) -> Result<i32, Errno> {
    let path = std::ffi::CString::new(path).unwrap();
    let fd = openat(t, AT_FDCWD, UserAddr(path.as_ptr() as u64), flags, 0)?;
    Ok(fd as i32)
}

fn contents(t: &Thread, path: &str) -> Result<String, Errno> {
    let fd = open(t, path, general::O_RDONLY)?;
    let mut all = Vec::new();
    loop {
        let part = get(t, fd, 100)?;
        if part.is_empty() {
            break;
        }
        all.extend(part);
    }
    close(t, fd);
    Ok(String::from_utf8(all).unwrap())
}

#[test]
fn pipes_carry_bytes_and_end() {
    let t = test_thread();
    assert_eq!(pipe2(&t, NULL, 0), Err(Errno::EFAULT));
    assert_eq!(pipe2(&t, NULL, general::O_APPEND), Err(Errno::EINVAL));
    let (reader, writer) = pipe(&t, general::O_NONBLOCK);
    // The failed call left no descriptors behind.
    assert_eq!((reader, writer), (0, 1));
    assert_eq!(get(&t, reader, 4), Err(Errno::EAGAIN));
    assert_eq!(get(&t, writer, 4), Err(Errno::EBADF));
    assert_eq!(put(&t, writer, b"hello"), Ok(5));
    assert_eq!(get(&t, reader, 2).unwrap(), b"he");
    close(&t, writer);
    assert_eq!(get(&t, reader, 20).unwrap(), b"llo");
    assert_eq!(get(&t, reader, 20).unwrap(), b"");
    close(&t, reader);
    let (reader, writer) = pipe(&t, 0);
    close(&t, reader);
    assert_eq!(put(&t, writer, b"x"), Err(Errno::EPIPE));
}

#[test]
fn packets() {
    let t = test_thread();
    let (reader, writer) = pipe(&t, general::O_DIRECT);
    put(&t, writer, b"one").unwrap();
    put(&t, writer, b"two").unwrap();
    assert_eq!(get(&t, reader, 2).unwrap(), b"on");
    assert_eq!(get(&t, reader, 20).unwrap(), b"two");
}

#[test]
fn splicing() {
    let t = test_thread();
    let (a_read, a_write) = pipe(&t, general::O_NONBLOCK);
    let (b_read, b_write) = pipe(&t, general::O_NONBLOCK);
    put(&t, a_write, b"hello").unwrap();
    assert_eq!(tee(&t, a_read, b_write, 3, 0), Ok(3));
    assert_eq!(splice(&t, a_read, NULL, b_write, NULL, 10, 0), Ok(5));
    assert_eq!(get(&t, b_read, 20).unwrap(), b"helhello");
    assert_eq!(
        splice(&t, a_read, NULL, b_write, NULL, 10, 0),
        Err(Errno::EAGAIN)
    );
    assert_eq!(
        splice(&t, a_read, NULL, a_write, NULL, 10, 0),
        Err(Errno::EINVAL)
    );
    let mut name = *b"file\0";
    let file = memfd_create(&t, addr(&mut name), 0).unwrap() as i32;
    put(&t, a_write, b"to the file").unwrap();
    assert_eq!(splice(&t, a_read, NULL, file, NULL, 100, 0), Ok(11));
    let mut offset = 3u64;
    assert_eq!(
        splice(&t, file, addr(&mut offset), b_write, NULL, 100, 0),
        Ok(8)
    );
    assert_eq!(offset, 11);
    assert_eq!(get(&t, b_read, 20).unwrap(), b"the file");
    assert_eq!(
        splice(&t, file, NULL, a_read, NULL, 1, 0),
        Err(Errno::EBADF)
    );
}

#[test]
fn poll_and_select_tell_readiness() {
    let t = test_thread();
    let (reader, writer) = pipe(&t, 0);
    let entry = |fd, events: u32| pollfd {
        fd,
        events: events as i16,
        revents: -1,
    };
    let mut fds = [
        entry(reader, general::POLLIN),
        entry(writer, general::POLLOUT | general::POLLIN),
        entry(-5, general::POLLIN),
        entry(99, general::POLLIN),
    ];
    assert_eq!(poll(&t, addr(&mut fds), 4, -1), Ok(2));
    let revents = fds.map(|entry| entry.revents as u32);
    assert_eq!(revents, [0, general::POLLOUT, 0, general::POLLNVAL]);
    put(&t, writer, b"x").unwrap();
    close(&t, writer);
    assert_eq!(poll(&t, addr(&mut fds), 1, -1), Ok(1));
    assert_eq!(fds[0].revents as u32, general::POLLIN | general::POLLHUP);
    assert_eq!(poll(&t, addr(&mut fds), 1 << 21, 0), Err(Errno::EINVAL));

    let (other, _keep) = pipe(&t, 0);
    let mut set = 1u64 << reader | 1 << other;
    assert_eq!(
        select(&t, 64, addr(&mut set), NULL, NULL, NULL),
        Ok(1),
        "the reader has a byte and a hang-up"
    );
    assert_eq!(set, 1 << reader);
    let mut closed = 1u64 << 60;
    assert_eq!(
        select(&t, 64, addr(&mut closed), NULL, NULL, NULL),
        Err(Errno::EBADF)
    );
    assert_eq!(select(&t, -1, NULL, NULL, NULL, NULL), Err(Errno::EINVAL));
    let mut now = [0i64, 0];
    let mut set = 1u64 << other;
    assert_eq!(
        select(&t, 64, addr(&mut set), NULL, NULL, addr(&mut now)),
        Ok(0)
    );
    assert_eq!(set, 0);
}

struct Watch {
    t: Arc<Thread>,
    fd: i32,
}

impl Watch {
    fn new(t: &Arc<Thread>) -> Self {
        Self {
            fd: epoll_create1(t, 0).unwrap() as i32,
            t: t.clone(),
        }
    }

    fn ctl(&self, op: i32, fd: i32, events: u32) -> SysResult {
        let data = fd.cast_unsigned().into();
        let mut event = epoll_event { events, data };
        epoll_ctl(&self.t, self.fd, op, fd, addr(&mut event))
    }

    /// (descriptor, events) of what is ready.
    fn ready(&self) -> Vec<(u64, u32)> {
        let mut events = [epoll_event { events: 0, data: 0 }; 8];
        let count = epoll_wait(&self.t, self.fd, addr(&mut events), 8, 0).unwrap();
        let ready = events[..count].iter();
        ready.map(|event| (event.data, event.events)).collect()
    }
}

const IN: u32 = general::EPOLLIN;
const OUT: u32 = general::EPOLLOUT;

#[test]
fn epoll_level_edge_and_oneshot() {
    let t = test_thread();
    let watch = Watch::new(&t);
    let (reader, writer) = pipe(&t, 0);
    let r = reader as u64;
    assert_eq!(watch.ctl(ADD, reader, IN), Ok(0));
    assert_eq!(watch.ctl(ADD, reader, IN), Err(Errno::EEXIST));
    assert_eq!(watch.ready(), []);
    put(&t, writer, b"a").unwrap();
    assert_eq!(watch.ready(), [(r, IN)]);
    assert_eq!(watch.ready(), [(r, IN)], "level-triggered");
    watch.ctl(MOD, reader, IN | general::EPOLLET).unwrap();
    assert_eq!(watch.ready(), [(r, IN)], "a change tells again");
    assert_eq!(watch.ready(), []);
    put(&t, writer, b"b").unwrap();
    assert_eq!(watch.ready(), [(r, IN)], "every write is an edge");
    assert_eq!(watch.ready(), []);
    watch.ctl(MOD, reader, IN | general::EPOLLONESHOT).unwrap();
    assert_eq!(watch.ready(), [(r, IN)]);
    put(&t, writer, b"c").unwrap();
    assert_eq!(watch.ready(), []);
    watch.ctl(MOD, reader, IN).unwrap();
    assert_eq!(watch.ready(), [(r, IN)]);
    get(&t, reader, 100).unwrap();
    assert_eq!(watch.ready(), []);
    close(&t, writer);
    assert_eq!(watch.ready(), [(r, general::EPOLLHUP)]);
    assert_eq!(watch.ctl(DEL, reader, 0), Ok(0));
    assert_eq!(watch.ctl(DEL, reader, 0), Err(Errno::ENOENT));
    assert_eq!(watch.ready(), []);
}

#[test]
fn epoll_forgets_closed_files_only() {
    let t = test_thread();
    let watch = Watch::new(&t);
    let (reader, writer) = pipe(&t, 0);
    watch.ctl(ADD, writer, OUT).unwrap();
    let copy = t.file(writer).unwrap();
    let copy = t.files().alloc(&t, copy, false).unwrap();
    close(&t, writer);
    assert_eq!(
        watch.ready(),
        [(writer as u64, OUT)],
        "open through its copy"
    );
    close(&t, copy);
    assert_eq!(watch.ready(), []);
    // The same number, another file.
    let (_reader, writer) = pipe(&t, 0);
    assert_eq!(watch.ctl(ADD, writer, OUT), Ok(0));
    assert_eq!(watch.ready(), [(writer as u64, OUT)]);
    close(&t, reader);
}

#[test]
fn epoll_refuses() {
    let t = test_thread();
    let watch = Watch::new(&t);
    let (reader, _writer) = pipe(&t, 0);
    let null = open(&t, "/dev/null", general::O_RDWR).unwrap();
    let root = open(&t, "/", general::O_RDONLY).unwrap();
    assert_eq!(watch.ctl(ADD, null, IN), Err(Errno::EPERM));
    assert_eq!(watch.ctl(ADD, root, IN), Err(Errno::EPERM));
    let random = open(&t, "/dev/urandom", general::O_RDONLY).unwrap();
    assert_eq!(watch.ctl(ADD, random, IN), Ok(0));
    assert_eq!(watch.ctl(ADD, 77, IN), Err(Errno::EBADF));
    assert_eq!(watch.ctl(ADD, watch.fd, IN), Err(Errno::EINVAL));
    assert_eq!(watch.ctl(9, reader, IN), Err(Errno::EINVAL));
    let exclusive = general::EPOLLEXCLUSIVE;
    assert_eq!(
        watch.ctl(ADD, reader, IN | exclusive | general::EPOLLONESHOT),
        Err(Errno::EINVAL)
    );
    assert_eq!(watch.ctl(ADD, reader, IN | exclusive), Ok(0));
    assert_eq!(watch.ctl(MOD, reader, IN), Err(Errno::EINVAL));
    assert_eq!(
        epoll_wait(&t, watch.fd, UserAddr(0x5000), 0, 0),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        epoll_wait(&t, reader, UserAddr(0x5000), 1, 0),
        Err(Errno::EINVAL)
    );
}

#[test]
fn epoll_nests_without_loops() {
    let t = test_thread();
    let chain: Vec<Watch> = (0..6).map(|_| Watch::new(&t)).collect();
    for pair in chain[..5].windows(2) {
        assert_eq!(pair[0].ctl(ADD, pair[1].fd, IN), Ok(0));
    }
    // Five deep is as deep as it gets; and no circle.
    assert_eq!(chain[4].ctl(ADD, chain[5].fd, IN), Err(Errno::ELOOP));
    assert_eq!(chain[3].ctl(ADD, chain[1].fd, IN), Err(Errno::ELOOP));
    let (reader, writer) = pipe(&t, 0);
    chain[4].ctl(ADD, reader, IN).unwrap();
    assert_eq!(chain[0].ready(), []);
    put(&t, writer, b"x").unwrap();
    assert_eq!(chain[0].ready(), [(chain[1].fd as u64, IN)]);
    get(&t, reader, 1).unwrap();
    assert_eq!(chain[0].ready(), []);
}

#[test]
fn event_descriptors() {
    let t = test_thread();
    let fd = eventfd2(&t, 2, u64::from(general::EFD_NONBLOCK)).unwrap() as i32;
    let watch = Watch::new(&t);
    watch.ctl(ADD, fd, IN | OUT).unwrap();
    assert_eq!(watch.ready(), [(fd as u64, IN | OUT)]);
    assert_eq!(get(&t, fd, 7), Err(Errno::EINVAL));
    assert_eq!(get(&t, fd, 8).unwrap(), 2u64.to_ne_bytes());
    assert_eq!(get(&t, fd, 8), Err(Errno::EAGAIN));
    assert_eq!(put(&t, fd, &u64::MAX.to_ne_bytes()), Err(Errno::EINVAL));
    assert_eq!(put(&t, fd, &(u64::MAX - 1).to_ne_bytes()), Ok(8));
    assert_eq!(put(&t, fd, &1u64.to_ne_bytes()), Err(Errno::EAGAIN));
    assert_eq!(watch.ready(), [(fd as u64, IN)]);
    assert_eq!(eventfd2(&t, 0, 8), Err(Errno::EINVAL));
}

#[test]
fn devices() {
    let t = test_thread();
    let zero = open(&t, "/dev/zero", general::O_RDWR).unwrap();
    assert_eq!(get(&t, zero, 10_000).unwrap(), [0; 10_000]);
    let full = open(&t, "/dev/full", general::O_RDWR).unwrap();
    assert_eq!(put(&t, full, b"x"), Err(Errno::ENOSPC));
    assert_eq!(get(&t, full, 3).unwrap(), [0; 3]);
    let null = open(&t, "/dev/null", general::O_RDWR).unwrap();
    assert_eq!(put(&t, null, b"gone"), Ok(4));
    assert_eq!(get(&t, null, 3).unwrap(), b"");
    let random = open(&t, "/dev/random", general::O_RDONLY).unwrap();
    assert_ne!(get(&t, random, 16), get(&t, random, 16));
    assert_eq!(open(&t, "/dev/tty", general::O_RDWR), Err(Errno::ENXIO));
    let attributes = t.file(zero).unwrap().inode.attributes();
    assert_eq!((attributes.rdev, attributes.mode), (0x105, 0o666));
}

#[test]
fn proc_of_the_reader() {
    let t = test_thread();
    t.set_name(b"test (1)");
    let stat = contents(&t, "/proc/self/stat").unwrap();
    assert!(stat.starts_with("1 (test (1)) R 0 1 1 0 -1 "), "{stat}");
    assert_eq!(
        stat.trim_end()
            .rsplit(") ")
            .next()
            .unwrap()
            .split(' ')
            .count(),
        50
    );
    let status = contents(&t, "/proc/thread-self/status").unwrap();
    for line in [
        "Name:\ttest (1)\n",
        "\nUmask:\t0022\nState:\tR (running)\nTgid:\t1\nNgid:\t0\nPid:\t1\nPPid:\t0\nTracerPid:\t0\n",
        "\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t \n",
        "\nThreads:\t1\n",
        "\nSigBlk:\t0000000000000000\n",
        "\nCapEff:\tffffffffffffffff\n",
        "\nCpus_allowed:\t1\nCpus_allowed_list:\t0\n",
    ] {
        assert!(status.contains(line), "{line:?} in {status}");
    }
    assert_eq!(contents(&t, "/proc/1/comm").unwrap(), "test (1)\n");
    assert_eq!(contents(&t, "/proc/1/task/1/comm").unwrap(), "test (1)\n");
    assert_eq!(contents(&t, "/proc/2/comm"), Err(Errno::ENOENT));
    assert_eq!(contents(&t, "/proc/01/comm"), Err(Errno::ENOENT));
    let limits = contents(&t, "/proc/self/limits").unwrap();
    assert_eq!(limits.lines().count(), 17);
    let mounts = contents(&t, "/proc/mounts").unwrap();
    assert!(
        mounts.contains("\nproc /proc proc rw,relatime 0 0\n"),
        "{mounts}"
    );
    assert!(
        mounts.contains("\ntmpfs /dev tmpfs rw,nosuid,size=65536k"),
        "{mounts}"
    );
    let release = contents(&t, "/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(release, "6.12.0-husk\n");
    assert_eq!(
        open(&t, "/proc/sys/kernel/hostname", general::O_WRONLY),
        Err(Errno::EROFS)
    );
    assert_eq!(contents(&t, "/proc/sys/kernel/hostname").unwrap(), "test\n");
    for file in ["meminfo", "stat", "uptime", "loadavg", "version", "cpuinfo"] {
        assert!(contents(&t, &format!("/proc/{file}")).unwrap().len() >= 10);
    }
    let first = contents(&t, "/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(
        contents(&t, "/proc/sys/kernel/random/boot_id").unwrap(),
        first
    );
    assert_eq!(first.len(), 37);
}

#[test]
fn proc_links_to_descriptors() {
    let t = test_thread();
    let (reader, writer) = pipe(&t, 0);
    let location = t.kernel.fs.find(format!("/proc/1/fd/{writer}").as_bytes());
    let link = location.unwrap().inode;
    let text = String::from_utf8(link.read_link(&t).unwrap()).unwrap();
    assert!(text.starts_with("pipe:[") && text.ends_with(']'), "{text}");
    assert_eq!(link.attributes().mode, 0o300);
    // Opening it makes another writing end.
    let again = open(&t, &format!("/proc/self/fd/{writer}"), general::O_WRONLY).unwrap();
    close(&t, writer);
    put(&t, again, b"through /proc").unwrap();
    assert_eq!(get(&t, reader, 50).unwrap(), b"through /proc");
    let info = contents(&t, &format!("/proc/self/fdinfo/{again}")).unwrap();
    assert!(info.starts_with("pos:\t0\nflags:\t0"), "{info}");
    assert_eq!(
        open(&t, "/proc/self/fd/55", general::O_RDONLY),
        Err(Errno::ENOENT)
    );
    // Listing.
    let mut names = Vec::new();
    let directory = t.kernel.fs.find(b"/proc/1/fd").unwrap().inode;
    directory
        .read_dir(0, &mut |entry| {
            names.push(String::from_utf8(entry.name).unwrap());
            true
        })
        .unwrap();
    let fds = [reader, again].map(|fd| fd.to_string());
    assert_eq!(names[..2], [".", ".."]);
    assert_eq!(names[2..], fds);
    assert_eq!(directory.attributes().size, 2);
}
