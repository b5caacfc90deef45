//! Hooks (config.md, "POSIX-platform Hooks").
//!
//! Those around `start` and `delete` husk runs itself. Those around `create` libcontainer runs at their places in
//! its setup; they would be told the shadow bundle's path, so they are replaced by husk itself ([`relay`]), which
//! puts the right path into the state and passes it on.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use oci_spec::runtime::Hook;
use serde_json::{Map, Value, json};

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

/// Drops the hooks that husk runs itself.
pub fn drop_own(hooks: &mut Map<String, Value>) {
    hooks.remove("poststart");
    hooks.remove("poststop");
}

/// What hooks are relayed by.
#[derive(Debug)]
pub struct Relay<'a> {
    /// The bundle's directory, as hooks are told it.
    pub bundle: &'a Path,
    /// The husk command.
    pub husk: &'a Path,
    /// A descriptor of it, for hooks inside of the container's root, where its file is not.
    pub husk_inside: RawFd,
    /// A file for the name of the hook that runs; out of reach inside.
    pub note: &'a Path,
}

impl Relay<'_> {
    /// Replaces the hooks libcontainer runs by the relay.
    pub fn put_into(&self, shadow: &mut Value) {
        let inside = format!("/proc/self/fd/{}", self.husk_inside);
        let (outside, note) = (json!(self.husk), json!(self.note));
        for kind in ["prestart", "createRuntime", "createContainer"] {
            self.replace(shadow, kind, "creating", &note, &outside);
        }
        self.replace(
            shadow,
            "startContainer",
            "created",
            &json!(""),
            &json!(inside),
        );
    }

    /// Replaces those of one kind, which are told that the container's status is `status`.
    fn replace(&self, shadow: &mut Value, kind: &str, status: &str, note: &Value, husk: &Value) {
        let list = shadow
            .pointer_mut(&format!("/hooks/{kind}"))
            .and_then(Value::as_array_mut);
        for (index, hook) in list.into_iter().flatten().enumerate() {
            let path = hook["path"].clone();
            let name = format!("{kind} hook #{index}");
            let mut args = json!(["husk", RELAY, self.bundle, status, note, name, path]);
            if let Some(args) = args.as_array_mut() {
                match hook.get("args").and_then(Value::as_array) {
                    Some(own) => args.extend(own.iter().cloned()),
                    None => args.push(path),
                }
            }
            hook["args"] = args;
            hook["path"] = husk.clone();
        }
    }
}

/// `husk hook-relay BUNDLE STATUS NOTE NAME PATH ARG0 ARGS...`: becomes the hook, with the true bundle and the status in the
/// state on its standard input, and its name in the file NOTE. Returns only if that fails, with what is to be told if there is
/// no such file.
#[must_use]
pub fn relay(args: &[OsString]) -> Option<String> {
    let [bundle, status, note, name, path, arg0, rest @ ..] = args else {
        return Some("the hook relay is not for users".to_owned());
    };
    let name = format!("{}: {}", name.to_string_lossy(), path.to_string_lossy());
    let tell = |text: &str| !note.is_empty() && std::fs::write(note, text).is_ok();
    tell(&name);
    let error = become_hook(bundle, status, Path::new(path), (arg0, rest));
    let text = format!("{name}: {error}");
    (!tell(&format!("{text}\n"))).then_some(text)
}

fn become_hook(
    bundle: &OsStr,
    status: &OsStr,
    path: &Path,
    (arg0, rest): (&OsString, &[OsString]),
) -> io::Error {
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
        .arg0(arg0)
        .args(rest)
        .stdin(reader)
        .exec()
}

/// libcontainer's error about a hook, with the name of the hook that ran last, which is in the file `note`; `None` if the error
/// is of something else.
pub fn explain(error: &str, note: &Path) -> Option<String> {
    // Those inside of the container's namespaces fail in another process, with another error.
    let how = ["failed hooks ", "failed to run create container hooks: "]
        .iter()
        .find_map(|words| Some(error.split_once(words)?.1))?;
    let name = std::fs::read_to_string(note).ok()?;
    let status = how
        .strip_prefix("hook command exited with non-zero exit code: ")
        .or_else(|| how.strip_prefix("NonZeroExitCode(")?.strip_suffix(')'));
    let how = status
        .map(|status| format!("exit status {status}"))
        .unwrap_or_else(|| {
            how.replace(
                "failed to execute hook command due to a timeout",
                "timed out",
            )
        });
    // The relay knows better why there was nothing to run, and ends the line then.
    match name.strip_suffix('\n') {
        None => Some(format!("error running {name}: {how}")),
        Some(line) => Some(format!("error running {line}")),
    }
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
    fn hooks_are_replaced_by_the_relay() {
        let relay = Relay {
            bundle: Path::new("/b"),
            husk: Path::new("/usr/bin/husk"),
            husk_inside: 7,
            note: Path::new("/n"),
        };
        let mut shadow = json!({"hooks": {
            "prestart": [{"path": "/x"}, {"path": "/y", "args": ["y", "1"], "timeout": 3}],
            "startContainer": [{"path": "/z"}],
        }});
        relay.put_into(&mut shadow);
        let hooks = &shadow["hooks"];
        assert_eq!(
            hooks["prestart"][1],
            json!({
                "path": "/usr/bin/husk", "timeout": 3,
                "args": ["husk", RELAY, "/b", "creating", "/n", "prestart hook #1", "/y", "y", "1"],
            })
        );
        assert_eq!(
            hooks["startContainer"][0],
            json!({
                "path": "/proc/self/fd/7",
                "args": ["husk", RELAY, "/b", "created", "", "startContainer hook #0", "/z", "/z"],
            })
        );
    }

    #[test]
    fn libcontainers_errors_are_explained() {
        let note = std::env::temp_dir().join(format!("husk-hook-note-{}", std::process::id()));
        let with = |name: &str, error: &str| {
            std::fs::write(&note, name).unwrap();
            explain(error, &note)
        };
        let failed = "failed hooks hook command exited with non-zero exit code: 3";
        assert_eq!(
            with("prestart hook #0: /x", failed).as_deref(),
            Some("error running prestart hook #0: /x: exit status 3")
        );
        assert_eq!(
            with("prestart hook #0: /x: No such file\n", failed).as_deref(),
            Some("error running prestart hook #0: /x: No such file")
        );
        assert!(
            with(
                "prestart hook #0: /x",
                "failed hooks failed to execute hook command due to a timeout"
            )
            .is_some_and(|text| text.ends_with("/x: timed out"))
        );
        let inside =
            "failed to run hooks: failed to run create container hooks: NonZeroExitCode(4)";
        assert!(with("x", inside).is_some_and(|text| text.ends_with("exit status 4")));
        assert_eq!(with("x", "failed to prepare rootfs"), None);
        std::fs::remove_file(note).unwrap();
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
