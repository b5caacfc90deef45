//! A machine: one VM, its memory, its vCPUs.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use husk_abi::boundary::boot::{BOOT_MAGIC, BootInfo, GuestRange, MAX_VCPUS, VcpuBoot};
use husk_abi::boundary::config::{self, GuestConfig};
use husk_abi::boundary::layout::{LARGE_PAGE_SIZE, PERCPU, PERCPU_SHARED};
use husk_abi::boundary::vcpu::VcpuShared;
use husk_abi::boundary::version::BOUNDARY_VERSION;
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::debug::{Debug, GuestSpace, Inspector};
use super::layout::{Bump, Layout};
use super::memory::GuestMemory;
use super::ram::Ram;
use super::vcpu::Vcpu;
use super::{Also, Error, Kicker, KvmClock, Window, cpuid, loader, memory, raw, tables};
use crate::confine::{self, rules::Role};

/// Room for the libOS and the VMM's structures, on top of what the container may use.
const OVERHEAD_BYTES: u64 = 32 << 20;
/// The least memory a container can be given, in bytes.
pub const MINIMUM_BYTES: u64 = 8 << 20;
/// The most RAM a machine can be given, in bytes: what the direct map has room for.
const MAXIMUM_BYTES: u64 = 1 << 39;
/// How long the libOS may take to start the first process.
const BOOT_TIMEOUT: Duration = Duration::from_secs(30);

/// What to make a machine from.
#[derive(Debug)]
pub struct MachineConfig {
    /// Bytes of memory the container may use.
    pub memory_bytes: u64,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// The libOS image.
    pub image: &'static [u8],
    /// The root file system as a cpio archive, unless it is a tree of host files.
    pub root_archive: Option<File>,
    /// Bytes of the window host files are mapped into, whole chunks; 0 for none.
    pub window_bytes: u64,
    /// Whether the container has sockets of the host.
    pub has_sockets: bool,
    /// What the libOS is to run.
    pub guest: GuestConfig,
    /// `/dev/kvm`, see [`open_kvm`].
    pub kvm: Kvm,
    /// vCPUs stop before their first instruction, for a debugger to attach.
    pub stopped: bool,
}

/// What a served doorbell means for the vCPU that rang it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Go on.
    Resume,
    /// The machine ends so.
    End(End),
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The container's init ended with this wait status.
    Shutdown(u32),
    /// The libOS gave up; its log says why.
    Panic,
    /// The libOS did not start the first process in time.
    NotStarted,
    /// The guest did something that ends a machine; the text says what.
    Crash(&'static str),
    /// KVM_RUN failed with this errno.
    RunFailed(i32),
}

/// Has a vCPU sleep until it is kicked, a timer of the guest's is due, or there is something else; true if that is there.
pub type Sleep<'a> = &'a dyn Fn(Option<&Also<'_>>) -> bool;

/// Serves doorbells that are the boundary's business, on the vCPU's own thread.
pub trait DoorbellHandler: Send + Sync {
    /// `value` was written to doorbell `port`.
    fn ring(&self, vcpu: u32, port: u16, value: u32) -> Served;

    /// The vCPU has nothing to do: has it `sleep`, unless there is something for the guest, which looks by itself when it runs
    /// again.
    fn idle(&self, vcpu: u32, sleep: Sleep<'_>);

    /// The guest has given back or been given so many bytes of memory, as `operation` says.
    fn memory(&self, operation: &'static str, bytes: u64);

    /// An access of the guest failed: to a file that has become shorter than what is mapped of it, or to nothing. The
    /// access is made again on [`Served::Resume`].
    fn memory_fault(&self, vcpu: u32) -> Served;
}

/// A machine that is ready to run.
#[derive(Debug)]
pub struct Machine {
    vm: Arc<VmFd>,
    memory: GuestMemory,
    layout: Layout,
    window: Option<Window>,
    vcpus: Vec<Vcpu>,
    kickers: Vec<Kicker>,
    inspector: Arc<Inspector>,
    boot_timeout: Duration,
}

/// Opens `/dev/kvm` and checks that it is one.
pub fn open_kvm() -> Result<Kvm, Error> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => Error::NoKvm,
        libc::EACCES | libc::EPERM => Error::KvmPermission,
        errno => Error::KvmOpen(io::Error::from_raw_os_error(errno)),
    })?;
    check_kvm(kvm)
}

/// Checks that an open `/dev/kvm` is one.
pub fn check_kvm(kvm: Kvm) -> Result<Kvm, Error> {
    match kvm.get_api_version() {
        12 => Ok(kvm),
        -1 => Err(Error::NoKvm),
        version => Err(Error::KvmVersion(version)),
    }
}

impl Machine {
    /// Makes the VM, loads the libOS and writes everything it will look at.
    ///
    /// A VM belongs to one mm: the process must not fork or exec afterwards.
    ///
    /// # Errors
    /// When KVM or memory fails.
    pub fn new(config: &MachineConfig) -> Result<Self, Error> {
        assert!(config.vcpus >= 1 && config.vcpus as usize <= MAX_VCPUS);
        if config.memory_bytes < MINIMUM_BYTES {
            return Err(Error::TooSmall {
                bytes: config.memory_bytes,
                minimum: MINIMUM_BYTES,
            });
        }
        let image = loader::inspect(config.image)?;
        let kvm = &config.kvm;
        let vm = Arc::new(kvm.create_vm().map_err(Error::kvm("create a VM"))?);

        let too_large = || Error::Reserve {
            bytes: config.memory_bytes,
            source: io::Error::from_raw_os_error(libc::ENOMEM),
        };
        // The limit may be raised while it runs: RAM costs little before it is used.
        let ram_bytes = config
            .memory_bytes
            .max(memory::of_host().min(MAXIMUM_BYTES / 2))
            .checked_add(OVERHEAD_BYTES)
            .and_then(|bytes| bytes.checked_next_multiple_of(LARGE_PAGE_SIZE))
            .filter(|bytes| *bytes <= MAXIMUM_BYTES)
            .ok_or_else(too_large)?;
        let (region, ram) = memory::reserve_ram(ram_bytes)?;
        let archive = config
            .root_archive
            .as_ref()
            .map(memory::map_archive)
            .transpose()?;
        let rom = GuestRange {
            gpa: ram_bytes.next_multiple_of(1 << 30),
            len: archive.as_ref().map_or(0, |archive| archive.bytes),
        };
        let ram = Arc::new(Ram::new(vm.clone(), ram)?);
        if let Some(archive) = &archive {
            raw::set_memory(&vm, 1, rom.gpa, archive, true)
                .map_err(Error::kvm("map the root archive into the guest"))?;
        }
        let window = (config.window_bytes > 0)
            .then(|| Window::reserve(config.window_bytes))
            .transpose()
            .map_err(Error::Window)?;
        let window_range = GuestRange {
            gpa: (rom.gpa + rom.len).next_multiple_of(1 << 30),
            len: config.window_bytes,
        };
        if let Some(window) = &window {
            raw::set_memory(&vm, 2, window_range.gpa, &window.mapping(), false)
                .map_err(Error::kvm("map the window of host files into the guest"))?;
        }
        let memory = GuestMemoryMmap::from_regions(vec![region]).map_err(|_| too_large())?;

        loader::load(&memory, config.image)?;
        let encoded = config::encode(&config.guest).map_err(|_| too_large())?;
        let mut bump = Bump::from(image.end);
        let layout = Layout::new(
            &mut bump,
            config.vcpus,
            encoded.len() as u64,
            config.has_sockets,
        );
        tables::build(
            &memory,
            &mut bump,
            ram_bytes,
            rom,
            window_range,
            &layout.vcpus,
        )?;
        let write = |address: u64, bytes: &[u8]| {
            memory
                .write_slice(bytes, GuestAddress(address))
                .map_err(|_| Error::GuestMemory { address })
        };
        write(layout.config.gpa, &encoded)?;

        let xcr0 = raw::host_xcr0() & 0xe7;
        let mut vcpus = [VcpuBoot::default(); MAX_VCPUS];
        vcpus[..layout.vcpus.len()].copy_from_slice(&layout.vcpus);
        let info = BootInfo {
            magic: BOOT_MAGIC,
            boundary_version: BOUNDARY_VERSION,
            vcpu_count: config.vcpus,
            ram_bytes,
            ready_bytes: ram.ready_bytes(),
            free_gpa: bump.end(),
            memory_limit_bytes: config.memory_bytes,
            root_archive: rom,
            config: layout.config,
            log: layout.log,
            wall_clock_gpa: layout.wall_clock,
            record_filter_gpa: layout.record_filter,
            host_events_gpa: layout.host_events,
            stdio_out: layout.stdio_out,
            stdio_in: layout.stdio_in,
            fuse: layout.fuse,
            window: window_range,
            truncated_gpa: layout.truncated,
            sockets: layout.sockets,
            control_in: layout.control_in,
            control_out: layout.control_out,
            sessions_gpa: layout.sessions,
            xcr0,
            vcpus,
        };
        write(layout.boot_info, &raw::boot_info_bytes(&info))?;

        let cpuid = cpuid::supported(kvm).map_err(Error::kvm("list CPU features"))?;
        let memory: GuestMemory = Arc::new(memory);
        let kickers = layout
            .vcpus
            .iter()
            .map(|_| Kicker::new().map_err(Error::Thread))
            .collect::<Result<Vec<_>, _>>()?;
        let debug = Debug::new(&kickers, config.stopped).map_err(Error::Thread)?;
        let archive = config
            .root_archive
            .as_ref()
            .map(File::try_clone)
            .transpose()
            .map_err(Error::RootArchive)?;
        let inspector = Arc::new(Inspector::new(
            GuestSpace::new(memory.clone(), rom, archive),
            Arc::new(debug),
            config.image,
            layout.vcpus[0].pml4_gpa,
            layout.host_events,
            layout
                .vcpus
                .iter()
                .map(|boot| boot.percpu_gpa + SHARED_OFFSET)
                .collect(),
        ));
        let mut machine_vcpus = Vec::new();
        for ((index, boot), kicker) in (0..).zip(&layout.vcpus).zip(&kickers) {
            machine_vcpus.push(Vcpu::new(
                &vm,
                index,
                boot,
                layout.boot_info,
                &image,
                &cpuid,
                xcr0,
                memory.clone(),
                ram.clone(),
                kicker.clone(),
                inspector.clone(),
            )?);
        }
        Ok(Self {
            vm,
            memory,
            layout,
            window,
            vcpus: machine_vcpus,
            kickers,
            inspector,
            boot_timeout: if config.stopped {
                // A debugger may look at the boot as long as it likes.
                Duration::MAX
            } else {
                BOOT_TIMEOUT
            },
        })
    }

    /// Looks into the machine from outside; good after its end, too.
    #[must_use]
    pub fn inspector(&self) -> &Arc<Inspector> {
        &self.inspector
    }

    /// Guest RAM.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Where the boundary's structures lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The window host files are mapped into, if it has one.
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// Reads the guest's clock from outside.
    pub fn clock(&self) -> Result<KvmClock, Error> {
        KvmClock::of(&self.vm).map_err(Error::Thread)
    }

    /// Interrupts vCPU 0, which looks after the boundary's answers.
    #[must_use]
    pub fn kicker(&self) -> Kicker {
        self.kickers[0].clone()
    }

    /// Binds doorbells to eventfds.
    #[must_use]
    pub fn doorbells(&self) -> Doorbells {
        Doorbells(self.vm.clone())
    }

    /// Runs until the machine ends.
    pub fn run(self, handler: &Arc<dyn DoorbellHandler>) -> Result<End, Error> {
        raw::install_kick_handler();
        let (sender, receiver) = mpsc::channel();
        let started: Vec<u64> = self.vcpus.iter().map(Vcpu::shared_gpa).collect();
        for vcpu in self.vcpus {
            let (sender, handler) = (sender.clone(), handler.clone());
            std::thread::Builder::new()
                .name(format!("vcpu{}", vcpu.index()))
                .spawn(move || {
                    let timer = vcpu.timer();
                    confine::enter_thread(Role::Vcpu);
                    let _ = sender.send(timer.map(|timer| vcpu.run(&timer, &*handler)));
                })
                .map_err(Error::Thread)?;
        }
        match receiver.recv_timeout(self.boot_timeout) {
            Ok(end) => return end.map_err(Error::Timer),
            Err(_) => {
                let flag = started[0] + std::mem::offset_of!(VcpuShared, started) as u64;
                let is_started = self
                    .memory
                    .read_obj::<u32>(GuestAddress(flag))
                    .map_err(|_| Error::GuestMemory { address: flag })?;
                if is_started == 0 {
                    return Ok(End::NotStarted);
                }
            }
        }
        receiver
            .recv()
            .unwrap_or(Ok(End::Crash("all its vCPU threads ended")))
            .map_err(Error::Timer)
    }
}

/// Lets doorbells signal eventfds instead of leaving the guest for the VMM.
#[derive(Clone, Debug)]
pub struct Doorbells(Arc<VmFd>);

impl Doorbells {
    /// `event` is signalled when `value` is written to doorbell `port`.
    ///
    /// # Errors
    /// When KVM has no room for it.
    pub fn bind(&self, port: u16, value: u32, event: &EventFd) -> Result<(), Error> {
        self.0
            .register_ioevent(event, &IoEventAddress::Pio(u64::from(port)), value)
            .map_err(Error::kvm("bind a doorbell"))
    }

    /// Takes back [`Doorbells::bind`].
    pub fn unbind(&self, port: u16, value: u32, event: &EventFd) {
        let address = IoEventAddress::Pio(u64::from(port));
        if let Err(error) = self.0.unregister_ioevent(event, &address, value) {
            tracing::warn!(port, value, "cannot unbind a doorbell: {error}");
        }
    }
}

/// Offset of the page shared with the VMM in a vCPU's own region.
pub(super) const SHARED_OFFSET: u64 = PERCPU_SHARED - PERCPU;
