//! What the guest asks of the host over its one queue of requests, and who serves it: files ([`super::fuse`]) and sockets
//! ([`super::net`]), chosen by the operation.
//!
//! | module | what |
//! | --- | --- |
//! | `eagerness` | whether looking is worth a CPU |
//! | `message` | requests as they come off the queue, checked and copied once |
//! | `poller` | when to look for requests without being told |
//!
//! The doorbell's own thread, a vCPU's, serves what cannot take long, so that the answer is there when the guest goes on.
//! While requests come quickly a thread looks for them by itself, which spares the guest the way out and in. What may take
//! long is served by threads that interrupt the guest when they are done.

pub mod eagerness;
pub mod message;
mod poller;

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use husk_abi::boundary::{fuse, net};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileMemory};

use super::fuse::{Files, TreeSource};
use super::handed::Handed;
use super::net::Sockets;
use super::{Error, Interrupt, queue};
use crate::confine::{self, rules::Role};
use crate::vmm::{GuestMemory, Layout, Sleep, Window};
use message::{Reply, Request};
use poller::{Poller, Served};

/// Descriptors left for everything but files and sockets.
const OTHER_DESCRIPTORS: u64 = 256;
/// Threads for requests that may take long.
const WORKERS: usize = 2;
/// Opcodes counted one by one; the last counter is for all others.
const COUNTERS: usize = 128;

/// What an operation is answered.
pub type Answer = Result<Reply, Errno>;

/// Serves operations of one kind; several threads at once may ask it to.
pub trait Service: Send + Sync {
    /// Whether serving `request` may take long, so that the vCPU should not wait for it.
    fn may_block(&self, request: &Request) -> bool;

    /// Serves one request.
    ///
    /// # Errors
    /// The operation's own.
    fn serve(&self, request: &Request) -> Answer;

    /// As [`Service::serve`], and tells `observer`.
    ///
    /// # Errors
    /// The operation's own.
    fn serve_observed(&self, request: &Request, observer: &dyn Observer) -> Answer;
}

/// Something that wants to know of every operation.
pub trait Observer: Send + Sync {
    /// An operation was served.
    fn served(&self, operation: &Operation<'_>);
}

/// A served operation, for records.
#[derive(Clone, Debug)]
pub struct Operation<'a> {
    /// Who served it.
    pub service: &'static str,
    /// Its name; `op_N` if it is none.
    pub name: &'a str,
    /// The file's path in its tree.
    pub path: &'a [u8],
    /// The name in that directory, or what else the request names.
    pub argument: &'a [u8],
    /// The file's or socket's number between guest and VMM.
    pub node: Option<u64>,
    /// How many bytes moved, if it moves bytes.
    pub value: Option<u64>,
    /// Errno, or 0.
    pub errno: i32,
    /// How long it took.
    pub duration: Duration,
}

/// The errno of an answer, or 0.
pub fn errno_of(answer: &Answer) -> i32 {
    answer
        .as_ref()
        .err()
        .map_or(0, |errno| errno.raw_os_error())
}

/// The name of an operation.
fn op_name(opcode: u32) -> Option<&'static str> {
    fuse::op_name(opcode).or_else(|| net::op_name(opcode))
}

/// As [`op_name`], for records: `op_N` for what is none.
pub fn record_name(opcode: u32) -> std::borrow::Cow<'static, str> {
    op_name(opcode).map_or_else(|| format!("op_{opcode}").into(), Into::into)
}

/// What the services of requests are made from.
pub struct Parts<'a> {
    /// Directories of the host to be served, if there is a window for their contents.
    pub trees: &'a [TreeSource],
    /// The window.
    pub window: Option<Window>,
    /// Guest RAM.
    pub memory: GuestMemory,
    /// Where the queue is, and the pages that tell of changes; sockets are served if there is room for what is known of them.
    pub layout: &'a Layout,
    /// Interrupts the guest.
    pub interrupt: Arc<dyn Interrupt>,
    /// Whether this process is in a user namespace, in which owners of files may have no id.
    pub has_strangers: bool,
    /// Whether threads may look for what is to come, instead of sleeping, where there is a CPU for it.
    pub may_poll: bool,
    /// Wants to know of every operation.
    pub observer: Option<Arc<dyn Observer>>,
    /// What processes are handed from outside.
    pub handed: Arc<Handed>,
}

struct Shared {
    files: Option<Arc<Files>>,
    sockets: Option<Arc<Sockets>>,
    memory: GuestMemory,
    queue: Mutex<Queue>,
    interrupt: Arc<dyn Interrupt>,
    observer: Option<Arc<dyn Observer>>,
    slow: Mutex<mpsc::Sender<(u16, Request)>>,
    /// Held while requests are served that cannot take long: the guest relies on their order.
    serving: Mutex<()>,
    /// Flags of the ring of available chains.
    ring_flags: u64,
    counts: [AtomicU64; COUNTERS],
}

/// The services of requests; they serve until the process ends.
pub struct Requests {
    shared: Arc<Shared>,
    /// None where a thread that looks for requests would only keep the guest from its CPU.
    poller: Option<Arc<Poller>>,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
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

impl Requests {
    /// Starts serving what `parts` have; nothing if that is neither files nor sockets.
    ///
    /// # Errors
    /// When the host refuses what a service needs; [`Error::Queue`].
    pub fn start(mut parts: Parts<'_>) -> Result<Option<Self>, Error> {
        let has_sockets = parts.layout.sockets.len > 0;
        if parts.window.is_none() && !has_sockets {
            return Ok(None);
        }
        let has_cpus = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        parts.may_poll &= has_cpus;
        let descriptors = raise_open_files().saturating_sub(OTHER_DESCRIPTORS);
        let for_sockets = if has_sockets {
            (net::MAX_SOCKETS as u64).min(descriptors / 4)
        } else {
            0
        };
        let files = parts
            .window
            .map(|window| Files::start(&parts, window, descriptors - for_sockets))
            .transpose()?;
        let sockets = has_sockets.then(|| Sockets::start(&parts)).transpose()?;
        let (slow, jobs) = mpsc::channel();
        let shared = Arc::new(Shared {
            files,
            sockets,
            slow: Mutex::new(slow),
            serving: Mutex::new(()),
            ring_flags: parts.layout.fuse.avail_gpa,
            queue: Mutex::new(queue::open(&parts.memory, &parts.layout.fuse, "request")?),
            memory: parts.memory,
            interrupt: parts.interrupt,
            observer: parts.observer,
            counts: [const { AtomicU64::new(0) }; COUNTERS],
        });
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..WORKERS {
            let (shared, jobs) = (shared.clone(), jobs.clone());
            spawn(format!("files{number}"), move || work(&shared, &jobs))?;
        }
        let poller = parts.may_poll.then(|| Arc::new(Poller::new()));
        if let Some(poller) = poller.clone() {
            let shared = shared.clone();
            spawn("poller".to_owned(), move || {
                poller.live(|| shared.look(), |tell| shared.want_rings(tell));
            })?;
        }
        Ok(Some(Self { shared, poller }))
    }

    /// The doorbell was rung: serves what is queued.
    pub fn ring(&self) {
        let served = match &self.shared.sockets {
            Some(sockets) => sockets.visit(|| self.shared.serve_queued()),
            None => self.shared.serve_queued(),
        };
        if let Some(poller) = &self.poller {
            poller.rang(served);
        }
    }

    /// The vCPU has nothing to do: serves what is queued, which nobody waits for, and has it sleep.
    pub fn idle(&self, sleep: Sleep<'_>) {
        let Some(sockets) = &self.shared.sockets else {
            self.shared.serve_queued();
            sleep(None);
            return;
        };
        sockets.visit(|| {
            self.shared.serve_queued();
            sockets.sleep(sleep);
        });
    }

    /// An access of the guest failed; false if it was not to a file that became shorter.
    pub fn memory_fault(&self) -> bool {
        let files = self.shared.files.as_ref();
        files.is_some_and(|files| files.memory_fault())
    }

    /// How often each operation was asked for, by service and name.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        (0u32..)
            .zip(&self.shared.counts)
            .map(|(opcode, count)| {
                let service = if net::op_name(opcode).is_some() {
                    super::net::SERVICE
                } else {
                    super::fuse::SERVICE
                };
                let name = op_name(opcode).unwrap_or("unknown");
                (service, name, count.load(Ordering::Relaxed))
            })
            .filter(|(_, _, count)| *count > 0)
            .collect()
    }
}

/// Starts a thread, which ends with the process.
pub fn spawn(name: String, life: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let begin = move || {
        confine::enter_thread(Role::Service);
        life();
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(begin)
        .map_err(|source| Error::Start {
            service: "request",
            source,
        })?;
    Ok(())
}

/// Sets bits of a word of the guest's.
pub fn set_bits(memory: &GuestMemory, gpa: u64, bits: u64) {
    if let Ok(slice) = memory.get_slice(GuestAddress(gpa), 8)
        && let Ok(word) = slice.get_atomic_ref::<AtomicU64>(0)
    {
        word.fetch_or(bits, Ordering::SeqCst);
    }
}

fn is_of_socket(request: &Request) -> bool {
    net::op_name(request.header.opcode).is_some()
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

    /// Who serves `request`, if the container has that.
    fn service(&self, request: &Request) -> Option<&dyn Service> {
        if is_of_socket(request) {
            self.sockets.as_deref().map(|service| service as _)
        } else {
            self.files.as_deref().map(|service| service as _)
        }
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
            match &request {
                Some(request) if is_of_socket(request) => served.count_of_socket(),
                request => served.count(request.as_ref().map_or(0, Request::data_bytes)),
            }
            match request {
                None => self.give_back(head, 0),
                Some(request) if self.may_block(&request) => {
                    let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(mpsc::SendError((head, _))) = slow.send((head, request)) {
                        self.give_back(head, 0);
                    }
                }
                Some(request) => self.serve(head, &request),
            }
        }
    }

    fn may_block(&self, request: &Request) -> bool {
        self.service(request)
            .is_some_and(|service| service.may_block(request))
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
        let counter = (request.header.opcode as usize).min(COUNTERS - 1);
        self.counts[counter].fetch_add(1, Ordering::Relaxed);
        let answer = match (self.service(request), &self.observer) {
            (None, _) => Err(Errno::NOSYS),
            (Some(service), None) => service.serve(request),
            (Some(service), Some(observer)) => service.serve_observed(request, &**observer),
        };
        let len = request.answer(&self.memory, answer);
        self.give_back(head, len);
    }
}
