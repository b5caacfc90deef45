//! runc, the oracle.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cache::{Scratch, unique};
use crate::capture::{Captured, capture};
use crate::image::PATH;
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
        let bundle = Scratch::new("bundle")?;
        let rootfs = bundle.path().join("rootfs");
        let overlay = match job.image.shared_rootfs() {
            None => {
                unpack(&job.image.rootfs_tar(), &rootfs)?;
                None
            }
            Some(shared) => {
                unpack_shared(&job.image.rootfs_tar(), &shared)?;
                Some(Overlay::mount(&shared, bundle.path(), rootfs)?)
            }
        };

        run(Command::new("runc").arg("spec").current_dir(bundle.path()))?;
        let path = bundle.path().join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&path)?)?;
        adjust(&mut spec, job);
        fs::write(&path, spec.to_string())?;

        let container = Container {
            id: unique("oracle"),
            _overlay: overlay,
            bundle,
        };
        let result = capture(
            container
                .runc()
                .args(["run", &container.id])
                .current_dir(container.bundle.path()),
            &job.stdin,
            job.limit,
        );
        drop(container);
        result
    }
}

/// GNU tar, because it also restores the directories' times.
pub(crate) fn unpack(tar: &Path, rootfs: &Path) -> Result<()> {
    fs::create_dir(rootfs)?;
    run(Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(tar)
        .arg("-C")
        .arg(rootfs))
}

/// Once for all containers and test processes.
fn unpack_shared(tar: &Path, shared: &Path) -> Result<()> {
    let scratch = Scratch::new("unpack")?;
    if shared.exists() {
        return Ok(());
    }
    let rootfs = scratch.path().join("rootfs");
    unpack(tar, &rootfs)?;
    match fs::rename(&rootfs, shared) {
        Err(error) if !shared.exists() => Err(error.into()),
        _ => Ok(()),
    }
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_os_string();
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", name.display()))?;
    ensure!(
        output.status.success(),
        "{}: {}",
        name.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A writable view of a directory, unmounted when it goes.
struct Overlay(PathBuf);

impl Overlay {
    fn mount(lower: &Path, scratch: &Path, at: PathBuf) -> Result<Self> {
        let (upper, work) = (scratch.join("upper"), scratch.join("work"));
        for dir in [&upper, &work, &at] {
            fs::create_dir(dir)?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        run(Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&at))?;
        Ok(Self(at))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.0)) {
            eprintln!("cannot unmount {}: {error:#}", self.0.display());
        }
    }
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
    id: String,
    _overlay: Option<Overlay>,
    bundle: Scratch,
}

impl Container {
    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
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
