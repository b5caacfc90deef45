//! Podman, with a store and settings of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::mounts::{remove_cgroup, unmount_below};
use super::{Engine, LIMIT};
use crate::cache::{Scratch, unique};
use crate::capture::{Captured, End, capture};
use crate::husk::Husk;
use crate::image::Image;

/// A store; containers in it go with the value.
pub struct Podman {
    cgroup: String,
    directory: Scratch,
    /// Podman takes no more than 50 characters for what is in it.
    running: Scratch,
}

impl Podman {
    /// Makes the store and loads the test image.
    ///
    /// # Errors
    /// When podman does not work.
    pub fn start() -> Result<Self> {
        let podman = Self {
            cgroup: unique("husk-test-podman"),
            directory: Scratch::new("podman")?,
            running: Scratch::below(&std::env::temp_dir(), "husk-podman")?,
        };
        let husk = fs::canonicalize(Husk::find()?.binary())?;
        // Limits no higher than those of whoever runs the tests: raising them takes a right that machines in machines lack.
        let settings = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\nlog_driver = \"k8s-file\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n\
             [engine.runtimes]\nrunc = [\"/usr/sbin/runc\"]\nhusk = [\"{}\"]\n",
            husk.display()
        );
        fs::write(podman.at("containers.conf"), settings)?;
        let image = Image::busybox()?.docker_archive();
        let loaded = podman.podman(&["load", "--input", &image.to_string_lossy()])?;
        ensure!(loaded.end == End::Status(0), "{}", loaded.stderr_text());
        Ok(podman)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn words(&self) -> Vec<String> {
        let mut words = vec!["podman".to_owned()];
        for (flag, directory) in [
            ("--root", self.at("root")),
            ("--runroot", self.running.path().join("run")),
            ("--tmpdir", self.running.path().join("tmp")),
        ] {
            words.extend([flag.to_owned(), directory.display().to_string()]);
        }
        words.extend(["--storage-driver", "overlay"].map(str::to_owned));
        words
    }

    /// Runs it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn podman(&self, arguments: &[&str]) -> Result<Captured> {
        let words = self.words();
        let (program, flags) = words.split_first().context("no words")?;
        let mut command = Command::new(program);
        command.args(flags).args(arguments).envs(self.environment());
        capture(&command, b"", LIMIT).context("no podman: run xtask/setup")
    }
}

impl Engine for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn command_line(&self, runtime: &str) -> String {
        format!("{} --runtime {runtime}", self.words().join(" "))
    }

    fn run_flags(&self, _runtime: &str) -> String {
        format!("--cgroup-parent /{}", self.cgroup)
    }

    fn environment(&self) -> Vec<(String, String)> {
        let settings = self.at("containers.conf").display().to_string();
        [
            ("CONTAINERS_CONF", settings),
            // Podman 5 says with every command that control groups of version 1 are old.
            ("PODMAN_IGNORE_CGROUPSV1_WARNING", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.podman(&["rm", "--all", "--force", "--time", "0"]);
        for directory in [&self.directory, &self.running] {
            let _ = unmount_below(directory.path());
        }
        remove_cgroup(&self.cgroup);
    }
}
