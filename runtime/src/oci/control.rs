//! What is asked of a running container's VMM: its processes, its limits, signals that the VMM itself does not take.

use std::path::Path;
use std::time::{Duration, Instant};

use husk_abi::boundary::control::{Limits, ProcessInfo, Usage};
use husk_abi::linux::Errno;

use super::Error;
use crate::control::client::Client;
use crate::control::wire::{Answer, Ask};

/// Asks the VMM of the container in `dir`.
fn ask(dir: &Path, ask: &Ask) -> Result<Answer, Error> {
    let mut client = Client::connect(dir).map_err(Error::Control)?;
    client.ask(ask, &[]).map_err(Error::Control)?;
    match client.answer().map_err(Error::Control)? {
        Some(Answer::Refused(why)) => Err(Error::Refused(why)),
        Some(answer) => Ok(answer),
        None => Err(Error::NotRunning),
    }
}

/// Asks the VMM of the container in `dir`, which takes it when it can; nobody waits for an answer.
fn leave(dir: &Path, asked: &Ask) -> Result<(), Error> {
    let client = Client::connect(dir).map_err(Error::Control)?;
    client.ask(asked, &[]).map_err(Error::Control)
}

fn unexpected() -> Error {
    Error::Control(std::io::ErrorKind::InvalidData.into())
}

/// The processes inside.
///
/// # Errors
/// When the VMM does not answer.
pub fn processes(dir: &Path) -> Result<Vec<ProcessInfo>, Error> {
    match ask(dir, &Ask::List)? {
        Answer::Processes(list) => Ok(list),
        _ => Err(unexpected()),
    }
}

/// What the container uses, as the libOS counts it.
///
/// # Errors
/// When the VMM does not answer.
pub fn usage(dir: &Path) -> Result<Usage, Error> {
    match ask(dir, &Ask::Usage)? {
        Answer::Usage(usage) => Ok(usage),
        _ => Err(unexpected()),
    }
}

/// Has the guest write what its processes have written to files and still waits, and stand still from then on, for as
/// long as the client lives that this gives; gives up after `patience`.
///
/// # Errors
/// When the VMM does not answer in time.
pub fn settle(dir: &Path, patience: Duration) -> Result<Client, Error> {
    let deadline = Instant::now() + patience;
    let mut client = Client::connect(dir).map_err(Error::Control)?;
    client.ask(&Ask::Settle, &[]).map_err(Error::Control)?;
    loop {
        match client.received().map_err(Error::Control)? {
            Some(Answer::Settled) => return Ok(client),
            Some(Answer::Refused(why)) => return Err(Error::Refused(why)),
            Some(_) => return Err(unexpected()),
            None => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Control(std::io::ErrorKind::TimedOut.into()));
        }
        if client.is_told(left).map_err(Error::Control)?
            && !client.receive().map_err(Error::Control)?
        {
            return Err(Error::NotRunning);
        }
    }
}

/// Changes the limits that the libOS keeps. Without `waits` it returns before the VMM has taken them.
///
/// # Errors
/// When they cannot be had: less memory than is used.
pub fn limit(dir: &Path, limits: Limits, waits: bool) -> Result<(), Error> {
    let asked = Ask::Update(limits);
    if !waits {
        return leave(dir, &asked);
    }
    match ask(dir, &asked)? {
        Answer::Updated(Ok(())) => Ok(()),
        Answer::Updated(Err(code)) => Err(Error::Refused(match Errno::from_code(code) {
            Errno::EBUSY => "the limit is below the memory in use".to_owned(),
            errno => format!("the limits cannot be changed: {errno}"),
        })),
        _ => Err(unexpected()),
    }
}

/// Sends signal `number` to the container's init, or to `all` its processes. Without `waits` it returns before the VMM has
/// taken it.
///
/// # Errors
/// When the VMM does not answer.
pub fn kill(dir: &Path, number: i32, all: bool, waits: bool) -> Result<(), Error> {
    let asked = Ask::Kill(number, all);
    if !waits {
        return leave(dir, &asked);
    }
    match ask(dir, &asked)? {
        Answer::Killed => Ok(()),
        _ => Err(unexpected()),
    }
}
