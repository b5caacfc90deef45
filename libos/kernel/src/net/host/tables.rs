//! Interfaces, addresses and routes of the container's network, as the host's `NETLINK_ROUTE` tells them.

use alloc::string::String;
use alloc::vec::Vec;

use husk_abi::linux::net;

use super::route;
use crate::{Kernel, Result};

const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_DUMP: u16 = 0x301;
const HEADER: usize = 16;
/// `IFLA_IFNAME`, `IFLA_STATS64`.
const LINK_NAME: u16 = 3;
const LINK_STATS: u16 = 23;
/// `IFA_ADDRESS`.
const ADDRESS: u16 = 1;
/// `RTA_DST`, `RTA_OIF`, `RTA_GATEWAY`, `RTA_PRIORITY`.
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_INTERFACE: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_METRIC: u16 = 6;
/// `RT_TABLE_MAIN`.
const TABLE_MAIN: u8 = 254;

/// Messages one after the other: type and what follows the header.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    core::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let message = bytes.get(..len)?;
        let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
        let body = message.get(HEADER..)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The value of attribute `kind`.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some(head) = bytes.first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = bytes.get(4..len)?;
        if u16::from_ne_bytes([head[2], head[3]]) & 0x3fff == kind {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    word.map_or(0, |word| u32::from_ne_bytes(*word))
}

/// All messages of type `kind`, the answer to a dump of `family`.
fn dump(kernel: &Kernel, kind: u16, family: u32, head: usize) -> Result<Vec<Vec<u8>>> {
    let mut question = ((HEADER + head) as u32).to_ne_bytes().to_vec();
    question.extend_from_slice(&kind.to_ne_bytes());
    question.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
    question.resize(HEADER, 0);
    question.push(family as u8);
    question.resize(HEADER + head, 0);
    let answer = route(kernel, &question)?;
    // What answers a question to get has the number of what makes one.
    let wanted = messages(&answer).filter(|(other, _)| *other == kind - 2);
    Ok(wanted.map(|(_, body)| body.to_vec()).collect())
}

/// An interface.
#[derive(Debug)]
pub struct Link {
    /// Number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Counters, in the order of `struct rtnl_link_stats64`.
    pub counters: Vec<u64>,
}

/// All interfaces.
///
/// # Errors
/// As [`route`]; so for all that follow.
pub fn links(kernel: &Kernel) -> Result<Vec<Link>> {
    const BYTES: usize = 16;
    let link = |body: Vec<u8>| {
        let attributes = body.get(BYTES..).unwrap_or_default();
        let name = attribute(attributes, LINK_NAME).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let counters = attribute(attributes, LINK_STATS).unwrap_or_default();
        Link {
            index: word(&body, 4),
            name: String::from_utf8_lossy(name).into_owned(),
            counters: counters
                .chunks_exact(8)
                .map(|bytes| {
                    bytes
                        .first_chunk()
                        .map_or(0, |bytes| u64::from_ne_bytes(*bytes))
                })
                .collect(),
        }
    };
    Ok(dump(kernel, GET_LINK, net::AF_UNSPEC, BYTES)?
        .into_iter()
        .map(link)
        .collect())
}

/// An IPv6 address of an interface.
#[derive(Debug)]
pub struct Address6 {
    /// The interface.
    pub index: u32,
    /// The address.
    pub ip: u128,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// `IFA_F_*`.
    pub flags: u8,
}

/// All IPv6 addresses.
///
/// # Errors
/// As [`route`].
pub fn addresses6(kernel: &Kernel) -> Result<Vec<Address6>> {
    const BYTES: usize = 8;
    let address = |body: Vec<u8>| {
        let ip = attribute(body.get(BYTES..)?, ADDRESS)?.first_chunk()?;
        Some(Address6 {
            index: word(&body, 4),
            ip: u128::from_be_bytes(*ip),
            prefix: body[1],
            flags: body[2],
            scope: body[3],
        })
    };
    Ok(dump(kernel, GET_ADDRESS, net::AF_INET6, BYTES)?
        .into_iter()
        .filter_map(address)
        .collect())
}

/// A route of IPv4's main table; addresses as they stand in memory.
#[derive(Debug)]
pub struct Route4 {
    /// The interface.
    pub index: u32,
    /// The network.
    pub destination: u32,
    /// Length of its prefix.
    pub prefix: u8,
    /// The gateway, or 0.
    pub gateway: u32,
    /// Metric.
    pub metric: u32,
}

/// IPv4's main table.
///
/// # Errors
/// As [`route`].
pub fn routes4(kernel: &Kernel) -> Result<Vec<Route4>> {
    const BYTES: usize = 12;
    let entry = |body: Vec<u8>| {
        let attributes = body.get(BYTES..)?;
        let value = |kind| attribute(attributes, kind).map_or(0, |value| word(value, 0));
        (body[4] == TABLE_MAIN).then(|| Route4 {
            index: value(ROUTE_INTERFACE),
            destination: value(ROUTE_DESTINATION),
            prefix: body[1],
            gateway: value(ROUTE_GATEWAY),
            metric: value(ROUTE_METRIC),
        })
    };
    Ok(dump(kernel, GET_ROUTE, net::AF_INET, BYTES)?
        .into_iter()
        .filter_map(entry)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes() {
        let mut bytes = Vec::new();
        for kind in [16u16, 3] {
            bytes.extend_from_slice(&28u32.to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&[0; 10]);
            // An attribute of 5 bytes, and one of 4.
            bytes.extend_from_slice(&[5, 0, 9, 0, 7, 0, 0, 0, 4, 0, 3, 0]);
        }
        let found: Vec<(u16, &[u8])> = messages(&bytes).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].0, 16);
        assert_eq!(attribute(found[1].1, 9), Some([7].as_slice()));
        assert_eq!(attribute(found[1].1, 3), Some([].as_slice()));
        assert_eq!(attribute(found[1].1, 4), None);
        // Cut in the middle, and a length that leads nowhere.
        assert_eq!(messages(&bytes[..40]).count(), 1);
        assert_eq!(attribute(&[3, 0, 1, 0], 1), None);
    }
}
