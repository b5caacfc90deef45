//! Putting husk where engines find it, and making a Debian package of the same.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use husk_tests::cache::{Scratch, target, workspace};

use crate::sh::{command, output, step};

/// The programs of a release build.
const PROGRAMS: [&str; 2] = ["husk", "containerd-shim-husk-v1"];
/// Version of cargo-deb.
const CARGO_DEB: &str = "3.8.0";
/// The prefix that the snippets in `packaging/` are written for.
const PACKAGED: &str = "/usr";

/// The same packages as `cargo build --release` has: features are those that all chosen packages want together, so
/// with fewer packages the dependencies, and all that is built of them, would be built again.
fn build() -> Result<()> {
    step(&mut command("cargo build --release --locked"))
}

/// All files below `dir`, as paths relative to it.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(next) = open.pop() {
        let at = dir.join(&next);
        for entry in fs::read_dir(&at).with_context(|| format!("cannot read {}", at.display()))? {
            let entry = entry?;
            let path = next.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Writes a file anew, so that a program that runs keeps its own.
fn put(bytes: &[u8], to: &Path, mode: u32) -> Result<()> {
    let dir = to.parent().context("a file without directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let next = to.with_file_name(format!(".{name}.new"));
    fs::write(&next, bytes)
        .and_then(|()| fs::set_permissions(&next, PermissionsExt::from_mode(mode)))
        .and_then(|()| fs::rename(&next, to))
        .with_context(|| format!("cannot write {}", to.display()))?;
    println!("{}", to.display());
    Ok(())
}

/// A snippet as it is for another prefix.
fn snippet(text: &str, prefix: &Path) -> String {
    let prefix = prefix.display();
    text.replace(&format!("{PACKAGED}/bin/"), &format!("{prefix}/bin/"))
}

/// `install [--prefix P]`: the programs, the documentation and the engines' snippets.
pub fn install(words: &[&str]) -> Result<()> {
    let prefix = match words {
        [] => Path::new("/usr/local"),
        ["--prefix", prefix] => Path::new(prefix),
        _ => anyhow::bail!("usage: cargo xtask install [--prefix DIR]"),
    };
    ensure!(prefix.is_absolute(), "--prefix: not an absolute path");
    build()?;
    place(&target().join("release"), prefix)
}

fn place(built: &Path, prefix: &Path) -> Result<()> {
    for program in PROGRAMS {
        let to = prefix.join("bin").join(program);
        let bytes = fs::read(built.join(program))?;
        put(&bytes, &to, 0o755)?;
        step(command("strip --strip-all").arg(&to))?;
    }
    let docs = prefix.join("share/doc/husk");
    for name in ["README.md", "LICENSE"] {
        put(&fs::read(workspace().join(name))?, &docs.join(name), 0o644)?;
    }
    let from = workspace().join("docs");
    for file in files(&from)? {
        let to = docs.join("docs").join(&file);
        put(&fs::read(from.join(file))?, &to, 0o644)?;
    }
    let from = workspace().join("packaging");
    for file in files(&from)? {
        let text = snippet(&fs::read_to_string(from.join(&file))?, prefix);
        put(
            text.as_bytes(),
            &prefix.join("share/husk").join(file),
            0o644,
        )?;
    }
    Ok(())
}

/// `deb`: the package.
pub fn deb() -> Result<()> {
    let cargo_deb = cargo_deb()?;
    build()?;
    package(&cargo_deb, &target().join("debian"))
}

/// The program cargo-deb, which is installed below `target/` if it is not there.
fn cargo_deb() -> Result<PathBuf> {
    let tools = target().join("tools");
    let program = tools.join("bin/cargo-deb");
    if !program.is_file() {
        let install = format!("cargo install cargo-deb --version {CARGO_DEB} --locked --root");
        step(command(&install).arg(&tools))?;
    }
    Ok(program)
}

/// Makes the package of what is built, in the directory `to`.
fn package(cargo_deb: &Path, to: &Path) -> Result<()> {
    let mut make = Command::new(cargo_deb);
    make.current_dir(workspace());
    // Line tables of the profile would keep it from stripping.
    make.args(["--package", "husk", "--no-build", "--strip", "--output"]);
    step(make.arg(to))
}

/// Makes the package of a release build that is there, and looks at what Debian's tools find in it.
pub fn check_deb() -> Result<()> {
    let cargo_deb = cargo_deb()?;
    let scratch = Scratch::new("deb")?;
    let at = |name: &str| scratch.path().join(name);
    package(&cargo_deb, &at("husk.deb"))?;
    let dpkg_deb = |flag: &str| {
        let mut command = Command::new("dpkg-deb");
        command.arg(flag).arg(at("husk.deb"));
        command
    };
    let control = output(&mut dpkg_deb("--field"))?;
    for field in [
        "Package: husk",
        &format!("Version: {}", env!("CARGO_PKG_VERSION")),
        "Architecture: amd64",
        "Section: admin",
        "Maintainer: The husk project",
        "Recommends: containerd | docker.io | podman",
    ] {
        ensure!(
            control.lines().any(|line| line.starts_with(field)),
            "no {field:?} in the package:\n{control}"
        );
    }
    // husk is static; the shim is not.
    let depends = control
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "));
    let packages: Vec<&str> = depends
        .into_iter()
        .flat_map(|list| list.split(", "))
        .collect();
    ensure!(
        packages
            .iter()
            .all(|package| package.starts_with("libc6 ") || package.starts_with("libgcc-s1 ")),
        "{packages:?}"
    );
    let listed = output(&mut dpkg_deb("--contents"))?;
    ensure!(
        listed
            .lines()
            .all(|line| line.split_whitespace().nth(1) == Some("0/0")),
        "not all is root's:\n{listed}"
    );
    place(&target().join("release"), &at("usr"))?;
    let mut expected: Vec<PathBuf> = files(&at("usr"))?
        .iter()
        .map(|path| Path::new("usr").join(path))
        .collect();
    // Debian has the license under another name.
    expected.retain(|path| !path.ends_with("LICENSE"));
    expected.push("usr/share/doc/husk/copyright".into());
    expected.sort();
    step(dpkg_deb("--extract").arg(at("root")))?;
    let found = files(&at("root"))?;
    ensure!(
        found == expected,
        "the package has {found:?}, not {expected:?}"
    );
    for program in PROGRAMS {
        let path = at("root/usr/bin").join(program);
        let version = output(Command::new(&path).arg(match program {
            "husk" => "--version",
            _ => "-v",
        }))?;
        ensure!(
            version.contains(env!("CARGO_PKG_VERSION")),
            "{program} says {version:?}"
        );
        let size = fs::metadata(&path)?.len();
        let placed = fs::metadata(at("usr/bin").join(program))?.len();
        ensure!(
            size <= placed,
            "{program} is not stripped: {size} bytes, {placed} without symbols"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snippets_name_the_prefix() {
        let text = snippet("a = \"/usr/bin/husk\" # /usr/share", Path::new("/opt/husk"));
        assert_eq!(text, "a = \"/opt/husk/bin/husk\" # /usr/share");
    }

    /// The files of the Debian package, by what `runtime/Cargo.toml` says of it.
    fn packaged() -> Vec<PathBuf> {
        let manifest = fs::read_to_string(workspace().join("runtime/Cargo.toml")).unwrap();
        let list = manifest.split("\nassets = [").nth(1).unwrap();
        let list = list.split("\n]").next().unwrap();
        let mut all = Vec::new();
        for line in list.lines().filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split('"').collect();
            let (source, to) = (words[1], Path::new(words[3]));
            match source.split_once('*') {
                None => all.push(to.join(Path::new(source).file_name().unwrap())),
                Some((dir, pattern)) => {
                    let below = files(&workspace().join("runtime").join(dir)).unwrap();
                    let suffix = pattern.rsplit('*').next().unwrap();
                    let fits = |path: &&PathBuf| path.to_string_lossy().ends_with(suffix);
                    all.extend(below.iter().filter(fits).map(|path| to.join(path)));
                }
            }
        }
        all.sort();
        all
    }

    #[test]
    fn the_package_holds_what_is_placed() {
        let [built, prefix] = ["built", "prefix"].map(|name| Scratch::new(name).unwrap());
        for program in PROGRAMS {
            fs::copy("/bin/true", built.path().join(program)).unwrap();
        }
        place(built.path(), prefix.path()).unwrap();
        // The license is the package's copyright file.
        let license = Path::new("share/doc/husk/LICENSE");
        let placed: Vec<PathBuf> = files(prefix.path())
            .unwrap()
            .iter()
            .filter(|path| *path != license)
            .map(|path| Path::new("usr").join(path))
            .collect();
        assert_eq!(packaged(), placed);
    }

    #[test]
    fn everything_is_placed() {
        let [built, prefix] = ["built", "prefix"].map(|name| Scratch::new(name).unwrap());
        for program in PROGRAMS {
            fs::copy("/bin/true", built.path().join(program)).unwrap();
        }
        place(built.path(), prefix.path()).unwrap();
        let placed = files(prefix.path()).unwrap();
        for path in [
            "bin/husk",
            "bin/containerd-shim-husk-v1",
            "share/doc/husk/README.md",
            "share/doc/husk/docs/engines/containerd.md",
            "share/husk/docker-daemon.json",
        ] {
            assert!(placed.contains(&path.into()), "{path}");
        }
        let text = fs::read_to_string(prefix.path().join("share/husk/podman.conf")).unwrap();
        assert!(text.contains(&format!("{}/bin/husk", prefix.path().display())));
        assert!(!text.contains("\"/usr/bin"));
    }
}
