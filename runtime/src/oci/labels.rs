//! Labels of mandatory access control: `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel`.
//!
//! They are for the host's kernel, and name what a process of the host may do. The workload is none; the VMM is confined by rules of its
//! own (`confine`). So a label is not applied; but where the host has no such module it is refused, as by runc: who wrote it
//! counts on a protection that is not there.

use std::fs;
use std::path::Path;

use oci_spec::runtime::Spec;

use super::spec::Error;

/// The modules that this host has.
#[derive(Clone, Copy, Debug)]
struct Modules {
    apparmor: bool,
    selinux: bool,
}

impl Modules {
    fn of_this_host() -> Self {
        let parameter = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            apparmor: parameter.is_ok_and(|text| text.starts_with('Y')),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }

    fn check(self, spec: &Spec) -> Result<(), Error> {
        let is_set = |label: &Option<String>| label.as_ref().is_some_and(|text| !text.is_empty());
        let process = spec.process().as_ref();
        let no_selinux =
            "selinux label is specified in config, but selinux is disabled or not supported";
        for (field, is_set, is_there, words) in [
            (
                "process.apparmorProfile",
                process.is_some_and(|process| is_set(process.apparmor_profile())),
                self.apparmor,
                "unable to apply apparmor profile: this host has no AppArmor",
            ),
            (
                "process.selinuxLabel",
                process.is_some_and(|process| is_set(process.selinux_label())),
                self.selinux,
                no_selinux,
            ),
            (
                "linux.mountLabel",
                spec.linux()
                    .as_ref()
                    .is_some_and(|linux| is_set(linux.mount_label())),
                self.selinux,
                no_selinux,
            ),
        ] {
            if is_set && !is_there {
                return Err(Error::field(field, words));
            }
        }
        Ok(())
    }
}

/// Refuses labels that this host has no module for.
///
/// # Errors
/// [`Error`], naming the field.
pub fn check(spec: &Spec) -> Result<(), Error> {
    Modules::of_this_host().check(spec)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(modules: Modules, process: &str, linux: &str) -> Option<String> {
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
            "root": {"path": "/"},
            "linux": {},
        });
        if !process.is_empty() {
            spec["process"][process] = json!("a-label");
        }
        if !linux.is_empty() {
            spec["linux"][linux] = json!("a-label");
        }
        let spec: Spec = serde_json::from_value(spec).unwrap();
        modules.check(&spec).err().map(|error| error.to_string())
    }

    #[test]
    fn labels_need_their_module() {
        let with = |apparmor, selinux| Modules { apparmor, selinux };
        for (modules, process, linux, field) in [
            (with(false, false), "", "", None),
            (with(true, false), "apparmorProfile", "", None),
            (
                with(false, true),
                "apparmorProfile",
                "",
                Some("process.apparmorProfile"),
            ),
            (
                with(true, false),
                "selinuxLabel",
                "",
                Some("process.selinuxLabel"),
            ),
            (
                with(true, false),
                "",
                "mountLabel",
                Some("linux.mountLabel"),
            ),
            (with(false, true), "selinuxLabel", "mountLabel", None),
        ] {
            let message = refused(modules, process, linux);
            assert_eq!(message.is_some(), field.is_some(), "{message:?}");
            assert!(message.is_none_or(|text| text.contains(field.unwrap_or_default())));
        }
    }
}
