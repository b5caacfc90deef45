//! Running a host command with a hard limit on its time, all output captured.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Status(i32),
    /// This signal killed it.
    Killed(i32),
    /// It was still running, or something still held its output open, after this time.
    TimedOut(Duration),
}

/// What a command did.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Everything it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to its standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub end: End,
    /// How long it ran, its start and its last output included.
    pub wall: Duration,
}

impl Captured {
    /// Standard output as text, for messages and line-wise checks.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Runs `command` in a process group of its own with `stdin` as its input; kills the whole group after `limit`.
pub fn capture(command: &Command, stdin: &[u8], limit: Duration) -> Result<Captured> {
    let start = Instant::now();
    let deadline = start + limit;
    let mut child = with_default_signals(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let group = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("a child without a pid")?;

    if let Some(mut pipe) = child.stdin.take() {
        let bytes = stdin.to_vec();
        // A command may end without reading its input: a broken pipe here is its business.
        thread::spawn(move || {
            let _ = pipe.write_all(&bytes);
        });
    }
    let stdout = drain(child.stdout.take().context("no stdout")?);
    let stderr = drain(child.stderr.take().context("no stderr")?);
    let (tell, ended) = mpsc::channel();
    thread::spawn(move || {
        let _ = tell.send(child.wait());
    });

    let status = match ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(status) => Some(status.context("cannot wait for a child")?),
        Err(_) => None,
    };
    let mut timed_out = status.is_none();
    if timed_out {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let mut collected = Vec::new();
    for stream in [stdout, stderr] {
        // Something that outlives the command and holds its output is a hang too.
        let whole = finish(&stream, deadline).unwrap_or_else(|| {
            timed_out = true;
            let _ = kill_process_group(group, Signal::KILL);
            finish(&stream, Instant::now() + Duration::from_secs(5)).unwrap_or_default()
        });
        collected.push(whole);
    }
    let stderr = collected.pop().unwrap_or_default();
    let stdout = collected.pop().unwrap_or_default();
    let end = match status {
        Some(status) if !timed_out => end_of(status),
        _ => End::TimedOut(limit),
    };
    Ok(Captured {
        stdout,
        stderr,
        end,
        wall: start.elapsed(),
    })
}

/// The same command, started with no signal ignored, whatever we ourselves inherited: runc hands that on to the
/// container.
fn with_default_signals(command: &Command) -> Command {
    let mut wrapped = Command::new("env");
    wrapped
        .arg("--default-signal")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Status(code),
        (None, Some(signal)) => End::Killed(signal),
        (None, None) => End::Killed(0),
    }
}

/// Reads `stream` on a thread; the bytes arrive when its last writer has closed it.
fn drain(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (tell, whole) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut block = [0; 1 << 16];
        // What was read before a failure still counts.
        while let Ok(count @ 1..) = stream.read(&mut block) {
            bytes.extend_from_slice(&block[..count]);
        }
        let _ = tell.send(bytes);
    });
    whole
}

fn finish(stream: &Receiver<Vec<u8>>, deadline: Instant) -> Option<Vec<u8>> {
    // At least a moment even after the deadline: the bytes of a dead child are on their way.
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(200));
    stream.recv_timeout(left).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, stdin: &[u8], limit: Duration) -> Captured {
        capture(Command::new("sh").args(["-c", script]), stdin, limit).unwrap()
    }

    const AMPLE: Duration = Duration::from_secs(30);

    #[test]
    fn streams_and_status_are_kept_apart() {
        let run = shell("cat; echo err >&2; exit 3", b"in\n", AMPLE);
        assert_eq!(
            (run.stdout_text().as_str(), run.stderr_text().as_str()),
            ("in\n", "err\n")
        );
        assert_eq!(run.end, End::Status(3));
    }

    #[test]
    fn a_signal_is_no_status() {
        assert_eq!(shell("kill -9 $$", b"", AMPLE).end, End::Killed(9));
    }

    #[test]
    fn unread_input_is_no_error() {
        assert_eq!(shell("exit 4", &[0; 1 << 20], AMPLE).end, End::Status(4));
    }

    #[test]
    fn a_hang_is_killed_with_its_children() {
        let limit = Duration::from_millis(300);
        let run = shell("echo begun; sleep 1000 & sleep 1000", b"", limit);
        assert_eq!(
            (run.stdout_text().as_str(), run.end),
            ("begun\n", End::TimedOut(limit))
        );
    }

    #[test]
    fn a_child_that_keeps_the_output_open_is_a_hang() {
        let limit = Duration::from_millis(300);
        assert_eq!(
            shell("sleep 1000 & exit 0", b"", limit).end,
            End::TimedOut(limit)
        );
    }
}
