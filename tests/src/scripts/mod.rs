//! Shell scripts over busybox applets, by topic.
//!
//! A script's output must be the same in every run: no process ids, no times of now, no unsorted output of
//! concurrent writers. `tests/busybox_scripts.rs` checks that under runc.

mod devices;
mod files;
mod processes;
mod shell;
mod text;

use crate::image::Image;
use crate::runner::Job;

/// What a script reads on its standard input.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Nothing.
    Empty,
    /// This text.
    Text(&'static str),
    /// So many bytes of a fixed pseudo-random sequence.
    Random(usize),
}

/// One script.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// Its name in reports.
    pub name: &'static str,
    /// What `sh -c` runs.
    pub text: &'static str,
    /// What it reads.
    pub input: Input,
    /// Also part of the smoke suite on emulated hardware, so it must be light.
    pub smoke: bool,
}

impl Script {
    const fn new(name: &'static str, text: &'static str) -> Self {
        Self {
            name,
            text,
            input: Input::Empty,
            smoke: false,
        }
    }

    const fn input(self, input: Input) -> Self {
        Self { input, ..self }
    }

    const fn smoke(self) -> Self {
        Self {
            smoke: true,
            ..self
        }
    }

    /// The job of running it.
    pub fn job(&self, image: &Image) -> Job {
        Job::shell(image, self.text).stdin(self.input.bytes())
    }
}

impl Input {
    /// The bytes.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::Empty => Vec::new(),
            Self::Text(text) => text.as_bytes().to_vec(),
            Self::Random(count) => random(count),
        }
    }
}

/// A pseudo-random sequence (xorshift64) that is the same in every run.
pub fn random(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// The script by which husk is first judged.
pub const FIRST_LIGHT: Script = Script::new(
    "first light",
    "echo hi; uname -s; ls -l / | wc -l; sort /etc/passwd | head -3; (sleep 0.1; exit 4) & wait $!; echo $?; exit 7",
)
.smoke();

/// Every topic with its scripts.
pub const TOPICS: [(&str, &[Script]); 5] = [
    ("devices", devices::SCRIPTS),
    ("files", files::SCRIPTS),
    ("processes", processes::SCRIPTS),
    ("shell", shell::SCRIPTS),
    ("text", text::SCRIPTS),
];

/// The smoke suite.
pub fn smoke() -> impl Iterator<Item = &'static Script> {
    std::iter::once(&FIRST_LIGHT)
        .chain(TOPICS.iter().flat_map(|(_, scripts)| *scripts))
        .filter(|script| script.smoke)
}
