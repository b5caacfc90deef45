//! Whether engines know husk: what their configuration says, and whether that leads to husk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Finding::{self, Absent, Ok as Good, Problem};

/// The runtime's name for containerd.
const RUNTIME_TYPE: &str = "io.containerd.husk.v1";
const SHIM: &str = "containerd-shim-husk-v1";
/// What services of systemd have as PATH, unless they say otherwise.
const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where podman looks for its configuration; later ones win.
const CONTAINERS_CONF: [&str; 2] = [
    "usr/share/containers/containers.conf",
    "etc/containers/containers.conf",
];

/// A line for each engine; `root` is where the file system begins.
pub fn check(root: &Path) -> Vec<Finding> {
    vec![
        docker(root),
        shim(root, &containerd_path()),
        kubernetes(root),
        podman(root),
    ]
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|at| at.is_file() && at.permissions().mode() & 0o111 != 0)
}

/// Where `name` is: itself if it is a path, else the first on `path`.
fn find(root: &Path, name: &str, path: &str) -> Option<PathBuf> {
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    if name.contains('/') {
        return Some(inside(name)).filter(|path| is_program(path));
    }
    path.split(':')
        .map(|dir| inside(dir).join(name))
        .find(|path| is_program(path))
}

/// Text of a file that may be missing; an error is one line.
fn text(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Reads TOML as the value JSON would be.
fn toml(path: &Path) -> Result<Option<Value>, String> {
    text(path)?
        .map(|text| {
            toml::from_str(&text)
                .map_err(|error| format!("{}: {}", path.display(), error.message()))
        })
        .transpose()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The runtimes in `daemon.json`.
fn docker(root: &Path) -> Finding {
    let path = root.join("etc/docker/daemon.json");
    let parsed = text(&path).and_then(|text| {
        text.map(|text| serde_json::from_str::<Value>(&text))
            .transpose()
            .map_err(|error| format!("{}: {error}", path.display()))
    });
    let value = match parsed {
        Ok(value) => value.unwrap_or_default(),
        Err(error) => return Problem(format!("Docker: {error}")),
    };
    for (name, runtime) in entries(&value["runtimes"]) {
        if runtime["runtimeType"] == RUNTIME_TYPE {
            return Good(format!("Docker: the runtime {name} is {RUNTIME_TYPE}"));
        }
        let program = runtime["path"].as_str().unwrap_or_default();
        if Path::new(program)
            .file_name()
            .is_some_and(|name| name == "husk")
        {
            return match find(root, program, SERVICE_PATH) {
                Some(_) => Good(format!("Docker: the runtime {name} is {program}")),
                None => Problem(format!(
                    "Docker: the runtime {name} is {program}, which is no program: correct {}",
                    path.display()
                )),
            };
        }
    }
    Absent("Docker: /etc/docker/daemon.json has no runtime husk".to_owned())
}

/// The PATH of a containerd that runs, else that of a service.
fn containerd_path() -> String {
    let own = |process: fs::DirEntry| {
        let process = process.path();
        let name = fs::read_to_string(process.join("comm")).ok()?;
        if name.trim_end() != "containerd" {
            return None;
        }
        let environment = fs::read(process.join("environ")).ok()?;
        environment
            .split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(b"PATH="))
            .map(|path| String::from_utf8_lossy(path).into_owned())
    };
    fs::read_dir("/proc")
        .ok()
        .and_then(|processes| processes.flatten().find_map(own))
        .unwrap_or_else(|| SERVICE_PATH.to_owned())
}

/// The shim, where containerd looks for it; that is all `ctr` and nerdctl need.
fn shim(root: &Path, path: &str) -> Finding {
    match find(root, SHIM, path) {
        Some(found)
            if is_program(&found.with_file_name("husk")) || find(root, "husk", path).is_some() =>
        {
            Good(format!(
                "containerd: {} serves {RUNTIME_TYPE}",
                found.display()
            ))
        }
        Some(found) => Problem(format!(
            "containerd: {} has no husk beside it or on containerd's PATH",
            found.display()
        )),
        None => Absent(format!(
            "containerd: no {SHIM} on containerd's PATH ({path})"
        )),
    }
}

/// The runtimes of the CRI plugin: version 2 of the configuration is containerd 1's, 3 containerd 2's.
fn kubernetes(root: &Path) -> Finding {
    let value = match toml(&root.join("etc/containerd/config.toml")) {
        Ok(value) => value.unwrap_or_default(),
        Err(error) => return Problem(format!("Kubernetes: {error}")),
    };
    for plugin in ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"] {
        for (name, runtime) in entries(&value["plugins"][plugin]["containerd"]["runtimes"]) {
            if runtime["runtime_type"] == RUNTIME_TYPE {
                return Good(format!(
                    "Kubernetes: containerd's handler {name} is {RUNTIME_TYPE}"
                ));
            }
        }
    }
    Absent(format!(
        "Kubernetes: /etc/containerd/config.toml has no runtime of type {RUNTIME_TYPE}"
    ))
}

/// The runtimes in `containers.conf` and what is beside it.
fn podman(root: &Path) -> Finding {
    let mut files: Vec<PathBuf> = CONTAINERS_CONF.iter().map(|path| root.join(path)).collect();
    let mut parts: Vec<PathBuf> = fs::read_dir(root.join("etc/containers/containers.conf.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "conf"))
        .collect();
    parts.sort();
    files.append(&mut parts);
    let mut paths = None;
    for file in files {
        match toml(&file) {
            Ok(Some(value)) => {
                if let Some(list) = value["engine"]["runtimes"]["husk"].as_array() {
                    paths = Some(list.clone());
                }
            }
            Ok(None) => {}
            Err(error) => return Problem(format!("Podman: {error}")),
        }
    }
    let Some(paths) = paths else {
        return Absent("Podman: containers.conf has no runtime husk".to_owned());
    };
    let found = paths
        .iter()
        .filter_map(Value::as_str)
        .find(|path| find(root, path, SERVICE_PATH).is_some());
    match found {
        Some(path) => Good(format!("Podman: the runtime husk is {path}")),
        None => Problem(
            "Podman: no path that containers.conf gives for the runtime husk is a program"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Temporary;
    use super::*;

    fn put(root: &Path, path: &str, text: &str, mode: u32) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn nothing_is_configured() {
        let root = Temporary::new().unwrap();
        let path = "/usr/bin";
        for finding in [
            docker(&root.0),
            shim(&root.0, path),
            kubernetes(&root.0),
            podman(&root.0),
        ] {
            assert!(matches!(finding, Absent(_)), "{finding}");
        }
    }

    #[test]
    fn all_is_well() {
        let temporary = Temporary::new().unwrap();
        let root = &temporary.0;
        for (path, text, mode) in [
            ("usr/bin/husk", "", 0o755),
            ("usr/bin/containerd-shim-husk-v1", "", 0o755),
            (
                "etc/docker/daemon.json",
                include_str!("../../../../packaging/docker-daemon.json"),
                0o644,
            ),
            (
                "etc/containerd/config.toml",
                include_str!("../../../../packaging/containerd.toml"),
                0o644,
            ),
            (
                "etc/containers/containers.conf.d/husk.conf",
                include_str!("../../../../packaging/podman.conf"),
                0o644,
            ),
        ] {
            put(root, path, text, mode);
        }
        for finding in [
            docker(root),
            shim(root, "/opt/bin:/usr/bin"),
            kubernetes(root),
            podman(root),
        ] {
            assert!(matches!(finding, Good(_)), "{finding}");
        }
        fs::remove_file(root.join("usr/bin/husk")).unwrap();
        for finding in [docker(root), shim(root, "/usr/bin"), podman(root)] {
            assert!(matches!(finding, Problem(_)), "{finding}");
        }
    }

    #[test]
    fn configuration_that_cannot_be_read() {
        let temporary = Temporary::new().unwrap();
        let root = &temporary.0;
        put(root, "etc/docker/daemon.json", "{", 0o644);
        put(root, "etc/containerd/config.toml", "[", 0o644);
        put(root, "etc/containers/containers.conf", "=", 0o644);
        for finding in [docker(root), kubernetes(root), podman(root)] {
            assert!(matches!(finding, Problem(_)), "{finding}");
            assert_eq!(finding.to_string().lines().count(), 1, "{finding}");
        }
    }

    #[test]
    fn docker_by_the_shim() {
        let temporary = Temporary::new().unwrap();
        let text = r#"{"runtimes":{"h":{"runtimeType":"io.containerd.husk.v1"}}}"#;
        put(&temporary.0, "etc/docker/daemon.json", text, 0o644);
        assert!(matches!(docker(&temporary.0), Good(_)));
    }
}
