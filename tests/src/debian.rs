//! Debian images and the scripts that run in them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::cache::{once, sha256, workspace};
use crate::image::{Content, Image};
use crate::programs;
use crate::runner::Job;

/// Debian's release.
const SUITE: &str = "bookworm";

/// What the image has beyond `minbase`: debuggers, and programs that work on files in ways of their own.
const PACKAGES: &str = "attr,gdb-minimal,git,perl,procps,rsync,sqlite3,strace";

/// What debuggers are shown, in `/t` with its source.
const DEBUGGED: &str = "debuggee";

/// What nobody runs, left out to keep the image small.
const LEFT_OUT: [&str; 4] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
];

/// The image, made by mmdebstrap from Debian's packages at the first call.
///
/// It is as new as Debian's archive at that moment; both runtimes run the same one.
pub fn image() -> Result<&'static Image> {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    if let Some(image) = IMAGE.get() {
        return Ok(image);
    }
    let source = programs::debugged_dir().join(format!("{DEBUGGED}.c"));
    let text = fs::read_to_string(&source)?;
    let recipe = format!("{SUITE} {PACKAGES} {LEFT_OUT:?} {text}");
    let key = &sha256(recipe.as_bytes())[..16];
    let dir = once(&format!("debian-{key}"), |dir| {
        let mut command = Command::new("mmdebstrap");
        command
            .args(["--quiet", "--variant=minbase"])
            .arg(format!("--include={PACKAGES}"))
            .arg("--aptopt=Acquire::Languages \"none\"");
        for path in LEFT_OUT {
            command.arg(format!("--dpkgopt=path-exclude={path}"));
        }
        let program = dir.join(DEBUGGED);
        programs::compile_debugged(DEBUGGED, &program)?;
        command.arg("--customize-hook=mkdir \"$1/t\"");
        for file in [&program, &source] {
            command.arg(format!("--customize-hook=copy-in {} /t", file.display()));
        }
        let made = command
            .arg(SUITE)
            .arg(dir.join("rootfs.tar"))
            .output()
            .context("cannot run mmdebstrap")?;
        ensure!(
            made.status.success(),
            "mmdebstrap: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let content = Content::new(fs::read(dir.join("rootfs.tar"))?);
        fs::write(dir.join("docker.tar"), content.docker_archive()?)?;
        Ok(())
    })?;
    Ok(IMAGE.get_or_init(|| Image::unpacked_once(dir)))
}

/// A bash script.
#[derive(Clone, Debug)]
pub struct Script {
    /// The file's name without `.sh`.
    pub name: String,
    /// What `bash -c` runs.
    pub text: String,
}

impl Script {
    /// The job of running it.
    pub fn job(&self) -> Result<Job> {
        Ok(Job::new(image()?, ["bash", "-c", &self.text]))
    }
}

/// Every script of `tests/scripts/debian`, by name.
///
/// Like the busybox scripts they print the same in every run.
pub fn scripts() -> Result<Vec<Script>> {
    let dir: PathBuf = workspace().join("tests/scripts/debian");
    let mut scripts = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("no {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        scripts.push(Script {
            name: name.context("a script without a name")?.to_owned(),
            text: fs::read_to_string(&path)?,
        });
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}
