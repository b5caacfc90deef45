//! The VMM's side of the control socket: one thread that waits for connections, their messages, the guest's reports and
//! what the threads of streams have to tell.
#![allow(unsafe_code, reason = "events, borrowed by number while they are open")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};

use husk_abi::boundary::config::ProcessConfig;
use husk_abi::boundary::control::{MAX_SESSIONS, Report, Request};
use husk_abi::boundary::doorbell;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::EventFd;

use super::guest::GuestQueues;
use super::session::{Session, Surroundings};
use super::wire::{Answer, Ask, Inbox, send};
use crate::confine::{self, rules::Role};
use crate::gate::handed::Handed;
use crate::gate::stdio::{self, Listener, StreamObserver};
use crate::gate::{ControlObserver, Error, Interrupt};
use crate::sandbox::{Hold, MemoryEvents};
use crate::vmm::Machine;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 512;

/// What threads of streams have told.
struct Told {
    events: Mutex<VecDeque<(u32, stdio::Event)>>,
    bell: EventFd,
}

struct Connection {
    socket: UnixStream,
    inbox: Inbox,
    /// The process it runs.
    session: Option<u32>,
}

struct Server {
    listener: UnixListener,
    guest: GuestQueues,
    bell: EventFd,
    told: Arc<Told>,
    surroundings: Surroundings,
    connections: BTreeMap<u64, Connection>,
    sessions: BTreeMap<u32, Session>,
    /// Who waits for the answer with this number.
    tickets: BTreeMap<u32, u64>,
    /// Who is told when memory runs out.
    watching: BTreeSet<u64>,
    next: u64,
    observer: Option<Arc<dyn ControlObserver>>,
    container: Container,
    /// Who holds the guest still.
    holding: BTreeSet<u64>,
}

/// What else of the container it reaches.
#[derive(Debug)]
pub struct Container {
    /// Where it is told that memory ran out.
    pub memory_events: Option<Arc<MemoryEvents>>,
    /// Holds the guest still.
    pub hold: Arc<Hold>,
    /// What its processes are handed.
    pub handed: Arc<Handed>,
}

/// Why a connection is closed.
struct Close;

/// Starts the thread that serves `listener` for `machine`.
///
/// # Errors
/// When a thread or an event cannot be had.
pub fn start(
    machine: &Machine,
    listener: UnixListener,
    observer: Option<Arc<dyn StreamObserver>>,
    control: Option<Arc<dyn ControlObserver>>,
    container: Container,
) -> Result<(), Error> {
    let failed = |source| Error::Start {
        service: "control",
        source,
    };
    let layout = machine.layout();
    let memory = machine.memory().clone();
    let bell = EventFd::new(0).map_err(failed)?;
    let doorbells = machine.doorbells();
    doorbells.bind(doorbell::CONTROL, 0, &bell)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let interrupt: Arc<dyn Interrupt> = Arc::new(machine.kicker());
    let mut server = Server {
        listener,
        guest: GuestQueues::new(memory.clone(), [&layout.control_in, &layout.control_out])?,
        bell,
        told: Arc::new(Told {
            events: Mutex::new(VecDeque::new()),
            bell: EventFd::new(0).map_err(failed)?,
        }),
        surroundings: Surroundings {
            observer,
            memory,
            interrupt,
            doorbells,
            pages_gpa: layout.sessions,
            handed: container.handed.clone(),
        },
        connections: BTreeMap::new(),
        sessions: BTreeMap::new(),
        tickets: BTreeMap::new(),
        watching: BTreeSet::new(),
        next: 1,
        observer: control,
        container,
        holding: BTreeSet::new(),
    };
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            confine::enter_thread(Role::Control);
            while let Err(errno) = server.serve() {
                if errno != Errno::EINTR {
                    tracing::error!("the control socket is no longer served: {errno}");
                    return;
                }
            }
        })
        .map_err(failed)?;
    Ok(())
}

/// What was asked, for a boundary record.
fn described(ask: &Ask) -> (&'static str, &[u8], Option<u64>) {
    let signal = |signo: &i32| u64::try_from(*signo).ok();
    match ask {
        Ask::Exec(config) => {
            let program = config.args.first().map_or(&[][..], Vec::as_slice);
            ("exec", program, None)
        }
        Ask::Signal(signo) => ("exec_signal", b"", signal(signo)),
        Ask::TerminalSignal(signo) => ("terminal_signal", b"", signal(signo)),
        Ask::Resize(_) => ("resize", b"", None),
        Ask::List => ("list", b"", None),
        Ask::Usage => ("usage", b"", None),
        Ask::Watch => ("watch", b"", None),
        Ask::Settle => ("settle", b"", None),
        Ask::Update(limits) => ("update", b"", limits.memory_bytes),
        Ask::Kill(signo, false) => ("kill", b"init", signal(signo)),
        Ask::Kill(signo, true) => ("kill", b"all", signal(signo)),
    }
}

fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the event is open as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

impl Server {
    /// Serves until something fails.
    fn serve(&mut self) -> Result<(), Errno> {
        loop {
            let (ready, told, guest, new) = self.wait()?;
            if told {
                let _ = self.told.bell.read();
                self.streams_told();
            }
            let mut changed = false;
            if guest {
                let _ = self.bell.read();
                for report in self.guest.reports() {
                    self.reported(report);
                    changed = true;
                }
            }
            for id in ready {
                if self.receive(id).is_err() {
                    self.close(id);
                }
            }
            if new {
                self.accept();
            }
            // The guest has requests to take, or room for reports again.
            if self.guest.push() || changed {
                self.surroundings.interrupt.interrupt();
            }
        }
    }

    /// Sleeps; gives the connections that have something, and whether streams, the guest and the listener have.
    fn wait(&self) -> Result<(Vec<u64>, bool, bool, bool), Errno> {
        let fixed = [
            borrow(&self.told.bell),
            borrow(&self.bell),
            self.listener.as_fd(),
        ];
        let sockets = self.connections.values().map(|one| one.socket.as_fd());
        let mut fds: Vec<PollFd<'_>> = fixed
            .into_iter()
            .chain(sockets)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        poll(&mut fds, PollTimeout::NONE)?;
        let mut is_ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let mut next = || is_ready.next().unwrap_or(false);
        let (told, guest, new) = (next(), next(), next());
        let ready = self.connections.keys().zip(is_ready);
        let ready = ready.filter(|(_, is_ready)| *is_ready).map(|(id, _)| *id);
        Ok((ready.collect(), told, guest, new))
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if self.connections.len() >= MAX_CONNECTIONS || socket.set_nonblocking(true).is_err() {
                continue;
            }
            let connection = Connection {
                socket,
                inbox: Inbox::default(),
                session: None,
            };
            self.connections.insert(self.next, connection);
            self.next += 1;
        }
    }

    /// Takes what a connection has sent.
    fn receive(&mut self, id: u64) -> Result<(), Close> {
        let connection = self.connections.get_mut(&id).ok_or(Close)?;
        match connection.inbox.receive(&connection.socket) {
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Ok(false) | Err(_) => return Err(Close),
        }
        loop {
            let connection = self.connections.get_mut(&id).ok_or(Close)?;
            match connection.inbox.take::<Ask>() {
                Ok(Some((ask, descriptors))) => self.asked(id, ask, descriptors)?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.answer(id, &Answer::Refused(error.to_string()));
                    return Err(Close);
                }
            }
        }
    }

    fn asked(&mut self, id: u64, ask: Ask, descriptors: Vec<OwnedFd>) -> Result<(), Close> {
        if let Some(observer) = &self.observer {
            let (operation, argument, value) = described(&ask);
            observer.control(operation, argument, value);
        }
        let session = self.connections.get(&id).and_then(|one| one.session);
        let request = match (ask, session) {
            (Ask::Exec(config), None) => return self.exec(id, config, descriptors),
            (Ask::Signal(signo), Some(session)) => Request::Signal(session, signo),
            (Ask::TerminalSignal(signo), Some(session)) => Request::TerminalSignal(session, signo),
            (Ask::Resize(size), Some(session)) => Request::Resize(session, size),
            (Ask::List, None) => Request::List(self.ticket(id)),
            (Ask::Kill(signo, all), None) => Request::Kill(self.ticket(id), signo, all),
            (Ask::Usage, None) => Request::Usage(self.ticket(id)),
            (Ask::Settle, None) => {
                if self.holding.insert(id) {
                    self.container.hold.hold();
                }
                Request::Settle(self.ticket(id))
            }
            (Ask::Watch, None) => {
                self.watching.insert(id);
                return Ok(());
            }
            (Ask::Update(limits), None) => Request::Update(self.ticket(id), limits),
            _ => return self.refuse(id, "this cannot be asked here"),
        };
        if self.guest.ask(&request) {
            Ok(())
        } else {
            self.refuse(id, "the container's kernel does not answer")
        }
    }

    fn refuse(&mut self, id: u64, why: &str) -> Result<(), Close> {
        self.answer(id, &Answer::Refused(why.to_owned()));
        Err(Close)
    }

    /// A number for a question of connection `id`.
    fn ticket(&mut self, id: u64) -> u32 {
        let last = self.tickets.keys().next_back().copied().unwrap_or(0);
        let ticket = last.wrapping_add(1);
        self.tickets.insert(ticket, id);
        ticket
    }

    fn exec(
        &mut self,
        id: u64,
        config: ProcessConfig,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Close> {
        let Some(number) = (1..MAX_SESSIONS).find(|number| !self.sessions.contains_key(number))
        else {
            return self.refuse(id, "too many processes run by exec");
        };
        let told = self.told.clone();
        let listener: Listener = Arc::new(move |event| {
            told.events
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_back((number, event));
            let _ = told.bell.write(1);
        });
        let started = Session::start(
            number,
            id,
            &config,
            descriptors,
            &self.surroundings,
            listener,
        );
        let session = match started {
            Ok(session) => session,
            Err(why) => return self.refuse(id, &why),
        };
        self.sessions.insert(number, session);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.session = Some(number);
        }
        if self.guest.ask(&Request::Start(number, config)) {
            return Ok(());
        }
        // Its number stays taken, as its threads run.
        self.refuse(id, "the container's kernel does not answer")
    }

    /// Answers; who does not read is closed.
    fn answer(&mut self, id: u64, answer: &Answer) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        if send(&connection.socket, answer, &[]).is_err() {
            self.close(id);
        }
    }

    /// A connection is gone, and with it the process it ran.
    fn close(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        self.tickets.retain(|_, waiting| *waiting != id);
        self.watching.remove(&id);
        if self.holding.remove(&id) {
            self.container.hold.release();
        }
        let Some(number) = connection.session else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&number) {
            session.connection = None;
            if session.status.is_none() {
                // If the guest takes no requests, it is past help.
                let _ = self.guest.ask(&Request::Signal(number, libc::SIGKILL));
            }
        }
    }

    fn reported(&mut self, report: Report) {
        match report {
            Report::Started(number, pid) => {
                if let Some(id) = self.sessions.get(&number).and_then(|one| one.connection) {
                    self.answer(id, &Answer::Started(pid));
                }
            }
            Report::Failed(number, errno, obstacle) => {
                let Some(session) = self.sessions.get_mut(&number) else {
                    return;
                };
                session.has_failed = true;
                if let Some(id) = session.connection {
                    self.answer(id, &Answer::Failed(errno, obstacle));
                }
            }
            Report::Ended(number, status) => {
                if let Some(session) = self.sessions.get_mut(&number) {
                    session.status.get_or_insert(status);
                    session.streams().flush();
                }
                self.progress(number);
            }
            Report::Released(number) => {
                if self
                    .sessions
                    .get(&number)
                    .is_some_and(|one| one.is_released)
                {
                    self.sessions.remove(&number);
                }
            }
            Report::Closed(number) => {
                if let Some(session) = self.sessions.get(&number) {
                    session.streams().close();
                }
            }
            Report::Processes(ticket, list) => self.resolve(ticket, &Answer::Processes(list)),
            Report::Settled(ticket) => self.resolve(ticket, &Answer::Settled),
            Report::Killed(ticket) => self.resolve(ticket, &Answer::Killed),
            Report::Usage(ticket, usage) => self.resolve(ticket, &Answer::Usage(usage)),
            Report::OutOfMemory(kills) => {
                if let Some(events) = &self.container.memory_events {
                    events.killed(kills);
                }
                for id in self.watching.clone() {
                    self.answer(id, &Answer::OutOfMemory(kills));
                }
            }
            Report::Updated(ticket, done) => self.resolve(ticket, &Answer::Updated(done)),
        }
    }

    fn resolve(&mut self, ticket: u32, answer: &Answer) {
        if let Some(id) = self.tickets.remove(&ticket) {
            self.answer(id, answer);
        }
    }

    /// Looks what threads of streams have told.
    fn streams_told(&mut self) {
        loop {
            let next = self
                .told
                .events
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some((number, event)) = next else { return };
            let Some(session) = self.sessions.get_mut(&number) else {
                continue;
            };
            session.told(event);
            self.progress(number);
        }
    }

    /// Tells the client of its process's end, and the guest that its streams are done with, when it is time.
    fn progress(&mut self, number: u32) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        if session.is_over() && !session.is_released {
            session.is_released = true;
            // A guest that does not take this keeps the number.
            let _ = self.guest.ask(&Request::Released(number));
        }
        if let Some(status) = session.end()
            && !session.has_failed
            && let Some(id) = session.connection.take()
        {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.session = None;
            }
            self.answer(id, &Answer::Ended(status));
        }
    }
}
