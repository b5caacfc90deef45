//! `husk events`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

use super::Error;
use super::args::{Cli, EventsArgs};
use crate::control::client::Client;
use crate::control::wire::{Answer, Ask};
use crate::oci::state::{Directory, Status};
use crate::oci::{self, control, figures};

/// Prints what a container uses, once, or again and again until it ends, with a line for each process that is killed
/// because memory runs out.
pub fn run(cli: &Cli, args: &EventsArgs) -> Result<ExitCode, Error> {
    let all = Directory::new(&cli.state());
    if matches!(look(&all, &args.id)?, Status::Stopped | Status::Creating) {
        return Err(oci::Error::NoEvents(args.id.clone()).into());
    }
    if args.stats {
        print(&stats(&all, &args.id)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let dir = all.path(&args.id);
    let mut client = Client::connect(&dir).map_err(oci::Error::Control)?;
    client.ask(&Ask::Watch, &[]).map_err(oci::Error::Control)?;
    let mut next = Instant::now() + args.interval;
    loop {
        while let Some(answer) = client.received().map_err(oci::Error::Control)? {
            if matches!(answer, Answer::OutOfMemory(_)) {
                print(&json!({ "type": "oom", "id": args.id }))?;
            }
        }
        let left = next.saturating_duration_since(Instant::now());
        if left.is_zero() {
            next += args.interval;
            if look(&all, &args.id)? == Status::Stopped {
                return Ok(ExitCode::SUCCESS);
            }
            print(&stats(&all, &args.id)?)?;
        } else if client.is_told(left).map_err(oci::Error::Control)?
            && !client.receive().map_err(oci::Error::Control)?
        {
            // The container has ended.
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn look(all: &Directory, id: &str) -> Result<Status, Error> {
    Ok(all.look(id).map_err(oci::Error::from)?.status)
}

fn stats(all: &Directory, id: &str) -> Result<Value, Error> {
    let seen = all.look(id).map_err(oci::Error::from)?;
    let container = all.open(id).map_err(oci::Error::from)?;
    // A VMM that is frozen, or not there yet, does not answer.
    let inside = match seen.status {
        Status::Running => control::usage(&all.path(id)).ok(),
        _ => None,
    };
    let data = figures::of_container(&container.cgroup()?, inside.as_ref());
    Ok(json!({ "type": "stats", "id": id, "data": data }))
}

/// One line, at once.
fn print(value: &Value) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")
        .and_then(|()| out.flush())
        .map_err(Error::Output)
}
