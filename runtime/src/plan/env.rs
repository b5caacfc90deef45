//! The first process's environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::Error;

/// `PATH` where nobody sets one (moby, oci/defaults.go).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where variables come from, weakest first except for `home`, which only fills a gap.
#[derive(Debug)]
pub struct Sources<'a> {
    /// `NAME=VALUE` strings of the image.
    pub image: &'a [String],
    /// What was typed: `NAME=VALUE`, or `NAME` to pass on the caller's.
    pub typed: &'a [OsString],
    /// For `HOSTNAME`.
    pub hostname: &'a str,
    /// For `HOME`.
    pub home: &'a [u8],
    /// Whether a terminal is attached, for `TERM`.
    pub has_terminal: bool,
}

/// Rejects what no environment can hold.
pub fn check(typed: &[OsString]) -> Result<(), Error> {
    for variable in typed {
        let text = || variable.to_string_lossy().into_owned();
        if variable.is_empty() || variable.as_bytes().starts_with(b"=") {
            return Err(Error::EnvWithoutName(text()));
        }
        if variable.as_bytes().contains(&0) {
            return Err(Error::Nul {
                what: "--env",
                text: text(),
            });
        }
    }
    Ok(())
}

fn name(variable: &[u8]) -> &[u8] {
    variable.split(|byte| *byte == b'=').next().unwrap_or(b"")
}

fn set(env: &mut Vec<Vec<u8>>, variable: Vec<u8>) {
    match env.iter_mut().find(|old| name(old) == name(&variable)) {
        Some(old) => *old = variable,
        None => env.push(variable),
    }
}

fn pair(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b"=", value].concat()
}

/// The environment, `NAME=VALUE` each.
pub fn compose(from: &Sources<'_>) -> Vec<Vec<u8>> {
    let mut env = vec![
        pair("PATH", DEFAULT_PATH.as_bytes()),
        pair("HOSTNAME", from.hostname.as_bytes()),
    ];
    if from.has_terminal {
        env.push(pair("TERM", b"xterm"));
    }
    for variable in from.image {
        // A variable without `=` in an image means nothing.
        if variable.contains('=') && !variable.contains('\0') {
            set(&mut env, variable.as_bytes().to_vec());
        }
    }
    for variable in from.typed {
        if variable.as_bytes().contains(&b'=') {
            set(&mut env, variable.clone().into_vec());
        } else if let Some(value) = std::env::var_os(variable) {
            let variable: &OsStr = variable;
            set(
                &mut env,
                [variable.as_bytes(), b"=", value.as_bytes()].concat(),
            );
        } else {
            env.retain(|old| name(old) != variable.as_bytes());
        }
    }
    if !env.iter().any(|variable| name(variable) == b"HOME") {
        env.push(pair("HOME", from.home));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composed(image: &[&str], typed: &[&str]) -> Vec<String> {
        let image: Vec<String> = image.iter().map(|text| (*text).to_owned()).collect();
        let typed: Vec<OsString> = typed.iter().map(OsString::from).collect();
        compose(&Sources {
            image: &image,
            typed: &typed,
            hostname: "h",
            home: b"/root",
            has_terminal: false,
        })
        .into_iter()
        .map(|variable| String::from_utf8(variable).unwrap())
        .collect()
    }

    #[test]
    fn later_sources_win() {
        assert_eq!(
            composed(&["PATH=/i", "A=1", "B=2", "odd"], &["A=3", "C=x=y"]),
            ["PATH=/i", "HOSTNAME=h", "A=3", "B=2", "C=x=y", "HOME=/root"]
        );
    }

    #[test]
    fn a_bare_name_passes_on_or_removes() {
        let unset = "HUSK_TEST_SURELY_UNSET";
        assert_eq!(
            composed(&[&format!("{unset}=1"), "HOME=/h"], &[unset]),
            [
                format!("PATH={DEFAULT_PATH}").as_str(),
                "HOSTNAME=h",
                "HOME=/h"
            ]
        );
        let passed = composed(&[], &["PATH"]);
        assert_eq!(
            passed[0],
            format!("PATH={}", std::env::var("PATH").unwrap())
        );
    }

    #[test]
    fn bad_variables() {
        assert!(check(&["A=1".into(), "B".into()]).is_ok());
        assert!(matches!(
            check(&["=1".into()]),
            Err(Error::EnvWithoutName(_))
        ));
        assert!(matches!(check(&["".into()]), Err(Error::EnvWithoutName(_))));
        assert!(matches!(check(&["A=\0".into()]), Err(Error::Nul { .. })));
    }
}
