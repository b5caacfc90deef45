//! A job, and what carries it out.

use std::time::Duration;

use anyhow::Result;

use crate::capture::Captured;
use crate::image::Image;

/// The host name inside, under either runtime.
pub const HOSTNAME: &str = "vessel";

/// A command in an image.
#[derive(Clone, Debug)]
pub struct Job {
    /// The image it runs in.
    pub image: Image,
    /// The command line.
    pub argv: Vec<String>,
    /// What it reads.
    pub stdin: Vec<u8>,
    /// Environment beyond the image's own.
    pub env: Vec<(String, String)>,
    /// Working directory; the image's own is `/`.
    pub workdir: Option<String>,
    /// After this time the job counts as hung.
    pub limit: Duration,
    /// Memory the container may use, in MiB; without a word as much as there is.
    pub memory_mib: Option<u64>,
}

impl Job {
    /// A job without input or extra environment and a limit of one minute.
    pub fn new<S: Into<String>>(image: &Image, argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            image: image.clone(),
            argv: argv.into_iter().map(Into::into).collect(),
            stdin: Vec::new(),
            env: Vec::new(),
            workdir: None,
            limit: Duration::from_secs(60),
            memory_mib: None,
        }
    }

    /// `sh -c SCRIPT`.
    pub fn shell(image: &Image, script: &str) -> Self {
        Self::new(image, ["sh", "-c", script])
    }

    /// With this standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// With one more environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// In this working directory.
    pub fn workdir(mut self, path: &str) -> Self {
        self.workdir = Some(path.into());
        self
    }

    /// In a container with so much memory.
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.memory_mib = Some(mib);
        self
    }

    /// With another time limit.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// A container runtime.
pub trait Runner {
    /// Its name in messages.
    fn name(&self) -> &'static str;

    /// Runs the job in a fresh container.
    fn run(&self, job: &Job) -> Result<Captured>;
}
