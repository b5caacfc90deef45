//! How containerd wants husk to be run: the options of its configuration, and where they are kept for `delete`.

use std::path::{Path, PathBuf};

use containerd_shim::api::Options as RuncOptions;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::well_known_types::empty::Empty;
use containerd_shim::protos::protobuf::{Message, UnknownValueRef};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Name of the command.
const COMMAND: &str = "husk";
/// Where the state of containers lies, a directory a namespace.
const ROOT: &str = "/run/containerd/husk";
/// In the bundle: the options its container was made with.
const FILE: &str = "husk-options.json";

/// What may be given, all of it by runc's names for the same: in containerd's `options` table of a runtime, or in the
/// TOML file its `ConfigPath` names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The command, by path or name.
    #[serde(alias = "BinaryName")]
    pub binary_name: String,
    /// The directory for the state.
    #[serde(alias = "Root")]
    pub root: String,
    /// systemd makes the cgroups.
    #[serde(alias = "SystemdCgroup")]
    pub systemd_cgroup: bool,
    /// The root is moved instead of pivoted.
    #[serde(alias = "NoPivotRoot")]
    pub no_pivot_root: bool,
    /// Owner of the pipes that are the process's streams.
    #[serde(alias = "IoUid")]
    pub io_uid: u32,
    /// Their group.
    #[serde(alias = "IoGid")]
    pub io_gid: u32,
    /// The shim's own cgroup.
    #[serde(alias = "ShimCgroup")]
    pub shim_cgroup: String,
}

impl From<RuncOptions> for Options {
    fn from(options: RuncOptions) -> Self {
        Self {
            binary_name: options.binary_name,
            root: options.root,
            systemd_cgroup: options.systemd_cgroup,
            no_pivot_root: options.no_pivot_root,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            shim_cgroup: options.shim_cgroup,
        }
    }
}

impl Options {
    /// What containerd passes: nothing, runc's options, or its general ones, which name a file or have its text.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn of(any: Option<&Any>) -> Result<Self> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
            return Ok(Self::default());
        };
        let invalid =
            |why: &dyn std::fmt::Display| Error::Invalid(format!("runtime options: {why}"));
        match any.type_url.rsplit('/').next().unwrap_or_default() {
            "containerd.runc.v1.Options" => RuncOptions::parse_from_bytes(&any.value)
                .map(Self::from)
                .map_err(|error| invalid(&error)),
            "runtimeoptions.v1.Options" => {
                // type_url = 1, config_path = 2, config_body = 3.
                let message = Empty::parse_from_bytes(&any.value).map_err(|e| invalid(&e))?;
                let field = |number| match message.special_fields.unknown_fields().get(number) {
                    Some(UnknownValueRef::LengthDelimited(bytes)) => {
                        String::from_utf8_lossy(bytes).into_owned()
                    }
                    _ => String::new(),
                };
                let (path, mut text) = (field(2), field(3));
                if text.is_empty() && !path.is_empty() {
                    text = std::fs::read_to_string(&path)
                        .map_err(Error::host(format!("read the runtime's options in {path}")))?;
                }
                toml::from_str(&text).map_err(|error| invalid(&error))
            }
            other => Err(invalid(&format_args!("unknown type {other}"))),
        }
    }

    /// The command: as given, else beside this program, else wherever PATH has it.
    pub fn binary(&self) -> PathBuf {
        if !self.binary_name.is_empty() {
            return PathBuf::from(&self.binary_name);
        }
        std::env::current_exe()
            .ok()
            .map(|own| own.with_file_name(COMMAND))
            .filter(|path| path.is_file())
            .unwrap_or_else(|| PathBuf::from(COMMAND))
    }

    /// Where the state of containers of `namespace` lies.
    pub fn state(&self, namespace: &str) -> PathBuf {
        let root = Some(self.root.as_str()).filter(|root| !root.is_empty());
        Path::new(root.unwrap_or(ROOT)).join(namespace)
    }

    /// Keeps the options in the bundle.
    ///
    /// # Errors
    /// What writing gives.
    pub fn keep(&self, bundle: &Path) -> Result<()> {
        let text = serde_json::to_string(self).unwrap_or_default();
        std::fs::write(bundle.join(FILE), text).map_err(Error::host("keep the runtime's options"))
    }

    /// Those kept in the bundle; the default ones if there are none, as after a failed create.
    pub fn kept(bundle: &Path) -> Self {
        std::fs::read_to_string(bundle.join(FILE))
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(type_url: &str, value: Vec<u8>) -> Any {
        Any {
            type_url: type_url.to_owned(),
            value,
            ..Any::default()
        }
    }

    #[test]
    fn none() {
        assert_eq!(Options::of(None).unwrap(), Options::default());
        assert_eq!(
            Options::of(Some(&Any::default())).unwrap(),
            Options::default()
        );
        assert!(Options::of(Some(&any("some.Options", vec![]))).is_err());
        assert_eq!(
            Options::default().state("k8s.io"),
            Path::new("/run/containerd/husk/k8s.io")
        );
    }

    #[test]
    fn of_runc() {
        let options = RuncOptions {
            binary_name: "/opt/husk".to_owned(),
            root: "/run/x".to_owned(),
            systemd_cgroup: true,
            ..RuncOptions::default()
        };
        let any = any(
            "containerd.runc.v1.Options",
            options.write_to_bytes().unwrap(),
        );
        let read = Options::of(Some(&any)).unwrap();
        assert_eq!(read.binary(), Path::new("/opt/husk"));
        assert_eq!(read.state("default"), Path::new("/run/x/default"));
        assert!(read.systemd_cgroup);
    }

    #[test]
    fn of_the_general_kind() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("husk.toml");
        std::fs::write(&file, "BinaryName = \"/a/husk\"\nIoUid = 7\n").unwrap();
        let mut value = vec![0x12, u8::try_from(file.as_os_str().len()).unwrap()];
        value.extend(file.to_str().unwrap().bytes());
        let general = "types.containerd.io/runtimeoptions.v1.Options";
        let read = Options::of(Some(&any(general, value))).unwrap();
        assert_eq!((read.binary_name.as_str(), read.io_uid), ("/a/husk", 7));

        let body = b"\x1a\x0droot = \"/r/q\"".to_vec();
        assert_eq!(Options::of(Some(&any(general, body))).unwrap().root, "/r/q");
        let wrong = b"\x1a\x05q = 1".to_vec();
        assert!(Options::of(Some(&any(general, wrong))).is_err());
    }

    #[test]
    fn kept_in_the_bundle() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(Options::kept(bundle.path()), Options::default());
        let options = Options {
            root: "/r".to_owned(),
            ..Options::default()
        };
        options.keep(bundle.path()).unwrap();
        assert_eq!(Options::kept(bundle.path()), options);
    }
}
