//! What the shim tells of itself.

use std::io::{self, Read, Write};
use std::process::{Command, ExitCode};

use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use crate::RUNTIME;
use crate::options::Options;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The type of what `husk features` prints (runtime-spec, features.md).
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// `-v`.
pub fn version() -> ExitCode {
    let text = format!("containerd-shim-husk-v1:\n  Version:  {VERSION}\n");
    written(text.as_bytes())
}

/// `-info`: containerd 2 gives the runtime's options and wants a `RuntimeInfo`.
pub fn info() -> ExitCode {
    let mut input = Vec::new();
    let _ = io::stdin().read_to_end(&mut input);
    let options = Any::parse_from_bytes(&input).ok();
    let binary = Options::of(options.as_ref()).unwrap_or_default().binary();
    let features = Command::new(binary)
        .arg("features")
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map(|output| output.stdout);
    match runtime_info(options, features).write_to_bytes() {
        Ok(bytes) => written(&bytes),
        Err(_) => ExitCode::FAILURE,
    }
}

fn runtime_info(options: Option<Any>, features: Option<Vec<u8>>) -> RuntimeInfo {
    RuntimeInfo {
        name: RUNTIME.to_owned(),
        version: Some(RuntimeVersion {
            version: VERSION.to_owned(),
            ..RuntimeVersion::default()
        })
        .into(),
        options: options.filter(|any| !any.type_url.is_empty()).into(),
        features: features
            .map(|value| Any {
                type_url: FEATURES.to_owned(),
                value,
                ..Any::default()
            })
            .into(),
        ..RuntimeInfo::default()
    }
}

fn written(bytes: &[u8]) -> ExitCode {
    match io::stdout().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told() {
        let info = runtime_info(Some(Any::default()), Some(b"{}".to_vec()));
        assert_eq!(info.name, "io.containerd.husk.v1");
        assert_eq!(info.version.version, VERSION);
        assert!(info.options.is_none());
        assert_eq!(info.features.value, b"{}");
    }
}
