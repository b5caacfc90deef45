//! The whole verdict on a tree.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::sh::{command, step};
use crate::{install, qemu};

/// Everything, cheapest first.
pub fn all() -> Result<()> {
    machine()?;
    step(&mut command("cargo fmt --all --check"))?;
    step(&mut command("cargo build --release --locked"))?;
    install::check_deb()?;
    step(&mut command(
        "cargo clippy --locked --workspace --exclude husk-libos --all-targets -- -D warnings",
    ))?;
    // The libOS image exists for its own target only. A nested cargo, so that the two do not share build options.
    step(&mut command(
        "cargo clippy --locked -p husk-libos --target x86_64-unknown-none -- -D warnings",
    ))?;
    step(&mut command(
        "cargo test --locked --workspace --exclude husk-libos --exclude husk-tests",
    ))?;
    end_to_end()?;
    qemu::smoke()
}

/// husk against runc on this machine's KVM.
pub fn end_to_end() -> Result<()> {
    machine()?;
    step(&mut command("cargo build --release --locked"))?;
    step(&mut command(
        "cargo test --locked -p husk-tests --no-fail-fast",
    ))
}

/// What the tests need of the machine; each missing thing is an error here and not a riddle later.
fn machine() -> Result<()> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .context("cannot open /dev/kvm, which husk needs")?;
    let huge = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .context("no transparent huge pages, which guest memory is made of")?;
    ensure!(
        !huge.contains("[never]"),
        "transparent huge pages are off: {}",
        huge.trim()
    );
    for tool in [
        "gcc",
        "mmdebstrap",
        "runc",
        "containerd",
        "ctr",
        "qemu-system-x86_64",
        "setpriv",
        "unshare",
        "docker-registry",
        "dockerd",
        "docker",
        "podman",
        "script",
        "dpkg-deb",
        "dpkg-shlibdeps",
    ] {
        let found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()));
        ensure!(found, "no {tool}: run xtask/setup");
    }
    ensure!(
        Path::new("/bin/busybox").exists(),
        "no /bin/busybox: run xtask/setup"
    );
    Ok(())
}
