//! `/proc/PID/net`.

use husk_abi::linux::net::{AF_INET, AF_INET6};

use super::row::{Row, file};
use super::subject::Subject;
use super::text::Text;
use crate::net::host::tables;
use crate::net::proc::{self, InetLine};
use crate::{Kernel, Result, Thread};

/// The files of the directory.
pub(super) const TABLE: &[Row] = &[
    file("arp", |_, _, text| {
        write!(
            text,
            "IP address       HW type     Flags       HW address            Mask     Device\n"
        );
        Ok(())
    }),
    file("dev", dev),
    file("if_inet6", |_, subject, text| {
        if subject.kernel.net.host.is_available() {
            return addresses6(subject.kernel, text);
        }
        write!(text, "{:032x} 01 80 10 80 {:>8}\n", 1, "lo");
        Ok(())
    }),
    file("packet", |_, _, text| {
        write!(
            text,
            "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n"
        );
        Ok(())
    }),
    file("raw", |_, _, text| {
        header(text, AF_INET, "  sl", " ref pointer drops");
        Ok(())
    }),
    file("raw6", |_, _, text| {
        header(text, AF_INET6, "  sl", " ref pointer drops");
        Ok(())
    }),
    file("route", |_, subject, text| {
        write!(
            text,
            "{:<127}\n",
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
        );
        if subject.kernel.net.host.is_available() {
            routes4(subject.kernel, text)?;
        }
        Ok(())
    }),
    file("sockstat", |_, subject, text| {
        let tcp = proc::tcp(subject.kernel, AF_INET).len();
        let udp = proc::udp(subject.kernel, AF_INET).len();
        let unix = proc::unix(subject.kernel).len();
        write!(
            text,
            "sockets: used {}\nTCP: inuse {tcp} orphan 0 tw 0 alloc {tcp} mem 0\nUDP: inuse {udp} mem 0\n\
             UDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n",
            tcp + udp + unix
        );
        Ok(())
    }),
    file("tcp", |_, subject, text| {
        header(text, AF_INET, "  sl", "");
        tcp_lines(text, AF_INET, &proc::tcp(subject.kernel, AF_INET));
        Ok(())
    }),
    file("tcp6", |_, subject, text| {
        header(text, AF_INET6, "  sl", "");
        tcp_lines(text, AF_INET6, &proc::tcp(subject.kernel, AF_INET6));
        Ok(())
    }),
    file("udp", |_, subject, text| {
        header(text, AF_INET, "   sl", " ref pointer drops");
        udp_lines(text, AF_INET, &proc::udp(subject.kernel, AF_INET));
        Ok(())
    }),
    file("udp6", |_, subject, text| {
        header(text, AF_INET6, "  sl", " ref pointer drops");
        udp_lines(text, AF_INET6, &proc::udp(subject.kernel, AF_INET6));
        Ok(())
    }),
    file("unix", unix),
];

fn unix(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    write!(
        text,
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
    );
    for line in proc::unix(subject.kernel) {
        write!(
            text,
            "{:016x}: {:08X} {:08X} {:08X} {:04X} {:02X} {:5}",
            0, line.references, 0, line.flags, line.kind, line.state, line.ino
        );
        if !line.path.is_empty() {
            text.push(b" ");
            text.push(&line.path);
        }
        text.push(b"\n");
    }
    Ok(())
}

fn dev(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    write!(
        text,
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo \
         colls carrier compressed\n"
    );
    if !subject.kernel.net.host.is_available() {
        // Nothing is counted: there are no packets.
        counters(text, "lo", &[]);
        return Ok(());
    }
    for link in tables::links(subject.kernel)? {
        counters(text, &link.name, &link.counters);
    }
    Ok(())
}

/// A line of `dev`; `counters` are those of `struct rtnl_link_stats64`.
fn counters(text: &mut Text, name: &str, counters: &[u64]) {
    let at = |index: usize| counters.get(index).copied().unwrap_or(0);
    let sum = |indices: &[usize]| indices.iter().map(|index| at(*index)).sum::<u64>();
    write!(
        text,
        "{name:>6}: {:7} {:7} {:4} {:4} {:4} {:5} {:10} {:9}",
        at(2),
        at(0),
        at(4),
        sum(&[6, 15]),
        at(13),
        sum(&[10, 11, 12, 14]),
        at(22),
        at(8)
    );
    write!(
        text,
        " {:8} {:7} {:4} {:4} {:4} {:5} {:7} {:10}\n",
        at(3),
        at(1),
        at(5),
        at(7),
        at(18),
        at(9),
        sum(&[16, 17, 19, 20]),
        at(23)
    );
}

fn addresses6(kernel: &Kernel, text: &mut Text) -> Result<()> {
    /// `RT_SCOPE_HOST`, `RT_SCOPE_LINK`, and how this file shows them.
    const SCOPES: [(u8, u8); 2] = [(254, 0x10), (253, 0x20)];
    let links = tables::links(kernel)?;
    for address in tables::addresses6(kernel)? {
        let link = links.iter().find(|link| link.index == address.index);
        let scope = SCOPES.iter().find(|(scope, _)| *scope == address.scope);
        write!(
            text,
            "{:032x} {:02x} {:02x} {:02x} {:02x} {:>8}\n",
            address.ip,
            address.index,
            address.prefix,
            scope.map_or(0, |(_, shown)| *shown),
            address.flags,
            link.map_or("", |link| &link.name)
        );
    }
    Ok(())
}

fn routes4(kernel: &Kernel, text: &mut Text) -> Result<()> {
    /// `RTF_UP`, `RTF_GATEWAY`, `RTF_HOST`.
    const UP: u32 = 1;
    const GATEWAY: u32 = 2;
    const HOST: u32 = 4;
    let links = tables::links(kernel)?;
    for route in tables::routes4(kernel)? {
        let link = links.iter().find(|link| link.index == route.index);
        let mask = u32::MAX
            .checked_shl(32 - u32::from(route.prefix.min(32)))
            .unwrap_or(0);
        let mut flags = UP;
        flags |= if route.gateway == 0 { 0 } else { GATEWAY };
        flags |= if route.prefix == 32 { HOST } else { 0 };
        let start = text.len();
        write!(
            text,
            "{}\t{:08X}\t{:08X}\t{:04X}\t0\t0\t{}\t{:08X}\t0\t0\t0",
            link.map_or("*", |link| &link.name),
            route.destination,
            route.gateway,
            flags,
            route.metric,
            mask.to_be()
        );
        text.pad_to(start, 127);
        text.push(b"\n");
    }
    Ok(())
}

/// The first line; IPv6's columns of addresses are wider.
fn header(text: &mut Text, family: u32, number: &str, more: &str) {
    let start = text.len();
    let columns = "st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
    if family == AF_INET {
        write!(
            text,
            "{number}  local_address rem_address   {columns}{more}"
        );
        text.pad_to(start, if more.is_empty() { 149 } else { 127 });
    } else {
        write!(
            text,
            "{number}  {:<38}{:<38}{columns}{more}",
            "local_address", "remote_address"
        );
    }
    text.push(b"\n");
}

fn tcp_lines(text: &mut Text, family: u32, lines: &[InetLine]) {
    for (index, line) in lines.iter().enumerate() {
        let start = text.len();
        write!(
            text,
            "{index:4}: {} {} {:02X} {:08X}:{:08X} 00:{:08X} {:08X} {:5} {:8} {} 1 {:016x} 100 0 0 10 0",
            line.local, line.remote, line.state, 0, line.received, 0, 0, line.user, 0, line.ino, 0
        );
        if family == AF_INET {
            text.pad_to(start, 149);
        }
        text.push(b"\n");
    }
}

fn udp_lines(text: &mut Text, family: u32, lines: &[InetLine]) {
    for (index, line) in lines.iter().enumerate() {
        let start = text.len();
        write!(
            text,
            "{index:5}: {} {} {:02X} {:08X}:{:08X} 00:{:08X} {:08X} {:5} {:8} {} 2 {:016x} 0",
            line.local, line.remote, line.state, 0, line.received, 0, 0, line.user, 0, line.ino, 0
        );
        if family == AF_INET {
            text.pad_to(start, 127);
        }
        text.push(b"\n");
    }
}
