//! Helpers for tests: temporary directories, archives and images in memory.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::{Algorithm, Digest};

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A directory removed when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("husk-images-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A new directory in here.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = crate::unpack::remove_tree(&self.0);
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    ruzstd::encoding::compress_to_vec(bytes, level)
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Builds tar archives from headers as they come: nothing is checked, so hostile ones are easy.
/// Owner is whoever runs the test, mtime 1000, unless set.
#[derive(Default, Clone)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
    pax: Vec<u8>,
    owner: Option<(u64, u64)>,
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Owner of the entries that follow.
    pub(crate) fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    /// A pax record for the next entry.
    pub(crate) fn pax(mut self, key: &str, value: &[u8]) -> Self {
        let body = key.len() + value.len() + 3;
        let mut len = body + 1;
        while len.to_string().len() + body != len {
            len = len.to_string().len() + body;
        }
        self.pax
            .extend_from_slice(format!("{len} {key}=").as_bytes());
        self.pax.extend_from_slice(value);
        self.pax.push(b'\n');
        self
    }

    pub(crate) fn raw(
        mut self,
        flag: u8,
        name: &[u8],
        mode: u32,
        link: &[u8],
        data: &[u8],
    ) -> Self {
        if !self.pax.is_empty() {
            let pax = std::mem::take(&mut self.pax);
            self = self.raw(b'x', b"pax", 0o644, b"", &pax);
        }
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_mode(mode);
        let (uid, gid) = self.owner.unwrap_or((
            rustix::process::geteuid().as_raw().into(),
            rustix::process::getegid().as_raw().into(),
        ));
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(1000);
        header.set_size(data.len() as u64);
        header.set_entry_type(tar::EntryType::new(flag));
        header.set_cksum();
        self.block(&header, data)
    }

    /// A header as it is, and data.
    pub(crate) fn block(mut self, header: &tar::Header, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: impl AsRef<[u8]>) -> Self {
        self.raw(b'0', name.as_bytes(), 0o644, b"", data.as_ref())
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.raw(b'5', name.as_bytes(), 0o755, b"", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(b'2', name.as_bytes(), 0o777, target.as_bytes(), b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.raw(b'1', name.as_bytes(), 0o644, target.as_bytes(), b"")
    }

    /// With the end marker.
    pub(crate) fn end(self) -> Vec<u8> {
        let mut bytes = self.bytes;
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    /// Without the end marker.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// A configuration for the uncompressed `layers`.
pub(crate) fn config_json(architecture: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers
        .iter()
        .map(|l| format!("\"{}\"", sha256(l)))
        .collect();
    format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Env":["PATH=/bin"],"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
    .into_bytes()
}

/// A `docker save` archive (before Docker 25) of one image named `t:latest`.
pub(crate) fn docker_archive(layers: &[Vec<u8>]) -> Vec<u8> {
    let config = config_json("amd64", layers);
    let config_name = format!("{}.json", sha256(&config).hex());
    let mut tar = Tar::new();
    let mut names = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        tar = tar
            .dir(&format!("l{i}/"))
            .file(&format!("l{i}/layer.tar"), layer);
        names.push(format!("\"l{i}/layer.tar\""));
    }
    let manifest = format!(
        r#"[{{"Config":"{config_name}","RepoTags":["t:latest"],"Layers":[{}]}}]"#,
        names.join(",")
    );
    tar.file(&config_name, &config)
        .file("manifest.json", manifest)
        .end()
}

/// An OCI layout in memory: file names and contents.
#[derive(Default)]
pub(crate) struct Layout {
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Descriptors of `index.json`.
    pub(crate) index: Vec<String>,
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

impl Layout {
    /// Stores a blob and gives its descriptor, `more` before the closing brace.
    pub(crate) fn blob(&mut self, media_type: &str, bytes: &[u8], more: &str) -> String {
        let digest = sha256(bytes);
        self.files.push((digest.blob_path(), bytes.to_vec()));
        let size = bytes.len();
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}{more}}}"#)
    }

    /// An image of layers given as uncompressed bytes, stored bytes and media type; gives the
    /// manifest's descriptor.
    pub(crate) fn image(
        &mut self,
        architecture: &str,
        layers: &[(Vec<u8>, Vec<u8>, &str)],
        more: &str,
    ) -> String {
        let plain: Vec<Vec<u8>> = layers.iter().map(|l| l.0.clone()).collect();
        let config = config_json(architecture, &plain);
        let config = self.blob("application/vnd.oci.image.config.v1+json", &config, "");
        let layers: Vec<String> = layers
            .iter()
            .map(|(_, stored, media_type)| self.blob(media_type, stored, ""))
            .collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#,
            layers.join(",")
        );
        self.blob(MANIFEST, manifest.as_bytes(), more)
    }

    /// An index of descriptors; gives its descriptor.
    pub(crate) fn nested(&mut self, descriptors: &[String], more: &str) -> String {
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            descriptors.join(",")
        );
        self.blob(INDEX, index.as_bytes(), more)
    }

    fn all(&self) -> Vec<(String, Vec<u8>)> {
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            self.index.join(",")
        );
        let mut files = vec![
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
            ("index.json".to_owned(), index.into_bytes()),
        ];
        files.extend(self.files.iter().cloned());
        files
    }

    pub(crate) fn write(&self, dir: &Path) {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        for (name, bytes) in self.all() {
            fs::write(dir.join(name), bytes).unwrap();
        }
    }

    pub(crate) fn tar(&self) -> Vec<u8> {
        let add = |tar: Tar, (name, bytes): &(String, Vec<u8>)| tar.file(name, bytes);
        self.all().iter().fold(Tar::new(), add).end()
    }
}

/// `,"platform":...` for [`Layout::blob`].
pub(crate) fn platform(architecture: &str) -> String {
    format!(r#","platform":{{"os":"linux","architecture":"{architecture}"}}"#)
}

/// `,"annotations":...` with a ref.name for [`Layout::blob`].
pub(crate) fn tagged(tag: &str) -> String {
    format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}"#)
}
