//! containerd with a directory, sockets and namespaces of its own, and the scenarios that users of `ctr` know: every
//! one is a few lines of shell, run once with runc's shim and once with husk's. Both must print the same and end
//! alike.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::mounts::unmount_below;
use crate::cache::{Scratch, unique};
use crate::capture::{Captured, End, capture};
use crate::differential::{difference, judge};
use crate::husk::Husk;
use crate::image::Image;
use crate::network::Namespace;

/// How long a scenario may take, on a machine under load.
const LIMIT: Duration = Duration::from_secs(180);
const PRELUDE: &str = include_str!("containerd.sh");
/// The runtimes, the oracle first.
pub const RUNTIMES: [&str; 2] = ["io.containerd.runc.v2", "io.containerd.husk.v1"];

/// A running containerd; what runs in it ends with it.
pub struct Containerd {
    directory: Scratch,
    path: String,
    /// It runs in one of its own, for the bridges it makes.
    network: Option<Namespace>,
    daemon: Option<Child>,
}

impl Containerd {
    /// Starts one that finds husk's shim, and gives it the busybox image, in a namespace for each runtime.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Self> {
        let plain = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        let containerd = Self::configured(|_| plain.to_owned(), None)?;
        let image = Image::busybox()?.docker_archive();
        for runtime in RUNTIMES {
            let import = format!("c images import {}", image.display());
            let done = containerd.script(runtime, &import)?;
            ensure!(done.end == End::Status(0), "{}", done.stderr_text());
        }
        Ok(containerd)
    }

    /// Starts one that finds husk's shim. `settings` are its configuration, given its directory, without `root`,
    /// `state` and sockets.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn configured(
        settings: impl FnOnce(&Path) -> String,
        network: Option<Namespace>,
    ) -> Result<Self> {
        let husk = fs::canonicalize(Husk::find()?.binary())?;
        let shim = husk.with_file_name("containerd-shim-husk-v1");
        ensure!(
            shim.is_file(),
            "no {}: build it first, beside husk",
            shim.display()
        );
        let beside = husk.parent().context("husk lies nowhere")?;
        let others = std::env::var("PATH").unwrap_or_default();
        let mut containerd = Self {
            directory: Scratch::new("ctrd")?,
            path: format!("{}:{others}", beside.display()),
            network,
            daemon: None,
        };
        let directory = containerd.directory.path();
        let at = directory.display();
        let config = format!(
            "root = \"{at}/root\"\nstate = \"{at}/state\"\n{}\n\
             [grpc]\naddress = \"{at}/sock\"\n[ttrpc]\naddress = \"{at}/sock.ttrpc\"\n",
            settings(directory)
        );
        fs::write(directory.join("config.toml"), config)?;
        containerd.up()?;
        Ok(containerd)
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.file("sock")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the daemon, which is not running.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn up(&mut self) -> Result<()> {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.file("log"))?;
        let mut command = match &self.network {
            None => Command::new("containerd"),
            Some(network) => network.command(Path::new("containerd")),
        };
        let daemon = command
            .arg("--config")
            .arg(self.file("config.toml"))
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot start containerd: run xtask/setup")?;
        self.daemon = Some(daemon);
        let deadline = Instant::now() + LIMIT;
        while !self.answers() {
            ensure!(
                Instant::now() < deadline,
                "containerd does not come up:\n{}",
                fs::read_to_string(self.file("log")).unwrap_or_default()
            );
            std::thread::yield_now();
        }
        Ok(())
    }

    fn answers(&self) -> bool {
        self.file("sock").exists()
            && Command::new("ctr")
                .arg("--address")
                .arg(self.file("sock"))
                .arg("version")
                .output()
                .is_ok_and(|output| output.status.success())
    }

    /// Ends the daemon; its containers live on.
    pub fn down(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let pid = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = daemon.wait();
        }
    }

    fn bash(&self, runtime: &str, text: &str) -> Result<Captured> {
        let work = Scratch::new("scenario")?;
        let mut bash = Command::new("bash");
        bash.arg("-c")
            .arg(format!("{PRELUDE}\n{text}"))
            .env("SOCK", self.file("sock"))
            .env("STATE", self.file("state"))
            .env("R", runtime)
            .env("NS", namespace(self.directory.path(), runtime))
            .env("ID", unique("t"))
            .env("W", work.path())
            .env("HOLD", self.hold(runtime)?)
            .current_dir(work.path());
        capture(&bash, b"", LIMIT)
    }

    /// The directory of a runtime that parts of a scenario share, `$HOLD` in them.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn hold(&self, runtime: &str) -> Result<PathBuf> {
        let path = self.file(&format!("hold-{runtime}"));
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Runs a part of a scenario under both runtimes; what it leaves stays for the next.
    ///
    /// # Errors
    /// When it cannot be run, or fails under runc.
    pub fn part(&self, text: &str) -> Result<Option<String>> {
        let oracle = self.bash(RUNTIMES[0], text)?;
        is_sound(&oracle)?;
        Ok(compare(&oracle, &self.bash(RUNTIMES[1], text)?))
    }

    /// Runs a script with the prelude and this runtime, and removes what is left of its containers.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn script(&self, runtime: &str, text: &str) -> Result<Captured> {
        let done = self.bash(runtime, text)?;
        self.bash(runtime, "clean")?;
        Ok(done)
    }

    /// Runs a script under both runtimes; tells how they differ.
    ///
    /// # Errors
    /// When it cannot be run, or fails under runc.
    pub fn both(&self, text: &str) -> Result<Option<String>> {
        self.judge(
            text,
            || self.script(RUNTIMES[1], text),
            || self.script(RUNTIMES[0], text),
        )
    }

    /// The same of the results that `husk` gives and, for its first run, `oracle`.
    ///
    /// # Errors
    /// When one cannot be had, or it fails under runc.
    pub fn judge(
        &self,
        text: &str,
        husk: impl FnOnce() -> Result<Captured>,
        oracle: impl FnOnce() -> Result<Captured>,
    ) -> Result<Option<String>> {
        let mut first = Some(oracle);
        judge(
            text,
            || {
                let run = match first.take() {
                    Some(oracle) => oracle(),
                    None => self.script(RUNTIMES[0], text),
                }?;
                is_sound(&run)?;
                Ok(run)
            },
            husk,
            compare,
        )
    }
}

fn is_sound(oracle: &Captured) -> Result<()> {
    ensure!(
        oracle.end == End::Status(0),
        "fails under runc: {:?}\n{}{}",
        oracle.end,
        oracle.stdout_text(),
        oracle.stderr_text()
    );
    Ok(())
}

/// Tells how husk's run differs from runc's. Errors are in words of each one's own.
fn compare(oracle: &Captured, husk: &Captured) -> Option<String> {
    let wordless = |run: &Captured| Captured {
        stderr: Vec::new(),
        ..run.clone()
    };
    let report = difference(("runc", &wordless(oracle)), ("husk", &wordless(husk)))?;
    Some(report + &husk.stderr_text())
}

/// The namespace of a runtime; its name is part of control groups' paths.
fn namespace(directory: &Path, runtime: &str) -> String {
    let name = directory.file_name().unwrap_or_default().display();
    let kind = runtime.split('.').nth(2).unwrap_or_default();
    format!("{name}-{kind}")
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for runtime in RUNTIMES {
            let _ = self.bash(runtime, "clean");
        }
        self.down();
        // From 1.7 on shims of runc's stay with what ended while containerd was down.
        let _ = Command::new("pkill")
            .args(["-KILL", "-f", "--"])
            .arg(format!("-address {}", self.file("sock").display()))
            .output();
        let _ = unmount_below(self.directory.path());
    }
}
