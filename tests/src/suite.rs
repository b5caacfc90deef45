//! Programs of other releases of Debian than this machine's: engines that users have today.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cache::{once, sha256};
use crate::rootfs::run;

/// What containerd's tests need.
pub const CONTAINERD: [&str; 2] = ["containerd", "runc"];
/// Releases, the newest first.
const NAMES: [&str; 2] = ["sid", "trixie"];
/// Chooses one of them.
const CHOICE: &str = "HUSK_SUITE";
/// Run with the suite's `/usr` and a command: both are laid over the machine's, the suite's on top, in a mount
/// namespace of the command's own. Newer libraries serve older programs, so all others go on as they were.
const ENTER: &str = "mount -t overlay overlay -o lowerdir=\"$0\":/usr /usr && exec \"$@\"";

/// Some packages of a release with all that they need. Nothing of them is installed.
pub struct Suite {
    name: String,
    usr: PathBuf,
}

impl Suite {
    /// Packages of the release that `HUSK_SUITE` names, else of the newest one that has them and can be reached.
    ///
    /// They are as new as Debian's archive at the first call.
    ///
    /// # Errors
    /// When they cannot be had.
    pub fn newest(packages: &[&str]) -> Result<Self> {
        let mut failures = String::new();
        match std::env::var(CHOICE) {
            Ok(name) => return Self::named(&name, packages),
            Err(_) => {
                for name in NAMES {
                    match Self::named(name, packages) {
                        Ok(suite) => return Ok(suite),
                        Err(error) => failures += &format!("{error:#}\n"),
                    }
                }
            }
        }
        bail!("{failures}")
    }

    /// Packages of this release.
    ///
    /// # Errors
    /// When they cannot be had.
    pub fn named(name: &str, packages: &[&str]) -> Result<Self> {
        let packages = packages.join(",");
        let key = &sha256(format!("{ENTER} {name} {packages}").as_bytes())[..16];
        let dir = once(&format!("suite-{name}-{key}"), |dir| {
            let root = dir.join("root");
            // Packages are unpacked, not set up. A mirror that is behind serves lists which have expired.
            run(Command::new("mmdebstrap")
                .args(["--quiet", "--variant=extract", "--skip=output/dev"])
                .arg(format!("--include={packages}"))
                .arg("--aptopt=Acquire::Languages \"none\"")
                .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
                .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
                .arg("--dpkgopt=path-exclude=/usr/share/man/*")
                .arg(name)
                .arg(&root))
            .with_context(|| format!("{packages} of {name}"))?;
            fs::rename(root.join("usr"), dir.join("usr"))?;
            Ok(fs::remove_dir_all(root)?)
        })?;
        Ok(Self {
            name: name.to_owned(),
            usr: dir.join("usr"),
        })
    }

    /// A command that finds these programs instead of the machine's, as do all it starts. Arguments may be added.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation=private", "sh", "-c", ENTER])
            .arg(&self.usr)
            .arg(program);
        command
    }

    /// Runs the calling test's program with it, all but the tests whose names have `skipped` in them. Says on standard
    /// error which version of `program` that is.
    ///
    /// # Errors
    /// When a test fails; then with what the tests say.
    pub fn run_tests_again(&self, skipped: &str, program: &str) -> Result<()> {
        let version = self.command(program).arg("--version").output()?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        // Not by eprintln!, which the test harness would keep to itself.
        let _ = writeln!(io::stderr(), "Debian {}: {}", self.name, version.trim());
        let tests = std::env::current_exe()?;
        let done = self
            .command(&tests.to_string_lossy())
            .args(["--skip", skipped])
            .output()?;
        ensure!(
            done.status.success(),
            "with {version}{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(())
    }
}
