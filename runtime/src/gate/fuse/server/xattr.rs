//! Extended attributes.

use std::ffi::CStr;

use husk_abi::boundary::fuse::SetxattrIn;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{Answer, Server};
use crate::gate::fuse::tree;
use crate::gate::requests::message::{self, Reply, Request};

/// The most a value or a list of names can be (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX_BYTES: usize = 64 << 10;

fn attribute_name(bytes: &[u8]) -> Result<(&CStr, &[u8]), Errno> {
    let (name, rest) = message::string(bytes)?;
    match name.to_bytes().len() {
        0 | 256.. => Err(Errno::RANGE),
        _ => Ok((name, rest)),
    }
}

impl Server {
    pub(super) fn getxattr(&self, request: &Request) -> Answer {
        let (name, _) = attribute_name(&request.body)?;
        let (file, _) = self.held(request.header.nodeid)?;
        let mut value = Vec::with_capacity(MAX_BYTES);
        let path = tree::magic_path(&*file);
        rustix::fs::getxattr(&*path, name, rustix::buffer::spare_capacity(&mut value))?;
        Ok(Reply::Data(value))
    }

    pub(super) fn listxattr(&self, request: &Request) -> Answer {
        let (file, _) = self.held(request.header.nodeid)?;
        let mut names = Vec::with_capacity(MAX_BYTES);
        let path = tree::magic_path(&*file);
        rustix::fs::listxattr(&*path, rustix::buffer::spare_capacity(&mut names))?;
        Ok(Reply::Data(names))
    }

    pub(super) fn setxattr(&self, request: &Request) -> Answer {
        let (args, rest) = SetxattrIn::take(&request.body).ok_or(Errno::INVAL)?;
        let (name, rest) = attribute_name(rest)?;
        let value = rest.get(..args.size as usize).ok_or(Errno::INVAL)?;
        let flags = XattrFlags::from_bits(args.flags).ok_or(Errno::INVAL)?;
        let (file, tree) = self.held_to_change(request.header.nodeid)?;
        rustix::fs::setxattr(&*tree::magic_path(&*file), name, value, flags)?;
        self.reply_attr(tree, &file)
    }

    pub(super) fn removexattr(&self, request: &Request) -> Answer {
        let (name, _) = attribute_name(&request.body)?;
        let (file, tree) = self.held_to_change(request.header.nodeid)?;
        rustix::fs::removexattr(&*tree::magic_path(&*file), name)?;
        self.reply_attr(tree, &file)
    }
}
