//! The machine's root file system: a cpio archive in the kernel's "newc" format.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use husk_tests::cache::workspace;
use husk_tests::image::busybox_binary;
use husk_tests::programs;

use super::kernel::Kernel;
use crate::sh::output;

const INIT: &[u8] = include_bytes!("init.sh");
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive under construction, with the kernel it is for.
pub struct Initramfs {
    archive: Vec<u8>,
    known: BTreeSet<PathBuf>,
    /// The kernel whose modules are in it.
    pub kernel: Kernel,
}

impl Initramfs {
    /// busybox, the kernel's KVM modules, the init script and a program that tries KVM.
    pub fn new() -> Result<Self> {
        let mut new = Self {
            archive: Vec::new(),
            known: BTreeSet::new(),
            kernel: Kernel::find()?,
        };
        for dir in ["proc", "sys", "dev", "tmp", "run", "state", "cases"] {
            new.dir(Path::new(dir));
        }
        new.file("bin/busybox", 0o755, &busybox_binary()?);
        new.file(
            "bin/sh",
            0o755,
            b"#!/bin/busybox sh\nexec /bin/busybox sh \"$@\"\n",
        );
        new.file("init", 0o755, INIT);
        for (name, module) in new.kernel.modules()? {
            new.file(&format!("modules/{name}"), 0o644, &module);
        }
        for (name, file) in programs::compile(&workspace().join("xtask/programs"))? {
            new.program(&format!("bin/{name}"), &file)?;
        }
        Ok(new)
    }

    /// Adds a file and the directories above it.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        if let Some(dir) = Path::new(path).parent() {
            self.dir(dir);
        }
        self.entry(path, REGULAR | mode, content);
    }

    /// Adds a program of the host with the libraries it is linked with.
    pub fn program(&mut self, path: &str, host: &Path) -> Result<()> {
        self.file(
            path,
            0o755,
            &fs::read(host).with_context(|| format!("no {}", host.display()))?,
        );
        // `ldd` fails on a static program.
        let Ok(libraries) = output(Command::new("ldd").arg(host)) else {
            return Ok(());
        };
        for library in libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            if self.known.insert(library.into()) {
                self.file(library.trim_start_matches('/'), 0o755, &fs::read(library)?);
            }
        }
        Ok(())
    }

    /// The finished archive.
    pub fn bytes(&self) -> Vec<u8> {
        let mut end = Self {
            archive: self.archive.clone(),
            known: BTreeSet::new(),
            kernel: self.kernel.clone(),
        };
        end.entry("TRAILER!!!", 0, &[]);
        end.archive
    }

    fn dir(&mut self, dir: &Path) {
        if dir.as_os_str().is_empty() || !self.known.insert(dir.into()) {
            return;
        }
        if let Some(above) = dir.parent() {
            self.dir(above);
        }
        self.entry(&dir.to_string_lossy(), DIRECTORY | 0o755, &[]);
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let inode = self.archive.len();
        let fields = [
            inode,
            mode as usize,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            0,
            0,
            path.len() + 1,
            0,
        ];
        self.archive.extend(b"070701");
        for field in fields {
            self.archive.extend(format!("{field:08X}").bytes());
        }
        self.archive.extend(path.bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.archive
            .resize(self.archive.len().next_multiple_of(4), 0);
    }
}
