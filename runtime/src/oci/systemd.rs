//! Containers' cgroups that systemd makes: scopes, units that it forgets when they are empty or stopped.
//!
//! libcontainer asks it for them. What is done to them afterwards is here, through libcgroups.

use std::path::{Path, PathBuf};
use std::time::Duration;

use libcgroups::common::{
    CgroupManager, CgroupSetup, ControllerOpt, DEFAULT_CGROUP_ROOT, get_cgroup_setup,
};
use libcgroups::systemd::manager::{Manager, SystemdManagerError};
use oci_spec::runtime::LinuxResources;

use super::Error;

/// Checks that systemd can be asked for the cgroup at `path`.
///
/// # Errors
/// Where it does not run, or does not have all cgroups in one hierarchy; for a path that is not in its words.
pub fn check(path: &Path) -> Result<(), Error> {
    let refused = |message: String| Error::Cgroup {
        what: "made",
        message,
    };
    // As sd_booted(3) tells.
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(refused(
            "systemd not running on this host, cannot use systemd cgroups manager".to_owned(),
        ));
    }
    // Elsewhere libcgroups would take the words for a path.
    if !matches!(get_cgroup_setup(), Ok(CgroupSetup::Unified)) {
        return Err(refused(
            "--systemd-cgroup needs cgroups of version 2 alone (systemd.unified_cgroup_hierarchy=1)"
                .to_owned(),
        ));
    }
    if !is_unit(path) {
        return Err(refused(format!(
            "linux.cgroupsPath must be slice:prefix:name with --systemd-cgroup, it is {}",
            path.display()
        )));
    }
    Ok(())
}

fn is_unit(path: &Path) -> bool {
    path.to_string_lossy().split(':').count() == 3
}

/// A container's scope.
#[derive(Debug)]
pub struct Unit {
    id: String,
    path: PathBuf,
}

impl Unit {
    /// The one at `path`, which is `slice:prefix:name`.
    pub fn new(id: &str, path: &Path) -> Option<Self> {
        is_unit(path).then(|| Self {
            id: id.to_owned(),
            path: path.to_owned(),
        })
    }

    fn manager(&self) -> Result<Manager, SystemdManagerError> {
        // Nothing that waits for processes is asked of it.
        let patience = Duration::ZERO;
        let (root, path) = (PathBuf::from(DEFAULT_CGROUP_ROOT), self.path.clone());
        Manager::new(root, path, self.id.clone(), true, patience)
    }

    /// Makes systemd forget it. Its cgroup may go at any time after that. Without systemd there is nothing to forget.
    pub fn stop(&self) {
        let stopped = self.manager().and_then(|manager| manager.remove());
        if let Err(error) = stopped {
            tracing::debug!("systemd does not stop {}: {error}", self.path.display());
        }
    }

    /// Tells systemd the limits that it is to keep.
    ///
    /// # Errors
    /// When it does not take them.
    pub fn limit(&self, resources: &LinuxResources) -> Result<(), Error> {
        let options = ControllerOpt {
            resources,
            disable_oom_killer: false,
            oom_score_adj: None,
            freezer_state: None,
        };
        let applied = self.manager().and_then(|manager| manager.apply(&options));
        applied.map_err(|error| Error::Cgroup {
            what: "changed",
            message: format!("systemd: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_three_words() {
        assert!(Unit::new("x", Path::new(":husk:x")).is_some());
        assert!(Unit::new("x", Path::new("/husk-x")).is_none());
        assert!(Unit::new("x", Path::new("a:b:c:d")).is_none());
    }
}
