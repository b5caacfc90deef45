//! Debian images and the scripts that run in them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::cache::{once, sha256, workspace};
use crate::image::{Content, Image};
use crate::runner::Job;

/// Debian's release.
const SUITE: &str = "bookworm";

/// An image, which is a folder of scripts, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// What most scripts need.
    Plain,
    /// With programs that work on files in ways of their own.
    Tools,
}

impl Flavour {
    /// The scripts' folder below `tests/scripts`.
    fn folder(self) -> &'static str {
        match self {
            Flavour::Plain => "debian",
            Flavour::Tools => "debian-tools",
        }
    }

    /// What the image has beyond `minbase`.
    fn packages(self) -> &'static str {
        match self {
            Flavour::Plain => "perl,procps",
            Flavour::Tools => "attr,git,rsync,sqlite3",
        }
    }
}

/// What nobody runs, left out to keep the image small.
const LEFT_OUT: [&str; 4] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
];

/// An image, made by mmdebstrap from Debian's packages at the first call.
///
/// It is as new as Debian's archive at that moment; both runtimes run the same one.
pub fn image(flavour: Flavour) -> Result<&'static Image> {
    static IMAGES: [OnceLock<Image>; 2] = [const { OnceLock::new() }; 2];
    let known = &IMAGES[flavour as usize];
    if let Some(image) = known.get() {
        return Ok(image);
    }
    let packages = flavour.packages();
    let recipe = format!("{SUITE} {packages} {LEFT_OUT:?}");
    let key = &sha256(recipe.as_bytes())[..16];
    let dir = once(&format!("debian-{key}"), |dir| {
        let mut command = Command::new("mmdebstrap");
        command
            .args(["--quiet", "--variant=minbase"])
            .arg(format!("--include={packages}"))
            .arg("--aptopt=Acquire::Languages \"none\"");
        for path in LEFT_OUT {
            command.arg(format!("--dpkgopt=path-exclude={path}"));
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
    Ok(known.get_or_init(|| Image::unpacked_once(dir)))
}

/// A bash script.
#[derive(Clone, Debug)]
pub struct Script {
    /// The file's name without `.sh`.
    pub name: String,
    /// What `bash -c` runs.
    pub text: String,
    /// Where.
    pub flavour: Flavour,
}

impl Script {
    /// The job of running it.
    pub fn job(&self) -> Result<Job> {
        Ok(Job::new(image(self.flavour)?, ["bash", "-c", &self.text]))
    }
}

/// Every script for an image, by name.
///
/// Like the busybox scripts they print the same in every run.
pub fn scripts(flavour: Flavour) -> Result<Vec<Script>> {
    let dir: PathBuf = workspace().join("tests/scripts").join(flavour.folder());
    let mut scripts = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("no {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        scripts.push(Script {
            name: name.context("a script without a name")?.to_owned(),
            text: fs::read_to_string(&path)?,
            flavour,
        });
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}
