//! `husk kill`.

use std::process::ExitCode;

use super::Error;
use super::args::{Cli, KillArgs};
use crate::oci::state::Directory;
use crate::oci::{self, lifecycle};

/// Sends a signal to a container's first process, or to all.
pub fn run(cli: &Cli, args: &KillArgs) -> Result<ExitCode, Error> {
    let container = Directory::new(&cli.state())
        .open(&args.id)
        .map_err(oci::Error::from)?;
    let number = lifecycle::parse_signal(&args.signal)?;
    lifecycle::kill(&container, number, args.all)?;
    Ok(ExitCode::SUCCESS)
}
