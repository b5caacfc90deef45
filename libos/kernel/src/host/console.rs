//! A session's standard streams over its two queues (`abi::boundary::stdio`).
//!
//! Output is copied into a buffer and queued: nobody waits for the host, unless all buffers are in use; that is
//! the back-pressure. Input is asked for when a program reads: what the program did not take (a signal came)
//! stays here for the next read.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use husk_abi::boundary::boot;
use husk_abi::boundary::config::WindowSize;
use husk_abi::boundary::doorbell;
use husk_abi::boundary::stdio::{
    CONTROL_BYTES, IN_READ, IN_WAIT, InReply, InRequest, OUT_CONTROL, OUT_SETTINGS, OUT_WRITE,
    OutHeader, SETTINGS_BYTES,
};
use husk_hal::doorbell as bell;
use husk_hal::phys::{self, Frame};

use super::virtqueue::{Buffer, Virtqueue};
use crate::fs::PollEvents;
use crate::fs::poll::PollTable;
use crate::fs::terminal::Terminal;
use crate::sync::{Interruptible, SpinLock, WaitQueue};
use crate::user::IoBuf;
use crate::{Errno, Result, Thread};

/// Frames of one output buffer: header and payload.
const OUT_FRAMES: u64 = 4;
const OUT_BYTES: usize = (OUT_FRAMES as usize) * 4096 - size_of::<OutHeader>();
/// Output buffers; with the payload above, 256 KiB may be under way.
const OUT_BUFFERS: usize = 16;
/// Bytes asked for at most by one input request.
const IN_BYTES: usize = 4096 - size_of::<InRequest>() - size_of::<InReply>();

#[derive(Debug)]
struct Output {
    queue: Virtqueue,
    /// Buffers not in use: first frame of each.
    free: Vec<Frame>,
    busy: Vec<Busy>,
    allocated: usize,
    /// Errno, or 0, of what somebody waits for, by ticket.
    answers: Vec<(u64, u32)>,
    next_ticket: u64,
}

/// A buffer under way.
#[derive(Debug)]
struct Busy {
    chain: u16,
    frame: Frame,
    stream: u32,
    /// Who waits for it.
    ticket: Option<u64>,
}

#[derive(Debug)]
struct Input {
    queue: Virtqueue,
    /// The one buffer: request, reply, data.
    frame: Option<Frame>,
    /// The operation under way, 0 for none.
    pending: u32,
    data: VecDeque<u8>,
    /// End of file or an error, to be reported when `data` is empty.
    end: Option<Result<()>>,
    /// The host said that a read would not block.
    readable: bool,
}

/// The three streams.
#[derive(Debug)]
pub struct Console {
    /// The session they belong to; 0 is init's.
    pub session: u32,
    /// The terminal they are, if they are one.
    pub terminal: Terminal,
    is_terminal: AtomicBool,
    output: SpinLock<Output>,
    input: SpinLock<Input>,
    /// Errno of a stream that failed on the host, by stream number.
    failed: [AtomicU32; 3],
    /// Woken when output buffers become free or a stream fails.
    pub writable: Arc<WaitQueue>,
    /// Woken when input arrives.
    pub readable: Arc<WaitQueue>,
    kernel: spin::Once<&'static crate::Kernel>,
}

fn put_header(frame: Frame, stream: u32, op: u32) {
    phys::write(frame, 0, &stream.to_le_bytes());
    phys::write(frame, 4, &op.to_le_bytes());
}

impl Drop for Console {
    /// The VMM has let go of it: nothing is under way.
    fn drop(&mut self) {
        let frames = &self.kernel().frames;
        let output = self.output.lock();
        let busy = output.busy.iter().map(|busy| &busy.frame);
        for frame in output.free.iter().chain(busy) {
            frames.free_contiguous(*frame, OUT_FRAMES);
        }
        if let Some(frame) = self.input.lock().frame {
            frames.put(frame);
        }
    }
}

impl Console {
    pub(super) fn new(session: u32, output: boot::Virtqueue, input: boot::Virtqueue) -> Self {
        Self {
            session,
            terminal: Terminal::new(),
            is_terminal: AtomicBool::new(false),
            output: SpinLock::new(Output {
                queue: Virtqueue::new(output),
                free: Vec::new(),
                busy: Vec::new(),
                allocated: 0,
                answers: Vec::new(),
                next_ticket: 0,
            }),
            input: SpinLock::new(Input {
                queue: Virtqueue::new(input),
                frame: None,
                pending: 0,
                data: VecDeque::new(),
                end: None,
                readable: false,
            }),
            failed: [const { AtomicU32::new(0) }; 3],
            writable: Arc::new(WaitQueue::new()),
            readable: Arc::new(WaitQueue::new()),
            kernel: spin::Once::new(),
        }
    }

    pub(crate) fn attach(&self, kernel: &'static crate::Kernel) {
        self.kernel.call_once(|| kernel);
    }

    /// Makes the terminal that of session `session`, of that size.
    pub fn becomes_terminal(&self, session: u32, size: Option<WindowSize>) {
        self.terminal.belong_to(session);
        if let Some(size) = size {
            self.terminal.take_size(size);
        }
        self.is_terminal.store(true, Ordering::Release);
    }

    /// Whether the streams are a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.is_terminal.load(Ordering::Acquire)
    }

    fn kernel(&self) -> &'static crate::Kernel {
        self.kernel.get().expect("attached at boot")
    }

    fn failure(&self, stream: u32) -> Option<Errno> {
        match self.failed.get(stream as usize)?.load(Ordering::Acquire) {
            0 => None,
            code => Some(Errno::from_code(i32::try_from(code).unwrap_or(5))),
        }
    }

    /// A free output buffer, if there is one or may be one more.
    fn take_buffer(&self) -> Option<Frame> {
        let mut output = self.output.lock();
        if let Some(frame) = output.free.pop() {
            return Some(frame);
        }
        if output.allocated == OUT_BUFFERS {
            output.queue.want_interrupts(true);
            drop(output);
            // The device may have finished before it saw that an interrupt is wanted.
            self.poll_output();
            return self.output.lock().free.pop();
        }
        let frame = self.kernel().frames.alloc_contiguous(OUT_FRAMES).ok()?;
        if output.allocated == 0 {
            // Nobody waits for the device until all buffers are in use.
            output.queue.want_interrupts(false);
        }
        output.allocated += 1;
        Some(frame)
    }

    /// Writes from `buf` to stream 1 or 2, as much as there are buffers for.
    ///
    /// # Errors
    /// What the host's write gave earlier (`EPIPE`, ...), `EAGAIN`, `ERESTARTSYS`, `EFAULT`.
    pub fn write(
        &self,
        t: &Thread,
        stream: u32,
        buf: &mut IoBuf<'_>,
        nonblocking: bool,
    ) -> Result<usize> {
        let mut written = 0;
        while buf.remaining() > 0 {
            if let Some(errno) = self.failure(stream) {
                return if written > 0 { Ok(written) } else { Err(errno) };
            }
            let frame = match self.take_buffer() {
                Some(frame) => frame,
                None if nonblocking && written > 0 => return Ok(written),
                None if nonblocking => return Err(Errno::EAGAIN),
                None => {
                    let got = self
                        .writable
                        .wait(t, Interruptible::Yes, None, || self.take_buffer());
                    match got {
                        Ok(frame) => frame,
                        Err(_) if written > 0 => return Ok(written),
                        Err(_) => return Err(Errno::ERESTARTSYS),
                    }
                }
            };
            match self.fill(frame, stream, buf).and_then(|moved| {
                self.send(frame, stream, moved, None)?;
                Ok(moved)
            }) {
                Ok(moved) => written += moved,
                Err(error) => {
                    self.output.lock().free.push(frame);
                    return if written > 0 { Ok(written) } else { Err(error) };
                }
            }
        }
        Ok(written)
    }

    /// Gives the terminal behind `stream` other settings, a `struct termios`, after all that was written before.
    ///
    /// # Errors
    /// What the host gives, `ERESTARTSYS`.
    pub fn set_settings(
        &self,
        t: &Thread,
        stream: u32,
        settings: &[u8; SETTINGS_BYTES],
    ) -> Result<()> {
        self.ask(t, stream, OUT_SETTINGS, settings)
    }

    /// `TCFLSH` or `TCSBRK` of the terminal behind `stream`, after all that was written before.
    ///
    /// # Errors
    /// What the host gives, `ERESTARTSYS`.
    pub fn control(&self, t: &Thread, stream: u32, request: u32, argument: u32) -> Result<()> {
        let mut bytes = [0; CONTROL_BYTES];
        bytes[..4].copy_from_slice(&request.to_le_bytes());
        bytes[4..].copy_from_slice(&argument.to_le_bytes());
        self.ask(t, stream, OUT_CONTROL, &bytes)
    }

    /// Has the VMM do something with a stream in its turn, and waits until it is done.
    fn ask(&self, t: &Thread, stream: u32, op: u32, bytes: &[u8]) -> Result<()> {
        let interrupted = |_| Errno::ERESTARTSYS;
        let frame = self
            .writable
            .wait(t, Interruptible::Yes, None, || self.take_buffer())
            .map_err(interrupted)?;
        put_header(frame, stream, op);
        phys::write(frame, size_of::<OutHeader>(), bytes);
        let ticket = {
            let mut output = self.output.lock();
            output.next_ticket += 1;
            output.next_ticket
        };
        if let Err(errno) = self.send(frame, stream, bytes.len(), Some(ticket)) {
            self.output.lock().free.push(frame);
            return Err(errno);
        }
        let answer = self.writable.wait(t, Interruptible::Yes, None, || {
            self.poll_output();
            let mut output = self.output.lock();
            let at = output
                .answers
                .iter()
                .position(|answer| answer.0 == ticket)?;
            Some(output.answers.swap_remove(at).1)
        });
        match answer {
            Ok(0) => Ok(()),
            Ok(errno) => Err(Errno::from_code(i32::try_from(errno).unwrap_or(5))),
            Err(_) => {
                let mut output = self.output.lock();
                output.answers.retain(|answer| answer.0 != ticket);
                let waited = output.busy.iter_mut();
                waited
                    .filter(|busy| busy.ticket == Some(ticket))
                    .for_each(|busy| busy.ticket = None);
                Err(Errno::ERESTARTSYS)
            }
        }
    }

    /// Fills an output buffer from `buf`; gives the bytes moved.
    fn fill(&self, first: Frame, stream: u32, buf: &mut IoBuf<'_>) -> Result<usize> {
        let header = size_of::<OutHeader>();
        put_header(first, stream, OUT_WRITE);
        let want = buf.remaining().min(OUT_BYTES);
        let mut moved = 0;
        while moved < want {
            let at = header + moved;
            let (frame, offset) = (first.offset(at as u64 / 4096), at % 4096);
            let len = (4096 - offset).min(want - moved);
            match buf.take_frame(frame, offset, len) {
                Ok(got) => {
                    moved += got;
                    if got < len {
                        break;
                    }
                }
                Err(error) if moved == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(moved)
    }

    /// Queues a filled output buffer of `len` bytes after its header.
    fn send(&self, first: Frame, stream: u32, len: usize, ticket: Option<u64>) -> Result<()> {
        let mut output = self.output.lock();
        if ticket.is_some() {
            output.queue.want_interrupts(true);
        }
        let buffer = Buffer {
            gpa: first.gpa(),
            len: (size_of::<OutHeader>() + len) as u32,
            device_writes: false,
        };
        let Some(chain) = output.queue.push(&[buffer]) else {
            return Err(Errno::EIO);
        };
        output.busy.push(Busy {
            chain,
            frame: first,
            stream,
            ticket,
        });
        let notify = output.queue.wants_notification();
        drop(output);
        if notify {
            bell::ring(doorbell::STDIO_OUT, self.session);
        }
        Ok(())
    }

    fn poll_output(&self) -> bool {
        let mut output = self.output.lock();
        let mut any = false;
        while let Some((chain, errno)) = output.queue.pop_used() {
            let Some(at) = output.busy.iter().position(|busy| busy.chain == chain) else {
                continue;
            };
            let busy = output.busy.swap_remove(at);
            output.free.push(busy.frame);
            if let Some(ticket) = busy.ticket {
                output.answers.push((ticket, errno));
            } else if errno != 0
                && let Some(failed) = self.failed.get(busy.stream as usize)
            {
                failed.store(errno, Ordering::Release);
            }
            any = true;
        }
        if any && output.busy.iter().all(|busy| busy.ticket.is_none()) {
            output.queue.want_interrupts(false);
        }
        any
    }

    /// Looks what the VMM has done.
    pub(super) fn poll(&self) {
        if self.poll_output() {
            self.writable.wake_all();
        }
        if self.poll_input() {
            self.readable.wake_all();
        }
    }

    fn poll_input(&self) -> bool {
        let mut input = self.input.lock();
        let mut any = false;
        while input.queue.pop_used().is_some() {
            let operation = core::mem::replace(&mut input.pending, 0);
            let Some(frame) = input.frame else { continue };
            let mut reply = [0; 8];
            phys::read(frame, size_of::<InRequest>(), &mut reply);
            let [e0, e1, e2, e3, l0, l1, l2, l3] = reply;
            let error = u32::from_le_bytes([e0, e1, e2, e3]);
            let len = (u32::from_le_bytes([l0, l1, l2, l3]) as usize).min(IN_BYTES);
            any = true;
            if error != 0 {
                input.end = Some(Err(Errno::from_code(i32::try_from(error).unwrap_or(5))));
            } else if operation == IN_WAIT {
                input.readable = true;
            } else if len == 0 {
                input.end = Some(Ok(()));
            } else {
                let mut bytes = alloc::vec![0; len];
                phys::read(
                    frame,
                    size_of::<InRequest>() + size_of::<InReply>(),
                    &mut bytes,
                );
                input.data.extend(bytes);
            }
        }
        any
    }

    /// Asks the host for input, unless a request is under way. A `READ` may follow a `WAIT` that is.
    fn request(&self, op: u32, len: usize) -> Result<()> {
        let frame = match self.input.lock().frame {
            Some(frame) => frame,
            None => self.kernel().frames.alloc()?,
        };
        let mut input = self.input.lock();
        input.frame = Some(frame);
        if input.pending != 0 {
            return Ok(());
        }
        input.readable = false;
        phys::write(frame, 0, &op.to_le_bytes());
        phys::write(frame, 4, &(len.min(IN_BYTES) as u32).to_le_bytes());
        let request = size_of::<InRequest>() as u32;
        let chain = input.queue.push(&[
            Buffer {
                gpa: frame.gpa(),
                len: request,
                device_writes: false,
            },
            Buffer {
                gpa: frame.gpa() + u64::from(request),
                len: 4096 - request,
                device_writes: true,
            },
        ]);
        if chain.is_none() {
            return Err(Errno::EIO);
        }
        input.pending = op;
        drop(input);
        bell::ring(doorbell::STDIO_IN, self.session);
        Ok(())
    }

    /// Moves what has arrived; `None` if nothing has.
    fn take_input(&self, bytes: &mut Vec<u8>, want: usize) -> Option<Result<()>> {
        let mut input = self.input.lock();
        if !input.data.is_empty() {
            let len = want.min(input.data.len());
            bytes.extend(input.data.drain(..len));
            return Some(Ok(()));
        }
        // End of file on a terminal is not for ever: the next read asks again.
        input.end.take()
    }

    /// Reads from standard input into `buf`; 0 is end of file.
    ///
    /// # Errors
    /// What the host's read gave, `EAGAIN`, `ERESTARTSYS`, `EFAULT`.
    pub fn read(&self, t: &Thread, buf: &mut IoBuf<'_>, nonblocking: bool) -> Result<usize> {
        if buf.remaining() == 0 {
            return Ok(0);
        }
        let want = buf.remaining().min(IN_BYTES);
        let mut bytes = Vec::new();
        self.poll_input();
        let outcome = match self.take_input(&mut bytes, want) {
            Some(outcome) => outcome,
            None if nonblocking && !self.input.lock().readable => {
                self.request(IN_WAIT, 0)?;
                return Err(Errno::EAGAIN);
            }
            None => self
                .readable
                .wait(t, Interruptible::Yes, None, || {
                    self.take_input(&mut bytes, want)
                        .or_else(|| self.request(IN_READ, want).err().map(Err))
                })
                .map_err(|_| Errno::ERESTARTSYS)?,
        };
        outcome?;
        let moved = buf.put(&bytes)?;
        // What could not be stored is not lost.
        let mut input = self.input.lock();
        for byte in bytes[moved..].iter().rev() {
            input.data.push_front(*byte);
        }
        Ok(moved)
    }

    /// Readiness of standard input; asks the host if it is not known.
    pub fn poll_in(&self, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.readable);
        }
        self.poll_input();
        let (ready, asked) = {
            let input = self.input.lock();
            (
                !input.data.is_empty() || input.end.is_some() || input.readable,
                input.pending != 0,
            )
        };
        if !ready && !asked {
            let _ = self.request(IN_WAIT, 0);
        }
        if ready {
            PollEvents::IN | PollEvents::RDNORM
        } else {
            PollEvents::empty()
        }
    }

    /// Readiness of standard output or error.
    pub fn poll_out(&self, stream: u32, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.writable);
        }
        if self.failure(stream).is_some() {
            return PollEvents::ERR | PollEvents::OUT | PollEvents::WRNORM;
        }
        self.poll_output();
        let mut output = self.output.lock();
        if output.free.is_empty() && output.allocated == OUT_BUFFERS {
            output.queue.want_interrupts(true);
            return PollEvents::empty();
        }
        PollEvents::OUT | PollEvents::WRNORM
    }
}
