//! What the VMM process tells the command that started it: whether the first program runs.
//!
//! It goes through a FIFO, because `start` is another process than the `create` that the VMM descends from. Both
//! ends are opened so that the reader sees the end when the VMM dies.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

/// How the start went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The first program is about to run.
    Started,
    /// It could not be started.
    Failed {
        /// One line.
        message: String,
        /// Exit status of a foreground run.
        status: u8,
        /// The VMM has told why on its standard error.
        told: bool,
    },
}

/// The VMM's end.
#[derive(Debug)]
pub struct Reporter(File);

impl Reporter {
    /// Makes the FIFO at `path` and opens the end that the VMM inherits.
    ///
    /// # Errors
    /// What making and opening it gives.
    pub fn create(path: &Path) -> io::Result<Self> {
        nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // For reading too, or the open would wait for a reader.
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map(Self)
    }

    /// The end in `file`, which the VMM was handed.
    #[must_use]
    pub fn inherited(file: File) -> Self {
        Self(file)
    }

    /// The file, for handing it on.
    #[must_use]
    pub fn into_file(self) -> File {
        self.0
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Tells. Nobody may be listening; a report is far smaller than a pipe.
    pub fn tell(mut self, report: &Report) {
        if let Ok(mut line) = serde_json::to_string(report) {
            line.push('\n');
            let _ = self.0.write_all(line.as_bytes());
        }
    }
}

/// The listener's end, opened before the VMM is told to start.
#[derive(Debug)]
pub struct Listener(File);

impl Listener {
    /// Opens the FIFO at `path`.
    ///
    /// # Errors
    /// What opening gives.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok(Self(file))
    }

    /// The end in `file`, a pipe's.
    #[must_use]
    pub fn inherited(file: File) -> Self {
        Self(file)
    }

    /// Waits for the report; `None` if the VMM died without one.
    #[must_use]
    pub fn wait(self) -> Option<Report> {
        let mut line = String::new();
        BufReader::new(self.0).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}

/// Whether any process holds the VMM's end of the FIFO at `path`; false if there is none.
#[must_use]
pub fn has_writers(path: &Path) -> bool {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let Ok(mut file) = file else {
        return false;
    };
    let mut bytes = [0; 512];
    loop {
        match file.read(&mut bytes) {
            Ok(0) => return false,
            // What was reported to nobody.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive_and_death_is_noticed() {
        let path = std::env::temp_dir().join(format!("husk-report-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let reporter = Reporter::create(&path).unwrap();
        let listener = Listener::open(&path).unwrap();
        let failed = Report::Failed {
            message: "no\nsuch".to_owned(),
            status: 127,
            told: false,
        };
        reporter.tell(&failed);
        assert_eq!(listener.wait(), Some(failed));
        assert!(!has_writers(&path));
        let reporter = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        assert!(has_writers(&path));
        drop(reporter);
        // Nobody writes any more.
        assert_eq!(Listener::open(&path).unwrap().wait(), None);
        std::fs::remove_file(path).unwrap();
    }
}
