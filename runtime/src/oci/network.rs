//! The container's network namespace, where it is a new one: as runc leaves it, the loopback is up.

use std::fs::File;
use std::io;

use libcontainer::network::link::LinkClient;
use libcontainer::network::wrapper::create_network_client;
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// The loopback's index: the first of every namespace.
const LOOPBACK: u32 = 1;

/// Whether `spec` asks for a network namespace, and for none that is there already.
pub fn is_new(spec: &Value) -> bool {
    let namespaces = spec.pointer("/linux/namespaces").and_then(Value::as_array);
    namespaces.into_iter().flatten().any(|namespace| {
        let path = namespace.get("path").and_then(Value::as_str);
        namespace.get("type").and_then(Value::as_str) == Some("network")
            && path.unwrap_or_default().is_empty()
    })
}

/// Sets the loopback up in the network namespace of process `pid`, which has not the right to.
///
/// # Errors
/// When the namespace is gone or the host refuses.
pub fn loopback_up(pid: i32) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    // A thread enters a namespace for itself.
    let work = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let mut links = LinkClient::new(create_network_client()).map_err(io::Error::other)?;
        links.set_up(LOOPBACK).map_err(io::Error::other)
    };
    std::thread::Builder::new()
        .name("loopback".to_owned())
        .spawn(work)?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that sets it up died")))
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
}
