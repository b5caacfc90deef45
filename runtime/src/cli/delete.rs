//! `husk delete`.

use std::process::ExitCode;

use super::Error;
use super::args::{Cli, DeleteArgs};
use crate::oci::state::{self, Directory};
use crate::oci::{self, lifecycle};

/// Removes a container.
pub fn run(cli: &Cli, args: &DeleteArgs) -> Result<ExitCode, Error> {
    let all = Directory::new(&cli.state());
    match all.open(&args.id) {
        Ok(container) => lifecycle::delete(container, args.force)?,
        Err(state::Error::NotFound) if args.force => {}
        Err(state::Error::Record { .. }) if args.force => {
            lifecycle::delete_damaged(&all, &args.id)?;
        }
        Err(error) => return Err(oci::Error::from(error).into()),
    }
    Ok(ExitCode::SUCCESS)
}
