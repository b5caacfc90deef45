//! Capabilities and their like.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

use super::{Error, Files};

/// For opening sockets on the container's behalf: low ports, raw sockets.
const FOR_SOCKETS: [Capability; 2] = [Capability::CAP_NET_BIND_SERVICE, Capability::CAP_NET_RAW];

/// For serving files as their owners of any id, with all attributes, kinds and file capabilities.
const FOR_FILES: [Capability; 6] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_MKNOD,
    Capability::CAP_SETFCAP,
];

/// Drops all capabilities but those for what it serves, and the way back to them.
pub fn enter(serves: Files<'_>) -> Result<(), Error> {
    let failed = |what| {
        move |errno: nix::errno::Errno| Error::System {
            what,
            source: errno.into(),
        }
    };
    prctl::set_no_new_privs().map_err(failed("set no_new_privs"))?;
    prctl::set_dumpable(false).map_err(failed("forbid core dumps"))?;

    let mut kept: CapsHashSet = FOR_SOCKETS.into_iter().collect();
    if !serves.is_none() {
        kept.extend(FOR_FILES);
    }
    let failed = |error: caps::errors::CapsError| Error::System {
        what: "drop capabilities",
        source: io::Error::other(error.to_string()),
    };
    // What an embedding caller lacks is not to be had.
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept: CapsHashSet = kept.intersection(&held).copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)
}
