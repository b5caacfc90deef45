//! husk, the runtime under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, ensure};

use crate::cache::{home, remove, target};
use crate::capture::{Captured, capture};
use crate::runner::{HOSTNAME, Job, Runner};

/// Runs jobs by `husk run docker-archive:...`.
#[derive(Clone, Debug)]
pub struct Husk {
    binary: PathBuf,
    options: Vec<String>,
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
        })
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

    /// The whole command line of a job.
    pub fn command_for(&self, job: &Job) -> Command {
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
        let mut source = std::ffi::OsString::from("docker-archive:");
        source.push(job.image.docker_archive());
        command.arg(source).arg("--").args(&job.argv);
        command
    }
}

impl Runner for Husk {
    fn name(&self) -> &'static str {
        "husk"
    }

    fn run(&self, job: &Job) -> Result<Captured> {
        capture(&self.command_for(job), &job.stdin, job.limit)
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
