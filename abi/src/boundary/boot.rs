//! The boot-info page: what the libOS knows when its first instruction runs.
//!
//! The VMM enters at the image's ELF entry at CPL 3 with `rdi` = virtual address of [`BootInfo`] (in the
//! direct map), `rsi` = vCPU index, `rsp` = [`super::layout::PERCPU_IDLE_STACK_TOP`], CR3 = that vCPU's
//! boot PML4, IF set.

/// `BootInfo::magic`.
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"huskboot");
/// The most vCPUs one guest may have.
pub const MAX_VCPUS: usize = 64;

/// A range of guest physical memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestRange {
    /// Guest physical address of the first byte.
    pub gpa: u64,
    /// Length in bytes; 0 means absent.
    pub len: u64,
}
super::assert_size!(GuestRange, 16);

/// The rings of one split virtqueue (virtio 1.2, section 2.7), in guest RAM.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Virtqueue {
    /// Guest physical address of the descriptor table.
    pub desc_gpa: u64,
    /// Guest physical address of the available ring.
    pub avail_gpa: u64,
    /// Guest physical address of the used ring.
    pub used_gpa: u64,
    /// Number of descriptors, a power of two.
    pub size: u32,
    /// Reserved, 0.
    pub reserved: u32,
}
super::assert_size!(Virtqueue, 32);

/// What one vCPU starts with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuBoot {
    /// Guest physical address of the vCPU's boot PML4 (upper half only: direct map, image, own region).
    pub pml4_gpa: u64,
    /// Frames of the vCPU's own region, [`super::layout::PERCPU_PAGES`] pages, contiguous.
    pub percpu_gpa: u64,
    /// The vCPU's record ring (header and data), see `super::record`.
    pub records: GuestRange,
}
super::assert_size!(VcpuBoot, 32);

/// Everything the libOS is told at boot; one page.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BootInfo {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// [`super::version::BOUNDARY_VERSION`] of the VMM.
    pub boundary_version: u32,
    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpu_count: u32,
    /// Guest RAM starts at 0 and has this many bytes.
    pub ram_bytes: u64,
    /// RAM up to here may be used at once, the rest after [`super::doorbell::MEMORY`]; whole large pages.
    pub ready_bytes: u64,
    /// First guest physical address of RAM nobody uses yet; page aligned. All from here on reads as zero.
    pub free_gpa: u64,
    /// Bytes of RAM the container may use (`--memory`), at most `ram_bytes`.
    pub memory_limit_bytes: u64,
    /// The root file system as a cpio archive (newc), read-only memory outside RAM.
    pub root_archive: GuestRange,
    /// The [`super::config::GuestConfig`], encoded with postcard.
    pub config: GuestRange,
    /// The [`super::log::LogRing`] and its text.
    pub log: GuestRange,
    /// The [`super::clock::WallClock`].
    pub wall_clock_gpa: u64,
    /// The record filter page, see `super::record`.
    pub record_filter_gpa: u64,
    /// The [`super::events::HostEvents`].
    pub host_events_gpa: u64,
    /// Queue of output buffers, see [`super::stdio`].
    pub stdio_out: Virtqueue,
    /// Queue of input requests, see [`super::stdio`].
    pub stdio_in: Virtqueue,
    /// Queue of requests for files of the host, see [`super::fuse`].
    pub fuse: Virtqueue,
    /// The window host files are mapped into, in whole chunks; absent if there are no trees.
    pub window: GuestRange,
    /// A bit a chunk of the window, see [`super::fuse::TRUNCATED_OFFSET`].
    pub truncated_gpa: u64,
    /// What is known of sockets of the host, see [`super::net`]; absent if the container has none.
    pub sockets: GuestRange,
    /// Queue of buffers for the host's requests, see [`super::control`].
    pub control_in: Virtqueue,
    /// Queue of the guest's reports, see [`super::control`].
    pub control_out: Virtqueue,
    /// A page a session, see [`super::control::session_queues`]; the first is not used.
    pub sessions_gpa: u64,
    /// XCR0 the vCPUs run with.
    pub xcr0: u64,
    /// One entry a vCPU.
    pub vcpus: [VcpuBoot; MAX_VCPUS],
}
const _: () = assert!(
    core::mem::size_of::<BootInfo>() <= 4096,
    "the boot info is one page"
);
