//! From a bundle to a container and back: `create`, `start`, `state`, `kill`, `delete`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::RecordArgs;

/// How a container is made from a bundle: `create` and `run`.
#[derive(Clone, Debug, Default, Args)]
pub struct SetupArgs {
    /// The bundle's directory
    #[arg(
        short,
        long,
        value_name = "DIR",
        help = "The bundle's directory [default: .]"
    )]
    pub bundle: Option<PathBuf>,
    /// Socket that is sent the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Write the process id of the container to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivot_root, for a root on a RAM disk
    #[arg(long)]
    pub no_pivot: bool,
    /// Accepted: the guest has no keyring of the host's
    #[arg(long, hide = true)]
    pub no_new_keyring: bool,
    /// Pass on this many descriptors after the first three
    #[arg(long, value_name = "N", default_value = "0")]
    pub preserve_fds: u32,
}

impl SetupArgs {
    /// The bundle's directory.
    #[must_use]
    pub fn bundle(&self) -> &Path {
        self.bundle.as_deref().unwrap_or(Path::new("."))
    }
}

/// `husk create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The new container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// How it is made
    #[command(flatten)]
    pub setup: SetupArgs,
    /// What is recorded
    #[command(flatten)]
    pub record: RecordArgs,
}

/// `husk start` and `husk state`.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `husk kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// The signal, by name or number
    #[arg(
        value_name = "SIGNAL",
        default_value = "SIGTERM",
        allow_hyphen_values = true
    )]
    pub signal: String,
    /// Send it to all processes of the container
    #[arg(short, long)]
    pub all: bool,
}

/// `husk delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Kill the container if it still runs; no error if there is none
    #[arg(short, long)]
    pub force: bool,
}
