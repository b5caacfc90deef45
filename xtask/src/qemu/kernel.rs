//! Debian's kernel and its KVM modules.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use husk_tests::cache::once;

use crate::sh::{command, output};

/// In the order in which they are loaded.
const MODULES: [&str; 4] = [
    "virt/lib/irqbypass.ko",
    "arch/x86/kvm/kvm.ko",
    "drivers/crypto/ccp/ccp.ko",
    "arch/x86/kvm/kvm-amd.ko",
];

/// A kernel on disk.
#[derive(Clone)]
pub struct Kernel {
    /// What QEMU boots.
    pub vmlinuz: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The installed one, or else the package's, downloaded and unpacked without installing it.
    pub fn find() -> Result<Self> {
        if let Some(installed) = Self::below(Path::new("/")) {
            return Ok(installed);
        }
        let package = output(&mut command("apt-cache depends linux-image-amd64"))?
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned))
            .context("no Debian package linux-image-amd64: run apt-get update")?;
        let unpacked = once(&format!("kernel-{package}"), |dir| {
            println!("downloading {package}");
            output(command(&format!("apt-get download {package}")).current_dir(dir))?;
            let deb = fs::read_dir(dir)?
                .next()
                .context("apt-get downloaded nothing")??
                .path();
            output(command("dpkg-deb -x").arg(&deb).arg(dir))?;
            Ok(fs::remove_file(deb)?)
        })?;
        Self::below(&unpacked)
            .with_context(|| format!("{package} holds no kernel with KVM modules"))
    }

    fn below(root: &Path) -> Option<Self> {
        let mut found: Vec<Self> = fs::read_dir(root.join("boot"))
            .ok()?
            .flatten()
            .filter_map(|entry| {
                let version = entry
                    .file_name()
                    .to_str()?
                    .strip_prefix("vmlinuz-")?
                    .to_owned();
                let modules = root.join("lib/modules").join(version).join("kernel");
                modules.join(MODULES[1]).exists().then(|| Self {
                    vmlinuz: entry.path(),
                    modules,
                })
            })
            .collect();
        found.sort_by(|a, b| a.vmlinuz.cmp(&b.vmlinuz));
        found.pop()
    }

    /// The modules' contents, named so that their order is the loading order.
    pub fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut all = Vec::new();
        for (number, name) in MODULES.iter().enumerate() {
            let path = self.modules.join(name);
            ensure!(path.exists(), "no kernel module {}", path.display());
            all.push((format!("{number}.ko"), fs::read(path)?));
        }
        Ok(all)
    }
}
