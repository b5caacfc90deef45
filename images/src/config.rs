//! The image configuration (OCI image-spec, config.md), reduced to what a runtime needs.
//!
//! Docker writes `null` or nothing where the specification wants empty values; both read as empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::digest::Digest;

/// What an image says about running it. Absent members are empty strings and lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `NAME=value` strings.
    pub env: Vec<String>,
    /// The leading arguments, kept when the user gives a command.
    pub entrypoint: Vec<String>,
    /// The default arguments, replaced when the user gives a command.
    pub cmd: Vec<String>,
    /// Where the process starts; empty means `/`.
    pub working_dir: String,
    /// `user`, `uid`, `user:group`, `uid:gid` and mixtures; empty means root.
    pub user: String,
    /// `port`, `port/tcp` or `port/udp`, sorted.
    pub exposed_ports: Vec<String>,
    /// Labels, sorted by key.
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`, `15` and the like; empty means SIGTERM.
    pub stop_signal: String,
    /// GOARCH name, such as `amd64`.
    pub architecture: String,
    /// GOOS name, such as `linux`.
    pub os: String,
}

/// The whole document: the public part and what verification needs.
#[derive(Debug, Clone)]
pub(crate) struct ConfigDocument {
    pub(crate) config: ImageConfig,
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct WireDocument {
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    config: WireConfig,
    #[serde(default, deserialize_with = "or_default")]
    rootfs: WireRootFs,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct WireConfig {
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    working_dir: String,
    #[serde(deserialize_with = "or_default")]
    user: String,
    #[serde(deserialize_with = "or_default")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    stop_signal: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireRootFs {
    #[serde(deserialize_with = "or_default")]
    diff_ids: Vec<String>,
}

/// `null` reads as the default value.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads the document; the error is one phrase for the caller to put after the blob's name.
pub(crate) fn parse(bytes: &[u8]) -> Result<ConfigDocument, String> {
    let wire: WireDocument = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let diff_ids = wire
        .rootfs
        .diff_ids
        .iter()
        .map(|text| text.parse().map_err(|e| format!("rootfs.diff_ids: {e}")))
        .collect::<Result<_, String>>()?;
    let from = wire.config;
    Ok(ConfigDocument {
        config: ImageConfig {
            env: from.env,
            entrypoint: from.entrypoint,
            cmd: from.cmd,
            working_dir: from.working_dir,
            user: from.user,
            exposed_ports: from.exposed_ports.into_keys().collect(),
            labels: from.labels,
            stop_signal: from.stop_signal,
            architecture: wire.architecture,
            os: wire.os,
        },
        diff_ids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_document() {
        let diff = format!("sha256:{}", "a".repeat(64));
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"x","config":{{"Env":["A=1"],
            "Entrypoint":["/init"],"Cmd":["sh"],"WorkingDir":"/w","User":"1:2","StopSignal":"SIGINT",
            "ExposedPorts":{{"80/tcp":{{}},"53/udp":{{}}}},"Labels":{{"k":"v"}}}},
            "rootfs":{{"type":"layers","diff_ids":["{diff}"]}},"history":[]}}"#
        );
        let doc = parse(text.as_bytes()).unwrap();
        assert_eq!(doc.diff_ids[0].to_string(), diff);
        let c = doc.config;
        assert_eq!(
            (c.env, c.entrypoint),
            (vec!["A=1".to_owned()], vec!["/init".to_owned()])
        );
        assert_eq!(
            (c.cmd, c.working_dir),
            (vec!["sh".to_owned()], "/w".to_owned())
        );
        assert_eq!(c.exposed_ports, ["53/udp", "80/tcp"]);
        assert_eq!(c.labels["k"], "v");
        assert_eq!((c.user.as_str(), c.stop_signal.as_str()), ("1:2", "SIGINT"));
        assert_eq!((c.architecture.as_str(), c.os.as_str()), ("amd64", "linux"));
    }

    #[test]
    fn nulls_and_absences_are_empty() {
        let doc = parse(
            br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":null,
            "Labels":null,"ExposedPorts":null,"User":null},"rootfs":null}"#,
        )
        .unwrap();
        assert!(doc.config.env.is_empty() && doc.diff_ids.is_empty());
        assert!(parse(b"{}").is_ok());
        assert!(parse(br#"{"config":null}"#).is_ok());
    }

    #[test]
    fn bad_documents() {
        for text in [
            "",
            "[]x",
            "{",
            r#"{"rootfs":{"diff_ids":["sha256:zz"]}}"#,
            r#"{"config":7}"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
