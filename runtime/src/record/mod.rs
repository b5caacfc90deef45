//! Recording: from the guest's rings, and from what the VMM itself sees, to a file.
//!
//! | module | idea |
//! | --- | --- |
//! | [`select`] | what to record: `--trace-filter`'s expressions to the filter in the guest |
//! | `ring` | reading a ring the guest writes; nothing in it is trusted |
//! | [`parse`] | bytes of a ring to records |
//! | [`event`] | the schema of what is written out (docs/records.md) |
//! | `sink` | writing it, as JSON lines or in the `binary` form |
//! | [`reader`] | reading it back |
//! | [`decode`] | what records mean, and events as strace prints system calls |
//! | [`summary`] | counts and times by call, as `strace -c` prints them |
//! | [`drainer`] | the thread that writes while the guest runs |

mod binary;
pub mod decode;
pub mod drainer;
pub mod event;
pub mod parse;
pub mod reader;
mod ring;
pub mod select;
mod sink;
pub mod summary;

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use husk_abi::boundary::boot::GuestRange;
use husk_abi::boundary::record_filter::{FILTER_DROP, FILTER_PAYLOADS, RecordFilter};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use crate::gate::requests::Operation;
use crate::vmm::{GuestMemory, Layout};
use event::{Event, Origin};
use parse::Record;
use ring::Ring;
pub use sink::Format;
use sink::Sink;

/// Why a recording cannot be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot create {}: {source}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("{} is being written by another recording", path.display())]
    InUse { path: PathBuf },
    #[error("the record rings lie outside guest memory")]
    Layout,
    #[error("cannot start recording: {0}")]
    Start(io::Error),
    #[error("{0}")]
    Filter(#[from] select::Error),
}

/// What every event carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Container id.
    pub container: String,
    /// Image digest.
    pub image: String,
    /// Whose container it is; empty if nobody said.
    #[serde(default)]
    pub tenant: String,
}

/// What happens to a call whose record does not fit the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Policy {
    /// The program waits until there is room
    #[default]
    Block,
    /// The record is dropped and counted
    Drop,
}

/// What is asked of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Expressions of [`select`]; a call that one of them selects is recorded. None: all calls.
    pub filters: Vec<String>,
    /// When a ring is full.
    pub policy: Policy,
    /// The file's form.
    pub format: Format,
    /// Whose container it is.
    pub tenant: String,
}

impl Options {
    /// The filter in the guest.
    ///
    /// # Errors
    /// [`select::Error`].
    pub fn filter(&self) -> Result<RecordFilter, select::Error> {
        let flags = match self.policy {
            Policy::Block => FILTER_PAYLOADS,
            Policy::Drop => FILTER_PAYLOADS | FILTER_DROP,
        };
        select::filter(&self.filters, flags)
    }
}

/// How much was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records written, and events of the VMM's own.
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
    filter_gpa: u64,
    /// Of the filter in the guest.
    generation: u64,
    rings: Vec<Ring>,
    output: Output,
}

/// The half of a session that writes.
#[derive(Debug)]
struct Output {
    labels: Labels,
    path: PathBuf,
    /// Gone once the recording is over.
    sink: Option<Sink>,
    summary: Summary,
    /// Losses the stream has told, by vCPU.
    told: Vec<u64>,
    /// Boundary records so far.
    crossings: u64,
}

/// Something the guest asked of the VMM, for a boundary record.
#[derive(Clone, Debug, Default)]
pub struct Crossing<'a> {
    /// The service asked.
    pub service: &'static str,
    /// What was asked.
    pub operation: &'a str,
    /// The file's or socket's number between guest and VMM.
    pub node: Option<u64>,
    /// The file's path in its tree.
    pub path: &'a [u8],
    /// A name, or what else the request names.
    pub argument: &'a [u8],
    /// A number that says how much or which.
    pub value: Option<u64>,
    /// Errno, or 0.
    pub errno: i32,
    /// How long it took to serve.
    pub duration: Duration,
}

/// Makes the file for a recording, or empties it.
///
/// # Errors
/// [`Error::Create`].
pub fn create(path: &Path) -> Result<File, Error> {
    open(path, OpenOptions::new().create(true))
}

/// Makes the file for a recording, which must not be there: for paths that come with a bundle.
///
/// # Errors
/// [`Error::Create`].
pub fn create_new(path: &Path) -> Result<File, Error> {
    open(path, OpenOptions::new().create_new(true))
}

fn open(path: &Path, options: &mut OpenOptions) -> Result<File, Error> {
    let failed = |source| Error::Create {
        path: path.to_path_buf(),
        source,
    };
    // Paths and arguments may be secrets: for the owner only.
    let file = options.write(true).mode(0o600).open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        // Held as long as somebody has the file open for the recording: [`is_being_written`].
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            if errno == rustix::io::Errno::WOULDBLOCK {
                Error::InUse {
                    path: path.to_path_buf(),
                }
            } else {
                failed(errno.into())
            }
        })?;
        file.set_len(0).map_err(failed)?;
    }
    Ok(file)
}

/// Whether a recording into `file` is under way.
#[must_use]
pub fn is_being_written(file: &File) -> bool {
    let locked = flock(file, FlockOperation::NonBlockingLockShared);
    if locked.is_ok() {
        let _ = flock(file, FlockOperation::Unlock);
    }
    locked == Err(rustix::io::Errno::WOULDBLOCK)
}

impl Session {
    /// Records into `file`, called `path`, what `options` ask for. To be called before the guest runs.
    ///
    /// # Errors
    /// [`Error`].
    pub fn start(
        memory: &GuestMemory,
        layout: &Layout,
        file: File,
        path: PathBuf,
        labels: Labels,
        options: &Options,
    ) -> Result<Self, Error> {
        let ranges: Vec<GuestRange> = layout.vcpus.iter().map(|vcpu| vcpu.records).collect();
        let sink = Sink::start(file, options.format, &labels).map_err(Error::Start)?;
        let filter = options.filter()?;
        Self::over(
            memory,
            &ranges,
            layout.record_filter,
            filter,
            sink,
            path,
            labels,
        )
    }

    fn over(
        memory: &GuestMemory,
        ranges: &[GuestRange],
        filter_gpa: u64,
        filter: RecordFilter,
        sink: Sink,
        path: PathBuf,
        labels: Labels,
    ) -> Result<Self, Error> {
        let rings = ranges
            .iter()
            .map(|range| Ring::create(memory, *range))
            .collect::<Option<Vec<_>>>()
            .ok_or(Error::Layout)?;
        let mut session = Self {
            memory: memory.clone(),
            filter_gpa,
            generation: 0,
            output: Output {
                labels,
                path,
                sink: Some(sink),
                summary: Summary::default(),
                told: vec![0; rings.len()],
                crossings: 0,
            },
            rings,
        };
        session.set_filter(filter)?;
        Ok(session)
    }

    /// Replaces the filter in the guest, which takes it over when it is interrupted next.
    ///
    /// # Errors
    /// [`Error::Layout`].
    pub fn set_filter(&mut self, filter: RecordFilter) -> Result<(), Error> {
        let generation =
            GuestAddress(self.filter_gpa + std::mem::offset_of!(RecordFilter, generation) as u64);
        let number = |number: u64| {
            self.memory
                .store(number, generation, Ordering::SeqCst)
                .map_err(|_| Error::Layout)
        };
        number(self.generation + 1)?;
        let filter = RecordFilter {
            generation: self.generation + 1,
            ..filter
        };
        self.memory
            .write_slice(&filter.to_bytes(), GuestAddress(self.filter_gpa))
            .map_err(|_| Error::Layout)?;
        number(self.generation + 2)?;
        self.generation += 2;
        Ok(())
    }

    /// Writes out what the rings hold, which makes room in them.
    pub fn drain(&mut self) {
        for (index, ring) in self.rings.iter_mut().enumerate() {
            let output = &mut self.output;
            let drained = ring.drain(&self.memory, |record| output.record(index, &record));
            if let Err(nonsense) = drained {
                self.output.fail(format!(
                    "the libOS's records of vCPU {index} make no sense ({nonsense}); none are read after {}",
                    self.output.summary.written
                ));
            }
        }
    }

    /// As [`Session::drain`], and leaves nothing in buffers, for those who follow the recording.
    pub fn flush(&mut self) {
        self.drain();
        self.output.write(Sink::flush);
    }

    /// Records that something crossed the boundary, as the VMM saw it.
    pub fn crossing(&mut self, crossing: &Crossing<'_>) {
        self.output.crossing(crossing);
    }

    /// Records an operation on the host's files or sockets, as the VMM saw it.
    pub fn operation(&mut self, operation: &Operation<'_>) {
        self.crossing(&Crossing {
            service: operation.service,
            operation: operation.name,
            node: operation.node,
            path: operation.path,
            argument: operation.argument,
            value: operation.value,
            errno: operation.errno,
            duration: operation.duration,
        });
    }

    /// Writes out the rest, and how many records were lost, and ends the recording: later calls of
    /// [`Session::drain`] only make room.
    pub fn finish(&mut self) -> Summary {
        self.drain();
        for (index, ring) in self.rings.iter().enumerate() {
            let (lost, sequence) = ring.totals(&self.memory);
            let output = &mut self.output;
            output.summary.lost = output.summary.lost.saturating_add(lost);
            let untold = lost.saturating_sub(output.told[index]);
            if untold > 0 {
                let lost = Record::Lost {
                    sequence,
                    count: untold,
                };
                output.record(index, &lost);
            }
        }
        self.output.write(Sink::flush);
        self.output.sink = None;
        self.output.summary.clone()
    }
}

impl Output {
    fn record(&mut self, ring: usize, record: &Record<'_>) {
        let vcpu = u32::try_from(ring).unwrap_or(u32::MAX);
        match record {
            Record::Lost { count, .. } => {
                self.told[ring] = self.told[ring].saturating_add(*count);
            }
            Record::Call(_) => self.summary.written += 1,
        }
        if let Some(sink) = &mut self.sink
            && let Err(error) = sink.record(vcpu, record, &self.labels)
        {
            self.sink_failed(&error);
        }
    }

    fn crossing(&mut self, crossing: &Crossing<'_>) {
        let seq = self.crossings;
        self.crossings += 1;
        self.summary.written += 1;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let event = Event::Boundary(event::Boundary {
            seq,
            time_ns: now.map_or(0, |now| nanoseconds(now.saturating_sub(crossing.duration))),
            service: Cow::Borrowed(crossing.service),
            operation: Cow::Borrowed(crossing.operation),
            node: crossing.node,
            path: String::from_utf8_lossy(crossing.path),
            argument: String::from_utf8_lossy(crossing.argument),
            value: crossing.value,
            errno: event::errno_name(-i64::from(crossing.errno)),
            duration_ns: nanoseconds(crossing.duration),
            origin: Origin::new(&self.labels),
        });
        if let Some(sink) = &mut self.sink
            && let Err(error) = sink.event(&event)
        {
            self.sink_failed(&error);
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut Sink) -> io::Result<()>) {
        if let Some(sink) = &mut self.sink
            && let Err(error) = write(sink)
        {
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
}

/// A name that is borrowed while recording and owned when read back.
type Name = Cow<'static, str>;

#[cfg(test)]
mod tests;
