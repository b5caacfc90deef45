//! Writing one image layer: a deterministic tar.

use std::io::Cursor;

use anyhow::Result;
use tar::{Builder, EntryType, Header};

/// Every entry's modification time: 2024-01-02 03:04:05 UTC.
pub const MTIME: u64 = 1_704_164_645;

/// A layer under construction.
pub struct Layer(Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Adds a directory.
    pub fn dir(self, path: &str, mode: u32) -> Result<Self> {
        self.raw(path, EntryType::Directory, mode, "", &[])
    }

    /// Adds a regular file.
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Result<Self> {
        self.raw(path, EntryType::Regular, mode, "", content)
    }

    /// Adds a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Result<Self> {
        self.raw(path, EntryType::Symlink, 0o777, target, &[])
    }

    /// Adds a hard link to an earlier entry.
    pub fn link(self, path: &str, target: &str) -> Result<Self> {
        self.raw(path, EntryType::Link, 0o755, target, &[])
    }

    /// Adds an entry whose names are taken as they are, so that hostile ones can be written.
    pub fn raw(
        mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        target: &str,
        content: &[u8],
    ) -> Result<Self> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(MTIME);
        header.set_size(content.len() as u64);
        if let Some(gnu) = header.as_gnu_mut() {
            // `Header::set_path` refuses `..` and absolute names, which are what some tests are about.
            put(&mut gnu.name, path)?;
            put(&mut gnu.linkname, target)?;
        }
        header.set_cksum();
        self.0.append(&header, Cursor::new(content))?;
        Ok(self)
    }

    /// The finished tar.
    pub fn finish(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

fn put(field: &mut [u8; 100], name: &str) -> Result<()> {
    anyhow::ensure!(
        name.len() < field.len(),
        "{name} is too long for a test layer"
    );
    field[..name.len()].copy_from_slice(name.as_bytes());
    Ok(())
}
