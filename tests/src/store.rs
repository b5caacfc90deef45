//! An image store of a test's own, and what must hold of it at any moment.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cache::{sha256, unique};
use crate::capture::{Captured, End, capture};
use crate::husk::Husk;
use crate::image::Content;
use crate::layer::Layer;

const LIMIT: Duration = Duration::from_secs(120);

/// A store and a place for sources, gone with the value.
pub struct Ground {
    husk: Husk,
    dir: PathBuf,
}

impl Ground {
    /// An empty one, in memory where that is to be had: a killed process leaves the same there.
    pub fn new() -> Result<Self> {
        let husk = Husk::find()?;
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let dir = base.join(unique("husk-test-store"));
        fs::create_dir(&dir)?;
        Ok(Self { husk, dir })
    }

    /// Where sources may be put.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `--root` names.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// `husk --root ROOT ARGUMENTS`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.husk.binary());
        command.arg("--root").arg(self.root()).args(arguments);
        command
    }

    /// Runs husk to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Captured> {
        capture(&self.command(arguments), &[], LIMIT)
    }

    /// Runs husk, which must succeed; gives its output.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let run = self.run(arguments)?;
        ensure!(
            run.end == End::Status(0),
            "{arguments:?}: {:?}: {}",
            run.end,
            run.stderr_text()
        );
        Ok(run.stdout_text())
    }

    /// Runs husk, which must fail with `status` and one line; gives that line.
    pub fn fails(&self, arguments: &[&str], status: i32) -> Result<String> {
        complaint(&self.run(arguments)?, status).with_context(|| format!("{arguments:?}"))
    }

    /// Writes a docker archive of `content` as `NAME.tar`, tagged `NAME:latest`; gives the source.
    pub fn archive(&self, name: &str, content: &Content) -> Result<String> {
        let path = self.dir.join(format!("{name}.tar"));
        fs::write(
            &path,
            content.docker_archive_named(&format!("{name}:latest"))?,
        )?;
        Ok(format!("docker-archive:{}", path.display()))
    }

    fn names(&self, dir: &str) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        let path = self.root().join("v2").join(dir);
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                names.insert(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    /// Checks that all images are whole, with all their layers, and that all names lead to one. Gives what there is.
    pub fn check(&self) -> Result<Stored> {
        let stored = Stored {
            layers: self.names("layers")?,
            images: self.names("images")?,
            names: self
                .names("names")?
                .into_iter()
                .filter(|name| !name.starts_with("new-"))
                .collect(),
        };
        let version = self.root().join("v2");
        for layer in &stored.layers {
            let home = version.join("layers").join(layer);
            let record =
                fs::read(home.join("layer.json")).with_context(|| format!("layer {layer}"))?;
            serde_json::from_slice::<Value>(&record)?;
            ensure!(home.join("diff").is_dir(), "layer {layer} has no files");
        }
        for image in &stored.images {
            let config = fs::read(version.join("images").join(image).join("config.json"))
                .with_context(|| format!("image {image}"))?;
            ensure!(
                format!("sha256-{}", sha256(&config)) == *image,
                "image {image} is another"
            );
            let document: Value = serde_json::from_slice(&config)?;
            let mut chain = String::new();
            for diff_id in document["rootfs"]["diff_ids"]
                .as_array()
                .context("no diff_ids")?
            {
                let diff_id = diff_id.as_str().context("no text")?;
                chain = match chain.as_str() {
                    "" => diff_id.to_owned(),
                    below => format!("sha256:{}", sha256(format!("{below} {diff_id}").as_bytes())),
                };
                let layer = chain.replace(':', "-");
                ensure!(
                    stored.layers.contains(&layer),
                    "image {image} misses layer {layer}"
                );
            }
        }
        for name in &stored.names {
            let record: Value =
                serde_json::from_slice(&fs::read(version.join("names").join(name))?)?;
            let image = record["image"]
                .as_str()
                .context("a name of nothing")?
                .replace(':', "-");
            ensure!(stored.images.contains(&image), "{record} leads to no image");
        }
        Ok(stored)
    }

    /// Checks that nothing at all is stored and nothing is left.
    pub fn check_empty(&self) -> Result<()> {
        let stored = self.check()?;
        ensure!(stored == Stored::default(), "still there: {stored:?}");
        ensure!(
            self.names("tmp")?.is_empty(),
            "left in tmp: {:?}",
            self.names("tmp")?
        );
        let locks = self.names("locks")?;
        ensure!(
            locks.iter().all(|name| name == "store"),
            "left in locks: {locks:?}"
        );
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Err(error) = crate::cache::remove(&self.dir) {
            eprintln!("cannot remove {}: {error:#}", self.dir.display());
        }
    }
}

/// What a store holds, by the names of its files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Layers.
    pub layers: BTreeSet<String>,
    /// Images.
    pub images: BTreeSet<String>,
    /// Names.
    pub names: BTreeSet<String>,
}

/// The one line a failed husk says.
pub fn complaint(run: &Captured, status: i32) -> Result<String> {
    let text = run.stderr_text();
    ensure!(run.end == End::Status(status), "{:?}: {text}", run.end);
    match text
        .strip_prefix("husk: ")
        .and_then(|line| line.strip_suffix('\n'))
    {
        Some(line) if !line.contains('\n') => Ok(line.to_owned()),
        _ => bail!("not one line that begins with `husk: `: {text:?}"),
    }
}

/// An image of busybox and, on top of it, layers of `files` files each that `seed` tells from others.
pub fn content(seed: &str, layers: usize, files: usize) -> Result<Content> {
    let mut content = Content::new(crate::image::busybox_layer()?.finish()?);
    content.config["author"] = Value::from(seed);
    for number in 0..layers {
        let mut layer = Layer::new().dir("data/", 0o755)?;
        for file in 0..files {
            let text = format!("{seed} {number} {file}\n").repeat(file % 50);
            layer = layer.file(
                &format!("data/{seed}-{number}-{file}"),
                0o644,
                text.as_bytes(),
            )?;
        }
        content
            .layers
            .push(layer.file("data/.wh.gone", 0o644, b"")?.finish()?);
    }
    Ok(content)
}

/// A small generator of numbers that are the same in every run (xorshift, Marsaglia 2003).
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ seed)
    }

    /// A number from 0 to 1.
    pub fn share(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f64 / f64::from(1_u32 << 24)
    }
}
