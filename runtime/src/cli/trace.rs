//! `husk trace`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;

use super::args::TraceArgs;
use crate::record::decode;
use crate::record::event::Event;

/// What can be wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("line {line} of {} is no record: {why}", path.display())]
    NotARecord {
        path: PathBuf,
        line: u64,
        why: String,
    },
}

/// Prints a recording, one line for each event.
pub fn run(args: &TraceArgs) -> Result<ExitCode, super::Error> {
    let read = |source| Error::Read {
        path: args.file.clone(),
        source,
    };
    if args.file == Path::new("-") {
        print(&args.file, &mut io::stdin().lock())?;
    } else {
        let file = File::open(&args.file).map_err(read)?;
        print(&args.file, &mut BufReader::with_capacity(256 << 10, file))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Only the kind: for events of a later husk.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "kind")]
    kind: Option<&'a str>,
}

fn print(path: &Path, from: &mut dyn BufRead) -> Result<(), super::Error> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut text = String::new();
    let mut number = 0;
    loop {
        text.clear();
        number += 1;
        let count = from.read_line(&mut text).map_err(|source| Error::Read {
            path: path.to_path_buf(),
            source,
        })?;
        if count == 0 {
            return out.flush().map_err(super::Error::Output);
        }
        match printed(text.trim_end()) {
            Ok(Some(line)) => writeln!(out, "{line}").map_err(super::Error::Output)?,
            Ok(None) => {}
            Err(why) => {
                // What came before is good.
                out.flush().map_err(super::Error::Output)?;
                return Err(Error::NotARecord {
                    path: path.to_path_buf(),
                    line: number,
                    why,
                }
                .into());
            }
        }
    }
}

/// The line for one line of a recording; nothing for kinds of events this husk does not know.
fn printed(text: &str) -> Result<Option<String>, String> {
    match serde_json::from_str::<Event<'_>>(text) {
        Ok(event) => Ok(Some(decode::line(&event))),
        Err(error) => match serde_json::from_str::<Kind<'_>>(text) {
            Ok(Kind { kind: Some(kind) }) if !matches!(kind, "syscall" | "lost") => Ok(None),
            _ => Err(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_lines() {
        let call = concat!(
            r#"{"kind":"syscall","seq":0,"time_ns":1,"vcpu":0,"pid":1,"tid":1,"nr":39,"name":"getpid","#,
            r#""args":[11,0,0,0,0,18446744073709551615],"result":1,"errno":null,"duration_ns":1,"#,
            r#""container":"c","image":"i"}"#
        );
        assert_eq!(
            printed(call),
            Ok(Some("[pid 1] getpid() = 1 <0.000000>".to_owned()))
        );
        assert_eq!(printed(r#"{"kind":"boundary","x":1}"#), Ok(None));
        for bad in [
            "",
            "x",
            "{}",
            "[]",
            r#"{"kind":"syscall"}"#,
            r#"{"kind":7}"#,
        ] {
            assert!(printed(bad).is_err(), "{bad}");
        }
    }
}
