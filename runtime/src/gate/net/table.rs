//! Which sockets there are, by number.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::c_int;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use super::options;
use super::raw::Address;
use super::readiness::{Name, Numbers, Readiness, Told};
use super::watch::Watch;

/// What a socket is, and what was done with it: enough to tell of it, and to make its like.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `AF_INET`, `AF_INET6` or `AF_NETLINK`.
    pub family: u32,
    /// `SOCK_*`.
    pub kind: u32,
    /// `IPPROTO_*`, as it was asked for: 0 is the type's own.
    pub protocol: u32,
    /// Its own address, once it was bound or connected.
    pub own: Address,
    /// Where it leads, or was to lead.
    pub peer: Address,
    /// Options that were set: level, name, and the value where an option adds to others of its name.
    options: BTreeMap<(c_int, c_int, Vec<u8>), Vec<u8>>,
    /// Bytes of data sent and received.
    pub sent: u64,
    pub received: u64,
}

/// The most options kept of one socket. Those that replace each other are fewer, of the others the host allows few.
const MAX_OPTIONS: usize = 256;

impl Facts {
    /// Of a new socket.
    pub fn new(family: u32, kind: u32, protocol: u32) -> Self {
        Self {
            family,
            kind,
            protocol,
            own: Address::default(),
            peer: Address::default(),
            options: BTreeMap::new(),
            sent: 0,
            received: 0,
        }
    }

    /// Whether it is a stream.
    pub fn is_stream(&self) -> bool {
        self.kind == libc::SOCK_STREAM.cast_unsigned()
    }

    /// Whether it only hears of changes of the network (`rtnetlink(7)`).
    pub fn only_hears(&self) -> bool {
        self.family == libc::AF_NETLINK.cast_unsigned()
    }

    /// Of one that was accepted from a listener that has these.
    pub fn accepted(&self, own: Address, peer: Address) -> Self {
        Self {
            own,
            peer,
            // Inherited, as the host's socket has inherited them.
            options: self.options.clone(),
            ..Self::new(self.family, self.kind, self.protocol)
        }
    }

    /// An option was set.
    pub fn option_set(&mut self, level: c_int, name: c_int, value: &[u8]) {
        let of_many = if options::accumulates(level, name) {
            value.to_vec()
        } else {
            Vec::new()
        };
        if self.options.len() < MAX_OPTIONS {
            self.options.insert((level, name, of_many), value.to_vec());
        }
    }
}

/// A socket that is open.
#[derive(Debug)]
pub struct Open {
    /// The host's.
    pub fd: OwnedFd,
    /// What the guest knows of it.
    pub told: Told,
    /// What is known of it.
    pub facts: Facts,
}

#[derive(Debug)]
struct Socket {
    name: Name,
    /// Held over each operation, so that what is told is what holds. `None` once it is closed.
    open: Mutex<Option<Open>>,
}

impl Socket {
    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Slots {
    sockets: Vec<Option<Arc<Socket>>>,
    /// How many there are.
    open: usize,
    numbers: Numbers,
}

/// All sockets of a guest. A socket's lock and that of the slots are never held at once.
pub struct Table {
    slots: Mutex<Slots>,
    readiness: Readiness,
    delivered: Delivered,
}

/// Is told what the guest was given without asking: of which socket, how many bytes or what error, and of a datagram from where.
pub type Delivered = Box<dyn Fn(u32, &Facts, Result<usize, Errno>, &Address) + Send + Sync>;

impl Table {
    /// None yet.
    pub fn new(readiness: Readiness, delivered: Delivered) -> Self {
        Self {
            slots: Mutex::default(),
            readiness,
            delivered,
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, number: u32) -> Option<Arc<Socket>> {
        self.slots().sockets.get(number as usize)?.clone()
    }

    /// Runs `operate` on a socket; what the guest is told of it is exact afterwards.
    ///
    /// # Errors
    /// `EBADF`; what `operate` gives.
    pub fn with<T>(
        &self,
        number: u32,
        operate: impl FnOnce(&mut Open) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let socket = self.get(number).ok_or(Errno::BADF)?;
        let mut open = socket.lock();
        let open = open.as_mut().ok_or(Errno::BADF)?;
        let result = operate(open);
        let mut changed = self.readiness.refresh(&open.fd, &mut open.told)?;
        if self.readiness.wants_bytes(&open.told) {
            self.deliver(number, open);
            self.readiness.refresh(&open.fd, &mut open.told)?;
            changed = true;
        }
        self.readiness.operated(&open.fd, &mut open.told, changed)?;
        result
    }

    /// As [`Table::with`], of what changes nothing.
    ///
    /// # Errors
    /// `EBADF`; what `look` gives.
    pub fn look<T>(
        &self,
        number: u32,
        look: impl FnOnce(&Open) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let socket = self.get(number).ok_or(Errno::BADF)?;
        let open = socket.lock();
        look(open.as_ref().ok_or(Errno::BADF)?)
    }

    /// A number for a socket that is about to be made.
    ///
    /// # Errors
    /// `ENFILE`.
    pub fn reserve(&self) -> Result<Reserved<'_>, Errno> {
        let name = self.slots().numbers.take()?;
        Ok(Reserved {
            table: self,
            name: Some(name),
        })
    }

    /// Closes a socket.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close(&self, number: u32) -> Result<Facts, Errno> {
        let taken = self
            .slots()
            .sockets
            .get_mut(number as usize)
            .and_then(Option::take);
        let socket = taken.ok_or(Errno::BADF)?;
        let open = socket.lock().take();
        let open = open.ok_or(Errno::BADF)?;
        self.readiness.remove(&open.fd, &open.told);
        drop(open.fd);
        // Only now: what was told of it is over.
        let mut slots = self.slots();
        slots.open -= 1;
        slots.numbers.give_back(socket.name);
        drop(slots);
        Ok(open.facts)
    }

    /// Whether there is a change the guest has not seen.
    pub fn has_unseen(&self) -> bool {
        self.readiness.has_unseen()
    }

    /// Interrupts the guest.
    pub fn interrupt(&self) {
        self.readiness.interrupt();
    }

    /// Data were sent or received.
    pub fn moved(&self) {
        self.readiness.moved();
    }

    /// Gives the guest what a socket has, without having been asked.
    fn deliver(&self, number: u32, open: &mut Open) {
        let Open { fd, told, facts } = open;
        self.readiness.deliver(fd, told, |result, from| {
            let bytes = result.unwrap_or(0) as u64;
            facts.received = facts.received.saturating_add(bytes);
            self.readiness.moved();
            (self.delivered)(number, facts, result, from);
        });
    }

    /// Sleeps until the host tells of sockets, and tells the guest.
    ///
    /// # Errors
    /// What `epoll_wait(2)` gives.
    pub fn wait(&self, watch: &mut Watch) -> Result<(), Errno> {
        self.readiness
            .wait(watch, |name, events| self.event(name, events))
    }

    /// The host told of `events` of a socket; true if the guest is to be interrupted.
    fn event(&self, name: Name, events: EventFlags) -> bool {
        let Some(socket) = self.get(name.number) else {
            return false;
        };
        // An event that was under way when the number's last owner went.
        if socket.name != name {
            return false;
        }
        let mut open = socket.lock();
        let Some(open) = open.as_mut() else {
            return false;
        };
        if self.readiness.wants_bytes_of(&open.told, events) {
            self.deliver(name.number, open);
        }
        self.readiness.event(&open.fd, &mut open.told)
    }

    /// Readable when there are events of sockets; `None` if there are no sockets.
    pub fn events(&self) -> Option<BorrowedFd<'_>> {
        (self.slots().open > 0).then(|| self.readiness.events())
    }

    /// The guest has left: no thread is woken for events until it runs again.
    pub fn take_over(&self) {
        self.readiness.take_over();
    }

    /// The guest is about to run: it is told of what there is.
    pub fn give_over(&self) {
        self.readiness
            .give_over(|name, events| self.event(name, events));
    }
}

/// A number nobody else gets; given back unless it is used.
pub struct Reserved<'a> {
    table: &'a Table,
    name: Option<Name>,
}

impl Reserved<'_> {
    /// Gives the number to `fd`.
    ///
    /// # Errors
    /// What looking at the socket gives.
    pub fn use_for(mut self, fd: OwnedFd, facts: Facts, is_connected: bool) -> Result<u32, Errno> {
        let name = self.name.ok_or(Errno::BADF)?;
        let readiness = &self.table.readiness;
        let mut told = readiness.add(&fd, name, facts.is_stream())?;
        if is_connected {
            readiness.refresh(&fd, &mut told)?;
            readiness.operated(&fd, &mut told, true)?;
        }
        let socket = Arc::new(Socket {
            name,
            open: Mutex::new(Some(Open { fd, told, facts })),
        });
        let mut slots = self.table.slots();
        let index = name.number as usize;
        if slots.sockets.len() <= index {
            slots.sockets.resize_with(index + 1, || None);
        }
        slots.sockets[index] = Some(socket);
        slots.open += 1;
        self.name = None;
        Ok(name.number)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name {
            self.table.slots().numbers.give_back(name);
        }
    }
}
