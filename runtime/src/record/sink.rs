//! Where a recording is written to, in which form.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use serde::{Deserialize, Serialize};

use super::Labels;
use super::binary::{self, FRAME_EVENT, Packer};
use super::event::{Event, Lost, Syscall};
use super::parse::Record;

/// The form of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line
    #[default]
    Json,
    /// husk's own compact form
    Binary,
}

/// A file records are written to.
#[derive(Debug)]
pub struct Sink {
    file: BufWriter<File>,
    form: Form,
    /// Bytes about to be written.
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum Form {
    Json,
    /// The records that have no frame yet, of one vCPU.
    Binary {
        packer: Packer,
        vcpu: u32,
    },
}

impl Sink {
    /// Starts a recording in `file`, which is empty.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn start(file: File, format: Format, labels: &Labels) -> io::Result<Self> {
        let mut sink = Self {
            file: BufWriter::with_capacity(128 << 10, file),
            form: match format {
                Format::Json => Form::Json,
                Format::Binary => Form::Binary {
                    packer: Packer::default(),
                    vcpu: 0,
                },
            },
            bytes: Vec::new(),
        };
        if format == Format::Binary {
            sink.file.write_all(&binary::file_header(labels))?;
            // Those who follow the recording find it whole.
            sink.file.flush()?;
        }
        Ok(sink)
    }

    /// Writes a record of `vcpu`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, vcpu: u32, record: &Record<'_>, labels: &Labels) -> io::Result<()> {
        match &mut self.form {
            Form::Json => {
                let event = match record {
                    Record::Lost { sequence, count } => {
                        Event::Lost(Lost::new(vcpu, *sequence, *count, labels))
                    }
                    Record::Call(call) => Event::Syscall(Syscall::new(vcpu, call, labels)),
                };
                self.event(&event)
            }
            Form::Binary { vcpu: of, .. } if *of != vcpu => {
                self.end_frame()?;
                if let Form::Binary { packer, vcpu: of } = &mut self.form {
                    *of = vcpu;
                    packer.push(record);
                }
                Ok(())
            }
            Form::Binary { packer, .. } => {
                packer.push(record);
                if packer.is_full() {
                    self.end_frame()?;
                }
                Ok(())
            }
        }
    }

    /// Writes an event of the VMM's own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&mut self, event: &Event<'_>) -> io::Result<()> {
        self.end_frame()?;
        self.bytes.clear();
        // Serialising to memory fails for no event.
        let _ = serde_json::to_writer(&mut self.bytes, event);
        match self.form {
            Form::Json => self.bytes.push(b'\n'),
            Form::Binary { .. } => {
                let header = binary::frame_header(FRAME_EVENT, 0, 1, self.bytes.len());
                self.file.write_all(&header)?;
            }
        }
        self.file.write_all(&self.bytes)
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if let Form::Binary { packer, vcpu } = &mut self.form {
            self.bytes.clear();
            packer.take_frame(u16::try_from(*vcpu).unwrap_or(u16::MAX), &mut self.bytes);
            self.file.write_all(&self.bytes)?;
        }
        Ok(())
    }

    /// Writes out all there is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.end_frame()?;
        self.file.flush()
    }
}
