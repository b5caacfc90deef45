//! `husk trace`.

use std::process::ExitCode;

use super::args::TraceArgs;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[error("not yet")]
pub struct Error;

/// Prints a recording.
pub fn run(_args: &TraceArgs) -> Result<ExitCode, super::Error> {
    Err(Error.into())
}
