//! `husk check --jail ID`.

use std::process::ExitCode;

use super::args::Cli;
use super::{Error, print_text};
use crate::confine::show;
use crate::oci;
use crate::oci::state::{Directory, Status};

/// Shows how a container's process is confined.
pub fn run(cli: &Cli, id: &str) -> Result<ExitCode, Error> {
    let seen = Directory::new(&cli.state())
        .look(id)
        .map_err(oci::Error::from)?;
    let init = seen
        .record
        .init
        .filter(|_| matches!(seen.status, Status::Running | Status::Paused))
        .ok_or(oci::Error::NotRunning)?;
    let text = show::describe(init.pid).map_err(|source| Error::Process {
        pid: init.pid,
        source,
    })?;
    print_text(&text)
}
