//! Hooks (config.md, "POSIX-platform Hooks").
//!
//! Those around `start` and `delete` husk runs itself. Those around `create` libcontainer runs at their places in
//! its setup; they would be told the shadow bundle's path, so they are replaced by husk itself ([`relay`]), which
//! puts the right path into the state and passes it on.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use oci_spec::runtime::Hook;
use serde_json::{Map, Value, json};

use super::shadow::Parts;

/// The hidden verb of the relay.
pub const RELAY: &str = "hook-relay";

/// How a hook failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("error running {kind} hook #{index}: {}: {source}", path.display())]
    Run {
        kind: &'static str,
        index: usize,
        path: PathBuf,
        source: io::Error,
    },
    #[error("error running {kind} hook #{index}: {}: {how}", path.display())]
    Failed {
        kind: &'static str,
        index: usize,
        path: PathBuf,
        how: String,
    },
}

/// Runs `hooks`, each with `state` on its standard input, until one fails.
///
/// # Errors
/// [`Error`].
pub fn run(kind: &'static str, hooks: &[Hook], state: &Value) -> Result<(), Error> {
    for (index, hook) in hooks.iter().enumerate() {
        let path = hook.path().clone();
        let limit = hook
            .timeout()
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs);
        let mut command = command(&path, hook.args().as_deref());
        if let Some(env) = hook.env() {
            command
                .env_clear()
                .envs(env.iter().filter_map(|entry| entry.split_once('=')));
        }
        let status = feed(&mut command, state.to_string().as_bytes(), limit).map_err(|source| {
            Error::Run {
                kind,
                index,
                path: path.clone(),
                source,
            }
        })?;
        if let Some(how) = failure(status) {
            return Err(Error::Failed {
                kind,
                index,
                path,
                how,
            });
        }
    }
    Ok(())
}

fn failure(status: Option<ExitStatus>) -> Option<String> {
    let status = match status {
        Some(status) if status.success() => return None,
        Some(status) => status,
        None => return Some("timed out".to_owned()),
    };
    Some(match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => format!("exit status {}", status.code().unwrap_or(-1)),
    })
}

fn command(path: &Path, args: Option<&[String]>) -> Command {
    let mut command = Command::new(path);
    if let Some((name, rest)) = args.and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    command
}

/// Runs `command` with `input`; `None` if it took longer than `limit` and was killed.
fn feed(
    command: &mut Command,
    input: &[u8],
    limit: Option<Duration>,
) -> io::Result<Option<ExitStatus>> {
    // A hook starts with no signal blocked.
    let nothing = SigSet::empty();
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&nothing), Some(&mut before))?;
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    let mut child = child?;
    if let Some(mut stdin) = child.stdin.take() {
        // The state fits into a pipe; a hook need not read it.
        let _ = stdin.write_all(input);
    }
    let Some(limit) = limit else {
        return child.wait().map(Some);
    };
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Replaces the hooks libcontainer runs outside of the container's root by the relay, and drops those husk runs.
pub fn relayed(hooks: &mut Map<String, Value>, parts: &Parts<'_>) {
    hooks.remove("poststart");
    hooks.remove("poststop");
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let Some(list) = hooks.get_mut(kind).and_then(Value::as_array_mut) else {
            continue;
        };
        list.iter_mut()
            .for_each(|hook| relay_by(hook, parts.bundle, "creating", &json!(parts.husk)));
    }
}

/// Replaces the hooks libcontainer runs inside of the container's root, where husk's own file is not: descriptor `husk` is
/// open there.
pub fn relayed_inside(shadow: &mut Value, bundle: &Path, husk: RawFd) {
    let list = shadow
        .pointer_mut("/hooks/startContainer")
        .and_then(Value::as_array_mut);
    for hook in list.into_iter().flatten() {
        relay_by(
            hook,
            bundle,
            "created",
            &json!(format!("/proc/self/fd/{husk}")),
        );
    }
}

/// Replaces a hook by the relay that `husk` runs; the container's status is `status` then.
fn relay_by(hook: &mut Value, bundle: &Path, status: &str, husk: &Value) {
    let path = hook["path"].clone();
    let mut args = vec![
        json!("husk"),
        json!(RELAY),
        json!(bundle),
        json!(status),
        path.clone(),
    ];
    match hook.get("args").and_then(Value::as_array) {
        Some(own) => args.extend(own.iter().cloned()),
        None => args.push(path),
    }
    hook["args"] = Value::Array(args);
    hook["path"] = husk.clone();
}

/// `husk hook-relay BUNDLE STATUS PATH ARG0 ARGS...`: becomes the hook, with the true bundle and the status in the state on
/// its standard input. Returns only if that fails.
#[must_use]
pub fn relay(args: &[OsString]) -> io::Error {
    let [bundle, status, path, name, rest @ ..] = args else {
        return io::Error::other("the hook relay is not for users");
    };
    let mut text = String::new();
    if let Err(error) = io::stdin().read_to_string(&mut text) {
        return error;
    }
    let mut state: Value = match serde_json::from_str(&text) {
        Ok(state) => state,
        Err(error) => return error.into(),
    };
    state["bundle"] = json!(Path::new(bundle));
    state["status"] = json!(status.to_string_lossy());
    // The state is smaller than a pipe's buffer, so it can be written before anybody reads.
    let (reader, mut writer) = match io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => return error,
    };
    if let Err(error) = writer.write_all(state.to_string().as_bytes()) {
        return error;
    }
    drop(writer);
    Command::new(path)
        .arg0(name)
        .args(rest)
        .stdin(reader)
        .exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(value: Value) -> Hook {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn hooks_are_run_with_the_state() {
        let good = hook(
            json!({"path": "/bin/sh", "args": ["sh", "-c", "grep -q '\"id\":\"x\"' && [ \"$A\" = b ]"], "env": ["A=b"]}),
        );
        run("poststart", &[good], &json!({"id": "x"})).unwrap();
    }

    #[test]
    fn failures_say_which() {
        let text = |value| {
            run("poststop", &[hook(value)], &json!({}))
                .unwrap_err()
                .to_string()
        };
        assert!(
            text(json!({"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}))
                .ends_with("exit status 3")
        );
        assert!(
            text(json!({"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"]}))
                .ends_with("signal 9")
        );
        assert!(text(json!({"path": "/no/such"})).contains("poststop hook #0"));
        let slow = json!({"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1});
        assert!(text(slow).ends_with("timed out"));
    }
}
