//! Requests for files of the host over the VMM's queue (`abi::boundary::fuse`).
//!
//! An [`Exchange`] is a request and its answer, in frames of its own while it lasts. Most are answered when the doorbell
//! returns, or a moment later where the VMM looks for requests by itself; a thread sleeps for the others. What nobody waits
//! for is queued without ringing: the VMM comes by with the next request, or when the vCPU has nothing to do.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use husk_abi::boundary::boot::BootInfo;
use husk_abi::boundary::doorbell;
use husk_abi::boundary::fuse::{CountIn, ForgetOne, InHeader, MAX_DATA, OutHeader, op};
use husk_hal::clock;
use husk_hal::cpu;
use husk_hal::doorbell as bell;
use husk_hal::phys::{self, Frame};

use super::virtqueue::{Buffer, Virtqueue};
use crate::mm::{Frames, Span};
use crate::sync::{SpinLock, WaitQueue};
use crate::{Errno, Result, Thread};

const PAGE: usize = 4096;
/// Exchanges at once; each takes at most four descriptors of the queue.
const SLOTS: usize = 16;
/// Most requests nobody waits for at once.
const MAX_POSTED: usize = 12;
/// Buffers for data, for exchanges that need one.
const BULKS: usize = 4;
const BULK_FRAMES: u64 = (BULK_BYTES / PAGE) as u64;
/// Bytes of a data buffer.
pub const BULK_BYTES: usize = 256 << 10;
/// Buffers in a chain of descriptors of the queue itself; longer ones have a table of their own.
const DIRECT_BUFFERS: usize = 4;
/// Pages of a slot's table: enough for every page of the most data, and what stands around them.
const TABLE_FRAMES: u64 = 2;
const _: () =
    assert!(MAX_DATA / PAGE + 4 <= TABLE_FRAMES as usize * PAGE / Virtqueue::DESCRIPTOR_BYTES);
/// Nanoseconds a VMM that looks by itself has to answer, before the doorbell is rung all the same, beside one for each byte of
/// data: its thread may have lost its CPU.
const PATIENCE_NS: u64 = 200_000;
/// Nodes forgotten in one message.
const FORGET_BATCH: usize = (PAGE - InHeader::BYTES - CountIn::BYTES) / ForgetOne::BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Under way, as this chain; somebody waits for it or not.
    Sent(u16, bool),
    /// Answered; whether the VMM wrote an answer.
    Answered(bool),
}

/// What is done with the answer's data, or error, of a request nobody waits for.
pub type Done = Box<dyn FnOnce(Result<Vec<u8>>) + Send>;

struct Slot {
    /// Two frames: the request's and the answer's.
    frames: Frame,
    bulk: Option<Frame>,
    /// For long chains; made when first needed.
    table: Option<Frame>,
    phase: Phase,
    taken: bool,
    done: Option<Done>,
}

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Slot")
            .field("phase", &self.phase)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    queue: Virtqueue,
    slots: Vec<Slot>,
    /// Data buffers that are not in use, and how many there are.
    bulks: Vec<Frame>,
    made_bulks: usize,
    forgotten: Vec<ForgetOne>,
    next_unique: u64,
    /// Threads that sleep until something changes.
    sleepers: usize,
}

/// The queue.
#[derive(Debug)]
pub struct FileQueue {
    state: SpinLock<State>,
    /// Woken when answers have come, and when slots or buffers are free again.
    changed: WaitQueue,
    /// Requests nobody waits for, but whose answers somebody wants, that are under way.
    posted: AtomicUsize,
}

/// What an exchange needs beside its two pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing, or data that are in one piece of memory already.
    Nothing,
    /// A data buffer.
    Buffer,
    /// To name data in many pieces.
    Table,
}

/// A request and its answer. Its frames are its own while it lives.
#[derive(Debug)]
pub struct Exchange<'q> {
    queue: &'q FileQueue,
    slot: usize,
    frames: Frame,
    bulk: Option<Frame>,
    table: Option<Frame>,
}

/// What to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// `op::*`.
    pub opcode: u32,
    /// The node it is about.
    pub node: u64,
    /// Owner of what is made.
    pub owner: (u32, u32),
    /// What follows the header.
    pub body: &'a [u8],
    /// Bytes of data that follow the body.
    pub data_bytes: usize,
    /// Bytes of data there is room for in the answer; without any it is at most a page.
    pub answer_bytes: usize,
    /// Bytes before the data of such an answer, which stay in the exchange's own page.
    pub answer_head: usize,
    /// Where the data are, if not in the exchange's buffer.
    pub data_at: &'a [Span],
}

/// Moves bytes out of consecutive frames.
fn read_frames(first: Frame, bytes: &mut [u8]) {
    phys::read_gpa(first.gpa(), bytes);
}

fn write_frames(first: Frame, bytes: &[u8]) {
    for (at, page) in (0..).zip(bytes.chunks(PAGE)) {
        phys::write(first.offset(at), 0, page);
    }
}

/// How many bytes of data an answer has, by the frames of its exchange.
fn answered(frames: Frame) -> Result<usize> {
    let mut bytes = [0; OutHeader::BYTES];
    phys::read(frames.offset(1), 0, &mut bytes);
    let (header, _) = OutHeader::take(&bytes).ok_or(Errno::EIO)?;
    match header.error {
        0 => Ok((header.len as usize).saturating_sub(OutHeader::BYTES)),
        error => Err(Errno::from_code(error.saturating_neg())),
    }
}

/// The first `len` bytes of an answer's data that are in the exchange's own frame.
fn answer_bytes(frames: Frame, len: usize) -> Vec<u8> {
    let mut bytes = alloc::vec![0; len.min(PAGE - OutHeader::BYTES)];
    phys::read(frames.offset(1), OutHeader::BYTES, &mut bytes);
    bytes
}

impl FileQueue {
    pub(super) fn new(boot: &BootInfo) -> Self {
        let mut queue = Virtqueue::new(boot.fuse);
        queue.want_interrupts(false);
        Self {
            state: SpinLock::new(State {
                queue,
                slots: Vec::new(),
                bulks: Vec::new(),
                made_bulks: 0,
                forgotten: Vec::new(),
                next_unique: 1,
                sleepers: 0,
            }),
            changed: WaitQueue::new(),
            posted: AtomicUsize::new(0),
        }
    }

    /// Sleeps until `condition` gives a value. Before there are threads nothing takes long.
    fn wait<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        let mut condition = || {
            self.poll();
            condition()
        };
        if let Some(value) = condition() {
            return value;
        }
        if husk_hal::cpu::with_current(|_: &Thread| ()).is_some() {
            self.count_sleeper(1);
            let value = self.changed.wait_uninterruptible(condition);
            self.count_sleeper(-1);
            return value;
        }
        loop {
            core::hint::spin_loop();
            if let Some(value) = condition() {
                return value;
            }
        }
    }

    /// One more, or less, sleeps: the VMM interrupts while any does.
    fn count_sleeper(&self, step: isize) {
        let mut state = self.state.lock();
        let before = state.sleepers;
        state.sleepers = before.saturating_add_signed(step);
        if (before == 0) != (state.sleepers == 0) {
            let any = state.sleepers > 0;
            state.queue.want_interrupts(any);
        }
    }

    /// Has the VMM serve what is queued, with `bytes` of data, and waits until `condition` gives a value.
    fn serve_until<T>(&self, bytes: usize, mut condition: impl FnMut() -> Option<T>) -> T {
        let until = clock::now_ns() + PATIENCE_NS + bytes as u64;
        while !self.state.lock().queue.wants_notification() && clock::now_ns() < until {
            self.poll();
            if let Some(value) = condition() {
                return value;
            }
            core::hint::spin_loop();
        }
        bell::ring(doorbell::FUSE, 0);
        self.wait(condition)
    }

    /// A slot, and what it `needs`, when there is one.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn begin(&self, frames: &Frames, needs: Needs) -> Result<Exchange<'_>> {
        self.wait(|| self.try_begin(frames, needs))
    }

    /// Whether a request could be begun without waiting.
    pub fn has_room(&self) -> bool {
        let state = self.state.lock();
        state.slots.len() < SLOTS || state.slots.iter().any(|slot| !slot.taken)
    }

    fn try_begin(&self, frames: &Frames, needs: Needs) -> Option<Result<Exchange<'_>>> {
        let mut state = self.state.lock();
        let index = match state.slots.iter().position(|slot| !slot.taken) {
            Some(index) => index,
            None if state.slots.len() == SLOTS => return None,
            None => match frames.alloc_contiguous(2) {
                Ok(first) => {
                    state.slots.push(Slot {
                        frames: first,
                        bulk: None,
                        table: None,
                        phase: Phase::Idle,
                        taken: false,
                        done: None,
                    });
                    state.slots.len() - 1
                }
                Err(errno) => return Some(Err(errno)),
            },
        };
        let bulk = match (needs == Needs::Buffer, state.bulks.pop()) {
            (false, spare) => {
                state.bulks.extend(spare);
                None
            }
            (true, Some(frame)) => Some(frame),
            (true, None) if state.made_bulks == BULKS => return None,
            (true, None) => match frames.alloc_contiguous(BULK_FRAMES) {
                Ok(frame) => {
                    state.made_bulks += 1;
                    Some(frame)
                }
                // With one buffer at least everything works.
                Err(_) if state.made_bulks > 0 => return None,
                Err(errno) => return Some(Err(errno)),
            },
        };
        let slot = &mut state.slots[index];
        if needs == Needs::Table && slot.table.is_none() {
            slot.table = match frames.alloc_contiguous(TABLE_FRAMES) {
                Ok(table) => Some(table),
                Err(errno) => return Some(Err(errno)),
            };
        }
        slot.taken = true;
        slot.bulk = bulk;
        slot.phase = Phase::Idle;
        Some(Ok(Exchange {
            queue: self,
            slot: index,
            frames: slot.frames,
            bulk,
            table: slot.table,
        }))
    }

    /// The VMM may forget `count` of the times it told us of `node`: told with the next request.
    pub fn forget(&self, node: u64, count: u64) {
        self.state.lock().forgotten.push(ForgetOne {
            nodeid: node,
            nlookup: count,
        });
    }

    /// Queues what nobody waits for; the VMM sees it with the next doorbell.
    pub fn post_forgotten(&self, frames: &Frames) {
        loop {
            let batch: Vec<ForgetOne> = {
                let mut state = self.state.lock();
                let len = state.forgotten.len().min(FORGET_BATCH);
                if len == 0 {
                    return;
                }
                state.forgotten.drain(..len).collect()
            };
            let Some(Ok(mut exchange)) = self.try_begin(frames, Needs::Nothing) else {
                self.state.lock().forgotten.extend(batch);
                return;
            };
            let mut body = Vec::with_capacity(CountIn::BYTES + batch.len() * ForgetOne::BYTES);
            CountIn {
                count: batch.len() as u32,
                dummy: 0,
            }
            .put(&mut body);
            for one in &batch {
                one.put(&mut body);
            }
            exchange.push(
                &Ask {
                    opcode: op::BATCH_FORGET,
                    body: &body,
                    ..Ask::default()
                },
                false,
            );
            // The slot is free again when the VMM is done.
            core::mem::forget(exchange);
        }
    }

    /// Queues a request nobody waits for; the VMM serves it with the next doorbell, before what is queued later, and `done` gets
    /// its answer. Gives `done` back if there is no room.
    pub fn post(
        &self,
        frames: &Frames,
        ask: &Ask<'_>,
        done: Done,
    ) -> core::result::Result<(), Done> {
        if self.posted.load(Ordering::Acquire) >= MAX_POSTED {
            self.settle_all();
        }
        let Some(Ok(mut exchange)) = self.try_begin(frames, Needs::Nothing) else {
            return Err(done);
        };
        self.posted.fetch_add(1, Ordering::AcqRel);
        self.state.lock().slots[exchange.slot].done = Some(done);
        exchange.push(ask, false);
        // The slot is free again when the VMM is done.
        core::mem::forget(exchange);
        Ok(())
    }

    /// As [`FileQueue::post`], with `data` behind the request, at most [`BULK_BYTES`]. Where there is no room, the VMM makes some;
    /// where there is no memory, `done` gets that.
    pub fn post_with_data(&self, frames: &Frames, ask: &Ask<'_>, data: &[u8], done: Done) {
        let fits = InHeader::BYTES + ask.body.len() + data.len() <= PAGE;
        let needs = if fits { Needs::Nothing } else { Needs::Buffer };
        let mut exchange = loop {
            match self.try_begin(frames, needs) {
                Some(Ok(exchange)) => break exchange,
                Some(Err(errno)) => return done(Err(errno)),
                None => self.serve_until(0, || Some(())),
            }
        };
        self.posted.fetch_add(1, Ordering::AcqRel);
        self.state.lock().slots[exchange.slot].done = Some(done);
        if fits {
            let body = [ask.body, data].concat();
            exchange.push(
                &Ask {
                    body: &body,
                    ..*ask
                },
                false,
            );
        } else {
            write_frames(exchange.bulk(), data);
            let data_bytes = data.len();
            exchange.push(&Ask { data_bytes, ..*ask }, false);
        }
        // The slot is free again when the VMM is done.
        core::mem::forget(exchange);
    }

    /// Has the VMM serve what is queued.
    pub fn ring(&self) {
        self.serve_until(0, || Some(()));
    }

    /// Has the VMM serve what was posted, and waits until `is_done`.
    pub fn settle(&self, is_done: impl Fn() -> bool) {
        if is_done() {
            return;
        }
        self.poll();
        if is_done() {
            return;
        }
        self.serve_until(0, || is_done().then_some(()));
    }

    /// Has the VMM serve what was posted.
    pub fn settle_all(&self) {
        self.settle(|| self.posted.load(Ordering::Acquire) == 0);
    }

    /// Takes what the VMM is done with; true if anything.
    fn collect(&self) -> bool {
        let mut finished = Vec::new();
        let any = self.collect_into(&mut finished);
        for (done, answer) in finished {
            done(answer);
            self.posted.fetch_sub(1, Ordering::AcqRel);
        }
        any
    }

    fn collect_into(&self, finished: &mut Vec<(Done, Result<Vec<u8>>)>) -> bool {
        let mut state = self.state.lock();
        let mut any = false;
        while let Some((chain, len)) = state.queue.pop_used() {
            any = true;
            let slot = state
                .slots
                .iter_mut()
                .find(|slot| matches!(slot.phase, Phase::Sent(sent, _) if sent == chain));
            let Some(slot) = slot else { continue };
            if slot.phase == Phase::Sent(chain, true) {
                slot.phase = Phase::Answered(len as usize >= OutHeader::BYTES);
            } else {
                if let Some(done) = slot.done.take() {
                    let answer = if len as usize >= OutHeader::BYTES {
                        answered(slot.frames).map(|len| answer_bytes(slot.frames, len))
                    } else {
                        Err(Errno::EIO)
                    };
                    finished.push((done, answer));
                }
                slot.phase = Phase::Idle;
                slot.taken = false;
                let bulk = slot.bulk.take();
                state.bulks.extend(bulk);
            }
        }
        any
    }

    /// Looks what the VMM has answered.
    pub(super) fn poll(&self) {
        if self.collect() {
            self.changed.wake_all();
        }
    }
}

fn add(buffers: &mut Vec<Buffer>, gpa: u64, len: usize, device_writes: bool) {
    if len > 0 {
        buffers.push(Buffer {
            gpa,
            len: len as u32,
            device_writes,
        });
    }
}

impl Exchange<'_> {
    /// First frame of the data buffer, [`BULK_BYTES`] long.
    ///
    /// # Panics
    /// If the exchange was begun without one.
    #[must_use]
    pub fn bulk(&self) -> Frame {
        self.bulk.expect("begun with a data buffer")
    }

    /// Adds the first `bytes` of where the data are.
    fn add_data(
        &self,
        buffers: &mut Vec<Buffer>,
        ask: &Ask<'_>,
        bytes: usize,
        device_writes: bool,
    ) {
        let bulk = self.bulk.map(|frame| Span {
            gpa: frame.gpa(),
            len: BULK_BYTES,
        });
        let places = if ask.data_at.is_empty() {
            bulk.as_slice()
        } else {
            ask.data_at
        };
        let mut left = bytes;
        for place in places {
            let len = place.len.min(left);
            add(buffers, place.gpa, len, device_writes);
            left -= len;
        }
        assert_eq!(left, 0, "data without a place");
    }

    /// Queues the request.
    fn push(&mut self, ask: &Ask<'_>, waits: bool) {
        let (request, answer) = (self.frames, self.frames.offset(1));
        let mut state = self.queue.state.lock();
        let unique = state.next_unique;
        state.next_unique += 1;
        let mut bytes = Vec::with_capacity(InHeader::BYTES + ask.body.len());
        InHeader {
            len: (InHeader::BYTES + ask.body.len() + ask.data_bytes) as u32,
            opcode: ask.opcode,
            unique,
            nodeid: ask.node,
            uid: ask.owner.0,
            gid: ask.owner.1,
            ..InHeader::default()
        }
        .put(&mut bytes);
        bytes.extend_from_slice(ask.body);
        let mut buffers = Vec::with_capacity(DIRECT_BUFFERS + ask.data_at.len());
        let head = bytes.len().min(PAGE);
        phys::write(request, 0, &bytes[..head]);
        add(&mut buffers, request.gpa(), head, false);
        if head < bytes.len() {
            // A long value or target: it takes the data buffer.
            write_frames(self.bulk(), &bytes[head..]);
            add(&mut buffers, self.bulk().gpa(), bytes.len() - head, false);
        }
        self.add_data(&mut buffers, ask, ask.data_bytes, false);
        if ask.answer_bytes > 0 {
            let head = OutHeader::BYTES + ask.answer_head;
            add(&mut buffers, answer.gpa(), head, true);
            self.add_data(&mut buffers, ask, ask.answer_bytes, true);
        } else {
            add(&mut buffers, answer.gpa(), PAGE, true);
        }
        let chain = if buffers.len() <= DIRECT_BUFFERS {
            state.queue.push(&buffers)
        } else {
            let table = self.table.expect("begun with a table");
            state.queue.push_table(&buffers, table.gpa())
        };
        // A slot's descriptors are always there: the queue has room for all slots.
        let chain = chain.expect("room for every slot");
        state.slots[self.slot].phase = Phase::Sent(chain, waits);
    }

    /// Sends a request and waits for its answer; gives the bytes of data in it.
    ///
    /// # Errors
    /// The request's own; `EIO` if the VMM does not answer.
    pub fn call(&mut self, frames: &Frames, ask: &Ask<'_>) -> Result<usize> {
        let counted = cpu::with_current(|t: &Thread| t.sched.in_libos(|| self.ask(frames, ask)));
        // Where no thread runs nobody's time is counted.
        counted.unwrap_or_else(|| self.ask(frames, ask))
    }

    fn ask(&mut self, frames: &Frames, ask: &Ask<'_>) -> Result<usize> {
        self.queue.post_forgotten(frames);
        self.push(ask, true);
        let slot = self.slot;
        let queue = self.queue;
        let bytes = ask.data_bytes + ask.answer_bytes;
        let is_answer = queue.serve_until(bytes, || match queue.state.lock().slots[slot].phase {
            Phase::Answered(good) => Some(good),
            _ => None,
        });
        if !is_answer {
            return Err(Errno::EIO);
        }
        answered(self.frames)
    }

    /// The answer's data, the first `len` bytes of them.
    #[must_use]
    pub fn answer(&self, len: usize) -> Vec<u8> {
        answer_bytes(self.frames, len)
    }

    /// The data buffer's first `len` bytes.
    #[must_use]
    pub fn bulk_bytes(&self, len: usize) -> Vec<u8> {
        let mut bytes = alloc::vec![0; len.min(BULK_BYTES)];
        read_frames(self.bulk(), &mut bytes);
        bytes
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state.lock();
            let slot = &mut state.slots[self.slot];
            slot.taken = false;
            slot.phase = Phase::Idle;
            let bulk = slot.bulk.take();
            state.bulks.extend(bulk);
        }
        self.queue.changed.wake_all();
    }
}
