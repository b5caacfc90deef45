//! Compiling the C test programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::cache::{once, sha256, workspace};
use crate::image::Image;

/// The first line of a source may add compiler flags: `// flags: -nostdlib`.
const FLAGS: &str = "// flags:";

/// Compiles every `*.c` of `dir`, statically, and returns (name, ELF file) in order of name.
///
/// Headers of the directory are inputs of each.
pub fn compile(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut sources = Vec::new();
    let mut headers = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("c") => sources.push(path),
            Some("h") => headers.push(path),
            _ => {}
        }
    }
    sources.sort();
    headers.sort();
    let mut common = Vec::new();
    for header in headers {
        common.extend(fs::read(header)?);
    }
    sources
        .iter()
        .map(|source| compile_one(source, &common))
        .collect()
}

fn compile_one(source: &Path, common: &[u8]) -> Result<(String, PathBuf)> {
    let name = source
        .file_stem()
        .and_then(|stem| stem.to_str())
        .context("a source without a name")?;
    let text = fs::read_to_string(source)?;
    let flags = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix(FLAGS))
        .unwrap_or("");
    let key = sha256(&[text.as_bytes(), common].concat());
    let dir = once(&format!("program-{name}-{}", &key[..16]), |dir| {
        let compiled = Command::new("gcc")
            .args([
                "-std=gnu11",
                "-O2",
                "-g",
                "-static",
                "-pthread",
                "-Wall",
                "-Wextra",
                "-Werror",
            ])
            .args(flags.split_whitespace())
            .arg("-o")
            .arg(dir.join(name))
            .arg(source)
            .arg("-lm")
            .output()
            .context("cannot run gcc: install Debian's gcc and libc6-dev")?;
        ensure!(
            compiled.status.success(),
            "{}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        Ok(())
    })?;
    Ok((name.to_owned(), dir.join(name)))
}

/// The image with all programs of `tests/programs`.
pub fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        compile(&workspace().join("tests/programs"))
            .and_then(|programs| Image::with_programs(&programs))
            .unwrap_or_else(|error| panic!("cannot build the test programs: {error:#}"))
    })
}
