//! Files of the host for the guest: a FUSE server over a virtqueue, and the window their contents are mapped into
//! (`abi::boundary::fuse`).
//!
//! | module | what |
//! | --- | --- |
//! | `message` | requests as they come off the queue, checked and copied once |
//! | `tree` | the directories served, and opening files below them |
//! | `nodes` | what the guest was told of: descriptions, with descriptors while they are used |
//! | `server` | the operations |
//! | `window` | what is mapped where in the window |
//! | `channels` | FIFOs and sockets that are open |
//! | `locks` | what the guest holds of files' advisory locks |
//! | `poller` | when to look for requests without being told |
//!
//! The doorbell's own thread, a vCPU's, serves what cannot take long, so that the answer is there when the guest goes on.
//! While requests come quickly a thread looks for them by itself, which spares the guest the way out and in. What may take
//! long is served by threads that interrupt the guest when they are done.

mod channels;
mod locks;
mod message;
mod nodes;
mod poller;
mod server;
mod tree;
mod window;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use husk_abi::boundary::fuse::{CHANNELS_OFFSET, MAX_TREES, TRUNCATED_OFFSET, op_name};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileMemory};

use super::{Interrupt, queue};
use crate::confine::{self, rules::Role};
use crate::vmm::{GuestMemory, Layout, Window};
use message::Request;
use poller::{Poller, Served};
use server::Server;
use tree::Tree;
pub use tree::TreeSource;

/// Descriptors left for everything but the trees' files.
const OTHER_DESCRIPTORS: u64 = 256;
/// Threads for requests that may take long.
const WORKERS: usize = 2;
/// Opcodes counted one by one; the last counter is for all others.
const COUNTERS: usize = 64;

/// What can go wrong in starting to serve.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot open {}: {source}", path.display())]
    Tree { path: PathBuf, source: io::Error },
    #[error("{count} directories for one container are too many (at most {MAX_TREES})")]
    TooManyTrees { count: usize },
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// Something that wants to know of every operation.
pub trait Observer: Send + Sync {
    /// An operation on a file was served.
    fn served(&self, operation: &Operation<'_>);
}

/// A served operation, for records.
#[derive(Clone, Debug)]
pub struct Operation<'a> {
    /// Its name; `op_N` if it is none.
    pub name: &'a str,
    /// The path in its tree.
    pub path: &'a [u8],
    /// The name in that directory, or what else the request names.
    pub argument: &'a [u8],
    /// The node.
    pub node: u64,
    /// Errno, or 0.
    pub errno: i32,
    /// How long it took.
    pub duration: std::time::Duration,
}

struct Shared {
    server: Server,
    memory: GuestMemory,
    queue: Mutex<Queue>,
    interrupt: Arc<dyn Interrupt>,
    observer: Option<Arc<dyn Observer>>,
    slow: Mutex<mpsc::Sender<(u16, Request)>>,
    /// Held while requests are served that cannot take long: the guest relies on their order.
    serving: Mutex<()>,
    /// Flags of the ring of available chains.
    ring_flags: u64,
    /// The page of host events, and that of the truncated chunks.
    events: u64,
    truncated: u64,
    counts: [AtomicU64; COUNTERS],
}

/// The file service.
pub struct Files {
    shared: Arc<Shared>,
    /// None where a thread that looks for requests would only keep the guest from its CPU.
    poller: Option<Arc<Poller>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

/// Raises the limit of open files as far as it goes; gives what it is then.
fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}

impl Files {
    /// Serves `trees` to the guest whose boundary is laid out as `layout`; with a thread that looks for requests by itself if
    /// it `may_poll` and there is a CPU for it.
    ///
    /// # Errors
    /// [`Error`], and [`super::Error::Queue`] by way of it.
    pub fn start(
        trees: &[TreeSource],
        window: Window,
        memory: GuestMemory,
        layout: &Layout,
        interrupt: Arc<dyn Interrupt>,
        may_poll: bool,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Self, super::Error> {
        if trees.len() > MAX_TREES {
            let count = trees.len();
            return Err(Error::TooManyTrees { count }.into());
        }
        let opened = trees
            .iter()
            .map(|source| {
                Tree::open(source).map_err(|errno| Error::Tree {
                    path: source.path.clone(),
                    source: errno.into(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        // What is made gets exactly the mode asked for.
        rustix::process::umask(rustix::fs::Mode::empty());
        let descriptors = raise_open_files().saturating_sub(OTHER_DESCRIPTORS);
        // Each may hold a file and its contents, and chunks of the window hold some more.
        let holders = usize::try_from(descriptors / 3).unwrap_or(usize::MAX);
        let server = Server::new(opened, window, memory.clone(), holders)
            .map_err(|errno| Error::Host(errno.into()))?;
        let (slow, jobs) = mpsc::channel();
        let shared = Arc::new(Shared {
            server,
            slow: Mutex::new(slow),
            serving: Mutex::new(()),
            ring_flags: layout.fuse.avail_gpa,
            queue: Mutex::new(queue::open(&memory, &layout.fuse, "file")?),
            memory,
            interrupt,
            observer,
            events: layout.host_events,
            truncated: layout.truncated,
            counts: [const { AtomicU64::new(0) }; COUNTERS],
        });
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..WORKERS {
            let (shared, jobs) = (shared.clone(), jobs.clone());
            spawn(format!("files{number}"), move || work(&shared, &jobs))?;
        }
        let channels = shared.clone();
        spawn("channels".to_owned(), move || channels.announce())?;
        let has_cpus = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        let poller = (may_poll && has_cpus).then(|| Arc::new(Poller::new()));
        if let Some(poller) = poller.clone() {
            let shared = shared.clone();
            spawn("poller".to_owned(), move || {
                poller.live(|| shared.look(), |tell| shared.want_rings(tell));
            })?;
        }
        Ok(Self { shared, poller })
    }

    /// The doorbell was rung: serves what is queued.
    pub fn ring(&self) {
        let served = self.shared.serve_queued();
        if let Some(poller) = &self.poller {
            poller.rang(served);
        }
    }

    /// The vCPU has nothing to do: serves what is queued, which nobody waits for.
    pub fn idle(&self) {
        self.shared.serve_queued();
    }

    /// An access of the guest failed; false if it was not to a file that became shorter.
    pub fn memory_fault(&self) -> bool {
        let chunks = self.shared.server.repair();
        tracing::debug!(?chunks, "a mapped file became shorter");
        if chunks.is_empty() {
            return false;
        }
        for chunk in chunks {
            let at = self.shared.truncated + u64::from(chunk / 64 * 8);
            self.shared.set_bits(at, 1 << (chunk % 64));
        }
        self.shared
            .set_bits(self.shared.events + TRUNCATED_OFFSET, 1);
        self.shared.interrupt.interrupt();
        true
    }

    /// How often each operation was asked for, by name.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        (0u32..)
            .zip(&self.shared.counts)
            .map(|(opcode, count)| {
                let name = op_name(opcode).unwrap_or("unknown");
                (name, count.load(Ordering::Relaxed))
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// Starts a thread, which ends with the process.
fn spawn(name: String, life: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let begin = move || {
        confine::enter_thread(Role::Service);
        life();
    };
    std::thread::Builder::new().name(name).spawn(begin)?;
    Ok(())
}

/// A worker's life.
fn work(shared: &Shared, jobs: &Mutex<mpsc::Receiver<(u16, Request)>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((head, request)) = job else { return };
        shared.serve(head, &request);
        shared.tell();
    }
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves what is queued and cannot take long, and has the rest served.
    fn serve_queued(&self) -> Served {
        let _serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut served = Served::default();
        loop {
            let next = {
                let mut queue = self.queue();
                queue.pop_descriptor_chain(&*self.memory).map(|chain| {
                    let head = chain.head_index();
                    (head, Request::read(&self.memory, chain))
                })
            };
            let Some((head, request)) = next else {
                return served;
            };
            served.count(request.as_ref().map_or(0, Request::data_bytes));
            match request {
                None => self.give_back(head, 0),
                Some(request) if self.server.may_block(&request) => {
                    let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(mpsc::SendError((head, _))) = slow.send((head, request)) {
                        self.give_back(head, 0);
                    }
                }
                Some(request) => self.serve(head, &request),
            }
        }
    }

    /// Serves what came without a ring.
    fn look(&self) -> Served {
        let served = self.serve_queued();
        if served.is_any() {
            self.tell();
        }
        served
    }

    /// Whether the guest is to ring for what it queues (virtio 1.2, section 2.7.10); true if something came before it knew.
    fn want_rings(&self, want: bool) -> bool {
        let mut queue = self.queue();
        if want {
            queue.enable_notification(&*self.memory).unwrap_or(false)
        } else {
            let _ = queue.disable_notification(&*self.memory);
            false
        }
    }

    /// Interrupts the guest for what it was given back, if somebody sleeps there (virtio 1.2, section 2.7.7).
    fn tell(&self) {
        const NO_INTERRUPT: u16 = 1;
        // What was given back is there before the flags are read.
        fence(Ordering::SeqCst);
        let flags = self
            .memory
            .load::<u16>(GuestAddress(self.ring_flags), Ordering::Relaxed);
        if flags.map_or(true, |flags| flags & NO_INTERRUPT == 0) {
            self.interrupt.interrupt();
        }
    }

    fn give_back(&self, head: u16, len: u32) {
        // A queue that is broken hurts nobody but the guest.
        let _ = self.queue().add_used(&*self.memory, head, len);
    }

    fn serve(&self, head: u16, request: &Request) {
        let opcode = request.header.opcode;
        let counter = (opcode as usize).min(COUNTERS - 1);
        self.counts[counter].fetch_add(1, Ordering::Relaxed);
        // The path before: afterwards the name may be gone.
        let watched = self.observer.as_ref().map(|observer| {
            (
                observer,
                self.server.describe(request),
                std::time::Instant::now(),
            )
        });
        let answer = self.server.serve(request);
        if let Some((observer, path, begun)) = watched {
            let other = format!("op_{opcode}");
            observer.served(&Operation {
                name: op_name(opcode).unwrap_or(&other),
                path: &path,
                argument: argument(request),
                node: request.header.nodeid,
                errno: answer
                    .as_ref()
                    .err()
                    .map_or(0, |errno: &Errno| errno.raw_os_error()),
                duration: begun.elapsed(),
            });
        }
        let len = request.answer(&self.memory, answer);
        self.give_back(head, len);
    }

    /// The life of the thread that tells the guest which channels became ready: it ends with the process.
    fn announce(&self) {
        while let Ok(words) = self.server.channels.wait() {
            for (at, bits) in (0..).zip(words) {
                if bits != 0 {
                    self.set_bits(self.events + CHANNELS_OFFSET + at * 8, bits);
                }
            }
            self.interrupt.interrupt();
        }
    }

    fn set_bits(&self, gpa: u64, bits: u64) {
        if let Ok(slice) = self.memory.get_slice(GuestAddress(gpa), 8)
            && let Ok(word) = slice.get_atomic_ref::<AtomicU64>(0)
        {
            word.fetch_or(bits, Ordering::SeqCst);
        }
    }
}

/// The names a request carries, for records: its body's text behind the fixed part.
fn argument(request: &Request) -> &[u8] {
    use husk_abi::boundary::fuse::{LinkIn, MkdirIn, MknodIn, Rename2In, SetxattrIn, op};
    let fixed = match request.header.opcode {
        op::LOOKUP | op::UNLINK | op::RMDIR | op::SYMLINK | op::GETXATTR | op::REMOVEXATTR => 0,
        op::MKNOD => MknodIn::BYTES,
        op::MKDIR => MkdirIn::BYTES,
        op::LINK => LinkIn::BYTES,
        op::RENAME2 => Rename2In::BYTES,
        op::SETXATTR => SetxattrIn::BYTES,
        _ => return &[],
    };
    let rest = request.body.get(fixed..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0);
    &rest[..end.unwrap_or(rest.len())]
}
