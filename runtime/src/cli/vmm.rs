//! The VMM process: what `husk` is when libcontainer's process executes it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use husk_abi::boundary::config::{GuestConfig, MountKind, Tree};
use husk_abi::linux::general::MS_RDONLY;

use super::run::status_of;
use super::{STATUS_RUN_FAILED, logging, report, stats};
use crate::confine::{self, Files};
use crate::gate::fuse::TreeSource;
use crate::gdb;
use crate::oci::executor::PROCESS_NAME;
use crate::oci::mountinfo;
use crate::sandbox::handover::{Before, Handover, HeldTree, Inherited, Root, monotonic};
use crate::sandbox::report::{Report, Reporter};
use crate::sandbox::{self, Debugging, Ended, MemoryEvents, Plan, Trace};
use crate::vmm;

/// Wait status of what `SIGKILL` ended.
const KILLED: u32 = 9;

/// Whether this process was executed as a VMM.
#[must_use]
pub fn is_vmm() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|name| name == PROCESS_NAME)
}

/// Runs a container to its end.
#[must_use]
pub fn vmm() -> ExitCode {
    let begun = monotonic();
    let args: Vec<OsString> = std::env::args_os().collect();
    let number = args
        .get(1)
        .and_then(|number| number.to_str()?.parse::<RawFd>().ok());
    let handover = match number.map(Handover::open) {
        Some(Ok(handover)) => handover,
        _ => {
            report("the VMM was handed nothing to run");
            return ExitCode::from(STATUS_RUN_FAILED);
        }
    };
    let reporter = Reporter::inherited(File::from(handover.report.take()));
    match plan(handover, begun) {
        Ok((plan, after)) => run(plan, reporter, &after),
        Err(message) => fail(reporter, message),
    }
}

/// What is needed when the container has ended.
struct After {
    begun: Duration,
    program: Vec<u8>,
    timeout: Option<Duration>,
    stats: Option<Before>,
    cgroup_limit: Option<u64>,
}

fn plan(handover: Handover, begun: Duration) -> Result<(Plan, After), String> {
    confine::close_all_but(&handover.descriptors())
        .map_err(|error| format!("cannot close descriptors: {error}"))?;
    if let Some(log) = &handover.log {
        logging::start_in_vmm(log);
    }
    let mut guest = handover.guest;
    if guest.hostname.is_empty() {
        guest.hostname = nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
    }
    let (root_archive, trees, is_own) = match handover.root {
        Root::Own { mapped } => (None, own_trees(&mut guest, mapped), true),
        Root::Held { archive, trees } => (
            archive.map(|file| File::from(file.take())),
            trees.into_iter().map(held_tree).collect(),
            false,
        ),
    };
    let kvm =
        vmm::check_kvm(vmm::kvm_of(handover.kvm.take())).map_err(|error| error.to_string())?;
    confine::enter_process(if is_own {
        Files::OwnRoot(&trees)
    } else {
        Files::Trees(&trees)
    })
    .map_err(|error| format!("cannot confine the VMM: {error}"))?;
    let after = After {
        begun,
        program: guest.process.args.first().cloned().unwrap_or_default(),
        timeout: handover.timeout,
        stats: handover.stats,
        cgroup_limit: handover.cgroup_limit,
    };
    let plan = Plan {
        id: handover.id,
        memory_bytes: handover.memory_bytes,
        is_short_of_cpus: handover.is_short_of_cpus,
        root_archive,
        trees,
        has_sockets: handover.has_sockets,
        kvm,
        reporter: None,
        control: handover
            .control
            .map(|socket| UnixListener::from(socket.take())),
        handed: handover.handed.into_iter().map(Inherited::take).collect(),
        memory_events: Some(MemoryEvents::new(File::from(handover.memory_events.take()))),
        guest,
        trace: handover.trace.map(|trace| Trace {
            file: File::from(trace.file.take()),
            path: trace.path,
            image: trace.image,
            options: trace.options,
        }),
        timeout: handover.timeout,
        debugging: Debugging {
            is_verbose: handover.log.is_some_and(|log| log.is_verbose),
            libos: handover.libos.map(|file| File::from(file.take())),
            gdb: handover
                .gdb
                .map(|socket| gdb::Listener::inherited(socket.take())),
        },
    };
    Ok((plan, after))
}

fn held_tree(tree: HeldTree) -> TreeSource {
    TreeSource {
        path: tree.path,
        held: Some(Arc::new(tree.file.take())),
        read_only: tree.read_only,
        exclusive: tree.exclusive,
    }
}

/// Serves what this process sees as its root, and what the host has mounted in it or `mapped` holds in its stead, each as a
/// tree of its own: others may change those.
fn own_trees(guest: &mut GuestConfig, mapped: Vec<(usize, Inherited)>) -> Vec<TreeSource> {
    let mut mapped: BTreeMap<usize, Inherited> = mapped.into_iter().collect();
    let mut sources = vec![TreeSource {
        path: PathBuf::from("/"),
        held: None,
        read_only: false,
        exclusive: true,
    }];
    guest.trees = vec![Tree {
        target: b"/".to_vec(),
        source: b"husk".to_vec(),
        root: b"/".to_vec(),
        read_only: false,
    }];
    let mut roots = None;
    for (index, mount) in guest.mounts.iter().enumerate() {
        if mount.kind != MountKind::Host {
            continue;
        }
        let roots = roots.get_or_insert_with(mountinfo::roots);
        let read_only = mount.flags & MS_RDONLY != 0;
        sources.push(TreeSource {
            path: PathBuf::from(OsStr::from_bytes(&mount.target)),
            held: mapped.remove(&index).map(|tree| Arc::new(tree.take())),
            read_only,
            exclusive: false,
        });
        guest.trees.push(Tree {
            target: mount.target.clone(),
            source: mount.source.clone(),
            // What is held is mounted nowhere.
            root: roots.get(&mount.target).unwrap_or(&mount.source).clone(),
            read_only,
        });
    }
    sources
}

fn fail(reporter: Reporter, message: String) -> ExitCode {
    logging::error(&message);
    reporter.tell(&Report::Failed {
        message,
        status: STATUS_RUN_FAILED,
        told: false,
    });
    ExitCode::from(STATUS_RUN_FAILED)
}

fn run(mut plan: Plan, reporter: Reporter, after: &After) -> ExitCode {
    // The reporter is used twice at most: by the sandbox when the program runs, or here when it does not.
    let spare = match reporter.file().try_clone() {
        Ok(file) => Reporter::inherited(file),
        Err(error) => return fail(reporter, format!("cannot report: {error}")),
    };
    plan.reporter = Some(reporter);
    let outcome = match sandbox::run(plan) {
        Ok(outcome) => outcome,
        Err(error) => return fail(spare, error.to_string()),
    };
    let problem = outcome
        .recorded
        .as_ref()
        .and_then(|recorded| recorded.problem.as_ref());
    if let Some(problem) = problem {
        report(&format!("the recording is not complete: {problem}"));
    }
    let status = match &outcome.ended {
        Ended::NotExecuted(errno) => {
            let (message, status) = super::run::not_executed(*errno, &after.program);
            spare.tell(&Report::Failed {
                message,
                status,
                told: false,
            });
            status
        }
        ended => {
            let status = status_of(ended, &after.program, after.timeout);
            if !matches!(ended, Ended::Init(_)) {
                // Nobody listens any more if the program ran.
                spare.tell(&Report::Failed {
                    message: "its VMM ended before the program ran".to_owned(),
                    status,
                    told: true,
                });
            }
            status
        }
    };
    if let Some(before) = after.stats {
        let spent = stats::Spent {
            image: before.image,
            container: Some(after.begun.saturating_sub(before.began + before.image)),
            total: monotonic().saturating_sub(before.began),
        };
        let text = stats::table(&spent, &outcome);
        let _ = io::stderr().write_all(text.as_bytes());
    }
    if outcome.ended == Ended::Init(KILLED)
        && outcome.oom_kills > 0
        && let Some(limit) = after.cgroup_limit
    {
        sandbox::overrun::until_killed(limit);
    }
    ExitCode::from(status)
}
