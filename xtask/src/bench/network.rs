//! Sockets that lead out, to a peer in another network namespace of the host.

use anyhow::{Context, Result, ensure};
use husk_tests::cache::workspace;
use husk_tests::network::Namespace;
use husk_tests::oci::{Bundle, Runtime};
use husk_tests::{End, Image, programs};
use serde_json::json;

use super::ROUNDS;
use super::report::{self, Measured};

const OWN: &str = "10.77.0.1";
const PEER: &str = "10.77.0.2";

/// The benchmarks of this module: programs of `benches/network`.
pub const NAMES: [&str; 5] = [
    "net_stream",
    "net_streams",
    "net_datagram",
    "net_receive",
    "net_send",
];

/// Measures one of them; `None` if `name` is none.
pub fn measure(name: &str) -> Result<Option<Measured>> {
    if !NAMES.contains(&name) {
        return Ok(None);
    }
    let image = Image::with_programs(&programs::compile(&workspace().join("benches/network"))?)?;
    let [own, mut peer] = Namespace::pair([OWN, PEER])?;
    let (_, program) = programs::compile(&workspace().join("tests/programs"))?
        .into_iter()
        .find(|(name, _)| name == "net_peer")
        .context("no peer")?;
    peer.start(&program, &[], "ready")?;
    let runtimes = [Runtime::runc()?, Runtime::husk()?];
    let time = |runtime: &Runtime| -> Result<f64> {
        let mut bundle = Bundle::new(runtime, &image, &format!("exec /t/{name} {PEER}"))?;
        bundle.edit(|spec| {
            if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
                namespaces.retain(|namespace| namespace["type"] != "network");
                namespaces.push(json!({"type": "network", "path": own.path()}));
            }
        })?;
        let run = bundle.run()?;
        let printed = run.stdout_text();
        ensure!(
            run.end == End::Status(0),
            "{:?}: {}",
            run.end,
            run.stderr_text()
        );
        let value = printed.split_whitespace().next();
        value
            .and_then(|value| value.parse().ok())
            .with_context(|| format!("{name} printed {printed:?}"))
    };
    let mut measured = Measured {
        name: name.to_owned(),
        unit: "ns",
        counts: Vec::new(),
        runc: Vec::new(),
        husk: Vec::new(),
        previous: report::previous_ratio(name),
    };
    for round in 0..=ROUNDS {
        let values = (time(&runtimes[0])?, time(&runtimes[1])?);
        if round > 0 {
            measured.runc.push(values.0);
            measured.husk.push(values.1);
        }
    }
    Ok(Some(measured))
}
