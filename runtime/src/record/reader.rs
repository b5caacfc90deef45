//! Reading a recording, of either form.

use std::io::{self, BufRead, BufReader, Read};

use serde::Deserialize;

use super::binary::{self, Content};
use super::event::{Event, Lost, Syscall};
use super::parse::Record;

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    #[error("line {line} is no record: {why}")]
    Line { line: u64, why: String },
    #[error("{0}")]
    Binary(#[from] binary::Error),
}

/// Reads events from what may still grow.
#[derive(Debug)]
pub struct Reader<R> {
    form: Form<R>,
}

#[derive(Debug)]
enum Form<R> {
    Json {
        from: BufReader<R>,
        /// The line being read, whose end may not be there yet.
        line: Vec<u8>,
        number: u64,
    },
    Binary(binary::Reader<BufReader<R>>),
    Empty,
}

/// Only the kind: for events of a later husk.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "kind")]
    kind: Option<&'a str>,
}

impl<R: Read> Reader<R> {
    /// Looks which form `from` has.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(from: R) -> Result<Self, Error> {
        let mut from = BufReader::with_capacity(256 << 10, from);
        let start = from.fill_buf()?;
        let form = match start.first() {
            None => Form::Empty,
            Some(first) if *first == binary::MAGIC[0] => {
                let mut magic = [0; binary::MAGIC.len()];
                from.read_exact(&mut magic)?;
                if magic != binary::MAGIC {
                    return Err(binary::Error::Magic.into());
                }
                Form::Binary(binary::Reader::after_magic(from)?)
            }
            Some(_) => Form::Json {
                from,
                line: Vec::new(),
                number: 0,
            },
        };
        Ok(Self { form })
    }

    /// Whether there was nothing to tell the form by.
    pub fn is_empty(&self) -> bool {
        matches!(self.form, Form::Empty)
    }

    /// Hands all events that are there to `take`; another call goes on from there.
    ///
    /// # Errors
    /// [`Error`]; what was handed over before is good.
    pub fn read<E: From<Error>>(
        &mut self,
        mut take: impl FnMut(&Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match &mut self.form {
            Form::Empty => Ok(()),
            Form::Json { from, line, number } => loop {
                let count = from.read_until(b'\n', line).map_err(Error::Read)?;
                if count == 0 || line.last() != Some(&b'\n') {
                    return Ok(());
                }
                *number += 1;
                let failed = |why| Error::Line { line: *number, why };
                let text = std::str::from_utf8(line).map_err(|why| failed(why.to_string()))?;
                if let Some(event) = event(text.trim_end()).map_err(failed)? {
                    take(&event)?;
                }
                line.clear();
            },
            Form::Binary(reader) => {
                let labels = reader.labels().clone();
                let mut result = Ok(());
                loop {
                    let more = reader.next_frame(|content| {
                        if result.is_err() {
                            return;
                        }
                        result = match content {
                            Content::Record(vcpu, Record::Call(call)) => {
                                take(&Event::Syscall(Syscall::new(vcpu, &call, &labels)))
                            }
                            Content::Record(vcpu, Record::Lost { sequence, count }) => {
                                take(&Event::Lost(Lost::new(vcpu, sequence, count, &labels)))
                            }
                            Content::Event(text) => match std::str::from_utf8(text)
                                .map_err(|why| why.to_string())
                                .and_then(event)
                            {
                                Ok(Some(event)) => take(&event),
                                Ok(None) => Ok(()),
                                Err(why) => Err(Error::Line { line: 0, why }.into()),
                            },
                        };
                    });
                    let more = more.map_err(Error::Binary)?;
                    std::mem::replace(&mut result, Ok(()))?;
                    if !more {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Whether the recording stops in the middle of an event.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        match &self.form {
            Form::Empty => false,
            Form::Json { line, .. } => !line.is_empty(),
            Form::Binary(reader) => reader.is_within_frame(),
        }
    }
}

/// The event of one JSON object; nothing for kinds of events this husk does not know.
fn event(text: &str) -> Result<Option<Event<'_>>, String> {
    match serde_json::from_str::<Event<'_>>(text) {
        Ok(event) => Ok(Some(event)),
        Err(error) => match serde_json::from_str::<Kind<'_>>(text) {
            Ok(Kind { kind: Some(kind) }) if !matches!(kind, "syscall" | "lost" | "boundary") => {
                Ok(None)
            }
            _ => Err(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::decode;

    fn lines(text: &str) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        let mut reader = Reader::new(text.as_bytes())?;
        reader.read(|event| {
            lines.push(decode::line(event));
            Ok::<(), Error>(())
        })?;
        Ok(lines)
    }

    const CALL: &str = concat!(
        r#"{"kind":"syscall","seq":0,"time_ns":1,"vcpu":0,"pid":1,"tid":1,"comm":"sh","nr":39,"name":"getpid","#,
        r#""args":[],"result":1,"errno":null,"duration_ns":1,"#,
        r#""container":"c","image":"i"}"#,
        "\n"
    );

    #[test]
    fn kinds_of_lines() {
        assert_eq!(
            lines(CALL).unwrap(),
            ["[pid 1<sh>] getpid() = 1 <0.000000>"]
        );
        assert!(lines("{\"kind\":\"later\",\"x\":1}\n").unwrap().is_empty());
        assert!(lines("").unwrap().is_empty());
        for bad in [
            "\n",
            "x\n",
            "{}\n",
            "[]\n",
            "{\"kind\":\"syscall\"}\n",
            "{\"kind\":7}\n",
        ] {
            assert!(
                matches!(lines(bad), Err(Error::Line { line: 1, .. })),
                "{bad}"
            );
        }
        assert!(matches!(
            lines("hello\n"),
            Err(Error::Read(_) | Error::Binary(_))
        ));
    }

    #[test]
    fn the_last_line_may_not_be_there_yet() {
        let (start, rest) = CALL.split_at(40);
        let mut reader = Reader::new(start.as_bytes()).unwrap();
        let none = |_: &Event<'_>| -> Result<(), Error> { panic!("an event") };
        reader.read(none).unwrap();
        assert!(reader.is_cut() && !rest.is_empty());
    }
}
