//! Docker: dockerd and containerd of our own, in a scratch directory.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::mounts::{remove_cgroup, unmount_below};
use super::{Engine, LIMIT};
use crate::cache::{Scratch, unique};
use crate::capture::{Captured, End, capture};
use crate::husk::Husk;
use crate::image::Image;
use crate::network::Namespace;

/// How long a daemon may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// A running dockerd with its containerd; both end with the value, with all containers.
pub struct Docker {
    containerd: Child,
    dockerd: Option<Child>,
    cgroup: String,
    directory: Scratch,
    /// It has a bridge, and this network namespace for it: containerd is in there, too, as containers with the host's
    /// network are where containerd is.
    network: Option<Namespace>,
}

/// A command in this network that ends when the thread that started it does, and writes what it has to say into a file.
fn daemon(program: &str, network: Option<&Namespace>, log: &Path) -> Result<Command> {
    let mut command = match network {
        Some(network) => network.command(Path::new("setpriv")),
        None => Command::new("setpriv"),
    };
    let log = File::options().create(true).append(true).open(log)?;
    command
        .args(["--pdeathsig", "TERM", program])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}

/// Whether containers are husk's shim's, for Docker 23 and later, and not the husk command's.
fn uses_shim() -> bool {
    std::env::var_os("HUSK_DOCKER_SHIM").is_some()
}

impl Docker {
    /// Starts the daemons and loads the test image.
    ///
    /// # Errors
    /// When a daemon does not start; its log's end says why.
    pub fn start() -> Result<Self> {
        Self::make(None)
    }

    /// The same, with Docker's usual networks, in a network namespace of its own: nothing of the machine's changes.
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn start_with_bridge() -> Result<Self> {
        Self::make(Some(Namespace::new()?))
    }

    fn make(network: Option<Namespace>) -> Result<Self> {
        let directory = Scratch::new("docker")?;
        let at = |name: &str| directory.path().join(name);
        let config = json!({
            "root": at("containerd-root"), "state": at("containerd-state"),
            "disabled_plugins": ["io.containerd.grpc.v1.cri"],
            "grpc": { "address": at("containerd.sock") },
        });
        fs::write(at("containerd.toml"), toml(&config))?;
        // Instead of the machine's own.
        let mut settings = json!({});
        if uses_shim() {
            settings["runtimes"]["husk"]["runtimeType"] = "io.containerd.husk.v1".into();
        }
        fs::write(at("daemon.json"), settings.to_string())?;
        let husk = fs::canonicalize(Husk::find()?.binary())?;
        let beside = husk.parent().context("husk lies nowhere")?;
        let others = std::env::var("PATH").unwrap_or_default();
        let containerd = daemon("containerd", network.as_ref(), &at("containerd.log"))?
            .env("PATH", format!("{}:{others}", beside.display()))
            .arg("--config")
            .arg(at("containerd.toml"))
            .spawn()
            .context("no containerd: run xtask/setup")?;
        let mut docker = Self {
            containerd,
            dockerd: None,
            cgroup: unique("husk-test-docker"),
            directory,
            network,
        };
        let socket = docker.at("containerd.sock");
        docker.wait_until("containerd", || socket.exists())?;
        docker.start_dockerd()?;
        let image = Image::busybox()?.docker_archive();
        let loaded = docker.docker(&["load", "--input", &image.to_string_lossy()])?;
        ensure!(loaded.end == End::Status(0), "{}", loaded.stderr_text());
        Ok(docker)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts dockerd on what an earlier one may have left.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_dockerd(&mut self) -> Result<()> {
        let husk = fs::canonicalize(Husk::find()?.binary())?;
        // The containers of a daemon that is killed are those of the next.
        let flags = [
            ("--data-root", self.at("data")),
            ("--exec-root", self.at("exec")),
            ("--pidfile", self.at("docker.pid")),
            ("--containerd", self.at("containerd.sock")),
        ];
        let log = self.at("dockerd.log");
        let mut command = daemon("dockerd", self.network.as_ref(), &log)?;
        if self.network.is_none() {
            command.arg("--bridge=none");
        }
        for (flag, path) in flags {
            command.arg(flag).arg(path);
        }
        command
            .args(["--iptables=false", "--live-restore"])
            .arg("--config-file")
            .arg(self.at("daemon.json"))
            .arg(format!("--host=unix://{}", self.at("sock").display()))
            .arg(format!("--cgroup-parent=/{}", self.cgroup));
        if !uses_shim() {
            command.arg(format!("--add-runtime=husk={}", husk.display()));
        }
        let child = command.spawn().context("no dockerd: run xtask/setup")?;
        self.dockerd = Some(child);
        let socket = self.at("sock");
        self.wait_until("dockerd", || UnixStream::connect(&socket).is_ok())?;
        let answer = self.docker(&["version"])?;
        ensure!(answer.end == End::Status(0), "{}", answer.stderr_text());
        Ok(())
    }

    /// Ends dockerd by `signal` and waits for it; containers live on.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end_dockerd(&mut self, signal: &str) -> Result<()> {
        let Some(mut child) = self.dockerd.take() else {
            return Ok(());
        };
        end(&mut child, signal)
    }

    /// Runs the client.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn docker(&self, arguments: &[&str]) -> Result<Captured> {
        let mut command = Command::new("docker");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.at("sock").display()))
            .args(arguments)
            .envs(self.environment());
        capture(&command, b"", LIMIT)
    }

    fn wait_until(&self, daemon: &str, is_so: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            ensure!(
                Instant::now() < deadline,
                "{daemon} does not start: {}",
                self.log(daemon)
            );
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The end of what a daemon has written.
    fn log(&self, daemon: &str) -> String {
        let text = fs::read_to_string(self.at(&format!("{daemon}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// One level of tables is all that containerd needs of TOML.
fn toml(config: &serde_json::Value) -> String {
    let mut text = "version = 2\n".to_owned();
    let mut tables = String::new();
    for (name, value) in config.as_object().into_iter().flatten() {
        match value.as_object() {
            None => text += &format!("{name} = {value}\n"),
            Some(table) => {
                tables += &format!("[{name}]\n");
                for (name, value) in table {
                    tables += &format!("{name} = {value}\n");
                }
            }
        }
    }
    text + &tables
}

/// Sends a signal and waits for the end; the last word is SIGKILL.
fn end(child: &mut Child, signal: &str) -> Result<()> {
    let pid = child.id().to_string();
    let _ = Command::new("kill").args(["-s", signal, &pid]).output();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

impl Engine for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn command_line(&self, _runtime: &str) -> String {
        format!("docker --host unix://{}", self.at("sock").display())
    }

    fn run_flags(&self, runtime: &str) -> String {
        format!("--runtime {runtime}")
    }

    fn environment(&self) -> Vec<(String, String)> {
        let network = self.network.as_ref().map(Namespace::path);
        [
            // A newer client than the daemon asks for more than that has.
            ("DOCKER_API_VERSION", "1.41".to_owned()),
            ("DOCKER_CONFIG", self.at("client").display().to_string()),
            // Where the networks are that the containers' are joined to.
            ("NETWORK", network.unwrap_or_default().display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.dockerd.is_some()
            && let Ok(all) = self.docker(&["ps", "-aq"])
        {
            for id in all.stdout_text().lines() {
                let _ = self.docker(&["rm", "-f", id]);
            }
        }
        let _ = self.end_dockerd("TERM");
        let _ = end(&mut self.containerd, "TERM");
        // Shims of containers that could not be removed.
        let _ = Command::new("pkill")
            .args(["-KILL", "-f", "--"])
            .arg(format!("-address {}", self.at("containerd.sock").display()))
            .output();
        let _ = unmount_below(self.directory.path());
        remove_cgroup(&self.cgroup);
    }
}
