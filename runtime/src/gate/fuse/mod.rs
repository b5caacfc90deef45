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
//!
//! The doorbell's own thread, a vCPU's, serves what cannot take long, so that the answer is there when the guest goes on.
//! The rest is served by a thread that interrupts the guest when it is done.

mod channels;
mod locks;
mod message;
mod nodes;
mod server;
mod tree;
mod window;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use husk_abi::boundary::fuse::{CHANNELS_OFFSET, MAX_TREES, TRUNCATED_OFFSET, op_name};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileMemory};

use super::{Interrupt, queue};
use crate::confine::{self, rules::Role};
use crate::vmm::{GuestMemory, Layout, Window};
use message::Request;
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
    /// The page of host events, and that of the truncated chunks.
    events: u64,
    truncated: u64,
    counts: [AtomicU64; COUNTERS],
}

/// The file service.
pub struct Files {
    shared: Arc<Shared>,
    slow: Mutex<mpsc::Sender<(u16, Request)>>,
    /// Held while requests are served that cannot take long: the guest relies on their order.
    serving: Mutex<()>,
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
    /// Serves `trees` to the guest whose boundary is laid out as `layout`.
    ///
    /// # Errors
    /// [`Error`], and [`super::Error::Queue`] by way of it.
    pub fn start(
        trees: &[TreeSource],
        window: Window,
        memory: GuestMemory,
        layout: &Layout,
        interrupt: Arc<dyn Interrupt>,
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
        let shared = Arc::new(Shared {
            server,
            queue: Mutex::new(queue::open(&memory, &layout.fuse, "file")?),
            memory,
            interrupt,
            observer,
            events: layout.host_events,
            truncated: layout.truncated,
            counts: [const { AtomicU64::new(0) }; COUNTERS],
        });
        let channels = shared.clone();
        std::thread::Builder::new()
            .name("channels".to_owned())
            .spawn(move || {
                confine::enter_thread(Role::Service);
                channels.announce();
            })
            .map_err(Error::Host)?;
        let (sender, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..WORKERS {
            let (shared, receiver) = (shared.clone(), receiver.clone());
            std::thread::Builder::new()
                .name(format!("files{number}"))
                .spawn(move || {
                    confine::enter_thread(Role::Service);
                    work(&shared, &receiver);
                })
                .map_err(Error::Host)?;
        }
        Ok(Self {
            shared,
            slow: Mutex::new(sender),
            serving: Mutex::new(()),
        })
    }

    /// The doorbell was rung: serves what is queued.
    pub fn ring(&self) {
        let _serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let next = {
                let mut queue = self.shared.queue();
                queue
                    .pop_descriptor_chain(&*self.shared.memory)
                    .map(|chain| {
                        let head = chain.head_index();
                        (head, Request::read(&self.shared.memory, chain))
                    })
            };
            let Some((head, request)) = next else { return };
            match request {
                None => self.shared.give_back(head, 0),
                Some(request) if self.shared.server.may_block(&request) => {
                    let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(mpsc::SendError((head, _))) = slow.send((head, request)) {
                        self.shared.give_back(head, 0);
                    }
                }
                Some(request) => self.shared.serve(head, &request),
            }
        }
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

/// A worker's life: it ends with the process.
fn work(shared: &Shared, jobs: &Mutex<mpsc::Receiver<(u16, Request)>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((head, request)) = job else { return };
        shared.serve(head, &request);
        shared.interrupt.interrupt();
    }
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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
