//! The husk command, as the runc shim calls runc.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use containerd_shim::warn;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::options::Options;
use crate::reaper::{Claimant, Exit, Reaper};

/// How husk is called for one container.
#[derive(Clone, Debug)]
pub struct Husk {
    binary: PathBuf,
    state: PathBuf,
    systemd_cgroup: bool,
    no_pivot: bool,
    /// The container.
    pub id: String,
    /// Its bundle; logs of the commands go here.
    pub bundle: PathBuf,
    /// Who waits for the commands.
    pub reaper: Arc<Reaper>,
}

/// In the bundle: the id of the container's process.
pub const INIT_PID: &str = "init.pid";

/// The standard streams of a process to be started.
#[derive(Debug)]
pub struct Streams {
    /// Descriptor 0.
    pub stdin: Stdio,
    /// Descriptor 1.
    pub stdout: Stdio,
    /// Descriptor 2.
    pub stderr: Stdio,
}

/// Tells logs of commands that run at the same time apart.
static LOGS: AtomicU64 = AtomicU64::new(0);

/// The log of one command; the file goes with it.
struct Log(PathBuf);

impl Log {
    fn new(bundle: &Path) -> Self {
        let number = LOGS.fetch_add(1, Ordering::Relaxed);
        let own = std::process::id();
        Self(bundle.join(format!("husk-{own}-{number}.json")))
    }

    /// What the last error says.
    fn error(&self) -> Option<String> {
        last_error(&fs::read_to_string(&self.0).ok()?)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The message of the last error among a log's lines.
fn last_error(log: &str) -> Option<String> {
    let lines = log.lines().rev();
    lines
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["level"] == "error")
        .and_then(|line| line["msg"].as_str().map(str::to_owned))
}

impl Husk {
    /// For container `id` of `namespace`.
    pub fn new(
        options: &Options,
        namespace: &str,
        id: &str,
        bundle: &Path,
        reaper: Arc<Reaper>,
    ) -> Self {
        Self {
            binary: options.binary(),
            state: options.state(namespace),
            systemd_cgroup: options.systemd_cgroup,
            no_pivot: options.no_pivot_root,
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            reaper,
        }
    }

    fn command(&self, log: &Log) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.state);
        command.arg("--log").arg(&log.0);
        command.args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.current_dir(&self.bundle);
        command
    }

    fn failure(&self, verb: &'static str, exit: Exit, log: &Log, stderr: &str) -> Error {
        let said = stderr.lines().last().map(str::to_owned);
        let message = log
            .error()
            .or(said)
            .unwrap_or_else(|| format!("husk ended with status {}", exit.status));
        if message.contains("not running") || message.contains("does not exist") {
            return Error::NotFound(message);
        }
        Error::Runtime { verb, message }
    }

    fn spawn_failure(&self) -> impl FnOnce(std::io::Error) -> Error {
        Error::host(format!("run {}", self.binary.display()))
    }

    /// Runs a verb that leaves nothing behind; gives its output.
    fn verb(&self, verb: &'static str, arguments: &[&str], input: &[u8]) -> Result<String> {
        let log = Log::new(&self.bundle);
        let mut command = self.command(&log);
        command
            .arg(verb)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .reaper
            .spawn(&mut command)
            .map_err(self.spawn_failure())?;
        let stderr = child.stderr.take().map(|mut stream| {
            thread::spawn(move || {
                let mut text = String::new();
                let _ = stream.read_to_string(&mut text);
                text
            })
        });
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read says why in its log.
            let _ = stdin.write_all(input);
        }
        let mut output = Vec::new();
        if let Some(mut stdout) = child.stdout.take() {
            let _ = stdout.read_to_end(&mut output);
        }
        let stderr = stderr.and_then(|thread| thread.join().ok());
        let exit = self.reaper.wait(child.pid);
        match exit.status {
            0 => Ok(String::from_utf8_lossy(&output).into_owned()),
            _ => Err(self.failure(verb, exit, &log, &stderr.unwrap_or_default())),
        }
    }

    /// Runs a verb that leaves a process behind, whose id it writes to `pid_file`.
    fn leaving(
        &self,
        verb: &'static str,
        arguments: &[&str],
        files: &[(&str, &Path)],
        pid_file: &Path,
        streams: Streams,
        claimant: &Claimant<'_>,
    ) -> Result<i32> {
        let log = Log::new(&self.bundle);
        let mut command = self.command(&log);
        command.arg(verb).args(arguments);
        for (flag, file) in files {
            command.arg(flag).arg(file);
        }
        command.arg("--pid-file").arg(pid_file).arg(&self.id);
        command
            .stdin(streams.stdin)
            .stdout(streams.stdout)
            .stderr(streams.stderr);
        let child = self
            .reaper
            .spawn(&mut command)
            .map_err(self.spawn_failure())?;
        // Its ends of the process's streams.
        drop(command);
        let exit = self.reaper.wait(child.pid);
        if exit.status != 0 {
            return Err(self.failure(verb, exit, &log, ""));
        }
        let text = fs::read_to_string(pid_file).map_err(Error::host("read the pid file"))?;
        let pid = text.trim().parse().map_err(|_| Error::Runtime {
            verb,
            message: format!("{text:?} is no process id"),
        })?;
        self.reaper.claim(claimant, pid);
        Ok(pid)
    }

    /// The file where husk counts what was killed inside for want of memory.
    pub fn memory_events(&self) -> PathBuf {
        let container = self.state.join("containers").join(&self.id);
        container.join("memory.events")
    }

    /// `create`; gives the process, to be waited for.
    pub fn create(
        &self,
        console: Option<&Path>,
        streams: Streams,
        claimant: &Claimant<'_>,
    ) -> Result<i32> {
        let mut files = vec![("--bundle", self.bundle.as_path())];
        files.extend(console.map(|socket| ("--console-socket", socket)));
        let flags: &[&str] = if self.no_pivot { &["--no-pivot"] } else { &[] };
        let pid_file = self.bundle.join(INIT_PID);
        self.leaving("create", flags, &files, &pid_file, streams, claimant)
    }

    /// `exec` of the process that `process` describes; gives what stands for it.
    pub fn exec(
        &self,
        exec_id: &str,
        process: &Path,
        console: Option<&Path>,
        streams: Streams,
        claimant: &Claimant<'_>,
    ) -> Result<i32> {
        let mut files = vec![("--process", process)];
        files.extend(console.map(|socket| ("--console-socket", socket)));
        let pid_file = self.bundle.join(format!("{exec_id}.pid"));
        let pid = self.leaving("exec", &["--detach"], &files, &pid_file, streams, claimant);
        let _ = fs::remove_file(pid_file);
        pid
    }

    /// `start`.
    pub fn start(&self) -> Result<()> {
        self.verb("start", &[&self.id], b"").map(drop)
    }

    /// `kill`, perhaps of all processes.
    pub fn kill(&self, signal: u32, all: bool) -> Result<()> {
        let number = signal.to_string();
        let all: &[&str] = if all { &["--all"] } else { &[] };
        self.verb("kill", &[all, &[&self.id, &number]].concat(), b"")
            .map(drop)
    }

    /// `delete`.
    pub fn delete(&self) -> Result<()> {
        self.verb("delete", &[&self.id], b"").map(drop)
    }

    /// `delete --force`, of whatever there is of the container.
    pub fn delete_forced(&self) {
        if let Err(error) = self.verb("delete", &["--force", &self.id], b"") {
            warn!("{}: {error}", self.id);
        }
    }

    /// `pause`.
    pub fn pause(&self) -> Result<()> {
        self.verb("pause", &[&self.id], b"").map(drop)
    }

    /// `resume`.
    pub fn resume(&self) -> Result<()> {
        self.verb("resume", &[&self.id], b"").map(drop)
    }

    /// `update`, to what `resources` says, which is `linux.resources` of the specification.
    pub fn update(&self, resources: &[u8]) -> Result<()> {
        self.verb("update", &["--resources", "-", &self.id], resources)
            .map(drop)
    }

    /// `ps`: the host's processes of the container.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let text = self.verb("ps", &["--format", "json", &self.id], b"")?;
        serde_json::from_str(&text).map_err(|error| Error::Runtime {
            verb: "ps",
            message: error.to_string(),
        })
    }

    /// `ps`: how many processes there are inside the container.
    pub fn guest_processes(&self) -> Result<usize> {
        let table = self.verb("ps", &["--format", "table", &self.id], b"")?;
        Ok(table.lines().count().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_errors() {
        let log = "{\"level\":\"error\",\"msg\":\"first\"}\n\
                   {\"level\":\"error\",\"msg\":\"second\"}\n\
                   {\"level\":\"warning\",\"msg\":\"third\"}\nhalf a li";
        assert_eq!(last_error(log).as_deref(), Some("second"));
        assert_eq!(last_error(""), None);
    }

    #[test]
    fn failures_name_what_failed() {
        let directory = tempfile::tempdir().unwrap();
        let fake = directory.path().join("fake");
        let script = "#!/bin/sh\n\
                      while [ \"$1\" != --log ]; do shift; done\n\
                      case \"$*\" in\n\
                      *kill*) echo '{\"level\":\"error\",\"msg\":\"container not running\"}' > \"$2\"; exit 1;;\n\
                      *start*) echo '{\"level\":\"error\",\"msg\":\"no such file\"}' > \"$2\"; exit 1;;\n\
                      *pause*) echo words >&2; exit 3;;\n\
                      *' ps --format json '*) echo '[1, 22]';;\n\
                      *update*) exec cat > \"${0%/fake}/in\";;\n\
                      esac\n";
        fs::write(&fake, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&fake, mode).unwrap();
        let options = Options {
            binary_name: fake.to_str().unwrap().to_owned(),
            ..Options::default()
        };
        let husk = Husk::new(&options, "n", "c", directory.path(), Reaper::of_tests());
        assert!(matches!(husk.kill(9, false), Err(Error::NotFound(_))));
        let error = husk.start().unwrap_err().to_string();
        assert_eq!(error, "OCI runtime start failed: no such file");
        assert!(husk.pause().unwrap_err().to_string().ends_with("words"));
        assert_eq!(husk.processes().unwrap(), [1, 22]);
        husk.update(b"{}").unwrap();
        assert_eq!(fs::read(directory.path().join("in")).unwrap(), b"{}");
        husk.delete().unwrap();
    }
}
