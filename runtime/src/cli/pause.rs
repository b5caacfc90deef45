//! `husk pause` and `husk resume`.

use std::process::ExitCode;

use super::Error;
use super::args::{Cli, IdArgs};
use crate::oci::state::Directory;
use crate::oci::{self, lifecycle};

/// Stops all that runs in a container.
pub fn pause(cli: &Cli, args: &IdArgs) -> Result<ExitCode, Error> {
    set(cli, args, true)
}

/// Lets a paused container go on.
pub fn resume(cli: &Cli, args: &IdArgs) -> Result<ExitCode, Error> {
    set(cli, args, false)
}

fn set(cli: &Cli, args: &IdArgs, paused: bool) -> Result<ExitCode, Error> {
    let container = Directory::new(&cli.state())
        .open(&args.id)
        .map_err(oci::Error::from)?;
    if paused {
        lifecycle::pause(&container)?;
    } else {
        lifecycle::resume(&container)?;
    }
    Ok(ExitCode::SUCCESS)
}
