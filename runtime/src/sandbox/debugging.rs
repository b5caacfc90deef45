//! What helps those who debug husk itself: another libOS, a stream of its log, the state of a running guest, gdb.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use super::{Error, Handler};
use crate::gdb;
use crate::vmm::debug::Inspector;

/// What is asked for.
#[derive(Debug, Default)]
pub struct Debugging {
    /// Log lines are read as they come, and `SIGUSR1` has the state of the guest logged.
    pub is_verbose: bool,
    /// Boot this image instead of the embedded one.
    pub libos: Option<File>,
    /// Wait for gdb here.
    pub gdb: Option<gdb::Listener>,
}

/// How often the libOS's log is looked at while it may be running without telling.
const LOG_PERIOD: Duration = Duration::from_millis(100);

impl Debugging {
    /// The libOS image to boot.
    pub(super) fn image(&mut self) -> Result<&'static [u8], Error> {
        let Some(mut file) = self.libos.take() else {
            return Ok(crate::LIBOS);
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|source| Error::Host {
            what: "read the libOS image --libos names",
            source,
        })?;
        Ok(Vec::leak(bytes))
    }
}

/// Starts the thread that passes log lines on while the libOS runs.
pub(super) fn stream_log(handler: Arc<Handler>) -> io::Result<()> {
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(LOG_PERIOD);
                handler.forward_log();
            }
        })
        .map(drop)
}

/// Logs what vCPUs and threads do. The guest stands still meanwhile.
pub(super) fn log_state(inspector: &Inspector) {
    if inspector.debug.is_attached() {
        tracing::warn!("no state of the guest: a debugger holds it");
        return;
    }
    let all_stopped = inspector.debug.stop_all();
    let report: Vec<String> = inspector
        .vcpu_report()
        .into_iter()
        .chain(inspector.thread_report())
        .collect();
    inspector.debug.resume_all(|_, stop| Some(stop.resume()));
    if !all_stopped {
        tracing::warn!("not all vCPUs stop");
    }
    for line in report {
        tracing::warn!("{line}");
    }
}

/// The backtrace of a guest that ended, or that runs and is to be given up.
pub(super) fn backtrace(inspector: &Inspector) -> Vec<String> {
    inspector.debug.stop_all();
    inspector.vcpu_report()
}
