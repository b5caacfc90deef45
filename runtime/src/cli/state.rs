//! `husk state`.

use std::process::ExitCode;

use super::args::{Cli, IdArgs};
use super::{Error, print_json};
use crate::oci::state::Directory;
use crate::oci::{self, lifecycle};

/// Prints a container's state.
pub fn run(cli: &Cli, args: &IdArgs) -> Result<ExitCode, Error> {
    let seen = Directory::new(&cli.state())
        .look(&args.id)
        .map_err(oci::Error::from)?;
    print_json(&lifecycle::state_of(&seen))
}
