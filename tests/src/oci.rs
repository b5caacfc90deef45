//! Either runtime by its OCI verbs, on bundles: what conformance and life-cycle tests drive.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::cache::{Scratch, unique};
use crate::capture::{Captured, End, capture};
use crate::differential::judge;
use crate::husk::Husk;
use crate::image::Image;

/// How long a verb may take, on a machine under load.
const LIMIT: Duration = Duration::from_secs(60);

/// A runtime with a state directory of its own.
pub struct Runtime {
    /// Its name in messages.
    pub name: &'static str,
    program: PathBuf,
    prefix: Vec<OsString>,
    flags: Vec<String>,
    state: Scratch,
}

impl Runtime {
    /// runc, the oracle.
    pub fn runc() -> Result<Self> {
        Ok(Self {
            name: "runc",
            program: "runc".into(),
            prefix: Vec::new(),
            flags: Vec::new(),
            state: Scratch::new("runc-state")?,
        })
    }

    /// husk.
    pub fn husk() -> Result<Self> {
        Ok(Self {
            name: "husk",
            program: fs::canonicalize(Husk::find()?.binary())?,
            prefix: Vec::new(),
            flags: Vec::new(),
            state: Scratch::new("husk-state")?,
        })
    }

    /// Its state directory.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// All its commands stand behind these words.
    pub fn below(mut self, prefix: Vec<OsString>) -> Self {
        self.prefix = prefix;
        self
    }

    /// With these global flags.
    pub fn flags<const N: usize>(mut self, flags: [&str; N]) -> Self {
        self.flags = flags.map(str::to_owned).to_vec();
        self
    }

    /// The command with its global flags.
    pub fn command(&self) -> Command {
        let words = [&self.prefix[..], &[self.program.clone().into()]].concat();
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("--root")
            .arg(self.state.path())
            .args(&self.flags);
        command
    }

    /// Runs a verb that leaves nothing behind that holds its output.
    pub fn verb(&self, arguments: &[&str]) -> Result<Captured> {
        capture(self.command().args(arguments), b"", LIMIT)
    }

    /// Runs a verb that must succeed.
    pub fn must(&self, arguments: &[&str]) -> Result<String> {
        let done = self.verb(arguments)?;
        ensure!(
            done.end == End::Status(0),
            "{} {arguments:?}: {:?}: {}",
            self.name,
            done.end,
            done.stderr_text()
        );
        Ok(done.stdout_text())
    }

    /// Runs a verb that must fail with one line of explanation; returns that.
    pub fn must_fail(&self, arguments: &[&str]) -> Result<String> {
        let done = self.verb(arguments)?;
        let text = done.stderr_text();
        ensure!(
            matches!(done.end, End::Status(status) if status != 0),
            "{} {arguments:?} ends by {:?}: {text}",
            self.name,
            done.end
        );
        if self.name == "husk" {
            ensure!(text.lines().count() == 1, "not one line: {text:?}");
        }
        Ok(text)
    }

    /// `status` of a container.
    pub fn status(&self, id: &str) -> Result<String> {
        let state: Value = serde_json::from_str(&self.must(&["state", id])?)?;
        Ok(state["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a container has this status.
    pub fn wait_for(&self, id: &str, status: &str) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while self.status(id)? != status {
            ensure!(
                Instant::now() < deadline,
                "{}: {id} does not become {status}, it is {}",
                self.name,
                self.status(id)?
            );
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// A bundle and the containers made from it, which go with it.
pub struct Bundle<'a> {
    /// The runtime they are made with.
    pub runtime: &'a Runtime,
    /// The specification; [`Bundle::write`] puts it into the bundle.
    pub spec: Value,
    directory: Scratch,
    ids: std::cell::RefCell<Vec<String>>,
}

impl<'a> Bundle<'a> {
    /// `runc spec`'s specification without a terminal, over the root of `image`, with `sh -c SCRIPT`.
    pub fn new(runtime: &'a Runtime, image: &Image, script: &str) -> Result<Self> {
        Self::made_in(Scratch::new("oci-bundle")?, runtime, image, script)
    }

    /// The same where every user of the host can reach it.
    pub fn in_public(runtime: &'a Runtime, image: &Image, script: &str) -> Result<Self> {
        let directory = Scratch::below(&std::env::temp_dir(), "oci-bundle")?;
        Self::made_in(directory, runtime, image, script)
    }

    fn made_in(
        directory: Scratch,
        runtime: &'a Runtime,
        image: &Image,
        script: &str,
    ) -> Result<Self> {
        let rootfs = directory.path().join("rootfs");
        crate::rootfs::unpack(&image.rootfs_tar(), &rootfs)?;
        let made = Command::new("runc")
            .arg("spec")
            .current_dir(directory.path())
            .output()?;
        ensure!(made.status.success(), "runc spec fails");
        let text = fs::read(directory.path().join("config.json"))?;
        let mut spec: Value = serde_json::from_slice(&text)?;
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["sh", "-c", script]);
        let bundle = Self {
            runtime,
            spec,
            directory,
            ids: Vec::new().into(),
        };
        bundle.write()?;
        Ok(bundle)
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes the specification.
    pub fn write(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.spec)?;
        Ok(fs::write(self.path().join("config.json"), text)?)
    }

    /// Changes the specification and writes it.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        change(&mut self.spec);
        self.write()
    }

    /// A fresh container id; what is made with it goes with the bundle.
    pub fn id(&self) -> String {
        let id = unique("oci");
        self.ids.borrow_mut().push(id.clone());
        id
    }

    fn output(&self, id: &str) -> PathBuf {
        self.path().join(format!("{id}.out"))
    }

    /// `create`, its output and the container's going to a file.
    pub fn try_create(&self, id: &str, flags: &[&str]) -> Result<End> {
        let out = File::create(self.output(id))?;
        let status = self
            .runtime
            .command()
            .args(["create", "--bundle"])
            .arg(self.path())
            .args(flags)
            .arg(id)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .status()?;
        Ok(status.code().map_or(End::Killed(0), End::Status))
    }

    /// `create` that must succeed.
    pub fn create(&self) -> Result<String> {
        let id = self.id();
        let end = self.try_create(&id, &[])?;
        ensure!(
            end == End::Status(0),
            "{} create: {end:?}: {}",
            self.runtime.name,
            self.text(&id)
        );
        Ok(id)
    }

    /// `create` and `start`.
    pub fn started(&self) -> Result<String> {
        let id = self.create()?;
        self.runtime.must(&["start", &id])?;
        Ok(id)
    }

    /// What the container and its `create` have written so far.
    pub fn text(&self, id: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.output(id)).unwrap_or_default()).into_owned()
    }

    /// Waits until the container has written `text`.
    pub fn wait_for_text(&self, id: &str, text: &str) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !self.text(id).contains(text) {
            if Instant::now() > deadline {
                bail!("{}: no {text:?} in {:?}", self.runtime.name, self.text(id));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// `run`, in the foreground.
    pub fn run(&self) -> Result<Captured> {
        let id = self.id();
        let mut command = self.runtime.command();
        command.args(["run", "--bundle"]).arg(self.path()).arg(&id);
        capture(&command, b"", LIMIT)
    }
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        for id in self.ids.borrow().iter() {
            let _ = self.runtime.verb(&["delete", "--force", id]);
        }
    }
}

/// Runs `observe` under both runtimes; what it observes must be equal. Returns it.
pub fn both(observe: impl Fn(&Runtime) -> Result<String>) -> Result<String> {
    both_as(|runtime| runtime, observe)
}

/// The same with runtimes that were changed first.
pub fn both_as(
    change: impl Fn(Runtime) -> Runtime,
    observe: impl Fn(&Runtime) -> Result<String>,
) -> Result<String> {
    let under = |runtime: Runtime| {
        let runtime = change(runtime);
        observe(&runtime).with_context(|| format!("under {}", runtime.name))
    };
    let mut ours = String::new();
    let thread = std::thread::current();
    let report = judge(
        thread.name().unwrap_or_default(),
        || under(Runtime::runc()?),
        || {
            ours = under(Runtime::husk()?)?;
            Ok(ours.clone())
        },
        |oracle, ours| (oracle != ours).then(|| format!("--- runc\n{oracle}\n--- husk\n{ours}")),
    )?;
    ensure!(
        report.is_none(),
        "runc and husk differ:\n{}",
        report.unwrap_or_default()
    );
    Ok(ours)
}

/// Runs `script` in `image` under a changed specification; standard output and status must be equal. Returns them.
pub fn equal(image: &Image, script: &str, change: impl Fn(&mut Value)) -> Result<String> {
    both(|runtime| {
        let mut bundle = Bundle::new(runtime, image, script)?;
        bundle.edit(&change)?;
        let done = bundle.run()?;
        Ok(format!("{}{:?}", done.stdout_text(), done.end))
    })
}
