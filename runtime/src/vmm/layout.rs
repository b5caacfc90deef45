//! Where the VMM puts its own structures in guest RAM: right after the libOS image, page by page.

use husk_abi::boundary::boot::{GuestRange, MAX_VCPUS, VcpuBoot, Virtqueue};
use husk_abi::boundary::control::MAX_SESSIONS;
use husk_abi::boundary::layout::{PAGE_SIZE, PERCPU_PAGES};
use husk_abi::boundary::log::{LOG_BYTES, LogRing};
use husk_abi::boundary::net;

/// Descriptors of each virtqueue.
pub const QUEUE_SIZE: u16 = 128;
/// Bytes of a vCPU's record ring.
pub const RECORD_RING_BYTES: u64 = 1 << 20;

/// Hands out guest physical pages in order.
#[derive(Debug)]
pub struct Bump {
    next: u64,
}

impl Bump {
    pub fn from(gpa: u64) -> Self {
        Self {
            next: gpa.next_multiple_of(PAGE_SIZE),
        }
    }

    pub fn pages(&mut self, bytes: u64) -> GuestRange {
        let gpa = self.next;
        self.next += bytes.next_multiple_of(PAGE_SIZE);
        GuestRange { gpa, len: bytes }
    }

    pub fn page(&mut self) -> u64 {
        self.pages(PAGE_SIZE).gpa
    }

    pub fn end(&self) -> u64 {
        self.next
    }
}

/// Guest physical addresses of everything the VMM made.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are `BootInfo`'s")]
pub struct Layout {
    pub boot_info: u64,
    pub config: GuestRange,
    pub log: GuestRange,
    pub wall_clock: u64,
    pub record_filter: u64,
    pub host_events: u64,
    pub stdio_out: Virtqueue,
    pub stdio_in: Virtqueue,
    pub fuse: Virtqueue,
    pub truncated: u64,
    pub sockets: GuestRange,
    pub control_in: Virtqueue,
    pub control_out: Virtqueue,
    pub sessions: u64,
    pub vcpus: Vec<VcpuBoot>,
}

impl Layout {
    pub(super) fn new(bump: &mut Bump, vcpus: u32, config_bytes: u64, has_sockets: bool) -> Self {
        assert!(vcpus as usize <= MAX_VCPUS);
        let mut queue = || {
            let size = u64::from(QUEUE_SIZE);
            Virtqueue {
                desc_gpa: bump.pages(size * 16).gpa,
                avail_gpa: bump.pages(6 + size * 2).gpa,
                used_gpa: bump.pages(6 + size * 8).gpa,
                size: u32::from(QUEUE_SIZE),
                reserved: 0,
            }
        };
        let (stdio_out, stdio_in, fuse) = (queue(), queue(), queue());
        let (control_in, control_out) = (queue(), queue());
        Self {
            boot_info: bump.page(),
            config: bump.pages(config_bytes),
            log: bump.pages(size_of::<LogRing>() as u64 + LOG_BYTES as u64),
            wall_clock: bump.page(),
            record_filter: bump.page(),
            host_events: bump.page(),
            stdio_out,
            stdio_in,
            fuse,
            truncated: bump.page(),
            sockets: if has_sockets {
                bump.pages(net::AREA_BYTES)
            } else {
                GuestRange::default()
            },
            control_in,
            control_out,
            sessions: bump.pages(u64::from(MAX_SESSIONS) * PAGE_SIZE).gpa,
            vcpus: (0..vcpus)
                .map(|_| VcpuBoot {
                    pml4_gpa: bump.page(),
                    percpu_gpa: bump.pages(PERCPU_PAGES * PAGE_SIZE).gpa,
                    records: bump.pages(RECORD_RING_BYTES),
                })
                .collect(),
        }
    }
}
