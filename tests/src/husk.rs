//! husk, the runtime under test.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, ensure};

use crate::cache::{Scratch, home, remove, target};
use crate::capture::{Captured, capture};
use crate::rootfs::Rootfs;
use crate::runner::{HOSTNAME, Job, Runner};

/// Runs jobs by `husk run docker-archive:...`.
#[derive(Clone, Debug)]
pub struct Husk {
    binary: PathBuf,
    options: Vec<String>,
    directory_root: bool,
}

impl Husk {
    /// The binary in `$HUSK_BIN`, else the release build. It is an error if there is none: nothing is skipped.
    pub fn find() -> Result<Self> {
        let binary = std::env::var_os("HUSK_BIN")
            .map_or_else(|| target().join("release/husk"), PathBuf::from);
        ensure!(
            binary.is_file(),
            "no husk binary at {}: run `cargo build --release` first, or set HUSK_BIN",
            binary.display()
        );
        Ok(Self {
            binary,
            options: Vec::new(),
            directory_root: std::env::var_os("HUSK_ROOT").is_some_and(|kind| kind == "directory"),
        })
    }

    /// The root of every container is a directory of the host, not an image's archive; so it is for all with
    /// `HUSK_ROOT=directory`.
    pub fn directory_root(mut self) -> Self {
        self.directory_root = true;
        self
    }

    /// The binary's path.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// With further options to `husk run`.
    pub fn options<S: Into<String>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    /// `husk --root DIR`, all test jobs of one process sharing the directory.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(state_root());
        command
    }

    /// The whole command line of a job in its image.
    pub fn command_for(&self, job: &Job) -> Command {
        let mut source = OsString::from("docker-archive:");
        source.push(job.image.docker_archive());
        self.command_with(job, [source])
    }

    /// The whole command line of a job with this root.
    fn command_with(&self, job: &Job, root: impl IntoIterator<Item = OsString>) -> Command {
        let mut command = self.command();
        command
            .arg("run")
            .args(["--hostname", HOSTNAME])
            .args(&self.options);
        for (name, value) in &job.env {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        if let Some(path) = &job.workdir {
            command.arg("--workdir").arg(path);
        }
        if let Some(mib) = job.memory_mib {
            command.arg("--memory").arg(format!("{mib}m"));
        }
        command.args(root).arg("--").args(&job.argv);
        command
    }
}

impl Runner for Husk {
    fn name(&self) -> &'static str {
        "husk"
    }

    fn run(&self, job: &Job) -> Result<Captured> {
        if !self.directory_root {
            return capture(&self.command_for(job), &job.stdin, job.limit);
        }
        let scratch = Scratch::new("root")?;
        let rootfs = Rootfs::of(&job.image, scratch.path())?;
        let root = [OsString::from("--rootfs"), rootfs.path().into()];
        let result = capture(&self.command_with(job, root), &job.stdin, job.limit);
        drop(rootfs);
        result
    }
}

/// This process's `--root`; those of processes that are gone are removed on the way.
fn state_root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let all = home().join("state");
        for old in fs::read_dir(&all).into_iter().flatten().flatten() {
            if !Path::new("/proc").join(old.file_name()).exists()
                && let Err(error) = remove(&old.path())
            {
                eprintln!("cannot remove {}: {error:#}", old.path().display());
            }
        }
        all.join(std::process::id().to_string())
    })
}
