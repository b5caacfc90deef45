//! What the guest is told of sockets without asking: the words of `BootInfo::sockets`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use husk_abi::boundary::boot::GuestRange;
use husk_abi::boundary::net::{
    AREA_BYTES, CHANGED_OFFSET, HAND_IN, MAX_SOCKETS, SHARED_OFFSET, STATES_OFFSET, SUMMARY_OFFSET,
    Shared, SocketState, wanted,
};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileMemory};

use super::delivery::{Delivered, Delivery};
use super::raw::{self, Address};
use super::watch::{Alarm, Watch};
use crate::gate::Interrupt;
use crate::gate::requests::set_bits;
use crate::vmm::GuestMemory;

/// What is asked of every socket, and told of it beside errors and hangups.
const EVENTS: PollFlags = PollFlags::IN
    .union(PollFlags::OUT)
    .union(PollFlags::PRI)
    .union(PollFlags::RDHUP);
/// As [`EVENTS`] without room to send, which a datagram socket would announce after every message.
const WITHOUT_ROOM: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::PRI)
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::ET);
/// Datagrams delivered at a time.
const DATAGRAMS: usize = 32;
/// Events taken at a time.
const BATCH: usize = 64;
/// What the alarm's events are called: no socket.
const ALARM: u64 = u64::MAX;
/// What is told when there are events of sockets.
const SOCKETS: u64 = u64::MAX - 1;

/// What holds of `socket` now.
///
/// # Errors
/// What `poll(2)` gives.
pub fn ready(socket: impl AsFd) -> Result<PollFlags, Errno> {
    let mut fds = [PollFd::new(&socket, EVENTS)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&at_once))?;
    Ok(fds[0].revents())
}

/// A socket as events name it: its number, and which of those that had the number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its number.
    pub number: u32,
    /// How often the number was given out before.
    pub turn: u32,
}

impl Name {
    fn to_data(self) -> epoll::EventData {
        epoll::EventData::new_u64(u64::from(self.number) | u64::from(self.turn) << 32)
    }

    fn of_data(data: epoll::EventData) -> Self {
        let bits = data.u64();
        Self {
            number: bits as u32,
            turn: (bits >> 32) as u32,
        }
    }
}

/// The words in guest memory, and what the host tells of sockets.
pub struct Readiness {
    memory: GuestMemory,
    area: u64,
    interrupt: Arc<dyn Interrupt>,
    /// Tells of sockets.
    epoll: OwnedFd,
    /// What the thread sleeps on: `epoll`, unless the vCPU does, and the alarm.
    thread: OwnedFd,
    turn: Turn,
    delivery: Delivery,
    alarm: Alarm,
}

/// Who takes events.
#[derive(Debug)]
struct Turn {
    /// How often a vCPU has left the guest.
    visits: AtomicU32,
    /// How many have, and are not back.
    visitors: AtomicU32,
    /// Events wake the thread: what its epoll was told last, so held while it is told.
    is_woken: Mutex<bool>,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            visits: AtomicU32::new(0),
            visitors: AtomicU32::new(0),
            is_woken: Mutex::new(true),
        }
    }
}

/// What was last told of a socket. Kept, and changed, under the socket's lock.
#[derive(Debug)]
pub struct Told {
    name: Name,
    ready: PollFlags,
    is_stream: bool,
    room: u32,
    /// How often it was given bytes, or an error, without asking.
    deliveries: u32,
    /// Whether the host is asked to tell of events, and also of room to send.
    asks: Option<bool>,
}

impl Told {
    /// Whether the guest was given more than it says it got.
    pub fn has_delivered(&self, got: u32) -> bool {
        self.deliveries != got
    }
}

impl Readiness {
    /// For the words in `area`.
    ///
    /// # Errors
    /// `EINVAL` if they do not lie in guest memory; what `epoll_create(2)` gives.
    pub fn new(
        memory: GuestMemory,
        area: GuestRange,
        interrupt: Arc<dyn Interrupt>,
    ) -> Result<Self, Errno> {
        let fits = area.len >= AREA_BYTES
            && memory
                .get_slice(GuestAddress(area.gpa), AREA_BYTES as usize)
                .is_ok();
        if !fits || !area.gpa.is_multiple_of(8) {
            return Err(Errno::INVAL);
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let alarm = Alarm::new()?;
        let data = epoll::EventData::new_u64(ALARM);
        let thread = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&thread, alarm.event(), data, epoll::EventFlags::IN)?;
        let data = epoll::EventData::new_u64(SOCKETS);
        epoll::add(&thread, &epoll, data, epoll::EventFlags::IN)?;
        Ok(Self {
            delivery: Delivery::new(memory.clone(), area.gpa),
            memory,
            area: area.gpa,
            interrupt,
            epoll,
            thread,
            turn: Turn::default(),
            alarm,
        })
    }

    /// Runs `change` on a word of a socket's state.
    fn word<T>(
        &self,
        number: u32,
        offset: usize,
        change: impl FnOnce(&AtomicU32) -> T,
    ) -> Option<T> {
        let at = STATES_OFFSET + u64::from(number) * size_of::<SocketState>() as u64;
        let at = GuestAddress(self.area + at + offset as u64);
        let slice = self.memory.get_slice(at, 4).ok()?;
        let word = slice.get_atomic_ref::<AtomicU32>(0).ok()?;
        Some(change(word))
    }

    /// A new socket: tells what holds of it. The host is asked to tell of it from the first [`Readiness::refresh`] on: a stream
    /// that is not connected would be an event at once.
    ///
    /// # Errors
    /// What `poll(2)` gives.
    pub fn add(&self, socket: impl AsFd, name: Name, is_stream: bool) -> Result<Told, Errno> {
        self.word(
            name.number,
            std::mem::offset_of!(SocketState, wanted),
            |word| {
                word.store(0, Ordering::SeqCst);
            },
        );
        let mut told = Told {
            name,
            ready: PollFlags::empty(),
            is_stream,
            room: 0,
            deliveries: 0,
            asks: None,
        };
        self.store(&socket, &mut told)?;
        Ok(told)
    }

    /// The socket is about to be closed.
    pub fn remove(&self, socket: impl AsFd, told: &Told) {
        // The interest must not outlive the number.
        let _ = epoll::delete(&self.epoll, socket);
        self.word(
            told.name.number,
            std::mem::offset_of!(SocketState, ready),
            |word| {
                word.store(0, Ordering::SeqCst);
            },
        );
    }

    /// Looks at the socket and stores what holds; gives what does that did not.
    fn store(&self, socket: impl AsFd, told: &mut Told) -> Result<PollFlags, Errno> {
        let now = ready(&socket)?;
        let gained = now - told.ready;
        if now.contains(PollFlags::OUT) {
            let room = raw::send_room(&socket, told.is_stream).unwrap_or(0);
            if room != told.room {
                told.room = room;
                let at = std::mem::offset_of!(SocketState, room);
                self.word(told.name.number, at, |word| {
                    word.store(room, Ordering::SeqCst)
                });
            }
        }
        if now != told.ready {
            told.ready = now;
            self.word(
                told.name.number,
                std::mem::offset_of!(SocketState, ready),
                |word| {
                    word.store(u32::from(now.bits()), Ordering::SeqCst);
                },
            );
        }
        Ok(gained)
    }

    /// Asks the host for those events that may come.
    fn ask(&self, socket: impl AsFd, told: &mut Told) -> Result<(), Errno> {
        let wants_room = !told.ready.contains(PollFlags::OUT);
        if told.asks == Some(wants_room) {
            return Ok(());
        }
        let mut asked = WITHOUT_ROOM;
        asked.set(epoll::EventFlags::OUT, wants_room);
        // Whatever came meanwhile is an event at once.
        if told.asks.is_none() {
            epoll::add(&self.epoll, socket, told.name.to_data(), asked)?;
        } else {
            epoll::modify(&self.epoll, socket, told.name.to_data(), asked)?;
        }
        told.asks = Some(wants_room);
        Ok(())
    }

    /// Marks the socket as changed if the guest wants to know; true if it is to be interrupted.
    fn mark(&self, number: u32) -> bool {
        let wanted = self.word(number, std::mem::offset_of!(SocketState, wanted), |word| {
            word.swap(0, Ordering::SeqCst)
        });
        if wanted.unwrap_or(0) == 0 {
            return false;
        }
        let number = u64::from(number);
        let bit = |offset: u64, index: u64| {
            set_bits(
                &self.memory,
                self.area + offset + index / 64 * 8,
                1 << (index % 64),
            );
        };
        bit(CHANGED_OFFSET, number);
        bit(SUMMARY_OFFSET, number / 64);
        true
    }

    /// An operation may have changed what holds of the socket: the word is exact afterwards. True if something holds that did
    /// not.
    ///
    /// # Errors
    /// What `poll(2)` gives.
    pub fn refresh(&self, socket: impl AsFd, told: &mut Told) -> Result<bool, Errno> {
        Ok(!self.store(&socket, told)?.is_empty())
    }

    /// After an operation: asks for the events that may come. If something `changed` the guest finds it when it has the answer.
    ///
    /// # Errors
    /// What `epoll_ctl(2)` gives.
    pub fn operated(&self, socket: impl AsFd, told: &mut Told, changed: bool) -> Result<(), Errno> {
        self.ask(socket, told)?;
        if changed {
            self.mark(told.name.number);
        }
        Ok(())
    }

    /// The host told of an event of the socket: the word is exact afterwards. True if the guest is to be interrupted.
    pub fn event(&self, socket: impl AsFd, told: &mut Told) -> bool {
        // Descriptors that cannot be polled or asked about are the host's failure: the guest finds out when it tries.
        let _ = self.store(&socket, told);
        let _ = self.ask(socket, told);
        self.mark(told.name.number)
    }

    /// Whether there is a change the guest has not seen.
    pub fn has_unseen(&self) -> bool {
        (0..MAX_SOCKETS as u64 / 64 / 64).any(|word| {
            let at = GuestAddress(self.area + SUMMARY_OFFSET + word * 8);
            self.memory
                .load::<u64>(at, Ordering::SeqCst)
                .is_ok_and(|bits| bits != 0)
        })
    }

    /// Interrupts the guest.
    pub fn interrupt(&self) {
        self.interrupt.interrupt();
    }

    /// Data were sent or received: the guest may keep the next ones that it sends for a while.
    pub fn moved(&self) {
        self.alarm.moved();
    }

    /// Whether the guest wants what a socket has now.
    pub fn wants_bytes(&self, told: &Told) -> bool {
        self.wants_bytes_of(
            told,
            epoll::EventFlags::from_bits_truncate(told.ready.bits().into()),
        )
    }

    /// As [`Readiness::wants_bytes`], of a socket of which the host tells these events.
    pub fn wants_bytes_of(&self, told: &Told, events: epoll::EventFlags) -> bool {
        use epoll::EventFlags;
        let at = std::mem::offset_of!(SocketState, wanted);
        events.contains(EventFlags::IN)
            && !events.intersects(EventFlags::PRI | EventFlags::ERR)
            && self.word(told.name.number, at, |word| word.load(Ordering::SeqCst))
                == Some(wanted::BYTES)
    }

    /// Gives the guest what a socket has, without having been asked; `tell` gets each time how many bytes that is, or the error
    /// the guest is told of, and where they are from.
    pub fn deliver(
        &self,
        socket: impl AsFd,
        told: &mut Told,
        mut tell: impl FnMut(Result<usize, Errno>, &Address),
    ) {
        let most = if told.is_stream { 1 } else { DATAGRAMS };
        for _ in 0..most {
            let number = told.name.number;
            match self.delivery.deliver(number, &socket, told.is_stream) {
                Delivered::Nothing => return,
                Delivered::Bytes(bytes, from) => tell(Ok(bytes), &from),
                Delivered::Failed(errno) => tell(Err(errno), &Address::default()),
            }
            told.deliveries = told.deliveries.wrapping_add(1);
        }
    }

    /// Sleeps until the host tells of sockets, or there is something else to do; has `look` look at each socket, and tells the
    /// guest if that says so for any.
    ///
    /// # Errors
    /// What `epoll_wait(2)` gives.
    pub fn wait(
        &self,
        watch: &mut Watch,
        look: impl Fn(Name, epoll::EventFlags) -> bool,
    ) -> Result<(), Errno> {
        let rest = watch.rest(Instant::now());
        let mut events = Vec::with_capacity(2);
        match self.sleep(rest, &mut events) {
            Ok(()) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        for event in &events {
            if event.data.u64() == ALARM {
                self.alarm.heard();
                watch.begin(Instant::now());
                self.set_watched(1);
            } else if self.take(&look)? {
                watch.told(self.interrupt.wake(), Instant::now());
            }
        }
        if rest.is_some() {
            let visits = self.turn.visits.load(Ordering::SeqCst);
            let due = watch.due(Instant::now(), &self.alarm, visits, || self.unsent());
            if due.unsent {
                self.set_watched(HAND_IN);
            } else if due.handed_in {
                self.set_watched(1);
            }
            if due.alone || due.over {
                self.wake_for_events();
            }
            if due.over {
                self.set_watched(0);
                if self.unsent() != 0 {
                    // Kept before it could know.
                    self.alarm.moved();
                }
            }
            if due.unsent || due.unseen && self.has_unseen() {
                self.interrupt.interrupt();
            }
        }
        Ok(())
    }

    /// Has `look` look at each socket that the host has told of; true if that says so for any.
    ///
    /// # Errors
    /// What `epoll_wait(2)` gives.
    pub fn take(&self, look: impl Fn(Name, epoll::EventFlags) -> bool) -> Result<bool, Errno> {
        let mut events = Vec::with_capacity(BATCH);
        let now = Timespec::default();
        let room = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, room, Some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut tells = false;
        for event in &events {
            tells |= look(Name::of_data(event.data), event.flags);
        }
        Ok(tells)
    }

    /// Readable when the host has told of sockets.
    pub fn events(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// The guest has left: sockets' events wake no thread until it runs again.
    pub fn take_over(&self) {
        self.turn.visits.fetch_add(1, Ordering::SeqCst);
        self.turn.visitors.fetch_add(1, Ordering::SeqCst);
        let mut is_woken = self.is_woken();
        if std::mem::replace(&mut *is_woken, false) {
            self.wake_thread(epoll::EventFlags::empty());
        }
    }

    /// The guest is about to run: has `look` look at each socket that the host has told of. What comes from then on wakes the
    /// thread in [`Readiness::wait`], but not while that looks every now and then anyway: a guest that exchanges messages comes
    /// by itself, and much sooner.
    pub fn give_over(&self, look: impl Fn(Name, epoll::EventFlags) -> bool) {
        // What the guest is not told of now the thread finds.
        let _ = self.take(look);
        // Before it looks whether anybody watches: who ends watching looks afterwards who is here.
        self.turn.visitors.fetch_sub(1, Ordering::SeqCst);
        if !self.alarm.is_watched() {
            self.wake_for_events();
        }
    }

    /// Events wake the thread, unless a vCPU is here that takes them.
    fn wake_for_events(&self) {
        let mut is_woken = self.is_woken();
        let is_visited = self.turn.visitors.load(Ordering::SeqCst) > 0;
        if !is_visited && !std::mem::replace(&mut *is_woken, true) {
            self.wake_thread(epoll::EventFlags::IN);
        }
    }

    fn is_woken(&self) -> MutexGuard<'_, bool> {
        let lock = self.turn.is_woken.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_thread(&self, by: epoll::EventFlags) {
        let data = epoll::EventData::new_u64(SOCKETS);
        // It was added when both were made.
        let _ = epoll::modify(&self.thread, &self.epoll, data, by);
    }

    /// Takes what there is to do, or sleeps for `rest` until there is something.
    fn sleep(&self, rest: Option<Duration>, events: &mut Vec<epoll::Event>) -> Result<(), Errno> {
        let take = |events: &mut Vec<_>, timeout: Option<&Timespec>| {
            epoll::wait(
                &self.thread,
                rustix::buffer::spare_capacity(events),
                timeout,
            )
        };
        let Some(rest) = rest else {
            take(events, None)?;
            return Ok(());
        };
        let now = Timespec::default();
        if take(events, Some(&now))? > 0 || rest.is_zero() {
            return Ok(());
        }
        // epoll_wait(2) knows only milliseconds.
        let rest = Timespec::try_from(rest).map_err(|_| Errno::INVAL)?;
        let mut fds = [PollFd::new(&self.thread, PollFlags::IN)];
        if poll(&mut fds, Some(&rest))? > 0 {
            take(events, Some(&now))?;
        }
        Ok(())
    }

    fn shared(&self, offset: usize) -> GuestAddress {
        GuestAddress(self.area + SHARED_OFFSET + offset as u64)
    }

    /// Tells the guest whether somebody looks for bytes it keeps.
    fn set_watched(&self, watched: u32) {
        let at = self.shared(std::mem::offset_of!(Shared, watched));
        let _ = self.memory.store(watched, at, Ordering::SeqCst);
    }

    /// What the guest says of bytes it keeps.
    fn unsent(&self) -> u32 {
        let at = self.shared(std::mem::offset_of!(Shared, unsent));
        self.memory.load(at, Ordering::SeqCst).unwrap_or(0)
    }
}

/// Numbers for sockets, and the turn of each.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Given back, with the turn that is next.
    free: Vec<Name>,
    /// The lowest that was never given out.
    next: u32,
}

impl Numbers {
    /// One that is free.
    ///
    /// # Errors
    /// `ENFILE`.
    pub fn take(&mut self) -> Result<Name, Errno> {
        if let Some(name) = self.free.pop() {
            return Ok(name);
        }
        if self.next as usize >= MAX_SOCKETS {
            return Err(Errno::NFILE);
        }
        self.next += 1;
        Ok(Name {
            number: self.next - 1,
            turn: 0,
        })
    }

    /// Nobody has it any more.
    pub fn give_back(&mut self, name: Name) {
        self.free.push(Name {
            turn: name.turn.wrapping_add(1),
            ..name
        });
    }
}
