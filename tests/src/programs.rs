//! Compiling the C and C++ test programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::cache::{once, sha256, workspace};
use crate::image::Image;

/// The first line of a source may add compiler flags: `// flags: -nostdlib`.
const FLAGS: &str = "// flags:";

/// Compiles every `*.c` and `*.cc` of `dir`, statically, and returns (name, ELF file) in order of name.
///
/// Headers of the directory are inputs of each.
pub fn compile(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut sources = Vec::new();
    let mut headers = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("c" | "cc") => sources.push(path),
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
        let is_cpp = source
            .extension()
            .is_some_and(|extension| extension == "cc");
        let (compiler, standard) = if is_cpp {
            ("g++", "-std=gnu++17")
        } else {
            ("gcc", "-std=gnu11")
        };
        let compiled = Command::new(compiler)
            .args([
                standard, "-O2", "-g", "-static", "-pthread", "-Wall", "-Wextra", "-Werror",
            ])
            .arg("-o")
            .arg(dir.join(name))
            .arg(source)
            // Behind the source, as libraries among them have to be.
            .args(flags.split_whitespace())
            .arg("-lm")
            .output()
            .with_context(|| format!("cannot run {compiler}: install Debian's, and libc6-dev"))?;
        ensure!(
            compiled.status.success(),
            "{}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        Ok(())
    })?;
    Ok((name.to_owned(), dir.join(name)))
}

/// The directory of the programs that debuggers are shown.
pub fn debugged_dir() -> PathBuf {
    workspace().join("tests/programs/debugged")
}

/// Compiles `NAME.c` of [`debugged_dir`] into `to`: dynamically, with debug information whose sources lie in `/t`.
pub fn compile_debugged(name: &str, to: &Path) -> Result<()> {
    let dir = debugged_dir();
    let compiled = Command::new("gcc")
        .args([
            "-std=gnu11",
            "-O1",
            "-g",
            "-pthread",
            "-Wall",
            "-Wextra",
            "-Werror",
        ])
        .arg(format!("-ffile-prefix-map={}=/t", dir.display()))
        .arg("-o")
        .arg(to)
        .arg(format!("{name}.c"))
        .current_dir(&dir)
        .output()
        .context("cannot run gcc")?;
    ensure!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    Ok(())
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
