//! `husk trace`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::args::{Cli, TraceArgs};
use crate::oci;
use crate::oci::state::{self, Directory, check_id};
use crate::record::event::Event;
use crate::record::reader::{self, Reader};
use crate::record::summary::Table;
use crate::record::{decode, is_being_written};

/// How often a recording that is followed is looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// What can be wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Recording {
        path: PathBuf,
        source: reader::Error,
    },
    #[error("{}: its end is missing", path.display())]
    Cut { path: PathBuf },
    #[error("container {id} is not recorded: that is asked for when it is made, with --trace")]
    NotRecorded { id: String },
}

/// Why printing stops.
enum Stop {
    Recording(reader::Error),
    Output(io::Error),
}

impl From<reader::Error> for Stop {
    fn from(error: reader::Error) -> Self {
        Self::Recording(error)
    }
}

/// Prints a recording, one line for each event, or a summary.
pub fn run(cli: &Cli, args: &TraceArgs) -> Result<ExitCode, super::Error> {
    let container = of_container(cli, &args.file)?;
    let path = container.as_ref().unwrap_or(&args.file);
    let is_input = path == Path::new("-");
    let open = |source| Error::Read {
        path: path.clone(),
        source,
    };
    let file = (!is_input)
        .then(|| File::open(path).map_err(open))
        .transpose()?;
    let from: Box<dyn Read> = match &file {
        Some(file) => Box::new(file),
        None => Box::new(io::stdin().lock()),
    };
    let followed = file.as_ref().filter(|_| args.follow || container.is_some());
    let mut printer = Printer {
        out: io::BufWriter::new(io::stdout().lock()),
        summary: args.summary.then(Table::default),
    };
    let read = printer.all(from, followed);
    let finished = printer.finish();
    match read {
        Ok(true) => Err(Error::Cut { path: path.clone() }.into()),
        Ok(false) => finished.map_err(super::Error::Output),
        Err(Stop::Output(error)) => Err(super::Error::Output(error)),
        Err(Stop::Recording(source)) => Err(Error::Recording {
            path: path.clone(),
            source,
        }
        .into()),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The recording of the container called `name`, if there is no file of that name.
fn of_container(cli: &Cli, name: &Path) -> Result<Option<PathBuf>, super::Error> {
    let Some(id) = name
        .to_str()
        .filter(|id| check_id(id).is_ok() && *id != "-")
    else {
        return Ok(None);
    };
    if name.exists() {
        return Ok(None);
    }
    match Directory::new(&cli.state()).look(id) {
        Ok(seen) => match seen.record.trace {
            Some(path) => Ok(Some(path)),
            None => Err(Error::NotRecorded { id: id.to_owned() }.into()),
        },
        Err(state::Error::NotFound) => Ok(None),
        Err(error) => Err(oci::Error::from(error).into()),
    }
}

/// Prints events, or counts them.
struct Printer<W: Write> {
    out: io::BufWriter<W>,
    summary: Option<Table>,
}

impl<W: Write> Printer<W> {
    /// Prints what `from` holds, and what is added to it while `followed`, which is the same file, is written. True if
    /// an event's end is missing.
    fn all(&mut self, mut from: Box<dyn Read + '_>, followed: Option<&File>) -> Result<bool, Stop> {
        let goes_on = || followed.is_some_and(is_being_written);
        let mut reader = Reader::new(&mut from)?;
        while reader.is_empty() {
            let is_over = !goes_on();
            drop(reader);
            reader = Reader::new(&mut from)?;
            if is_over {
                break;
            }
            std::thread::sleep(PERIOD);
        }
        loop {
            // Before reading: what is written until then is read below.
            let goes_on = goes_on();
            reader.read(|event| self.event(event))?;
            if !goes_on {
                return Ok(reader.is_cut());
            }
            self.out.flush().map_err(Stop::Output)?;
            std::thread::sleep(PERIOD);
        }
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), Stop> {
        match &mut self.summary {
            Some(table) => table.add(event),
            None => writeln!(self.out, "{}", decode::line(event)).map_err(Stop::Output)?,
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(table) = &self.summary {
            write!(self.out, "{table}")?;
        }
        self.out.flush()
    }
}
