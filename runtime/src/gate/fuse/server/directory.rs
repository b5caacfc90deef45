//! Listing directories.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::PoisonError;

use husk_abi::boundary::fuse::{Attr, Dirent, EntryOut, ForgetOne, ReadIn};
use rustix::fs::{FileType, RawDir, SeekFrom};
use rustix::io::Errno;

use super::{Answer, Server};
use crate::gate::fuse::tree;
use crate::gate::requests::message::{Reply, Request};

/// Bytes of directory entries read at once.
const BUFFER_BYTES: usize = 32 << 10;

/// `DT_*` of a kind.
fn entry_type(kind: FileType) -> u32 {
    kind.as_raw_mode() >> 12
}

impl Server {
    /// Entries with their attributes, each counted as told. Stops where the answer is full; an entry without a name is the
    /// end.
    pub(super) fn readdirplus(&self, request: &Request) -> Answer {
        let (args, _) = ReadIn::take(&request.body).ok_or(Errno::INVAL)?;
        let node = request.header.nodeid;
        let (directory, tree) = {
            let mut nodes = self.nodes();
            let tree = nodes.tree(node)?;
            (nodes.contents(node, false)?.0.fd, tree)
        };
        let room = request.room().min(args.size as usize);
        let mut data = Vec::with_capacity(room.min(BUFFER_BYTES));
        let mut told = Vec::new();
        let _listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::seek(&*directory, SeekFrom::Start(args.offset))?;
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(&*directory, &mut buffer);
        loop {
            let Some(entry) = entries.next() else {
                if data.len() + EntryOut::BYTES + Dirent::BYTES <= room {
                    EntryOut::default().put(&mut data);
                    Dirent::default().put(&mut data);
                }
                break;
            };
            let entry = match entry {
                Ok(entry) => entry,
                // What was read so far is good.
                Err(_) if !data.is_empty() => break,
                Err(errno) => return Err(errno),
            };
            let name = entry.file_name();
            let len = name.to_bytes().len();
            let bytes = EntryOut::BYTES + (Dirent::BYTES + len).next_multiple_of(8);
            if data.len() + bytes > room {
                if data.is_empty() {
                    return Err(Errno::INVAL);
                }
                break;
            }
            let described = match name.to_bytes() {
                b"." | b".." => None,
                _ => self.tell(tree, node, &directory, name),
            };
            let out = described.unwrap_or_default();
            if out.nodeid != 0 {
                told.push(ForgetOne {
                    nodeid: out.nodeid,
                    nlookup: 1,
                });
            }
            out.put(&mut data);
            let kind = if out.nodeid == 0 {
                entry_type(entry.file_type())
            } else {
                out.attr.mode >> 12
            };
            Dirent {
                ino: if out.nodeid == 0 {
                    entry.ino()
                } else {
                    out.attr.ino
                },
                off: entry.next_entry_cookie(),
                namelen: u32::try_from(len).map_err(|_| Errno::NAMETOOLONG)?,
                kind,
            }
            .put(&mut data);
            data.extend_from_slice(name.to_bytes());
            data.resize(data.len().next_multiple_of(8), 0);
        }
        Ok(Reply::Data(data))
    }

    /// The entry of `name`; nothing if it is gone again, or the guest knows too many files.
    fn tell(
        &self,
        tree: usize,
        parent: u64,
        directory: &std::os::fd::OwnedFd,
        name: &CStr,
    ) -> Option<EntryOut> {
        let stat = tree::stat_at(directory, name).ok()?;
        let key = self.trees[tree].key(&stat);
        let attr: Attr = self.trees[tree].attr(&stat, || tree::open_path(directory, name));
        let node = self.nodes().enter(parent, name, key, None).ok()?;
        Some(self.entry_out(tree, node, attr))
    }
}
