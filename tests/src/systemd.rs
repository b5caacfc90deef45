//! A systemd that runs in namespaces and cgroups of its own, for runtimes that ask it for cgroups.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cache::{Scratch, unique, workspace};
use crate::capture::{Captured, End, capture};

/// How long it may take to come, and what is asked of it to be answered.
const LIMIT: Duration = Duration::from_secs(60);

/// A running systemd; it, and all that was started below it, ends with the value.
pub struct Systemd {
    unshare: Child,
    /// systemd's own process id.
    pid: String,
    cgroup: String,
    directory: Scratch,
}

impl Systemd {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not come up: its last words are among them.
    pub fn start() -> Result<Self> {
        let directory = Scratch::new("systemd")?;
        let cgroup = unique("husk-test-systemd");
        let log = File::create(directory.path().join("log"))?;
        let mount = directory.path().join("cgroups");
        fs::create_dir(&mount)?;
        let unshare = Command::new("unshare")
            .args(["--mount", "sh"])
            .arg(workspace().join("tests/src/systemd.sh"))
            .arg(&mount)
            .arg(&cgroup)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run unshare")?;
        let mut systemd = Self {
            unshare,
            pid: String::new(),
            cgroup,
            directory,
        };
        let deadline = Instant::now() + LIMIT;
        while !systemd.is_up()? {
            let log = systemd.directory.path().join("log");
            ensure!(
                Instant::now() < deadline && systemd.unshare.try_wait()?.is_none(),
                "systemd does not come up: {}",
                fs::read_to_string(log)?
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(systemd)
    }

    fn is_up(&mut self) -> Result<bool> {
        let pid = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let child = children.split_whitespace().next().unwrap_or_default();
        let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        if name != "systemd\n" {
            return Ok(false);
        }
        child.clone_into(&mut self.pid);
        let asked = self.run(&["systemctl", "is-active", "dbus.service"])?;
        Ok(asked.end == End::Status(0))
    }

    /// What stands before a command line so that it runs beside systemd.
    pub fn prefix(&self) -> Vec<OsString> {
        ["nsenter", "-t", &self.pid, "-m", "-p", "-C", "-i", "-u"]
            .map(OsString::from)
            .to_vec()
    }

    /// Runs a command beside it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&self, words: &[&str]) -> Result<Captured> {
        let prefix = self.prefix();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).args(words);
        capture(&command, b"", LIMIT)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // unshare takes systemd with it, and that all processes of its namespace.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let deadline = Instant::now() + LIMIT;
        while !self.pid.is_empty()
            && Path::new("/proc").join(&self.pid).exists()
            && Instant::now() < deadline
        {
            std::thread::yield_now();
        }
        let script =
            "mount -t cgroup2 none \"$0\" && find \"$0/$1\" -depth -type d -exec rmdir {} +";
        let mut remove = Command::new("unshare");
        remove
            .args(["--mount", "sh", "-c", script])
            .arg(self.directory.path().join("cgroups"))
            .arg(&self.cgroup);
        let _ = capture(&remove, b"", LIMIT);
    }
}
