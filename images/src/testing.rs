//! Helpers for tests: temporary directories, archives and images in memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FileType, Mode, Stat};

use crate::digest::{Algorithm, Digest};
use crate::merged::{Branch, Node, Stack, Xattrs};
use crate::source::Source;
use crate::unpack::{UnpackError, Unpacked, Unpacker};

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A directory removed when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("husk-images-{}-{number}", std::process::id());
        // These tests make thousands of directories; in memory nobody else's writes hold them up.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let path = base.join(name);
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

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = crate::unpack::remove_tree(&self.0);
    }
}

/// Copies the root that `stack` shows into the empty directory `target`, hard links and attributes included.
pub(crate) fn flatten(stack: &Stack, target: &Path) {
    let mut linked = HashMap::new();
    let root = stack.root_node().unwrap().unwrap();
    flatten_below(stack, root.dir.as_ref().unwrap(), target, &mut linked);
    give(target, &root.stat, stack.xattrs(0, Path::new("")).unwrap());
}

fn flatten_below(
    stack: &Stack,
    dir: &Branch,
    target: &Path,
    linked: &mut HashMap<(u64, u64), PathBuf>,
) {
    for (base, node) in stack.entries(dir).unwrap() {
        let base = OsStr::from_bytes(&base);
        let (from, to) = (dir.path.join(base), target.join(base));
        // Looked up by itself it is the same.
        let again = stack.lookup(dir, base.as_bytes()).unwrap().unwrap();
        assert_eq!(
            (again.layer, again.stat.st_ino),
            (node.layer, node.stat.st_ino)
        );
        match &node.dir {
            Some(child) => {
                fs::create_dir(&to).unwrap();
                flatten_below(stack, child, &to, linked);
            }
            None if node.stat.st_nlink > 1 => {
                match linked.entry((node.stat.st_dev, node.stat.st_ino)) {
                    Entry::Occupied(first) => {
                        fs::hard_link(first.get(), &to).unwrap();
                        continue;
                    }
                    Entry::Vacant(first) => drop(first.insert(to.clone())),
                }
                flatten_file(stack, &from, &node, &to);
            }
            None => flatten_file(stack, &from, &node, &to),
        }
        give(&to, &node.stat, stack.xattrs(node.layer, &from).unwrap());
    }
}

fn flatten_file(stack: &Stack, from: &Path, node: &Node, to: &Path) {
    match node.file_type() {
        FileType::RegularFile => {
            let mut from = stack.open_file(node.layer, from).unwrap();
            io::copy(&mut from, &mut fs::File::create_new(to).unwrap()).unwrap();
        }
        FileType::Symlink => {
            let target = stack.read_link(node.layer, from).unwrap();
            std::os::unix::fs::symlink(OsStr::from_bytes(&target), to).unwrap();
        }
        kind => {
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, to, kind, mode, node.stat.st_rdev).unwrap();
        }
    }
}

fn give(path: &Path, stat: &Stat, xattrs: Xattrs) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, chmodat, utimensat};
    std::os::unix::fs::lchown(path, Some(stat.st_uid), Some(stat.st_gid)).unwrap();
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        chmodat(CWD, path, mode, AtFlags::empty()).unwrap();
    }
    for (key, value) in xattrs {
        rustix::fs::lsetxattr(
            path,
            key.as_slice(),
            &value,
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
    }
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as _,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Unpacks layers, lowest first, each into a directory of its own in `dir`. Gives what they show together and, of the
/// last, what was done.
pub(crate) fn unpack_layers(
    dir: &Path,
    layers: &[Vec<u8>],
) -> Result<(Vec<PathBuf>, Unpacked), UnpackError> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut done = Unpacked::default();
    for (i, layer) in layers.iter().enumerate() {
        let target = dir.join(format!("layer{i}"));
        fs::create_dir(&target).unwrap();
        let mut unpacker = Unpacker::new(&target, Stack::open(&paths).unwrap())?;
        unpacker.apply(&mut layer.as_slice())?;
        done = unpacker.finish()?;
        paths.insert(0, target);
    }
    Ok((paths, done))
}

/// Name, kind, mode, owner, links, time, size and link target of everything below `root`.
pub(crate) fn listing(root: &Path, count_links: bool) -> Vec<String> {
    fn below(dir: &Path, root: &Path, count_links: bool, lines: &mut Vec<String>) {
        let mut paths: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        paths.sort();
        for path in paths {
            let meta = path.symlink_metadata().unwrap();
            let size = if meta.is_dir() { 0 } else { meta.len() };
            let links = if meta.is_dir() || !count_links {
                0
            } else {
                meta.nlink()
            };
            let target = fs::read_link(&path).ok();
            let data = meta.is_file().then(|| sha256(&fs::read(&path).unwrap()));
            let user = lgetxattr_text(&path, "user.k");
            lines.push(format!(
                "{:?} {:o} {}:{} {links} {}.{} {size} {target:?} {data:?} {user:?}",
                path.strip_prefix(root).unwrap(),
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
            ));
            if meta.is_dir() {
                below(&path, root, count_links, lines);
            }
        }
    }
    let mut lines = Vec::new();
    below(root, root, count_links, &mut lines);
    lines
}

fn lgetxattr_text(path: &Path, key: &str) -> Option<String> {
    let mut value = [0; 256];
    let length = rustix::fs::lgetxattr(path, key, &mut value).ok()?;
    Some(String::from_utf8_lossy(&value[..length]).into_owned())
}

/// A small generator of numbers that are the same in every run (xorshift, Marsaglia 2003).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ seed)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }
}

/// Rewrites bytes as a fuzzer would: flips, overwrites, cuts out, repeats, and puts in what the formats look for.
pub(crate) fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const WORDS: [&[u8]; 12] = [
        b"../",
        b"/",
        b"\0",
        b".wh.",
        b".wh..wh..opq",
        b"\"",
        b"{}",
        b"[]",
        b"null",
        b"99999999999999999999",
        b"GNU.sparse.size=9",
        b"\xff\xff\xff\xff",
    ];
    for _ in 0..random.below(4) + 1 {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        let end = (at + random.below(600)).min(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(256) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 => {
                let word = WORDS[random.below(WORDS.len())];
                let end = (at + word.len()).min(bytes.len());
                bytes.splice(at..end, word.iter().copied());
            }
            _ => bytes.truncate(at),
        }
    }
    // Half of the time headers get their checksum back, so that what is in them is looked at.
    if random.below(2) == 0 {
        for block in bytes.chunks_exact_mut(512) {
            if &block[257..262] == b"ustar" {
                let mut header = tar::Header::from_byte_slice(block).clone();
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
    }
}

/// The archive `content` as a source.
pub(crate) fn source_of(
    scratch: &Scratch,
    transport: &str,
    content: &[u8],
    reference: &str,
) -> Source {
    let path = scratch.path().join("source");
    fs::write(&path, content).unwrap();
    let text = format!("{transport}:{}{reference}", path.display());
    text.parse().unwrap()
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
