//! Sockets of the host for the guest, in the network namespace this process is in (`abi::boundary::net`).
//!
//! | module | what |
//! | --- | --- |
//! | `table` | which sockets there are, by number, and what is known of each |
//! | `operations` | what each operation does |
//! | `handed` | sockets that processes were handed from outside |
//! | `readiness` | what the guest is told without asking |
//! | `delivery` | bytes and datagrams that it gets without asking |
//! | `watch` | when it is interrupted |
//! | `vigil` | how a vCPU with nothing to do waits for events |
//! | `options` | which options and control messages are for the guest |
//! | `ioctl` | which requests about interfaces are |
//! | `route` | questions of `rtnetlink(7)` |
//! | `text` | addresses, for records |
//! | `raw` | the calls |
//! | `alone` | all of it without a machine, for fuzzing |
//!
//! The guest decides which of its processes may do what. Here is decided what leaves the guest at all: families, types,
//! options and requests that are in no list are refused as if the host did not have them. No call waits, and none raises
//! a signal.

mod alone;
mod delivery;
mod handed;
mod ioctl;
mod operations;
mod options;
mod raw;
mod readiness;
mod route;
mod table;
mod text;
mod vigil;
mod watch;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use husk_abi::boundary::net::op;
use rustix::io::Errno;

use super::handed::Handed;
use super::requests::message::Request;
use super::requests::{self, Answer, Observer, Operation, Parts, Service, record_name};
use crate::vmm::{Also, GuestMemory, Sleep};
use operations::Seen;
use readiness::Readiness;
use route::Route;
use table::{Facts, Table};
use vigil::Vigil;
use watch::Watch;

pub use alone::Alone;

/// What the service is called in records.
pub const SERVICE: &str = "network";

/// A socket's own address and its peer's, as they lie in memory; empty where there is none.
pub fn names(socket: &OwnedFd) -> [Vec<u8>; 2] {
    let bytes = |name: Result<raw::Address, Errno>| {
        name.map_or(Vec::new(), |name| name.as_bytes().to_vec())
    };
    [bytes(raw::own_name(socket)), bytes(raw::peer_name(socket))]
}

/// The socket service.
pub struct Sockets {
    memory: GuestMemory,
    table: Table,
    route: Mutex<Route>,
    vigil: Vigil,
    /// For requests about interfaces that name no socket.
    any: OwnedFd,
    /// What was handed over and not taken yet.
    handed: Arc<Handed>,
}

impl Sockets {
    /// Serves the guest of `parts`.
    ///
    /// # Errors
    /// When the host refuses an epoll instance, a socket or a thread.
    pub fn start(parts: &Parts<'_>) -> Result<Arc<Self>, super::Error> {
        let failed = |errno: Errno| super::Error::Start {
            service: "socket",
            source: errno.into(),
        };
        let readiness = Readiness::new(
            parts.memory.clone(),
            parts.layout.sockets,
            parts.interrupt.clone(),
        )
        .map_err(failed)?;
        let observer = parts.observer.clone();
        let memory = parts.memory.clone();
        let handed = parts.handed.clone();
        let sockets = Self::new(memory, readiness, handed, parts.may_poll, observer);
        let sockets = Arc::new(sockets.map_err(failed)?);
        let events = sockets.clone();
        requests::spawn("sockets".to_owned(), move || events.announce())?;
        Ok(sockets)
    }

    fn new(
        memory: GuestMemory,
        readiness: Readiness,
        handed: Arc<Handed>,
        may_look: bool,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Self, Errno> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
        let delivered =
            move |socket: u32, facts: &Facts, result: Result<usize, Errno>, from: &raw::Address| {
                if let Some(observer) = &observer {
                    let seen = Seen::moved(socket, facts, from, result.unwrap_or(0) as u64);
                    observe(
                        &**observer,
                        op::RECEIVE,
                        &seen,
                        result.err(),
                        Duration::ZERO,
                    );
                }
            };
        Ok(Self {
            memory,
            table: Table::new(readiness, Box::new(delivered)),
            route: Mutex::default(),
            vigil: Vigil::new(may_look),
            any: socket_with(
                AddressFamily::INET,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC,
                None,
            )?,
            handed,
        })
    }

    /// The life of the thread that tells the guest of sockets' events: it ends with the process.
    fn announce(&self) {
        let mut watch = Watch::default();
        while self.table.wait(&mut watch).is_ok() {}
    }

    /// The guest has left, for what `serve` does; it finds sockets' events when it runs again.
    pub fn visit<T>(&self, serve: impl FnOnce() -> T) -> T {
        self.table.take_over();
        let served = serve();
        self.table.give_over();
        served
    }

    /// The vCPU has nothing to do: `sleep`s until there are events of sockets, too. For what is done in [`Sockets::visit`].
    pub fn sleep(&self, sleep: Sleep<'_>) {
        if self.table.has_unseen() {
            return;
        }
        let Some(fd) = self.table.events() else {
            sleep(None);
            return;
        };
        let look = self.vigil.begin();
        let has_news = sleep(Some(&Also { fd, look }));
        self.vigil.end(has_news);
    }

    /// Serves one request; `seen` is what there is to tell of it.
    fn attempt(&self, request: &Request, seen: &mut Seen) -> Answer {
        loop {
            // A signal for the vCPU's thread may end a call of the host's early, which has done nothing then.
            match self.operate(request, seen) {
                Err(Errno::INTR) => {}
                // The guest's limit, whatever it is made of here.
                Err(Errno::MFILE) => return Err(Errno::NFILE),
                other => return other,
            }
        }
    }
}

/// Tells `observer` of an operation.
fn observe(
    observer: &dyn Observer,
    opcode: u32,
    seen: &Seen,
    errno: Option<Errno>,
    duration: Duration,
) {
    observer.served(&Operation {
        service: SERVICE,
        name: &record_name(opcode),
        path: b"",
        argument: seen.text().as_bytes(),
        node: seen.socket.map(u64::from),
        value: seen.value,
        errno: errno.map_or(0, Errno::raw_os_error),
        duration,
    });
}

impl Service for Sockets {
    fn may_block(&self, _: &Request) -> bool {
        false
    }

    fn serve(&self, request: &Request) -> Answer {
        self.attempt(request, &mut Seen::default())
    }

    fn serve_observed(&self, request: &Request, observer: &dyn Observer) -> Answer {
        let mut begun = Instant::now();
        if request.header.opcode == op::SEND_MANY {
            return self.send_many(request, |seen, errno| {
                observe(observer, op::SEND, seen, errno, begun.elapsed());
                begun = Instant::now();
            });
        }
        let mut seen = Seen::default();
        let answer = self.attempt(request, &mut seen);
        let errno = answer.as_ref().err().copied();
        let opcode = request.header.opcode;
        observe(observer, opcode, &seen, errno, begun.elapsed());
        answer
    }
}

#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
