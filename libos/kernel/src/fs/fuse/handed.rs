//! Messages about channels of what a process was handed from outside.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::fuse::{
    Attr, AttrOut, CHANNEL_AT, ChannelFileIn, ChannelFileOut, ChannelOpenOut, ChannelTakeIn,
    FILE_RESIZE, FILE_STAT, FILE_SYNC, MAX_CHANNEL_DATA, op,
};

use super::Channel;
use super::calls::{ask, call, channel_body, read_channel};
use crate::user::IoBuf;
use crate::{Errno, Kernel, Result};

impl Channel {
    /// Takes the descriptor number `index` of those the process of `session` was handed.
    ///
    /// # Errors
    /// `ENFILE`; `EBADF` if it was taken.
    pub fn take(kernel: &'static Kernel, session: u32, index: u32) -> Result<Arc<Self>> {
        let mut body = Vec::new();
        ChannelTakeIn { session, index }.put(&mut body);
        let answer = call(kernel, &ask(op::CHANNEL_TAKE, 0, &body))?;
        Self::opened(kernel, &answer)
    }

    fn opened(kernel: &'static Kernel, answer: &[u8]) -> Result<Arc<Self>> {
        let (out, _) = ChannelOpenOut::take(answer).ok_or(Errno::EIO)?;
        Ok(Self::enter(kernel, None, out.channel, (out.uid, out.gid)))
    }

    /// The next connection of a socket that listens.
    ///
    /// # Errors
    /// `EAGAIN` if there is none; as `accept(2)`.
    pub fn accept(&self) -> Result<Arc<Self>> {
        let (node, id) = self.place();
        let body = channel_body(id, 0, 0);
        let answer = call(self.kernel, &ask(op::CHANNEL_ACCEPT, node, &body))?;
        Self::opened(self.kernel, &answer)
    }

    /// Reads from a file at `offset`.
    ///
    /// # Errors
    /// As `pread(2)`.
    pub fn read_at(&self, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let (node, id) = self.place();
        let len = buf.remaining().min(MAX_CHANNEL_DATA);
        let mut body = channel_body(id, CHANNEL_AT, len);
        body.extend_from_slice(&offset.to_le_bytes());
        let bytes = read_channel(self.kernel, node, &body, len)?;
        buf.put(&bytes)
    }

    /// Writes to a file at `offset`; gives how much was written.
    ///
    /// # Errors
    /// As `pwrite(2)`.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize> {
        let (node, id) = self.place();
        let mut body = channel_body(id, CHANNEL_AT, bytes.len());
        body.extend_from_slice(&offset.to_le_bytes());
        body.extend_from_slice(bytes);
        let answer = call(self.kernel, &ask(op::CHANNEL_WRITE, node, &body))?;
        let written = answer.first_chunk().ok_or(Errno::EIO)?;
        Ok((u32::from_le_bytes(*written) as usize).min(bytes.len()))
    }

    fn file(&self, what: u32, argument: u64) -> Result<Vec<u8>> {
        let (node, channel) = self.place();
        let mut body = Vec::new();
        ChannelFileIn {
            channel,
            what,
            argument,
        }
        .put(&mut body);
        call(self.kernel, &ask(op::CHANNEL_FILE, node, &body))
    }

    /// Moves a file's position on the host (`lseek(2)`); gives where it is then.
    ///
    /// # Errors
    /// As `lseek(2)`.
    pub fn seek(&self, offset: i64, whence: u32) -> Result<u64> {
        let answer = self.file(whence, offset.cast_unsigned())?;
        let (out, _) = ChannelFileOut::take(&answer).ok_or(Errno::EIO)?;
        Ok(out.value)
    }

    /// Gives a file another size.
    ///
    /// # Errors
    /// As `ftruncate(2)`.
    pub fn resize(&self, bytes: u64) -> Result<()> {
        self.file(FILE_RESIZE, bytes).map(drop)
    }

    /// Writes a file's contents to the disk.
    ///
    /// # Errors
    /// As `fsync(2)`.
    pub fn sync(&self, data_only: bool) -> Result<()> {
        self.file(FILE_SYNC, data_only.into()).map(drop)
    }

    /// A file's attributes.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn attr(&self) -> Result<Attr> {
        let answer = self.file(FILE_STAT, 0)?;
        let (out, _) = AttrOut::take(&answer).ok_or(Errno::EIO)?;
        Ok(out.attr)
    }

    /// An `ioctl(2)` about a terminal; `argument` is changed.
    ///
    /// # Errors
    /// `ENOTTY` for what the VMM does not know; the host's.
    pub fn terminal(&self, request: u32, argument: &mut [u8]) -> Result<()> {
        let (node, id) = self.place();
        let mut body = channel_body(id, request, argument.len());
        body.extend_from_slice(argument);
        let answer = call(self.kernel, &ask(op::CHANNEL_TERMINAL, node, &body))?;
        let answer = answer.get(..argument.len()).ok_or(Errno::EIO)?;
        argument.copy_from_slice(answer);
        Ok(())
    }
}
