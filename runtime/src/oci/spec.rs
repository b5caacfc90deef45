//! `config.json` (runtime-spec, config.md): read, checked, and held both typed and as it was written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde_json::Value;

/// What is wrong with a bundle. Every message names the field.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("bundle {}: {source}", path.display())]
    Bundle { path: PathBuf, source: io::Error },
    #[error("JSON specification file {} not found", path.display())]
    Missing { path: PathBuf },
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("config.json is no JSON: {0}")]
    Json(serde_json::Error),
    #[error("config.json: {field}: {what}")]
    Field { field: String, what: String },
    #[error("config.json: {field}: {what}, which husk does not support")]
    Unsupported { field: String, what: String },
}

impl Error {
    pub(super) fn field(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Field {
            field: field.into(),
            what: what.into(),
        }
    }

    pub(super) fn unsupported(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Unsupported {
            field: field.into(),
            what: what.into(),
        }
    }
}

/// A bundle that was read and checked.
#[derive(Debug)]
pub struct Bundle {
    /// Its directory, absolute.
    pub path: PathBuf,
    /// Its root file system, absolute.
    pub rootfs: PathBuf,
    /// The specification.
    pub spec: Spec,
    /// The same as it was written.
    pub raw: Value,
}

impl Bundle {
    /// Reads and checks the bundle in the directory `path`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let path = path.canonicalize().map_err(|source| Error::Bundle {
            path: path.to_owned(),
            source,
        })?;
        let file = path.join("config.json");
        let text = fs::read(&file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { path: file.clone() },
            _ => Error::Read {
                path: file.clone(),
                source,
            },
        })?;
        let (spec, raw) = parse(&text)?;
        check(&spec)?;
        super::checks::check(&spec, &raw)?;
        let root = spec
            .root()
            .as_ref()
            .ok_or_else(|| Error::field("root", "is missing"))?;
        let rootfs = path.join(root.path());
        let rootfs = rootfs
            .canonicalize()
            .map_err(|cause| Error::field("root.path", format!("{}: {cause}", rootfs.display())))?;
        if !rootfs.is_dir() {
            return Err(Error::field(
                "root.path",
                format!("{} is not a directory", rootfs.display()),
            ));
        }
        Ok(Self {
            path,
            rootfs,
            spec,
            raw,
        })
    }
}

/// The specification in `text`, typed and as it was written.
pub(super) fn parse(text: &[u8]) -> Result<(Spec, Value), Error> {
    let mut raw: Value = serde_json::from_slice(text).map_err(Error::Json)?;
    if !raw.is_object() {
        return Err(Error::field(".", "is not an object"));
    }
    drop_unknown_capabilities(&mut raw);
    let spec = serde_path_to_error::deserialize(&raw)
        .map_err(|error| Error::field(error.path().to_string(), error.inner().to_string()))?;
    Ok((spec, raw))
}

/// As runc, which ignores capabilities it does not know.
fn drop_unknown_capabilities(raw: &mut Value) {
    let Some(sets) = raw
        .pointer_mut("/process/capabilities")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    for list in sets.values_mut().filter_map(Value::as_array_mut) {
        list.retain(|name| {
            let Some(name) = name.as_str() else {
                return true;
            };
            let known = super::process::capability_number(name).is_some();
            if !known {
                tracing::warn!("config.json: process.capabilities: {name} is unknown and ignored");
            }
            known
        });
    }
}

/// Checks what every process must have.
pub(super) fn check_process(spec: &Spec) -> Result<(), Error> {
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::field("process", "is missing"))?;
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::field("process.args", "must not be empty"));
    }
    if process.cwd().as_os_str().is_empty() {
        return Err(Error::field("process.cwd", "must not be empty"));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::field(
            "process.cwd",
            format!("{} is not an absolute path", process.cwd().display()),
        ));
    }
    super::labels::check(spec)
}

fn check(spec: &Spec) -> Result<(), Error> {
    check_version(spec.version())?;
    check_process(spec)?;
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| Error::field("linux", "is missing"))?;
    if let Some(hostname) = spec.hostname()
        && hostname.len() > 64
    {
        return Err(Error::field("hostname", "is longer than 64 bytes"));
    }
    check_namespaces(spec, linux)?;
    super::userns::wanted(linux)?;
    check_unsupported(linux)
}

fn check_version(version: &str) -> Result<(), Error> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<_> = core.split('.').map(str::parse::<u32>).collect();
    match numbers.as_slice() {
        [Ok(1), Ok(_), Ok(_)] => Ok(()),
        [Ok(_), Ok(_), Ok(_)] => Err(Error::field(
            "ociVersion",
            format!("{version} is not supported: only 1.x.y is"),
        )),
        _ => Err(Error::field(
            "ociVersion",
            format!("{version:?} is no version"),
        )),
    }
}

fn check_namespaces(spec: &Spec, linux: &oci_spec::runtime::Linux) -> Result<(), Error> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let find = |kind| namespaces.iter().find(|namespace| namespace.typ() == kind);
    for (index, namespace) in namespaces.iter().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let kind = namespace.typ();
        if namespaces[..index].iter().any(|other| other.typ() == kind) {
            return Err(Error::field(
                field,
                format!("malformed spec file: duplicated ns {kind}"),
            ));
        }
        if let Some(path) = namespace.path() {
            super::checks::namespace(kind, path)
                .map_err(|what| Error::field(format!("{field}.path"), what))?;
            if matches!(kind, LinuxNamespaceType::Pid | LinuxNamespaceType::Mount) {
                return Err(Error::unsupported(
                    format!("{field}.path"),
                    format!("a {kind} namespace shared across a VM's boundary"),
                ));
            }
        }
        if kind == LinuxNamespaceType::Time {
            return Err(Error::unsupported(field, format!("a {kind} namespace")));
        }
    }
    for kind in [LinuxNamespaceType::Pid, LinuxNamespaceType::Mount] {
        if find(kind).is_none() {
            return Err(Error::unsupported(
                "linux.namespaces",
                format!("sharing the host's {kind} namespace"),
            ));
        }
    }
    if find(LinuxNamespaceType::Uts).is_none() {
        for (field, value) in [
            ("hostname", spec.hostname()),
            ("domainname", spec.domainname()),
        ] {
            if value.as_ref().is_some_and(|name| !name.is_empty()) {
                return Err(Error::field(
                    field,
                    "cannot be set without a private UTS namespace",
                ));
            }
        }
    }
    Ok(())
}

/// What changes what a program sees and is not carried to the guest.
fn check_unsupported(linux: &oci_spec::runtime::Linux) -> Result<(), Error> {
    let refuse = |is_there: bool, field: &str, what: &str| {
        if is_there {
            Err(Error::unsupported(field, what))
        } else {
            Ok(())
        }
    };
    refuse(
        linux.intel_rdt().is_some(),
        "linux.intelRdt",
        "resource control by Intel RDT",
    )?;
    refuse(
        linux
            .time_offsets()
            .as_ref()
            .is_some_and(|offsets| !offsets.is_empty()),
        "linux.timeOffsets",
        "an offset of clocks",
    )?;
    refuse(
        linux
            .net_devices()
            .as_ref()
            .is_some_and(|list| !list.is_empty()),
        "linux.netDevices",
        "moving network devices",
    )?;
    refuse(
        linux.personality().as_ref().is_some_and(|personality| {
            personality.domain() != oci_spec::runtime::LinuxPersonalityDomain::PerLinux
        }),
        "linux.personality",
        "a personality other than LINUX",
    )?;
    refuse(
        linux.memory_policy().is_some(),
        "linux.memoryPolicy",
        "a NUMA policy",
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn complaint(change: impl FnOnce(&mut Value)) -> String {
        let mut value = example();
        change(&mut value);
        parse(value.to_string().as_bytes())
            .and_then(|(spec, _)| check(&spec))
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    fn example() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}]},
        })
    }

    #[test]
    fn a_good_one() {
        assert_eq!(complaint(|_| {}), "");
    }

    #[test]
    fn complaints_name_the_field() {
        type Spoil = Box<dyn FnOnce(&mut Value)>;
        let cases: [(&str, Spoil); 12] = [
            (
                "process.args[0]",
                Box::new(|v| v["process"]["args"] = json!([1])),
            ),
            (
                "process.args: must",
                Box::new(|v| v["process"]["args"] = json!([])),
            ),
            (
                "process.cwd",
                Box::new(|v| v["process"]["cwd"] = json!("tmp")),
            ),
            (
                "process.user.uid",
                Box::new(|v| v["process"]["user"]["uid"] = json!("root")),
            ),
            (
                "process.user.uid",
                Box::new(|v| v["process"]["user"]["uid"] = json!(-1)),
            ),
            ("ociVersion", Box::new(|v| v["ociVersion"] = json!("2.0.0"))),
            ("ociVersion", Box::new(|v| v["ociVersion"] = json!("one"))),
            (
                "linux.namespaces[0]",
                Box::new(|v| {
                    v["linux"]["namespaces"][0] = json!({"type": "nope"});
                }),
            ),
            (
                "linux.namespaces[3]",
                Box::new(|v| {
                    let namespaces = v["linux"]["namespaces"].as_array_mut().unwrap();
                    namespaces.push(json!({"type": "time"}));
                }),
            ),
            (
                "linux.seccomp.defaultAction",
                Box::new(|v| {
                    v["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NOPE"});
                }),
            ),
            (
                "linux.intelRdt",
                Box::new(|v| v["linux"]["intelRdt"] = json!({})),
            ),
            (
                "hostname",
                Box::new(|v| {
                    v["hostname"] = json!("h");
                    v["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}]);
                }),
            ),
        ];
        for (field, change) in cases {
            let text = complaint(change);
            assert!(text.contains(field), "{field}: {text:?}");
            assert!(!text.contains('\n'), "{text:?}");
        }
        assert!(
            parse(b"{\"a\": ")
                .unwrap_err()
                .to_string()
                .contains("no JSON")
        );
        assert!(parse(b"[]").is_err());
    }

    #[test]
    fn unknown_capabilities_are_ignored() {
        let mut value = example();
        value["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_NOPE"]});
        let (spec, _) = parse(value.to_string().as_bytes()).unwrap();
        let sets = spec
            .process()
            .as_ref()
            .unwrap()
            .capabilities()
            .clone()
            .unwrap();
        assert_eq!(sets.bounding().as_ref().map(|set| set.len()), Some(1));
    }
}
