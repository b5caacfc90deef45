//! Recording: from the guest's rings to a file.
//!
//! | module | idea |
//! | --- | --- |
//! | `ring` | reading a ring the guest writes; nothing in it is trusted |
//! | `parse` | bytes of a ring to records |
//! | [`event`] | the schema of what is written out (docs/records.md) |
//! | [`decode`] | events as strace prints system calls |

pub mod decode;
pub mod event;
mod parse;
mod ring;

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use husk_abi::boundary::boot::GuestRange;
use husk_abi::boundary::record::{FILTER_PAYLOADS, RecordFilter};
use vm_memory::{Bytes, GuestAddress};

use crate::gate::fuse::Operation;
use crate::vmm::{GuestMemory, Layout};
use event::{Event, Lost};
use parse::Record;
use ring::Ring;

/// Why a recording cannot be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot create {}: {source}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("the record rings lie outside guest memory")]
    Layout,
}

/// What every event carries.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Container id.
    pub container: String,
    /// Image digest.
    pub image: String,
}

/// How much was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records written.
    pub written: u64,
    /// Records the guest dropped.
    pub lost: u64,
    /// Why the recording is not complete, if it is not.
    pub problem: Option<String>,
}

/// A recording under way.
#[derive(Debug)]
pub struct Session {
    memory: GuestMemory,
    rings: Vec<Ring>,
    labels: Labels,
    path: PathBuf,
    /// Gone once the recording is over.
    sink: Option<BufWriter<File>>,
    summary: Summary,
    /// Losses the stream has told, by vCPU.
    told: Vec<u64>,
    line: Vec<u8>,
    /// Boundary records so far.
    crossings: u64,
}

/// Makes the file for a recording, or empties it.
///
/// # Errors
/// [`Error::Create`].
pub fn create(path: &Path) -> Result<File, Error> {
    // Paths and arguments may be secrets: for the owner only.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| Error::Create {
            path: path.to_path_buf(),
            source,
        })
}

impl Session {
    /// Records every call, with what its arguments point to, into `file`, called `path`; a program waits
    /// rather than that a record is dropped. To be called before the guest runs.
    ///
    /// # Errors
    /// [`Error`].
    pub fn start(
        memory: &GuestMemory,
        layout: &Layout,
        file: File,
        path: PathBuf,
        labels: Labels,
    ) -> Result<Self, Error> {
        let ranges: Vec<GuestRange> = layout.vcpus.iter().map(|vcpu| vcpu.records).collect();
        Self::over(memory, &ranges, layout.record_filter, file, path, labels)
    }

    fn over(
        memory: &GuestMemory,
        ranges: &[GuestRange],
        filter_gpa: u64,
        file: File,
        path: PathBuf,
        labels: Labels,
    ) -> Result<Self, Error> {
        let rings = ranges
            .iter()
            .map(|range| Ring::create(memory, *range))
            .collect::<Option<Vec<_>>>()
            .ok_or(Error::Layout)?;
        let mut filter = RecordFilter::new(FILTER_PAYLOADS);
        filter.add_all();
        memory
            .write_slice(&filter.to_bytes(), GuestAddress(filter_gpa))
            .map_err(|_| Error::Layout)?;
        Ok(Self {
            memory: memory.clone(),
            told: vec![0; rings.len()],
            rings,
            labels,
            path,
            sink: Some(BufWriter::with_capacity(256 << 10, file)),
            summary: Summary::default(),
            line: Vec::new(),
            crossings: 0,
        })
    }

    /// Writes out what the rings hold, which makes room in them.
    pub fn drain(&mut self) {
        for index in 0..self.rings.len() {
            let mut records = Vec::new();
            let drained = self.rings[index].drain(&self.memory, &mut records);
            for record in records {
                self.write(index, record);
            }
            if let Err(nonsense) = drained {
                self.fail(format!(
                    "the libOS's records of vCPU {index} make no sense ({nonsense}); none are read after {}",
                    self.summary.written
                ));
            }
        }
    }

    fn write(&mut self, ring: usize, record: Record) {
        let vcpu = u32::try_from(ring).unwrap_or(u32::MAX);
        let labels = (&*self.labels.container, &*self.labels.image);
        let event = match record {
            Record::Lost { sequence, count } => {
                self.told[ring] = self.told[ring].saturating_add(count);
                Event::Lost(Lost::new(vcpu, sequence, count, labels))
            }
            Record::Call(call) => {
                self.summary.written += 1;
                Event::Syscall(event::Syscall::new(vcpu, &call, labels))
            }
        };
        self.line.clear();
        // Serialising to memory fails for no event.
        let _ = serde_json::to_writer(&mut self.line, &event);
        self.line.push(b'\n');
        self.put();
    }

    fn put(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        if let Err(error) = sink.write_all(&self.line) {
            self.sink_failed(&error);
        }
    }

    fn sink_failed(&mut self, error: &io::Error) {
        self.sink = None;
        self.fail(format!("cannot write {}: {error}", self.path.display()));
    }

    fn fail(&mut self, problem: String) {
        tracing::warn!("recording: {problem}");
        self.summary.problem.get_or_insert(problem);
    }

    /// Records an operation on the host's files, as the VMM saw it.
    pub fn file_operation(&mut self, operation: &Operation<'_>) {
        let seq = self.crossings;
        self.crossings += 1;
        self.summary.written += 1;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let event = Event::Boundary(event::Boundary {
            seq,
            time_ns: now.map_or(0, |now| nanoseconds(now.saturating_sub(operation.duration))),
            service: Cow::Borrowed("files"),
            operation: Cow::Borrowed(operation.name),
            node: operation.node,
            path: String::from_utf8_lossy(operation.path),
            argument: String::from_utf8_lossy(operation.argument),
            errno: event::errno_name(-i64::from(operation.errno)),
            duration_ns: nanoseconds(operation.duration),
            container: Cow::Borrowed(&*self.labels.container),
            image: Cow::Borrowed(&*self.labels.image),
        });
        self.line.clear();
        // Serialising to memory fails for no event.
        let _ = serde_json::to_writer(&mut self.line, &event);
        self.line.push(b'\n');
        self.put();
    }

    /// Writes out the rest, and how many records were lost, and ends the recording: later calls of
    /// [`Session::drain`] only make room.
    pub fn finish(&mut self) -> Summary {
        self.drain();
        for index in 0..self.rings.len() {
            let (lost, sequence) = self.rings[index].totals(&self.memory);
            self.summary.lost = self.summary.lost.saturating_add(lost);
            let untold = lost.saturating_sub(self.told[index]);
            if untold > 0 {
                self.write(
                    index,
                    Record::Lost {
                        sequence,
                        count: untold,
                    },
                );
            }
        }
        if let Some(mut sink) = self.sink.take()
            && let Err(error) = sink.flush()
        {
            self.sink_failed(&error);
        }
        self.summary.clone()
    }
}

/// A name that is borrowed while recording and owned when read back.
type Name = Cow<'static, str>;

#[cfg(test)]
mod tests;
