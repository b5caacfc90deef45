//! The container's network namespace. In a new one the loopback is up, as runc leaves it; of one that is there already the
//! guest is told the settings.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use libcontainer::network::link::LinkClient;
use libcontainer::network::wrapper::create_network_client;
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

/// The loopback's index: the first of every namespace.
const LOOPBACK: u32 = 1;

/// Settings of a network namespace that the guest's sockets go by (ip-sysctl in the kernel's documentation).
const SETTINGS: [&str; 2] = [
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
];

/// Runs `work` in a network namespace: a thread enters it for itself.
fn within<T: Send + 'static>(
    namespace: File,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    in_a_thread(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

fn in_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    std::thread::Builder::new()
        .name("network".to_owned())
        .spawn(work)?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread in the network namespace died")))
}

/// Adds the settings of a network namespace that is there already, the one `spec` names or else this process's, to those
/// the bundle sets. In a pod the first container's bundle sets them for all.
///
/// What cannot be read is left as Linux has it by default: a namespace that is not there is an error of libcontainer's.
pub fn add_settings(spec: &Value, set: &mut Vec<(String, String)>) {
    let missing: Vec<&str> = SETTINGS
        .into_iter()
        .filter(|setting| set.iter().all(|(name, _)| name != setting))
        .collect();
    let read = move || {
        let value = |name: &str| {
            let file = format!("/proc/sys/{}", name.replace('.', "/"));
            let value = fs::read_to_string(file).ok()?;
            Some((name.to_owned(), value.trim_end().to_owned()))
        };
        Ok(missing.into_iter().filter_map(value).collect::<Vec<_>>())
    };
    let namespaces = spec.pointer("/linux/namespaces").and_then(Value::as_array);
    let named = namespaces
        .into_iter()
        .flatten()
        .find(|namespace| namespace.get("type").and_then(Value::as_str) == Some("network"));
    let found = match named.and_then(|namespace| namespace.get("path")?.as_str()) {
        Some(path) => File::open(path).and_then(|namespace| within(namespace, read)),
        None => read(),
    };
    set.extend(found.unwrap_or_default());
}

/// Whether `spec` asks for a network namespace, and for none that is there already.
pub fn is_new(spec: &Value) -> bool {
    let namespaces = spec.pointer("/linux/namespaces").and_then(Value::as_array);
    namespaces.into_iter().flatten().any(|namespace| {
        let path = namespace.get("path").and_then(Value::as_str);
        namespace.get("type").and_then(Value::as_str) == Some("network")
            && path.unwrap_or_default().is_empty()
    })
}

/// A new network namespace, as runc makes it before any hook runs: the loopback is up.
///
/// # Errors
/// When the host refuses.
pub fn make() -> io::Result<OwnedFd> {
    let made = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::open("/proc/thread-self/ns/net")
    };
    let namespace = in_a_thread(made)?;
    loopback_up(namespace.try_clone()?)?;
    Ok(namespace.into())
}

/// Sets the loopback up in a network namespace.
///
/// # Errors
/// When the host refuses.
pub fn loopback_up(namespace: File) -> io::Result<()> {
    within(namespace, || {
        let mut links = LinkClient::new(create_network_client()).map_err(io::Error::other)?;
        links.set_up(LOOPBACK).map_err(io::Error::other)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn new_namespaces() {
        let spec = |namespaces| json!({"linux": {"namespaces": namespaces}});
        assert!(is_new(&spec(json!([{"type": "pid"}, {"type": "network"}]))));
        assert!(is_new(&spec(json!([{"type": "network", "path": ""}]))));
        assert!(!is_new(&spec(
            json!([{"type": "network", "path": "/proc/1/ns/net"}])
        )));
        assert!(!is_new(&spec(json!([{"type": "pid"}]))));
        assert!(!is_new(&json!({})));
    }

    #[test]
    fn settings_of_a_namespace() {
        let spec = json!({"linux": {"namespaces": [{"type": "network"}]}});
        let mut set = vec![(SETTINGS[0].to_owned(), "7".to_owned())];
        add_settings(&spec, &mut set);
        assert_eq!(set[0].1, "7");
        let range = fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap();
        assert_eq!(
            set[1..],
            [(SETTINGS[1].to_owned(), range.trim_end().to_owned())]
        );
        let gone = json!({"linux": {"namespaces": [{"type": "network", "path": "/nowhere"}]}});
        let mut set = Vec::new();
        add_settings(&gone, &mut set);
        assert!(set.is_empty());
    }
}
