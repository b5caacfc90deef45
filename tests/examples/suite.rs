//! Runs a command with programs of another Debian release:
//! `cargo run -p husk-tests --example suite -- sid docker.io,docker-cli dockerd --version`.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use husk_tests::suite::Suite;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .context("usage: RELEASE PACKAGE,... COMMAND")
    };
    let (release, packages, program) = (next()?, next()?, next()?);
    let packages: Vec<&str> = packages.split(',').collect();
    let mut command = Suite::named(&release, &packages)?.command(&program);
    Err(command.args(arguments).exec().into())
}
