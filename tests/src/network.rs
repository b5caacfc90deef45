//! Network namespaces of a test: traffic stays between them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cache::Scratch;

/// How long a namespace or a program in it takes to get ready, on a machine under load.
const LIMIT: Duration = Duration::from_secs(60);

/// A network namespace with its loopback up, held by a process that goes with it.
pub struct Namespace {
    holder: Child,
    programs: Vec<Child>,
    directory: Scratch,
}

/// Waits until `file` has `text`.
fn wait_for(file: &Path, text: &str) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = fs::read_to_string(file).unwrap_or_default();
        if found.contains(text) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("no {text:?} but {found:?}");
        }
        std::thread::yield_now();
    }
}

impl Namespace {
    /// A new one.
    pub fn new() -> Result<Self> {
        let directory = Scratch::new("netns")?;
        let said = directory.path().join("holder");
        let holder = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-ec",
                // Each refusal is told, however many there are.
                "ip link set lo up; echo 0 >/proc/sys/net/ipv4/icmp_ratelimit; echo ready; \
                 exec sleep infinity",
            ])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&said)?)
            .spawn()
            .context("cannot run unshare")?;
        let namespace = Self {
            holder,
            programs: Vec::new(),
            directory,
        };
        wait_for(&said, "ready")?;
        Ok(namespace)
    }

    /// Two whose interfaces `eth0` are connected, with these addresses.
    pub fn pair(addresses: [&str; 2]) -> Result<[Self; 2]> {
        let pair = [Self::new()?, Self::new()?];
        pair[0].ip(&format!(
            "link add eth0 type veth peer name eth0 netns {}",
            pair[1].holder.id()
        ))?;
        for (namespace, address) in pair.iter().zip(addresses) {
            namespace.ip(&format!("addr add {address}/24 dev eth0"))?;
            namespace.ip("link set eth0 up")?;
        }
        Ok(pair)
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    /// A program that runs in it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg(program);
        command
    }

    /// Runs `ip ARGUMENTS` in it.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let done = self
            .command(Path::new("ip"))
            .args(arguments.split(' '))
            .output()?;
        ensure!(
            done.status.success(),
            "ip {arguments}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(())
    }

    /// Starts a program in it, which ends with the namespace, and waits until it has written `text`.
    pub fn start(&mut self, program: &Path, arguments: &[&str], text: &str) -> Result<()> {
        let said = self
            .directory
            .path()
            .join(format!("program-{}", self.programs.len()));
        let child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&said)?)
            .spawn()?;
        self.programs.push(child);
        wait_for(&said, text)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for child in self.programs.iter_mut().chain([&mut self.holder]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
