//! `husk start`.

use std::process::ExitCode;

use super::Error;
use super::args::{Cli, IdArgs};
use crate::oci::state::Directory;
use crate::oci::{self, lifecycle};

/// Starts a container's program.
pub fn run(cli: &Cli, args: &IdArgs) -> Result<ExitCode, Error> {
    let container = Directory::new(&cli.state())
        .open(&args.id)
        .map_err(oci::Error::from)?;
    lifecycle::start(&container)?;
    Ok(ExitCode::SUCCESS)
}
