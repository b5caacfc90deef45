//! One container's life: machine, services, signals, recording, end.

mod debugging;
mod guest_log;
mod guest_report;
pub mod handover;
mod hold;
mod memory_events;
pub mod overrun;
pub mod report;
pub mod signals;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use husk_abi::boundary::config::{GuestConfig, StreamKind};
use husk_abi::boundary::doorbell;
use husk_abi::boundary::report::GuestReport;
use husk_abi::linux::Errno;

use crate::control;
use crate::gate::{
    self, ControlObserver,
    fuse::TreeSource,
    handed::Handed,
    requests::{Observer, Operation, Parts, Requests},
    stdio::{StreamObserver, Transfer},
};
use crate::gdb;
use crate::record;
use crate::vmm::{self, DoorbellHandler, End, Machine, MachineConfig, Served};
pub use debugging::Debugging;
use guest_log::GuestLog;
pub use hold::Hold;
use kvm_ioctls::Kvm;
pub use memory_events::MemoryEvents;
use report::{Report, Reporter};
use vmm_sys_util::eventfd::EventFd;

/// Everything about one container, complete.
#[derive(Debug)]
pub struct Plan {
    /// The container's id: 64 hexadecimal digits.
    pub id: String,
    /// Bytes of memory the container may use.
    pub memory_bytes: u64,
    /// Whether it may use less than two CPUs: nobody but the vCPU should compute then.
    pub is_short_of_cpus: bool,
    /// The root file system as a cpio archive, unless the first tree is the root.
    pub root_archive: Option<File>,
    /// What of the host is served to the guest: one for each of the guest's trees.
    pub trees: Vec<TreeSource>,
    /// Whether it has sockets of the host, in the network namespace of this process.
    pub has_sockets: bool,
    /// `/dev/kvm`.
    pub kvm: Kvm,
    /// Who waits for the first program to run.
    pub reporter: Option<Reporter>,
    /// The control socket, listening.
    pub control: Option<UnixListener>,
    /// What the first process is handed besides its streams, as [`GuestConfig::process`] describes it.
    pub handed: Vec<OwnedFd>,
    /// Where it is told that memory ran out.
    pub memory_events: Option<MemoryEvents>,
    /// What the libOS is to run.
    pub guest: GuestConfig,
    /// Where records go, if anywhere.
    pub trace: Option<Trace>,
    /// When to give up.
    pub timeout: Option<Duration>,
    /// What is asked for debugging husk itself.
    pub debugging: Debugging,
}

/// A recording asked for.
#[derive(Debug)]
pub struct Trace {
    /// The file, empty.
    pub file: File,
    /// What it is called.
    pub path: PathBuf,
    /// Digest of the image, for the records.
    pub image: String,
    /// What is recorded and how.
    pub options: record::Options,
}

/// What can go wrong on the host's side.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("{0}")]
    Vmm(#[from] vmm::Error),
    #[error("{0}")]
    Gate(#[from] gate::Error),
    #[error("{0}")]
    Record(#[from] record::Error),
    #[error("{0}")]
    Gdb(#[from] gdb::Error),
    #[error("cannot {what}: {source}")]
    Host {
        what: &'static str,
        source: io::Error,
    },
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its init ended with this wait status (`wait(2)`).
    Init(u32),
    /// Its first program could not be executed.
    NotExecuted(Errno),
    /// [`Plan::timeout`] passed.
    TimedOut,
    /// The libOS failed.
    Crashed {
        /// How.
        reason: String,
        /// The last lines of its log.
        log: Vec<String>,
        /// What its vCPUs were doing.
        backtrace: Vec<String>,
    },
}

/// A container's end and what is known about its life.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// Where time went.
    pub times: Times,
    /// Doorbells that reached the VMM's handler, by port from [`doorbell::FIRST`] on.
    pub doorbells: [u64; DOORBELLS],
    /// Requests that were served: the service, the operation, how often.
    pub requests: Vec<(&'static str, &'static str, u64)>,
    /// What was recorded.
    pub recorded: Option<record::Summary>,
    /// Processes that were killed because the container's memory ran out.
    pub oom_kills: u64,
    /// What the libOS counted, if it was asked to and came to tell.
    pub guest: Option<GuestReport>,
}

/// Where a run's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Making the VM and loading the libOS.
    pub machine: Duration,
    /// From the VM's first instruction until the first process was about to run, by the guest's clock
    /// (which starts with the VM); `None` if it never was.
    pub boot: Option<Duration>,
    /// From the VM's first instruction until the machine ended.
    pub run: Duration,
    /// Writing out what was left.
    pub teardown: Duration,
}

/// Number of doorbells.
pub const DOORBELLS: usize = (doorbell::END - doorbell::FIRST) as usize;
/// Bytes of the window host files are mapped into.
const WINDOW_BYTES: u64 = 4 << 30;
/// Lines of the libOS's log shown after a crash.
const LAST_LINES: usize = 20;

/// Serves the doorbells that no other service takes.
#[derive(Debug)]
struct Handler {
    log: Mutex<GuestLog>,
    records: Option<Arc<Mutex<record::Session>>>,
    requests: OnceLock<Requests>,
    doorbells: [AtomicU64; DOORBELLS],
    /// Taken by the first report.
    reporter: Mutex<Option<Reporter>>,
    hold: Arc<Hold>,
}

impl Handler {
    /// Tells whoever waits for the start how it went; once.
    fn report(&self, report: &Report) {
        let reporter = self
            .reporter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(reporter) = reporter {
            reporter.tell(report);
        }
    }

    /// Passes what the libOS has logged on to husk's own log.
    fn forward_log(&self) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        for line in log.new_lines() {
            line.emit();
        }
    }

    fn drain(&self) {
        if let Some(records) = &self.records {
            records
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .drain();
        }
    }
}

impl ControlObserver for Handler {
    fn control(&self, operation: &'static str, argument: &[u8], value: Option<u64>) {
        if let Some(records) = &self.records {
            let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
            // What the guest did before stands before.
            records.drain();
            records.crossing(&record::Crossing {
                service: "control",
                operation,
                argument,
                value,
                ..record::Crossing::default()
            });
        }
    }
}

impl Observer for Handler {
    fn served(&self, operation: &Operation<'_>) {
        if let Some(records) = &self.records {
            records
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .operation(operation);
        }
    }
}

impl StreamObserver for Handler {
    fn transferred(&self, transfer: Transfer) {
        if let Some(records) = &self.records {
            let stream = ["stdin", "stdout", "stderr"].get(transfer.stream as usize);
            records
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .crossing(&record::Crossing {
                    service: "console",
                    operation: if transfer.stream == 0 {
                        "read"
                    } else {
                        "write"
                    },
                    argument: stream.unwrap_or(&"").as_bytes(),
                    value: Some(transfer.bytes as u64),
                    errno: i32::try_from(transfer.errno).unwrap_or(0),
                    duration: transfer.duration,
                    ..record::Crossing::default()
                });
        }
    }
}

impl DoorbellHandler for Handler {
    fn ring(&self, _vcpu: u32, port: u16, value: u32) -> Served {
        let counter = port
            .checked_sub(doorbell::FIRST)
            .and_then(|index| self.doorbells.get(usize::from(index)));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        match port {
            doorbell::SHUTDOWN => {
                // What the guest did not wait for.
                self.idle(0, &|_| false);
                self.control("shutdown", b"", Some(value.into()));
                return Served::End(End::Shutdown(value));
            }
            doorbell::PANIC => {
                self.control("panic", b"", None);
                return Served::End(End::Panic);
            }
            doorbell::RECORDS => self.drain(),
            doorbell::LOG => self.forward_log(),
            doorbell::STARTED => {
                self.control("started", b"", None);
                self.report(&Report::Started);
            }
            doorbell::SETTLED => self.hold.stand(),
            doorbell::FUSE => {
                if let Some(requests) = self.requests.get() {
                    requests.ring();
                }
            }
            _ => {}
        }
        Served::Resume
    }

    fn idle(&self, _vcpu: u32, sleep: vmm::Sleep<'_>) {
        match self.requests.get() {
            Some(requests) => requests.idle(sleep),
            None => {
                sleep(None);
            }
        }
    }

    fn memory(&self, operation: &'static str, bytes: u64) {
        self.control(operation, b"", Some(bytes));
    }

    fn memory_fault(&self, _vcpu: u32) -> Served {
        match self.requests.get() {
            Some(requests) if requests.memory_fault() => Served::Resume,
            _ => Served::End(End::Crash("an access outside its memory")),
        }
    }
}

/// Runs the container `plan` describes to its end.
///
/// Takes over the calling thread's signal mask: what ends or informs a container goes to its init from
/// here on. No thread may have been started before, and the process should end afterwards.
///
/// # Errors
/// [`Error`], if the container could not be started; nothing is left behind then.
pub fn run(mut plan: Plan) -> Result<Outcome, Error> {
    let host = |what| move |source| Error::Host { what, source };
    let begun = Instant::now();
    let waiter = signals::block().map_err(host("block signals"))?;
    let process = &mut plan.guest.process;
    if process.streams[0] == StreamKind::Terminal {
        // Engines size it before the start, and after; of that a signal tells, from here on.
        process.window = signals::window().or(process.window);
    }
    let has_strangers = plan.guest.user_namespace.is_some();
    let machine = Machine::new(&MachineConfig {
        memory_bytes: plan.memory_bytes,
        // One vCPU until the libOS starts the others.
        vcpus: 1,
        image: plan.debugging.image()?,
        kvm: plan.kvm,
        root_archive: plan.root_archive,
        window_bytes: if plan.trees.is_empty() {
            0
        } else {
            WINDOW_BYTES
        },
        has_sockets: plan.has_sockets,
        guest: plan.guest,
        stopped: plan.debugging.gdb.is_some(),
    })?;
    let inspector = machine.inspector().clone();
    let debugger = plan
        .debugging
        .gdb
        .map(|listener| gdb::serve(listener, inspector.clone()))
        .transpose()?;
    let memory = machine.memory().clone();
    let layout = machine.layout();
    let report_page = layout.host_events;
    let records = plan
        .trace
        .map(|trace| {
            let labels = record::Labels {
                container: plan.id.clone(),
                image: trace.image,
                tenant: trace.options.tenant.clone(),
            };
            let (file, path) = (trace.file, trace.path);
            record::Session::start(&memory, layout, file, path, labels, &trace.options)
        })
        .transpose()?
        .map(|session| Arc::new(Mutex::new(session)));
    if let Some(session) = &records {
        let waiting = EventFd::new(0).map_err(host("make an eventfd"))?;
        machine
            .doorbells()
            .bind(doorbell::RECORDS_WAITING, 0, &waiting)?;
        record::drainer::start(session.clone(), waiting).map_err(host("start a thread"))?;
    }
    let handler = Arc::new(Handler {
        log: Mutex::new(GuestLog::new(memory.clone(), layout.log)),
        records,
        requests: OnceLock::new(),
        doorbells: Default::default(),
        reporter: Mutex::new(plan.reporter),
        hold: Arc::new(Hold::default()),
    });
    let on_usr1 = plan.debugging.is_verbose.then(|| {
        let inspector = inspector.clone();
        move || debugging::log_state(&inspector)
    });
    waiter
        .forward(
            memory.clone(),
            layout.host_events,
            machine.kicker(),
            on_usr1,
        )
        .map_err(host("start a thread"))?;
    if plan.debugging.is_verbose {
        debugging::stream_log(handler.clone()).map_err(host("start a thread"))?;
    }
    let observer = handler
        .records
        .is_some()
        .then(|| handler.clone() as Arc<dyn StreamObserver>);
    let control = handler
        .records
        .is_some()
        .then(|| handler.clone() as Arc<dyn ControlObserver>);
    let handed = Arc::new(Handed::default());
    handed.put(0, plan.handed);
    let services = gate::Services::start(&machine, observer.clone(), control.clone())?;
    let memory_events = plan.memory_events.map(Arc::new);
    if let Some(listener) = plan.control {
        let container = control::server::Container {
            memory_events: memory_events.clone(),
            hold: handler.hold.clone(),
            handed: handed.clone(),
        };
        control::server::start(&machine, listener, observer, control, container)?;
    }
    let requests = Requests::start(Parts {
        trees: &plan.trees,
        has_strangers,
        window: machine.window(),
        memory: memory.clone(),
        layout: machine.layout(),
        interrupt: Arc::new(machine.kicker()),
        may_poll: !plan.is_short_of_cpus,
        observer: handler
            .records
            .is_some()
            .then(|| handler.clone() as Arc<dyn Observer>),
        handed,
    })?;
    if let Some(requests) = requests {
        let _ = handler.requests.set(requests);
    }
    let made = Instant::now();

    let (sender, receiver) = mpsc::channel();
    let doorbells: Arc<dyn DoorbellHandler> = handler.clone();
    std::thread::Builder::new()
        .name("machine".to_owned())
        .spawn(move || {
            let _ = sender.send(machine.run(&doorbells));
        })
        .map_err(host("start a thread"))?;
    let gone = || Some(Ok(End::Crash("its machine's thread ended")));
    let end = match plan.timeout {
        None => receiver.recv().ok().or_else(gone),
        Some(timeout) => match receiver.recv_timeout(timeout) {
            Ok(end) => Some(end),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => gone(),
        },
    }
    .transpose()?;
    let over = Instant::now();
    if let Some(debugger) = debugger {
        debugger.finish(end);
    }
    // A guest that is still running could go on for ever.
    if end.is_some() {
        services.finish();
    }

    handler.drain();
    handler.forward_log();
    let recorded = handler.records.as_ref().map(|records| {
        records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .finish()
    });
    let (exec_errno, started_ns) = guest_report::start(&memory, report_page);
    let oom_kills = guest_report::oom_kills(&memory, report_page);
    if let Some(events) = memory_events {
        // A kill that ended the guest may not have been reported.
        events.killed(oom_kills);
    }
    let crashed = |reason: String| Ended::Crashed {
        reason,
        backtrace: debugging::backtrace(&inspector),
        log: handler
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last_lines(LAST_LINES),
    };
    let ended = match end {
        None => Ended::TimedOut,
        Some(End::Shutdown(_)) if exec_errno != 0 => {
            Ended::NotExecuted(Errno::from_code(i32::try_from(exec_errno).unwrap_or(0)))
        }
        Some(End::Shutdown(status)) => Ended::Init(status),
        Some(End::Panic) => crashed("it panicked".to_owned()),
        Some(End::NotStarted) => crashed("it did not start the first process in time".to_owned()),
        Some(End::Crash(how)) => crashed(how.to_owned()),
        Some(End::RunFailed(errno)) => crashed(format!(
            "KVM failed: {}",
            io::Error::from_raw_os_error(errno)
        )),
    };
    Ok(Outcome {
        ended,
        times: Times {
            machine: made - begun,
            boot: (started_ns != 0)
                .then(|| Duration::from_nanos(started_ns).saturating_sub(made - begun)),
            run: over - made,
            teardown: over.elapsed(),
        },
        doorbells: std::array::from_fn(|index| handler.doorbells[index].load(Ordering::Relaxed)),
        requests: handler
            .requests
            .get()
            .map(Requests::counts)
            .unwrap_or_default(),
        recorded,
        oom_kills,
        guest: guest_report::last(&memory, report_page),
    })
}
