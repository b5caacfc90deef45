//! What may be typed: flags and their values, each checked for its own form.
//!
//! Whether a value makes sense together with the image and the host is [`crate::plan`]'s business. Here are the global flags and
//! the verbs; a verb's own are in the module of its kind.

mod images;
mod lifecycle;
mod others;
mod parse;
mod record;
mod run;
mod running;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum};

use super::filter::LogFilter;
pub use images::{ImageVerb, LoadArgs, LsArgs, PullArgs, stored};
pub use lifecycle::{CreateArgs, DeleteArgs, IdArgs, KillArgs, SetupArgs};
pub use others::{CheckArgs, DebugVerb, ListArgs, ListFormat, SpecArgs, TraceArgs};
pub use parse::{Parsed, UsageError, parse};
pub use record::RecordArgs;
pub use run::{RunArgs, Target};
pub use running::{EventsArgs, ExecArgs, PsArgs, UpdateArgs};

/// Run OCI containers, each under a kernel of its own in a KVM guest.
#[derive(Debug, Parser)]
#[command(name = "husk", disable_version_flag = true, max_term_width = 100)]
pub struct Cli {
    /// Directory for unpacked images and the state of containers [default: /var/lib/husk for images,
    /// /run/husk for state]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Append logs and errors to FILE
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the lines in the log file
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "text",
        ignore_case = true
    )]
    pub log_format: LogFormat,
    /// Log what husk and the libOS do; to standard error unless --log names a file
    #[arg(long)]
    pub debug: bool,
    /// Let systemd make the containers' cgroups
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Whether to do without what only root can have: true, false, or auto, which finds out
    #[arg(long, value_name = "BOOL|auto", default_value = "auto")]
    pub rootless: Rootless,
    /// Accepted: containers are not saved yet
    #[arg(long, value_name = "PROGRAM", hide = true)]
    pub criu: Option<PathBuf>,
    /// What to log, such as mm=debug,sched=trace,vmm=debug,warn; like --debug, but only this
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<LogFilter>,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// Whether to do without namespaces and cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rootless {
    /// Where they cannot be had.
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

impl FromStr for Rootless {
    type Err = String;

    /// The words of runc, and of Go for what is true and false.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Self::Yes),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Self::No),
            _ => Err("give true, false or auto".to_owned()),
        }
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line, as runc writes
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Verb {
    /// Run a command in a container made from an image, or a container made from a bundle
    Run(Box<RunArgs>),
    /// Get an image from a registry into the store
    Pull(PullArgs),
    /// Load, list, inspect and remove images
    #[command(subcommand)]
    Image(ImageVerb),
    /// Make a container from a bundle; its program waits for `start`
    Create(CreateArgs),
    /// Start the program of a container that was made
    Start(IdArgs),
    /// Print the state of a container
    State(IdArgs),
    /// Send a signal to the first process of a container
    Kill(KillArgs),
    /// Run another process in a container that runs
    Exec(Box<ExecArgs>),
    /// Print the processes of a container
    Ps(PsArgs),
    /// Stop all that runs in a container
    Pause(IdArgs),
    /// Let a paused container go on
    Resume(IdArgs),
    /// Change limits of a container
    Update(UpdateArgs),
    /// Print what a container uses, and tell when its memory runs out
    Events(EventsArgs),
    /// Remove a container and all that belongs to it
    Delete(DeleteArgs),
    /// Print the containers
    List(ListArgs),
    /// Write an example config.json
    Spec(SpecArgs),
    /// Print what this runtime can do, as JSON
    Features,
    /// Tell whether this host can run husk, and what to fix
    Check(CheckArgs),
    /// Print a recording as strace prints system calls
    Trace(TraceArgs),
    /// Serve those who debug husk itself
    #[command(subcommand)]
    Debug(DebugVerb),
    /// Print version numbers
    Version,
}

impl Cli {
    /// Whether more than warnings is asked for.
    #[must_use]
    pub fn is_verbose(&self) -> bool {
        self.debug || self.log_filter.is_some()
    }

    /// Where images are kept.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(|| "/var/lib/husk".into())
    }

    /// Where the state of containers is kept.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(|| "/run/husk".into())
    }
}
