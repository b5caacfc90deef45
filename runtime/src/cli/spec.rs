//! `husk spec`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::process::ExitCode;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::Error;
use super::args::SpecArgs;

/// Writes an example `config.json`; never over one that is there.
pub fn run(args: &SpecArgs) -> Result<ExitCode, Error> {
    let path = args.bundle.join("config.json");
    let failed = |source: io::Error| Error::Spec {
        path: path.clone(),
        source,
    };
    let text = serde_json::to_string_pretty(&example()).map_err(|error| failed(error.into()))?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// A shell in `rootfs`, with the namespaces and mounts every engine gives.
fn example() -> Value {
    let mut spec = serde_json::to_value(Spec::default()).unwrap_or_default();
    spec["hostname"] = json!("husk");
    spec["process"]["terminal"] = json!(true);
    spec["process"]["args"] = json!(["sh"]);
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_one_that_husk_takes() {
        let spec: Spec = serde_json::from_value(example()).unwrap();
        assert_eq!(spec.hostname().as_deref(), Some("husk"));
        assert!(
            spec.linux().is_some() && spec.mounts().as_ref().is_some_and(|list| list.len() >= 6)
        );
    }
}
