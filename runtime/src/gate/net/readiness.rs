//! What the guest is told of sockets without asking: the words of `BootInfo::sockets`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use husk_abi::boundary::boot::GuestRange;
use husk_abi::boundary::net::{
    AREA_BYTES, CHANGED_OFFSET, MAX_SOCKETS, STATES_OFFSET, SUMMARY_OFFSET, SocketState,
};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileMemory};

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
/// Events taken at a time.
const BATCH: usize = 64;
/// A guest that runs has so long to look by itself what changed, before it is interrupted: that takes as long as many
/// events' work.
const LATE: Duration = Duration::from_micros(100);

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
    epoll: OwnedFd,
}

/// What was last told of a socket. Kept, and changed, under the socket's lock.
#[derive(Debug)]
pub struct Told {
    name: Name,
    ready: PollFlags,
    /// Whether the host is asked to tell of events, and also of room to send.
    asks: Option<bool>,
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
        Ok(Self {
            memory,
            area: area.gpa,
            interrupt,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
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
    pub fn add(&self, socket: impl AsFd, name: Name) -> Result<Told, Errno> {
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

    /// An operation may have changed what holds of the socket: the word is exact afterwards, and the guest looks for changes
    /// when it has the answer.
    ///
    /// # Errors
    /// What `poll(2)` and `epoll_ctl(2)` give.
    pub fn refresh(&self, socket: impl AsFd, told: &mut Told) -> Result<(), Errno> {
        let gained = self.store(&socket, told)?;
        self.ask(socket, told)?;
        if !gained.is_empty() {
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
    fn has_unseen(&self) -> bool {
        (0..MAX_SOCKETS as u64 / 64 / 64).any(|word| {
            let at = GuestAddress(self.area + SUMMARY_OFFSET + word * 8);
            self.memory
                .load::<u64>(at, Ordering::SeqCst)
                .is_ok_and(|bits| bits != 0)
        })
    }

    /// Interrupts a guest that is about to sleep if it has not seen all changes.
    pub fn tell_unseen(&self) {
        if self.has_unseen() {
            self.interrupt.interrupt();
        }
    }

    /// Sleeps until the host tells of sockets; has `look` look at each, and tells the guest if that says so for any. `untold`
    /// is since when a guest that ran then may not have seen changes.
    ///
    /// # Errors
    /// What `epoll_wait(2)` gives.
    pub fn wait(
        &self,
        untold: &mut Option<Instant>,
        look: impl Fn(Name) -> bool,
    ) -> Result<(), Errno> {
        if let Some(since) = *untold {
            let left = LATE.saturating_sub(since.elapsed());
            if left.is_zero() {
                *untold = None;
                self.tell_unseen();
            } else {
                let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
                let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
                if poll(&mut fds, Some(&left))? == 0 {
                    return Ok(());
                }
            }
        }
        let mut events = Vec::with_capacity(BATCH);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            None,
        ) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        let mut tells = false;
        for event in &events {
            tells |= look(Name::of_data(event.data));
        }
        if tells {
            if self.interrupt.wake() {
                *untold = None;
            } else {
                untold.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
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
