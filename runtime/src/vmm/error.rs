//! What can go wrong in making and running a machine.

use std::io;

/// An error of the machine; each names what failed and what to do about it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(
        "no /dev/kvm: this host offers no KVM; load kvm_intel or kvm_amd (or kvm_pvm), or enable nested virtualisation"
    )]
    NoKvm,
    #[error(
        "no permission to open /dev/kvm: run as root or as a member of the group that owns it (often kvm)"
    )]
    KvmPermission,
    #[error("cannot open /dev/kvm: {0}")]
    KvmOpen(io::Error),
    #[error("KVM API version {0} instead of 12: this kernel's KVM is not usable")]
    KvmVersion(i32),
    #[error("KVM refused to {what}: {source}")]
    Kvm {
        what: &'static str,
        source: io::Error,
    },
    #[error("cannot reserve {bytes} bytes of guest memory: {source}; ask for less with --memory")]
    Reserve { bytes: u64, source: io::Error },
    #[error("cannot reserve address space for the container's files: {0}")]
    Window(io::Error),
    #[error("cannot map the root archive: {0}")]
    RootArchive(io::Error),
    #[error("the embedded libOS image is not usable: {0}; rebuild husk")]
    Image(String),
    #[error("{bytes} bytes of guest memory are too few; give at least {minimum} with --memory")]
    TooSmall { bytes: u64, minimum: u64 },
    #[error("cannot start a vCPU thread: {0}")]
    Thread(io::Error),
    #[error("cannot make a vCPU's timer: {0}")]
    Timer(io::Error),
    #[error("guest memory access at {address:#x} failed")]
    GuestMemory { address: u64 },
}

impl Error {
    pub(super) fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |error| Error::Kvm {
            what,
            source: io::Error::from_raw_os_error(error.errno()),
        }
    }
}
