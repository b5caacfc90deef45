//! Moving the bytes of a stream.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use husk_abi::linux::net;

use super::names::to_bytes;
use super::queue::{Charge, MAX_PIECE, Message, stream_cost};
use super::rights::Rights;
use super::{Inner, Phase, UnixSocket};
use crate::net::control::{Item, Ucred};
use crate::net::options::Switches;
use crate::net::{Incoming, Outgoing, Patience};
use crate::signal;
use crate::{Errno, Result, SysResult, Thread};

/// Nobody, as a receiver that wants credentials sees a message without.
const NOBODY: Ucred = Ucred {
    pid: 0,
    uid: 65534,
    gid: 65534,
};

/// The control message that tells who sent something.
pub(super) fn credentials_item(credentials: Option<Ucred>) -> Item {
    Item::Plain {
        level: net::SOL_SOCKET,
        kind: net::SCM_CREDENTIALS,
        data: credentials.unwrap_or(NOBODY).to_bytes().to_vec(),
    }
}

/// What reading a step further found.
enum Step {
    /// Bytes to copy: they are taken out of message `number`, from `start` of `data` on.
    Copy {
        number: u64,
        data: Vec<u8>,
        start: usize,
        credentials: Option<Ucred>,
        carries_rights: bool,
    },
    /// Nothing now, or nothing more for this call.
    Stop,
    /// The stream has ended.
    End,
}

impl UnixSocket {
    /// Waits for room for a message and pays `cost` for it.
    ///
    /// # Errors
    /// The pending error, `EPIPE`, `EAGAIN`, and for signals as [`Patience::wait`].
    pub(super) fn pay(&self, t: &Thread, cost: usize, patience: Patience) -> Result<Charge> {
        let ready = || {
            if let Some(error) = self.base.take_error() {
                return Some(Err(error));
            }
            if self.inner.lock().shut.sending {
                return Some(Err(Errno::EPIPE));
            }
            if !self.outlet.has_room() {
                self.base.note_no_room();
            }
            // Looked at again: it may have come before it was known that it is missed.
            self.outlet.has_room().then(|| Ok(self.outlet.charge(cost)))
        };
        patience.wait(t, &self.base.writers, ready)?
    }

    /// Who sends, if the sender or `receiver` wants that told, or has not had a chance to say so.
    pub(super) fn told_credentials(&self, t: &Thread, receiver: &UnixSocket) -> Option<Ucred> {
        let wanted = self.passes_credentials()
            || receiver.passes_credentials()
            || receiver.inner.lock().is_embryo;
        wanted.then(|| Ucred::current(t))
    }

    /// Queues `message` here; `None` if this socket takes nothing any more.
    fn push(&self, mut message: Message, is_urgent: bool) -> Option<()> {
        let in_flight = &self.base.kernel.net.unix.in_flight;
        let mut table = message.rights.is_some().then(|| in_flight.lock());
        {
            let mut inner = self.inner.lock();
            if inner.is_dead || inner.shut.receiving {
                // The message goes without the locks.
                drop(inner);
                drop(table);
                drop(message);
                return None;
            }
            if let (Some(rights), Some(table)) = (&mut message.rights, &mut table) {
                rights.enter(table);
            }
            inner.push(message);
            if is_urgent {
                inner.urgent = Some(inner.next_message - 1);
            }
        }
        drop(table);
        self.base.readers.wake_all();
        Some(())
    }

    /// `send(2)` and the like.
    pub(super) fn send_stream(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> SysResult {
        let total = message.buf.remaining();
        let is_urgent = message.flags & net::MSG_OOB != 0;
        if is_urgent && total == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let (peer, phase, is_shut) = {
            let inner = self.inner.lock();
            (inner.peer.clone(), inner.phase, inner.shut.sending)
        };
        if message.destination().is_some() {
            return Err(if phase == Phase::Connected {
                Errno::EISCONN
            } else {
                Errno::EOPNOTSUPP
            });
        }
        let peer = peer.ok_or(Errno::ENOTCONN)?;
        let mut sent = 0;
        let result = if is_shut {
            Err(Errno::EPIPE)
        } else {
            self.send_pieces(t, message, &peer, is_urgent, total, &mut sent)
        };
        match result {
            Err(_) if sent > 0 => Ok(sent),
            Err(Errno::EPIPE) => {
                if message.flags & net::MSG_NOSIGNAL == 0 {
                    signal::raise_sigpipe(t);
                }
                Err(Errno::EPIPE)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(sent),
        }
    }

    fn send_pieces(
        &self,
        t: &Thread,
        message: &mut Outgoing<'_, '_>,
        peer: &Arc<UnixSocket>,
        is_urgent: bool,
        total: usize,
        sent: &mut usize,
    ) -> Result<()> {
        let patience = self.base.send_patience(message.is_nonblocking());
        let mut rights = Rights::new(t, mem::take(&mut message.control.rights))?;
        let credentials = message
            .control
            .credentials
            .or_else(|| self.told_credentials(t, peer));
        let ordinary = total - usize::from(is_urgent);
        while *sent < total {
            let piece_is_urgent = *sent == ordinary;
            let len = if piece_is_urgent {
                1
            } else {
                let most = (self.outlet.limit() / 2 - 64).min(MAX_PIECE);
                (ordinary - *sent).min(most)
            };
            let charge = self.pay(t, stream_cost(len), patience)?;
            let mut data = alloc::vec![0; len];
            if message.buf.take(&mut data)? < len {
                return Err(Errno::EFAULT);
            }
            let mut piece = Message::new(data, charge);
            piece.credentials = credentials;
            piece.rights = rights.take();
            peer.push(piece, piece_is_urgent).ok_or(Errno::EPIPE)?;
            *sent += len;
        }
        Ok(())
    }

    /// `recv(2)` and the like.
    pub(super) fn receive_stream(&self, t: &Thread, message: &mut Incoming<'_, '_>) -> SysResult {
        if self.inner.lock().phase != Phase::Connected {
            return Err(Errno::EINVAL);
        }
        let options = self.base.options();
        let inline = options.has(Switches::OOB_INLINE);
        if message.flags & net::MSG_OOB != 0 {
            return self.receive_urgent(message, inline);
        }
        let passes = options.has(Switches::PASS_CREDENTIALS);
        let size = message.buf.remaining();
        let target = if message.flags & net::MSG_WAITALL != 0 {
            size
        } else {
            size.min(options.receive_low_water)
        }
        .max(1);
        let patience = self.base.receive_patience(message.is_nonblocking());
        let mut reader = Reader {
            socket: self,
            is_peek: message.is_peek(),
            skip: 0,
            index: 0,
            inline,
            copied: 0,
            credentials: None,
            rights: Vec::new(),
        };
        if reader.is_peek && options.peek_offset >= 0 {
            reader.skip = options.peek_offset as usize;
        }
        let result = reader.run(t, message, passes, target, patience);
        let Reader {
            copied,
            credentials,
            rights,
            ..
        } = reader;
        if options.peek_offset >= 0 && copied > 0 {
            self.move_peek_offset(copied, message.is_peek());
        }
        if copied > 0 || result.is_ok() {
            if passes {
                message
                    .control
                    .push(credentials_item(credentials.flatten()));
            }
            if !rights.is_empty() {
                message.control.push(Item::Rights(rights));
            }
        }
        if copied > 0 {
            Ok(copied)
        } else {
            result.map(|()| 0)
        }
    }

    /// Where the next peek begins (`SO_PEEK_OFF`): further on after a peek, nearer after a read.
    pub(super) fn move_peek_offset(&self, by: usize, is_peek: bool) {
        self.base.edit_options(|options| {
            if options.peek_offset < 0 {
                return;
            }
            let by = i32::try_from(by).unwrap_or(i32::MAX);
            options.peek_offset = if is_peek {
                options.peek_offset.saturating_add(by)
            } else {
                options.peek_offset.saturating_sub(by).max(0)
            };
        });
    }

    /// `recv(2)` with `MSG_OOB`: the out-of-band byte alone.
    fn receive_urgent(&self, message: &mut Incoming<'_, '_>, inline: bool) -> SysResult {
        let _reading = self.reading.lock();
        let byte = {
            let mut inner = self.inner.lock();
            let number = inner.urgent.filter(|_| !inline).ok_or(Errno::EINVAL)?;
            if !message.is_peek() {
                inner.urgent = None;
            }
            let urgent = inner
                .messages
                .iter_mut()
                .find(|message| message.number == number)
                .ok_or(Errno::EINVAL)?;
            let byte = urgent.data.first().copied().ok_or(Errno::EINVAL)?;
            if !message.is_peek() {
                urgent.start = urgent.end;
            }
            byte
        };
        message.result_flags |= net::MSG_OOB;
        if message.buf.remaining() == 0 {
            message.result_flags |= net::MSG_TRUNC;
            return Ok(0);
        }
        message.buf.put(&[byte])
    }
}

impl Inner {
    /// Adds a message at the end.
    pub(super) fn push(&mut self, mut message: Message) {
        message.number = self.next_message;
        self.next_message += 1;
        self.messages.push_back(message);
    }

    /// The message to read at `index` or behind it: what was out of band is passed over, and thrown away by a
    /// reader that takes. After bytes were `copied` an out-of-band mark ends the call.
    fn past_mark(
        &mut self,
        index: usize,
        is_peek: bool,
        inline: bool,
        copied: bool,
        thrown: &mut Vec<Message>,
    ) -> Option<usize> {
        let mut index = index;
        let (number, len) = self
            .messages
            .get(index)
            .map(|message| (message.number, message.len()))?;
        if len > 0 && self.urgent != Some(number) {
            return Some(index);
        }
        if len == 0 {
            if copied && (self.urgent.is_none() || self.urgent == Some(number)) {
                return None;
            }
            if is_peek {
                index += 1;
            } else {
                thrown.extend(self.messages.remove(index));
            }
        }
        let number = self.messages.get(index)?.number;
        if self.urgent != Some(number) {
            return Some(index);
        }
        if copied {
            return None;
        }
        match (is_peek, inline) {
            (false, _) => {
                self.urgent = None;
                if !inline {
                    thrown.extend(self.messages.remove(index));
                }
            }
            (true, false) => index += 1,
            (true, true) => {}
        }
        (index < self.messages.len()).then_some(index)
    }
}

/// One receiving call.
struct Reader<'s> {
    socket: &'s UnixSocket,
    is_peek: bool,
    /// Bytes a peek leaves out at the beginning.
    skip: usize,
    /// The message a peek is at.
    index: usize,
    inline: bool,
    copied: usize,
    /// Whose bytes these are, once there are some: other writers' are not mixed in.
    credentials: Option<Option<Ucred>>,
    rights: Vec<crate::fs::FileRef>,
}

impl Reader<'_> {
    fn run(
        &mut self,
        t: &Thread,
        message: &mut Incoming<'_, '_>,
        passes: bool,
        target: usize,
        patience: Patience,
    ) -> Result<()> {
        loop {
            let reading = self.socket.reading.lock();
            let is_over = self.copy_available(message, passes)?;
            drop(reading);
            if is_over || self.copied >= target {
                return Ok(());
            }
            let (index, is_peek) = (self.index, self.is_peek);
            patience.wait(t, &self.socket.base.readers, || {
                let inner = self.socket.inner.lock();
                let waits = !inner.is_dead
                    && !inner.shut.receiving
                    && !self.socket.base.has_error()
                    && inner.messages.len() <= if is_peek { index } else { 0 };
                (!waits).then_some(())
            })?;
            if let Some(error) = self.socket.base.take_error()
                && self.is_empty()
            {
                return Err(error);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.socket.inner.lock().messages.len() <= self.index
    }

    /// Copies what is there; whether the call is over.
    fn copy_available(&mut self, message: &mut Incoming<'_, '_>, passes: bool) -> Result<bool> {
        loop {
            let (number, data, start, carries_rights) = match self.next(passes) {
                // What is left belongs to another call.
                Step::Stop => return Ok(self.copied > 0 && !self.is_empty()),
                Step::End => {
                    return match self.socket.base.take_error() {
                        Some(error) if self.copied == 0 => Err(error),
                        Some(error) => {
                            self.socket.base.set_error(error);
                            Ok(true)
                        }
                        None => Ok(true),
                    };
                }
                Step::Copy {
                    number,
                    data,
                    start,
                    credentials,
                    carries_rights,
                } => {
                    if passes && self.credentials.is_none() {
                        self.credentials = Some(credentials);
                    }
                    (number, data, start, carries_rights)
                }
            };
            if message.wants_address && message.address.is_empty() {
                let peer = self.socket.peer().and_then(|peer| peer.outlet.name());
                message.address = peer.map(|name| to_bytes(Some(name))).unwrap_or_default();
            }
            let put = message.buf.put(&data[start..]);
            self.give_back(number, data, start, put.unwrap_or(0), carries_rights);
            self.copied += put?;
            if carries_rights || message.buf.remaining() == 0 {
                return Ok(true);
            }
        }
    }

    /// Takes the next bytes out of the queue, leaving their message there.
    fn next(&mut self, passes: bool) -> Step {
        let mut thrown = Vec::new();
        let step = self.next_locked(passes, &mut thrown);
        drop(thrown);
        step
    }

    fn next_locked(&mut self, passes: bool, thrown: &mut Vec<Message>) -> Step {
        let mut inner = self.socket.inner.lock();
        loop {
            let copied = self.copied > 0;
            let found = inner.past_mark(self.index, self.is_peek, self.inline, copied, thrown);
            let Some(index) = found else {
                let at_end = self.index >= inner.messages.len();
                let is_over = inner.shut.receiving || inner.is_dead || self.socket.base.has_error();
                return if at_end && is_over {
                    Step::End
                } else {
                    Step::Stop
                };
            };
            self.index = if self.is_peek { index } else { 0 };
            let message = &mut inner.messages[index];
            if self.skip >= message.len() && self.skip > 0 {
                self.skip -= message.len();
                self.index += 1;
                continue;
            }
            if passes
                && self
                    .credentials
                    .is_some_and(|credentials| credentials != message.credentials)
            {
                return Step::Stop;
            }
            let start = message.start + mem::take(&mut self.skip);
            return Step::Copy {
                number: message.number,
                data: mem::take(&mut message.data),
                start,
                credentials: message.credentials,
                carries_rights: message.rights.is_some(),
            };
        }
    }

    /// Puts the bytes of message `number` back, `read` of them being read, and receives its descriptors.
    fn give_back(
        &mut self,
        number: u64,
        data: Vec<u8>,
        start: usize,
        read: usize,
        carries_rights: bool,
    ) {
        let in_flight = &self.socket.base.kernel.net.unix.in_flight;
        let mut table = carries_rights.then(|| in_flight.lock());
        let mut inner = self.socket.inner.lock();
        let Some(index) = inner
            .messages
            .iter()
            .position(|message| message.number == number)
        else {
            // Closed meanwhile.
            return;
        };
        let message = &mut inner.messages[index];
        message.data = data;
        if self.is_peek {
            if let Some(rights) = &message.rights {
                self.rights = rights.peek();
            }
            if start + read == message.end {
                self.index += 1;
            }
            return;
        }
        message.start = start + read;
        if read > 0
            && let Some(table) = &mut table
            && let Some(rights) = message.rights.take()
        {
            self.rights = rights.take(table);
        }
        if message.len() == 0 {
            let finished = inner.messages.remove(index);
            drop(inner);
            drop(table);
            drop(finished);
        }
    }
}
