//! A process of husk's own planning in the specification's words: what `exec` starts from in a container without a bundle.

use husk_abi::boundary::config::ProcessConfig;
use serde_json::{Value, json};

use super::process;

/// Names of resource limits by number (`getrlimit(2)`).
const LIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// `process` of a config.json (config.md, "Process") that gives `config`. What is no UTF-8 is changed: JSON has no other.
#[must_use]
pub fn process(config: &ProcessConfig) -> Value {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let texts = |list: &[Vec<u8>]| list.iter().map(text).collect::<Vec<_>>();
    let names = process::capability_names();
    let set = |bits: u64| {
        let held = names.iter().enumerate();
        held.filter(|(number, _)| bits >> number & 1 == 1)
            .map(|(_, name)| name.clone())
            .collect::<Vec<_>>()
    };
    let [bounding, effective, inheritable, permitted, ambient] = config.capabilities.map(set);
    let limits: Vec<Value> = config
        .rlimits
        .iter()
        .filter_map(|limit| {
            let name = LIMITS.get(usize::try_from(limit.resource).ok()?)?;
            Some(json!({"type": name, "soft": limit.soft, "hard": limit.hard}))
        })
        .collect();
    json!({
        "terminal": false,
        "user": {
            "uid": config.uid,
            "gid": config.gid,
            "umask": config.umask,
            "additionalGids": config.additional_gids,
        },
        "args": texts(&config.args),
        "env": texts(&config.env),
        "cwd": text(&config.cwd),
        "capabilities": {
            "bounding": bounding,
            "effective": effective,
            "inheritable": inheritable,
            "permitted": permitted,
            "ambient": ambient,
        },
        "rlimits": limits,
        "noNewPrivileges": config.no_new_privileges,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::spec::{self, Bundle};
    use husk_abi::boundary::config::{Rlimit, StreamKind};

    #[test]
    fn there_and_back() {
        let config = ProcessConfig {
            args: vec![b"sh".to_vec(), b"-c".to_vec()],
            env: vec![b"A=b".to_vec(), b"HOME=/w".to_vec()],
            cwd: b"/w".to_vec(),
            uid: 5,
            gid: 6,
            additional_gids: vec![7],
            umask: 0o27,
            capabilities: [0b1011, 0b11, 0, 0b11, 0],
            no_new_privileges: true,
            rlimits: vec![Rlimit {
                resource: 7,
                soft: 10,
                hard: 20,
            }],
            oom_score_adj: 0,
            streams: [StreamKind::Null; 3],
            handed: Vec::new(),
            window: None,
        };
        let whole = json!({"ociVersion": "1.0.2", "process": process(&config), "root": {"path": "/"}, "linux": {}});
        let (spec, raw) = spec::parse(whole.to_string().as_bytes()).unwrap();
        let bundle = Bundle {
            path: "/".into(),
            rootfs: "/".into(),
            spec,
            raw,
        };
        let back = process::of(&bundle, [StreamKind::Null; 3]).unwrap();
        assert_eq!(back, config);
    }
}
