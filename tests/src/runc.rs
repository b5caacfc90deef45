//! runc, the oracle.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cache::{Scratch, unique};
use crate::capture::{Captured, capture};
use crate::image::PATH;
use crate::rootfs::{Rootfs, run};
use crate::runner::{HOSTNAME, Job, Runner};

/// The capabilities an engine gives a container. `runc spec` proposes three, with which not even chown works.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Runs jobs by `runc run` on a bundle of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runc;

impl Runner for Runc {
    fn name(&self) -> &'static str {
        "runc"
    }

    fn run(&self, job: &Job) -> Result<Captured> {
        run_under(&[], job)
    }
}

impl Runc {
    /// Runs `job` with strace(1) following runc and all it starts, which writes a file for each thread into `to`:
    /// `t.` and its id on the host.
    pub fn traced(&self, job: &Job, to: &Path) -> Result<Captured> {
        let prefix = to.join("t");
        let prefix = prefix.to_str().context("no UTF-8")?;
        // As much of strings as husk records.
        let strace = [
            "strace",
            "-ff",
            "-s",
            "4096",
            "--decode-pids=pidns",
            "-o",
            prefix,
        ];
        run_under(&strace, job)
    }

    /// Runs the bundle of `job` by another runtime with runc's command line.
    pub fn bundle_under(&self, runtime: &Path, job: &Job) -> Result<Captured> {
        run_by(runtime, &[], job)
    }
}

/// Runs `job` by the command `prefix`, whose last arguments runc's command line is.
fn run_under(prefix: &[&str], job: &Job) -> Result<Captured> {
    run_by(Path::new("runc"), prefix, job)
}

fn run_by(runtime: &Path, prefix: &[&str], job: &Job) -> Result<Captured> {
    let bundle = Scratch::new("bundle")?;
    let rootfs = Rootfs::of(&job.image, bundle.path())?;

    run(Command::new("runc").arg("spec").current_dir(bundle.path()))?;
    let path = bundle.path().join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path)?)?;
    adjust(&mut spec, job);
    fs::write(&path, spec.to_string())?;

    let container = Container {
        runtime: runtime.to_owned(),
        id: unique("oracle"),
        _rootfs: rootfs,
        bundle,
    };
    let mut command = match prefix.split_first() {
        None => container.runc(),
        Some((program, arguments)) => {
            let runc = container.runc();
            let mut command = Command::new(program);
            command
                .args(arguments)
                .arg(runc.get_program())
                .args(runc.get_args());
            command
        }
    };
    let result = capture(
        command
            .args(["run", &container.id])
            .current_dir(container.bundle.path()),
        &job.stdin,
        job.limit,
    );
    drop(container);
    result
}

fn adjust(spec: &mut Value, job: &Job) {
    let process = &mut spec["process"];
    process["terminal"] = json!(false);
    process["args"] = json!(job.argv);
    process["cwd"] = json!(job.workdir.as_deref().unwrap_or("/"));
    let extra = job
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    process["env"] = std::iter::once(PATH.to_owned()).chain(extra).collect();
    process["noNewPrivileges"] = json!(false);
    for set in ["bounding", "effective", "permitted"] {
        process["capabilities"][set] = json!(CAPABILITIES);
    }
    if let Some(sets) = process["capabilities"].as_object_mut() {
        sets.remove("ambient");
    }
    spec["root"]["readonly"] = json!(false);
    spec["hostname"] = json!(HOSTNAME);
    if let Some(mib) = job.memory_mib {
        let bytes = mib << 20;
        spec["linux"]["resources"]["memory"] = json!({ "limit": bytes, "swap": bytes });
    }
}

/// A container that is deleted whatever happens, before its bundle.
struct Container {
    runtime: std::path::PathBuf,
    id: String,
    _rootfs: Rootfs,
    bundle: Scratch,
}

impl Container {
    fn runc(&self) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.bundle.path().join("state"));
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Usually gone already, which runc reports on its standard error: not ours.
        let _ = self.runc().args(["delete", "-f", &self.id]).output();
    }
}
