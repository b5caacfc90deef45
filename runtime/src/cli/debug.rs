//! `husk debug`: what debuggers need.

use std::io::{self, Write};
use std::process::ExitCode;

use super::Error;
use super::args::DebugVerb;

/// Serves a debugger's needs.
pub fn run(what: &DebugVerb) -> Result<ExitCode, Error> {
    match what {
        DebugVerb::Elf => io::stdout()
            .write_all(crate::LIBOS)
            .map_err(Error::Output)?,
    }
    Ok(ExitCode::SUCCESS)
}
