//! What libcontainer's processes log as errors while a container is made.
//!
//! The error that it returns says in which of its steps a process of its own failed, not why: that is only in the log of
//! that process, a copy of this one. So all of them write what they would log into one file that this one reads.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use nix::sys::memfd::{MFdFlags, memfd_create};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;

static COMPLAINTS: OnceLock<File> = OnceLock::new();

/// As much as is read, in bytes.
const LIMIT: usize = 16 << 10;

/// The part of a `tracing` subscriber that takes errors down.
#[derive(Debug)]
pub struct Listener;

impl Listener {
    /// What it is to see.
    #[must_use]
    pub fn targets() -> Targets {
        Targets::new()
            .with_target("libcontainer", LevelFilter::ERROR)
            .with_target("libcgroups", LevelFilter::ERROR)
    }
}

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(mut file) = COMPLAINTS.get() else {
            return;
        };
        let mut text = Text::default();
        event.record(&mut text);
        let line = format!("{}{}\n", text.message, text.cause).replace("\n\n", "\n");
        let _ = file.write_all(line.as_bytes());
    }
}

/// The message, and what the other fields say about the cause.
#[derive(Default)]
struct Text {
    message: String,
    cause: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "err" | "errno" | "error" => write!(self.cause, ": {value:?}"),
            _ => Ok(()),
        };
    }
}

/// From here on complaints are taken down.
pub fn listen() {
    if let Ok(file) = memfd_create(c"complaints", MFdFlags::MFD_CLOEXEC) {
        let _ = COMPLAINTS.set(file.into());
    }
}

/// The first complaint, which is nearest to the cause.
pub fn first() -> Option<String> {
    let mut bytes = vec![0; LIMIT];
    let length = COMPLAINTS.get()?.read_at(&mut bytes, 0).ok()?;
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let line = text.lines().next().filter(|line| !line.is_empty())?;
    Some(short(line))
}

/// A line without the `Debug` form of what the specification says about a mount: its destination is enough.
fn short(line: &str) -> String {
    let found = || {
        let (before, mount) = line.split_once("Mount { destination: ")?;
        let (destination, _) = mount.split_once(", ")?;
        let (_, after) = mount.rsplit_once(" }")?;
        Some(format!("{before}{destination}{after}"))
    };
    found().unwrap_or_else(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_by_their_destination() {
        let line = r#"failed to mount Mount { destination: "/x", typ: Some("y"), options: None }: io error: no"#;
        assert_eq!(short(line), r#"failed to mount "/x": io error: no"#);
        assert_eq!(short("failed"), "failed");
    }
}
