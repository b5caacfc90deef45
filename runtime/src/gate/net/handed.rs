//! Sockets that a process was handed from outside: open, bound or connected already, and of whatever network they were made in.

use husk_abi::boundary::net::{SocketOut, TakeIn};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::operations::Seen;
use super::table::Facts;
use super::{Sockets, raw};
use crate::gate::requests::Answer;
use crate::gate::requests::message::{Reply, Request};

impl Sockets {
    /// Gives one that was handed over a number.
    pub(super) fn take(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, _) = TakeIn::take(&request.body).ok_or(Errno::INVAL)?;
        if request.room() < SocketOut::BYTES {
            return Err(Errno::INVAL);
        }
        let reserved = self.table.reserve()?;
        let fd = self.handed.take(args.session, args.index)?;
        let option = |name| -> Result<u32, Errno> {
            let mut value = [0; 4];
            raw::get_option(&fd, libc::SOL_SOCKET, name, &mut value)?;
            Ok(u32::from_ne_bytes(value))
        };
        let family = option(libc::SO_DOMAIN)?;
        if !matches!(family.cast_signed(), libc::AF_INET | libc::AF_INET6) {
            return Err(Errno::AFNOSUPPORT);
        }
        let mut facts = Facts::new(family, option(libc::SO_TYPE)?, option(libc::SO_PROTOCOL)?);
        facts.own = raw::own_name(&fd).unwrap_or_default();
        facts.peer = raw::peer_name(&fd).unwrap_or_default();
        // No call may wait. The flag is the open socket's: whoever shares it sees that.
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        seen.addresses(&facts);
        // Events may come before the first operation, of one that listens as well.
        let socket = reserved.use_for(fd, facts, true)?;
        seen.socket = Some(socket);
        let mut out = Vec::with_capacity(SocketOut::BYTES);
        SocketOut { socket, padding: 0 }.put(&mut out);
        Ok(Reply::Data(out))
    }
}
