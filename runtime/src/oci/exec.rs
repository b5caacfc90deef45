//! What `exec` runs: an OCI process, from a file or from the container's own with changes (runc's rules).

use std::fs;
use std::path::{Path, PathBuf};

use husk_abi::boundary::config::{ProcessConfig, StreamKind};
use serde_json::{Value, json};

use super::Error;
use super::process;
use super::spec::{self, Bundle};
use super::state::Container;
use super::state::Record;

/// The container's own process, as its bundle said when it was made; a file in its directory.
const FILE: &str = "process.json";

/// Changes to the container's own process.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The command.
    pub args: Vec<String>,
    /// Variables that are added.
    pub env: Vec<String>,
    /// Another working directory.
    pub cwd: Option<PathBuf>,
    /// Another user, and another group if one is given.
    pub user: Option<(u32, Option<u32>)>,
    /// Other supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Capabilities that are added, as `CAP_NAME`.
    pub capabilities: Vec<String>,
    /// Set `no_new_privs`.
    pub no_new_privileges: bool,
    /// Another AppArmor profile.
    pub apparmor_profile: Option<String>,
    /// Another SELinux label.
    pub selinux_label: Option<String>,
    /// With a terminal.
    pub terminal: bool,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The process this file describes.
    File(PathBuf),
    /// The container's own, changed.
    Changed(Changes),
}

/// A process to run, in the specification's words.
#[derive(Clone, Debug)]
pub struct Process {
    value: Value,
    rootfs: PathBuf,
}

/// Keeps the process of a new container's bundle for [`Process::read`].
///
/// # Errors
/// When the file cannot be written.
pub fn keep(container: &Container, bundle: &Value) -> Result<(), Error> {
    let process = bundle.get("process").cloned().unwrap_or_default();
    fs::write(container.file(FILE), process.to_string()).map_err(Error::host("keep the process"))
}

/// Adds what `changes` say.
fn change(process: &mut Value, changes: &Changes) {
    process["args"] = json!(changes.args);
    process["terminal"] = json!(changes.terminal);
    if let Some(cwd) = &changes.cwd {
        process["cwd"] = json!(cwd);
    }
    if let Some((uid, gid)) = changes.user {
        process["user"]["uid"] = json!(uid);
        if let Some(gid) = gid {
            process["user"]["gid"] = json!(gid);
        }
    }
    if !changes.additional_gids.is_empty() {
        process["user"]["additionalGids"] = json!(changes.additional_gids);
    }
    if changes.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    for (name, label) in [
        ("apparmorProfile", &changes.apparmor_profile),
        ("selinuxLabel", &changes.selinux_label),
    ] {
        if let Some(label) = label {
            process[name] = json!(label);
        }
    }
    append(&mut process["env"], &changes.env);
    if !changes.capabilities.is_empty() {
        for set in [
            "bounding",
            "effective",
            "inheritable",
            "permitted",
            "ambient",
        ] {
            append(&mut process["capabilities"][set], &changes.capabilities);
        }
    }
}

fn append(list: &mut Value, more: &[String]) {
    if more.is_empty() {
        return;
    }
    let mut all = list.as_array().cloned().unwrap_or_default();
    all.extend(more.iter().map(|one| json!(one)));
    *list = Value::Array(all);
}

impl Process {
    /// Reads what is `wanted` in the container of `record`, whose directory is `dir`.
    ///
    /// # Errors
    /// [`spec::Error`], naming the field; files that cannot be read.
    pub fn read(dir: &Path, record: &Record, wanted: &Wanted) -> Result<Self, Error> {
        let read = |path: &Path| -> Result<Value, Error> {
            let text = fs::read(path).map_err(Error::host(format!("read {}", path.display())))?;
            Ok(serde_json::from_slice(&text).map_err(spec::Error::Json)?)
        };
        let own = read(&dir.join(FILE))?;
        let value = match wanted {
            Wanted::File(path) => {
                let mut process = read(path)?;
                // As runc: what is not said is the container's.
                for field in ["capabilities", "rlimits"] {
                    if process.get(field).is_none_or(Value::is_null)
                        && let (Some(value), Some(process)) =
                            (own.get(field), process.as_object_mut())
                    {
                        process.insert(field.to_owned(), value.clone());
                    }
                }
                process
            }
            Wanted::Changed(changes) => {
                let mut process = own;
                change(&mut process, changes);
                process
            }
        };
        Ok(Self {
            value,
            rootfs: record.rootfs.clone(),
        })
    }

    /// Whether it wants a terminal.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        self.value.get("terminal").and_then(Value::as_bool) == Some(true)
    }

    /// As the libOS takes it, with streams of these kinds.
    ///
    /// # Errors
    /// [`spec::Error`], naming the field.
    pub fn config(&self, streams: [StreamKind; 3]) -> Result<ProcessConfig, Error> {
        let whole = json!({
            "ociVersion": "1.0.2",
            "process": self.value,
            "root": {"path": self.rootfs},
            "linux": {},
        });
        let (spec, raw) = spec::parse(whole.to_string().as_bytes())?;
        spec::check_process(&spec)?;
        let bundle = Bundle {
            path: PathBuf::new(),
            rootfs: self.rootfs.clone(),
            spec,
            raw,
        };
        Ok(process::of(&bundle, streams)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_runcs() {
        let mut process = json!({
            "terminal": true,
            "user": {"uid": 1, "gid": 2},
            "args": ["sh"],
            "env": ["A=b"],
            "cwd": "/x",
            "capabilities": {"bounding": ["CAP_KILL"]},
        });
        change(
            &mut process,
            &Changes {
                args: vec!["id".to_owned()],
                env: vec!["C=d".to_owned()],
                user: Some((5, Some(0))),
                capabilities: vec!["CAP_CHOWN".to_owned()],
                ..Changes::default()
            },
        );
        assert_eq!(process["args"], json!(["id"]));
        assert_eq!(process["env"], json!(["A=b", "C=d"]));
        assert_eq!(process["cwd"], json!("/x"));
        assert_eq!(process["terminal"], json!(false));
        assert_eq!(process["user"], json!({"uid": 5, "gid": 0}));
        let sets = &process["capabilities"];
        assert_eq!(sets["bounding"], json!(["CAP_KILL", "CAP_CHOWN"]));
        assert_eq!(sets["effective"], json!(["CAP_CHOWN"]));
    }

    #[test]
    fn a_process_is_checked_as_a_bundles() {
        let of = |value: Value| Process {
            value,
            rootfs: "/nonexistent".into(),
        };
        let good = json!({"user": {"uid": 7, "gid": 8}, "args": ["id"], "cwd": "/"});
        let config = of(good).config([StreamKind::Null; 3]).unwrap();
        assert_eq!((config.uid, config.gid, config.args.len()), (7, 8, 1));
        let bad = json!({"user": {"uid": 7, "gid": 8}, "args": [], "cwd": "/"});
        let error = of(bad).config([StreamKind::Null; 3]).unwrap_err();
        assert!(error.to_string().contains("process.args"), "{error}");
    }
}
