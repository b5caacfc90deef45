//! The terminal a container is given, with a shell's job control on it: husk must do what runc does.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use husk_tests::debian;
use husk_tests::oci::{Bundle, Runtime, both};
use serde_json::json;

/// How long anything may take to show.
const LIMIT: Duration = Duration::from_secs(60);

/// Who types at a terminal and looks at it.
struct Typist {
    child: Child,
    keys: ChildStdin,
    bytes: Receiver<Vec<u8>>,
    shown: String,
}

impl Typist {
    /// Gives `command` a terminal.
    fn new(command: &Command) -> Result<Self> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        let mut child = Command::new("script")
            .args([
                "--quiet",
                "--return",
                "--command",
                &words.join(" "),
                "/dev/null",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run script")?;
        let keys = child.stdin.take().context("no input")?;
        let screen = child.stdout.take().context("no output")?;
        let (sender, bytes) = channel();
        std::thread::spawn(move || read_all(screen, |read| sender.send(read).is_ok()));
        Ok(Self {
            child,
            keys,
            bytes,
            shown: String::new(),
        })
    }

    fn types(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes())?;
        Ok(self.keys.flush()?)
    }

    /// Waits until `text` is shown; returns all up to it.
    fn until(&mut self, text: &str) -> Result<String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return Ok(std::mem::replace(&mut self.shown, rest).replace('\r', ""));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.bytes.recv_timeout(left) {
                Ok(bytes) => self.shown += &String::from_utf8_lossy(&bytes),
                Err(_) => bail!("no {text:?} in {:?}", self.shown),
            }
        }
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut from: ChildStdout, mut to: impl FnMut(Vec<u8>) -> bool) {
    let mut bytes = [0; 4096];
    while let Ok(len) = from.read(&mut bytes) {
        if len == 0 || !to(bytes[..len].to_vec()) {
            break;
        }
    }
}

/// A shell on a terminal of `runtime`'s.
fn shell(runtime: &Runtime) -> Result<String> {
    let mut bundle = Bundle::new(runtime, debian::image()?, "")?;
    bundle.edit(|spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["args"] = json!(["bash", "--norc", "--noediting", "-i"]);
        spec["process"]["env"] = json!(["PATH=/bin:/usr/bin", "PS1=: ", "TERM=dumb"]);
    })?;
    let id = bundle.id();
    let mut command = runtime.command();
    command
        .args(["run", "--bundle"])
        .arg(bundle.path())
        .arg(&id);
    let mut typist = Typist::new(&command)?;
    let mut seen = typist.until(": ")?;
    // What is typed is shown too: results are told from it by what the shell makes of them.
    for (keys, until) in [
        ("tty; ls /dev/pts; echo e$((1+1))\n", "e2\r\n: "),
        (
            "cut -d' ' -f5,7 /proc/self/stat | sed 's/^[0-9]*/G/'; echo e$((1+2))\n",
            "e3\r\n: ",
        ),
        // Whoever answers is in the foreground: only then does a key's signal reach it.
        ("sh -c 'echo r$((1+3)); exec cat'\n", "r4\r\n"),
        ("\x1a", "exec cat'\r\n: "),
        ("echo e$((1+4))\n", "e5\r\n: "),
        ("fg\n", "exec cat'\r\n"),
        ("typed\n", "typed\r\ntyped\r\n"),
        ("\x03", "\r\n: "),
        ("echo status $?\n", "status 130\r\n: "),
        // A job in the background that reads stops.
        (
            "cat & until jobs | grep -q 'Stopped.*cat'; do :; done; echo e$((1+5))\n",
            "e6\r\n: ",
        ),
        ("fg\n", "fg\r\ncat\r\n"),
        ("again\n", "again\r\nagain\r\n"),
        ("\x04", ": "),
    ] {
        typist.types(keys)?;
        seen += &typist
            .until(until)
            .with_context(|| format!("after {keys:?}"))?;
    }
    typist.types("exit 9\n")?;
    let status = typist.child.wait()?;
    ensure!(status.code() == Some(9), "{status} after {seen:?}");
    // Ids of processes are not the same.
    let is_id = |line: &&str| !line.starts_with("[1] ");
    Ok(seen.lines().filter(is_id).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_shell_on_the_container_s_terminal() -> Result<()> {
    let seen = both(shell)?;
    ensure!(seen.contains("/dev/pts/0\n0  ptmx"), "{seen}");
    Ok(())
}
