//! libcontainer's callback at `start`: executes the VMM.
#![allow(unsafe_code, reason = "descriptors that were inherited by number")]

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{BorrowedFd, FromRawFd, RawFd};

use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::fcntl::{AtFlags, FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::execveat;
use oci_spec::runtime::Spec;

use super::program::Program;
use super::userns;
use crate::sandbox::report::{Report, Reporter};

/// `argv[0]` of the VMM process. Whether a container was started is read from it.
pub const PROCESS_NAME: &str = "husk-vmm";

/// Executes husk as a VMM, from a descriptor: the file itself is out of sight in the container's root.
///
/// It must be an `execve`, not a call: libcontainer leaves open descriptors, and capabilities that the kernel drops
/// only then. All descriptors are opened by `create`, outside, and inherited by number.
#[derive(Clone, Debug)]
pub struct VmmExecutor {
    /// The husk command.
    pub program: RawFd,
    /// The [`crate::sandbox::handover::Handover`].
    pub handover: RawFd,
    /// What stays open besides it.
    pub kept: Vec<RawFd>,
    /// Where a failure is reported.
    pub report: RawFd,
    /// The user namespace it enters, unless that is the host's.
    pub user_namespace: Option<RawFd>,
    /// The container's program, unless the root is out of sight here.
    pub looked_for: Option<Program>,
    /// The container's id, for `ps`.
    pub id: String,
    /// It ends with the command that made it.
    pub attached: bool,
}

impl VmmExecutor {
    fn execute(&self) -> nix::Result<std::convert::Infallible> {
        if self.attached {
            // One that died before leaves the container to whoever meets its record.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
        }
        for fd in self.kept.iter().chain([&self.handover]) {
            // SAFETY: `create` opened it before this process was forked and keeps it open.
            let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        let args = [
            PROCESS_NAME.to_owned(),
            self.handover.to_string(),
            self.id.clone(),
        ]
        .map(|arg| CString::new(arg).unwrap_or_default());
        // SAFETY: as above.
        let program = unsafe { BorrowedFd::borrow_raw(self.program) };
        let no_env: [&CStr; 0] = [];
        execveat(program, c"", &args, &no_env, AtFlags::AT_EMPTY_PATH)
    }
}

impl Executor for VmmExecutor {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let Err(errno) = self.execute();
        let message = format!("cannot execute the VMM: {errno}");
        // SAFETY: nothing else in this process, which ends here, uses it.
        let report = Reporter::inherited(unsafe { File::from_raw_fd(self.report) });
        report.tell(&Report::Failed {
            message: message.clone(),
            status: 125,
            told: false,
        });
        Err(ExecutorError::Other(message))
    }

    /// Called in the container's root, before `create` is done.
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        let found = self.looked_for.as_ref().map_or(Ok(()), Program::look);
        found.map_err(ExecutorValidationError::ArgValidationError)?;
        // The last step that `create` waits for: whoever looks at the process from then on finds it there.
        let Some(namespace) = self.user_namespace else {
            return Ok(());
        };
        // SAFETY: `create` opened it before this process was forked and keeps it open.
        let namespace = unsafe { BorrowedFd::borrow_raw(namespace) };
        userns::enter(namespace).map_err(|errno| {
            let what = format!("cannot enter the user namespace: {errno}");
            ExecutorValidationError::ArgValidationError(what)
        })
    }

    /// The VMM gets no environment at all.
    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}
