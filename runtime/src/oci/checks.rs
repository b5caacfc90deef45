//! Checks of `config.json` beyond its form: what the specification or runc refuses, and libcontainer would take, or would
//! refuse without saying which field.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::Path;

use libcgroups::common::{CgroupSetup, get_cgroup_setup};
use oci_spec::runtime::{Hook, Linux, LinuxNamespaceType, Spec};
use serde_json::Value;

use super::mounts::destination;
use super::spec::Error;

/// `linux.rootfsPropagation`, as runc knows it: each also with all below it.
const PROPAGATION: [&str; 4] = ["private", "shared", "slave", "unbindable"];

/// Checks the parts of a specification that are alike on every host.
///
/// # Errors
/// [`Error`], naming the field.
pub fn check(spec: &Spec, raw: &Value) -> Result<(), Error> {
    hooks(spec)?;
    environment(spec)?;
    capabilities(raw)?;
    let has_unnamed = |annotations: &std::collections::HashMap<String, String>| {
        annotations.keys().any(String::is_empty)
    };
    if spec.annotations().as_ref().is_some_and(has_unnamed) {
        return Err(Error::field("annotations", "has an empty key"));
    }
    let Some(linux) = spec.linux() else {
        return Ok(());
    };
    if let Some(word) = linux.rootfs_propagation()
        && !word.is_empty()
        && propagation(word).is_none()
    {
        return Err(Error::field(
            "linux.rootfsPropagation",
            format!("{word:?} is not private, shared, slave or unbindable"),
        ));
    }
    if let Some(path) = linux.cgroups_path()
        && !path.as_os_str().is_empty()
        && destination(path) == Path::new("/")
    {
        return Err(Error::field(
            "linux.cgroupsPath",
            format!("{} is the root of all cgroups", path.display()),
        ));
    }
    let resources = linux.resources().as_ref();
    let unified = resources.and_then(|resources| resources.unified().as_ref());
    if unified.is_some_and(|unified| !unified.is_empty())
        && matches!(
            get_cgroup_setup(),
            Ok(CgroupSetup::Legacy | CgroupSetup::Hybrid)
        )
    {
        return Err(Error::field(
            "linux.resources.unified",
            "cannot be used with cgroups of version 1",
        ));
    }
    device_rules(linux)?;
    sysctl(linux)
}

/// A word for propagation without the `r` for what is mounted below.
pub fn propagation(word: &str) -> Option<&str> {
    let plain = word.strip_prefix('r').unwrap_or(word);
    PROPAGATION.contains(&plain).then_some(plain)
}

/// config.md, "POSIX-platform Hooks": paths are absolute, timeouts above 0.
fn hooks(spec: &Spec) -> Result<(), Error> {
    let Some(hooks) = spec.hooks() else {
        return Ok(());
    };
    let kinds: [(&str, &Option<Vec<Hook>>); 6] = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (kind, list) in kinds {
        for (index, hook) in list.iter().flatten().enumerate() {
            let field = format!("hooks.{kind}[{index}]");
            if !hook.path().is_absolute() {
                let path = hook.path().display();
                return Err(Error::field(
                    format!("{field}.path"),
                    format!("{path} is not an absolute path"),
                ));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(Error::field(format!("{field}.timeout"), "is not above 0"));
            }
        }
    }
    Ok(())
}

/// As runc: each entry is a name and a value.
fn environment(spec: &Spec) -> Result<(), Error> {
    let list = spec
        .process()
        .as_ref()
        .and_then(|process| process.env().as_ref());
    let mut entries = list.into_iter().flatten().enumerate();
    match entries.find(|(_, entry)| !entry.contains('=')) {
        Some((index, entry)) => Err(Error::field(
            format!("process.env[{index}]"),
            format!("{entry:?} has no ="),
        )),
        None => Ok(()),
    }
}

/// As the kernel (capset(2)): what is effective is permitted.
fn capabilities(raw: &Value) -> Result<(), Error> {
    let set = |name: &str| -> BTreeSet<&str> {
        let list = raw.pointer(&format!("/process/capabilities/{name}"));
        let names = list.and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).collect()
    };
    match set("effective").difference(&set("permitted")).next() {
        Some(name) => Err(Error::field(
            "process.capabilities.effective",
            format!("{name} is not in permitted"),
        )),
        None => Ok(()),
    }
}

/// config-linux.md, "Allowed Device list".
fn device_rules(linux: &Linux) -> Result<(), Error> {
    let resources = linux.resources().as_ref();
    let rules = resources.and_then(|resources| resources.devices().as_ref());
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        if let Some(access) = rule.access()
            && access.chars().any(|letter| !"rwm".contains(letter))
        {
            return Err(Error::field(
                format!("linux.resources.devices[{index}].access"),
                format!("{access:?} is not made of r, w and m"),
            ));
        }
    }
    Ok(())
}

/// Settings of System V IPC, and how many numbers each has.
const IPC_SETTINGS: [(&str, usize); 7] = [
    ("kernel.msgmax", 1),
    ("kernel.msgmnb", 1),
    ("kernel.msgmni", 1),
    ("kernel.sem", 4),
    ("kernel.shmall", 1),
    ("kernel.shmmax", 1),
    ("kernel.shmmni", 1),
];

/// As runc: settings of a namespace need that namespace. As the kernel: numbers are numbers.
fn sysctl(linux: &Linux) -> Result<(), Error> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let has = |kind| namespaces.iter().any(|namespace| namespace.typ() == kind);
    for (name, value) in linux.sysctl().iter().flatten() {
        let field = format!("linux.sysctl[{name}]");
        let name = name.replace('/', ".");
        if let Some((_, count)) = IPC_SETTINGS.iter().find(|(known, _)| *known == name) {
            if !has(LinuxNamespaceType::Ipc) {
                return Err(Error::field(
                    field,
                    "is not allowed in the host's ipc namespace",
                ));
            }
            let numbers: Vec<_> = value.split_whitespace().map(str::parse::<u64>).collect();
            if numbers.len() != *count || numbers.iter().any(Result::is_err) {
                let what = if *count == 1 { "a number" } else { "4 numbers" };
                return Err(Error::field(field, format!("{value:?} is not {what}")));
            }
        }
        if !is_of_an_interface(&name) && name.starts_with("net.") {
            let file = Path::new("/proc/sys").join(name.replace('.', "/"));
            if !file.exists() {
                return Err(Error::field(field, "there is no such setting"));
            }
        }
        if name == "kernel.domainname" && !has(LinuxNamespaceType::Uts) {
            return Err(Error::field(
                field,
                "is not allowed in the host's uts namespace",
            ));
        }
    }
    Ok(())
}

/// Whether a setting of networks is one of those that come and go with interfaces, and may be in the container's namespace
/// alone.
fn is_of_an_interface(name: &str) -> bool {
    let part = name.split('.').nth(2);
    matches!(part, Some("conf" | "neigh"))
}

/// Checks what a namespace's `path` leads to (config-linux.md, "Namespaces"): absolute, and a namespace of type `kind`.
///
/// # Errors
/// What is wrong.
pub fn namespace(kind: LinuxNamespaceType, path: &Path) -> Result<(), String> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(format!("{shown} is not an absolute path"));
    }
    let file = std::fs::File::open(path).map_err(|cause| format!("{shown}: {cause}"))?;
    let wanted = match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
    };
    if namespace_type(&file) == Some(wanted) {
        Ok(())
    } else {
        Err(format!("{shown} is not a {kind} namespace"))
    }
}

/// The type of the namespace that `file` is, if it is one (ioctl_nsfs(2)).
#[allow(unsafe_code, reason = "an ioctl that nix does not offer")]
fn namespace_type(file: &std::fs::File) -> Option<i32> {
    // SAFETY: it takes no argument.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
    (kind >= 0).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn complaint(path: &str, value: Value) -> String {
        let mut raw = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "linux": {"namespaces": [{"type": "ipc"}]},
        });
        let (parent, name) = path.rsplit_once('/').unwrap();
        raw.pointer_mut(parent).unwrap()[name] = value;
        let (spec, raw) = super::super::spec::parse(raw.to_string().as_bytes()).unwrap();
        check(&spec, &raw).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (
                "/hooks",
                json!({"prestart": [{"path": "bin/x"}]}),
                "hooks.prestart[0].path",
            ),
            (
                "/hooks",
                json!({"poststop": [{"path": "/x", "timeout": 0}]}),
                "hooks.poststop[0].timeout",
            ),
            (
                "/hooks",
                json!({"startContainer": [{"path": "/x", "timeout": -1}]}),
                "timeout",
            ),
            ("/annotations", json!({"": "x"}), "annotations"),
            ("/process/env", json!(["A=b", "C"]), "process.env[1]"),
            (
                "/process/capabilities",
                json!({"effective": ["CAP_KILL"]}),
                "capabilities.effective: CAP_KILL",
            ),
            ("/linux/cgroupsPath", json!("/a/../.."), "linux.cgroupsPath"),
            (
                "/linux/rootfsPropagation",
                json!("rrshared"),
                "linux.rootfsPropagation",
            ),
            (
                "/linux/resources",
                json!({"devices": [{"allow": true, "access": "rx"}]}),
                "devices[0].access",
            ),
            (
                "/linux/sysctl",
                json!({"kernel.shmmax": "lots"}),
                "linux.sysctl[kernel.shmmax]: \"lots\"",
            ),
            (
                "/linux/sysctl",
                json!({"kernel/sem": "1 2 3"}),
                "is not 4 numbers",
            ),
            (
                "/linux/sysctl",
                json!({"kernel.domainname": "x"}),
                "uts namespace",
            ),
            (
                "/linux",
                json!({"sysctl": {"kernel.msgmax": "1"}}),
                "ipc namespace",
            ),
        ];
        for (path, value, expected) in cases {
            let text = complaint(path, value);
            assert!(text.contains(expected), "{path}: {text:?}");
        }
    }

    #[test]
    fn what_is_right_passes() {
        let cases = [
            (
                "/hooks",
                json!({"prestart": [{"path": "/bin/x", "timeout": 1}]}),
            ),
            ("/annotations", json!({"a": ""})),
            ("/process/env", json!(["A=", "B==c"])),
            (
                "/linux/sysctl",
                json!({"kernel.sem": "1 2\t3 4", "ipc": "x"}),
            ),
            (
                "/linux/resources",
                json!({"devices": [{"allow": false, "access": "rwm"}, {"allow": true}]}),
            ),
        ];
        for (path, value) in cases {
            let text = complaint(path, value);
            // An unknown setting is another's business.
            assert_eq!(text, "", "{path}");
        }
        for word in ["private", "rslave", "rshared", "unbindable"] {
            assert_eq!(complaint("/linux/rootfsPropagation", json!(word)), "");
        }
        assert_eq!(propagation("rslave"), Some("slave"));
    }

    #[test]
    fn namespaces_have_types() {
        let look = |path: &str| namespace(LinuxNamespaceType::Network, Path::new(path));
        assert_eq!(look("/proc/self/ns/net"), Ok(()));
        assert!(
            look("/proc/self/ns/uts")
                .unwrap_err()
                .contains("is not a net namespace")
        );
        assert!(look("/etc/passwd").unwrap_err().contains("is not a net"));
        assert!(look("/no/such").unwrap_err().contains("No such file"));
        assert!(look("proc").unwrap_err().contains("absolute"));
    }
}
