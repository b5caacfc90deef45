//! The network outside: what a container reaches, and who reaches it, is as under runc.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use husk_tests::cache::workspace;
use husk_tests::network::Namespace;
use husk_tests::oci::{self, Bundle, both};
use husk_tests::programs;
use serde_json::{Value, json};

const OWN: &str = "10.77.0.1";
const PEER: &str = "10.77.0.2";

/// Puts the container into `namespace`, with `CAP_NET_RAW`.
fn join(spec: &mut Value, namespace: &Namespace) {
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "network", "path": namespace.path()}));
    }
    for set in ["bounding", "effective", "permitted"] {
        if let Some(set) = spec["process"]["capabilities"][set].as_array_mut() {
            set.push(json!("CAP_NET_RAW"));
        }
    }
}

/// A program of `tests/programs` as a file of the host.
fn program(name: &str) -> Result<PathBuf> {
    programs::compile(&workspace().join("tests/programs"))?
        .into_iter()
        .find(|(other, _)| other == name)
        .map(|(_, path)| path)
        .context("no such program")
}

#[test]
fn sockets_lead_out() -> Result<()> {
    let [own, mut peer] = Namespace::pair([OWN, PEER])?;
    peer.start(&program("net_peer")?, &[], "ready")?;
    let script = format!("exec /t/net_out {OWN} {PEER}");
    let text = oci::equal(programs::image(), &script, |spec| join(spec, &own))?;
    ensure!(text.ends_with("all ok\nStatus(0)"), "{text}");
    Ok(())
}

#[test]
fn streams_in_small_pieces() -> Result<()> {
    let [own, mut peer] = Namespace::pair([OWN, PEER])?;
    peer.start(&program("net_peer")?, &[], "ready")?;
    let script = format!("for seed in 1 2 3 4 5; do /t/net_stream {PEER} $seed || exit 1; done");
    let text = oci::equal(programs::image(), &script, |spec| join(spec, &own))?;
    ensure!(text.ends_with("all ok\nStatus(0)"), "{text}");
    Ok(())
}

#[test]
fn datagrams_many_at_a_time() -> Result<()> {
    let [own, mut peer] = Namespace::pair([OWN, PEER])?;
    peer.start(&program("net_peer")?, &[], "ready")?;
    let script = format!("exec /t/net_datagram {OWN} {PEER}");
    let text = oci::equal(programs::image(), &script, |spec| join(spec, &own))?;
    ensure!(text.ends_with("all ok\nStatus(0)"), "{text}");
    Ok(())
}

#[test]
fn changes_are_told() -> Result<()> {
    const GIVEN: &str = "10.99.0.1";
    let [own, _peer] = Namespace::pair([OWN, PEER])?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                own.ip(&format!("addr add {GIVEN}/32 dev eth0"))?;
                own.ip(&format!("addr del {GIVEN}/32 dev eth0"))?;
            }
            Ok(())
        });
        let script = format!("exec /t/net_notify {GIVEN}");
        let text = oci::equal(programs::image(), &script, |spec| join(spec, &own));
        is_over.store(true, Ordering::Relaxed);
        changes.join().expect("it does not panic")?;
        let text = text?;
        ensure!(text.ends_with("all ok\nStatus(0)"), "{text}");
        Ok(())
    })
}

#[test]
fn tables_of_the_network() -> Result<()> {
    let [own, _peer] = Namespace::pair([OWN, PEER])?;
    // Addresses of version 6 become usable when the kernel has looked for others that have them.
    let script = "ip -4 addr; ip -4 route; ip link; ifconfig lo | head -2; cat /proc/net/route; \
                  tail -n +3 /proc/net/dev | cut -d: -f1; ip route get 10.77.0.2; ip -4 neigh show dev lo; \
                  ip link set lo down; echo $?; ip addr add 10.9.9.9/32 dev lo; echo $?";
    let text = oci::equal(programs::image(), script, |spec| join(spec, &own))?;
    ensure!(text.contains("inet 10.77.0.1/24"), "{text}");
    Ok(())
}

#[test]
fn a_network_of_its_own_has_a_loopback() -> Result<()> {
    let script = "ip -4 addr show dev lo; ip link | wc -l; nc 10.77.0.2 80 </dev/null; echo $?; \
                  nc 127.0.0.1 80 </dev/null; echo $?; /t/net_peer >/dev/null & \
                  while ! echo text | nc 127.0.0.1 7001 2>/dev/null; do :; done; kill $!";
    let text = oci::equal(programs::image(), script, |_| {})?;
    ensure!(
        text.contains("127.0.0.1/8") && text.contains("text"),
        "{text}"
    );
    Ok(())
}

/// Containers of one network, as in a pod: one reaches the other by the loopback, and cannot have its port; so does who is in the
/// network without a container.
#[test]
fn containers_share_a_network() -> Result<()> {
    let shown = both(|runtime| {
        let mut own = Namespace::new()?;
        let container = |script: &str| -> Result<Bundle<'_>> {
            let mut bundle = Bundle::new(runtime, programs::image(), script)?;
            bundle.edit(|spec| join(spec, &own))?;
            Ok(bundle)
        };
        let server = container("exec /t/net_peer")?;
        let server_id = server.started()?;
        server.wait_for_text(&server_id, "ready")?;
        let client = container(
            "echo by the loopback | nc 127.0.0.1 7001; nc -l -p 7001 2>/dev/null </dev/null; echo $?",
        )?;
        let client = client.run()?;
        // Who is outside reaches it, too.
        own.start(
            Path::new("sh"),
            &["-c", "echo from outside | busybox nc 127.0.0.1 7001"],
            "from outside",
        )?;
        Ok(format!("{}{:?}", client.stdout_text(), client.end))
    })?;
    ensure!(shown == "by the loopback\n1\nStatus(0)", "{shown}");
    Ok(())
}
