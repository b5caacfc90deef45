//! `list`, `check`, `spec`, `trace`, `debug`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `husk list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print a table, or one JSON array
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    pub format: ListFormat,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people
    Table,
    /// For programs
    Json,
}

/// `husk check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Show how the process of this container is confined
    #[arg(long, value_name = "ID")]
    pub jail: Option<String>,
}

/// `husk spec`.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
}

/// `husk trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// What `husk run --trace FILE` wrote, - for standard input; or the id of a container that is recorded, which is then
    /// followed to its end
    #[arg(value_name = "FILE|ID")]
    pub file: PathBuf,
    /// Go on printing what is added while the container runs
    #[arg(short, long)]
    pub follow: bool,
    /// Print counts and times by call instead
    #[arg(short = 'c', long)]
    pub summary: bool,
}

/// `husk debug`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum DebugVerb {
    /// Write the libOS's ELF file, symbols and all, to standard output
    Elf,
}
