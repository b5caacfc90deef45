//! The main job, for people who see husk for the first time.

use anyhow::Result;
use husk_tests::{Husk, Image};

use crate::sh::{command, step};

/// Builds husk and an image of Debian's busybox, and runs a few commands of it.
pub fn run() -> Result<()> {
    step(&mut command("cargo build --release --locked"))?;
    let husk = Husk::find()?;
    let archive = format!(
        "docker-archive:{}",
        Image::busybox()?.docker_archive().display()
    );
    let script =
        "echo hello from $(hostname), process $$ on $(uname -s); sort /etc/passwd | head -3; ls /";
    let mut run = husk.command();
    run.args([
        "run",
        "--stats",
        "--hostname",
        "husk",
        &archive,
        "--",
        "sh",
        "-c",
        script,
    ]);
    step(&mut run)
}
