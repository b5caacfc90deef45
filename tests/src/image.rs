//! Test images: the same content as docker archive, OCI layout, OCI archive and runc root file system.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use crate::cache::{once, sha256};
use crate::layer::Layer;

/// The search path of every test image, Docker's default.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
backup:x:34:34:backup:/var/backups:/bin/false
ada:x:1000:1000:Ada Lovelace:/home/ada:/bin/sh
grace:x:1001:1001:Grace Hopper:/home/grace:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
";

const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
mail:x:8:
www-data:x:33:
backup:x:34:
users:x:100:
ada:x:1000:
grace:x:1001:
nogroup:x:65534:
";

const POEM: &str = "\
The sea is calm tonight.
The tide is full, the moon lies fair
Upon the straits; on the French coast the light
Gleams and is gone; the cliffs of England stand,
Glimmering and vast, out in the tranquil bay.
";

/// The parts of an image before it is written in some format.
#[derive(Clone)]
pub struct Content {
    /// Uncompressed layer tars, lowest first.
    pub layers: Vec<Vec<u8>>,
    /// The image configuration without `rootfs`.
    pub config: Value,
}

impl Content {
    /// An amd64 Linux image of one layer whose command is `sh`.
    pub fn new(layer: Vec<u8>) -> Self {
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": { "Env": [PATH], "Cmd": ["sh"], "WorkingDir": "/" },
        });
        Self {
            layers: vec![layer],
            config,
        }
    }

    /// The configuration as stored, with the layers' digests.
    pub fn config_json(&self) -> Vec<u8> {
        let mut config = self.config.clone();
        let digests: Vec<String> = self
            .layers
            .iter()
            .map(|tar| format!("sha256:{}", sha256(tar)))
            .collect();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": digests });
        config["history"] = json!([]);
        config.to_string().into_bytes()
    }

    /// What `docker save` writes.
    pub fn docker_archive(&self) -> Result<Vec<u8>> {
        self.docker_archive_named("husk-test:latest")
    }

    /// The same with another name for the image.
    pub fn docker_archive_named(&self, name: &str) -> Result<Vec<u8>> {
        let config = self.config_json();
        let config_name = format!("{}.json", sha256(&config));
        let mut archive = Layer::new();
        let mut names = Vec::new();
        for tar in &self.layers {
            let id = sha256(tar);
            archive = archive.dir(&format!("{id}/"), 0o755)?.file(
                &format!("{id}/layer.tar"),
                0o644,
                tar,
            )?;
            names.push(format!("{id}/layer.tar"));
        }
        let manifest = json!([{ "Config": config_name, "RepoTags": [name], "Layers": names }]);
        archive
            .file(&config_name, 0o644, &config)?
            .file("manifest.json", 0o644, manifest.to_string().as_bytes())?
            .finish()
    }

    /// The files of an OCI layout, by path; the layers are gzipped.
    pub fn oci_files(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        let mut blob = |kind: &str, bytes: Vec<u8>| {
            let descriptor = json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": format!("sha256:{}", sha256(&bytes)), "size": bytes.len(),
            });
            files.insert(format!("blobs/sha256/{}", sha256(&bytes)), bytes);
            descriptor
        };
        let mut layers = Vec::new();
        for tar in &self.layers {
            // A fixed time stamp keeps the digest stable.
            let mut gzip = GzBuilder::new()
                .mtime(0)
                .write(Vec::new(), Compression::fast());
            gzip.write_all(tar)?;
            layers.push(blob("layer.v1.tar+gzip", gzip.finish()?));
        }
        let config = blob("config.v1+json", self.config_json());
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers });
        let manifest = blob("manifest.v1+json", manifest.to_string().into_bytes());
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        files.insert("index.json".into(), index.to_string().into_bytes());
        files.insert(
            "oci-layout".into(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        );
        Ok(files)
    }
}

/// Writes the files of an OCI layout below `dir`.
pub fn write_oci(files: &BTreeMap<String, Vec<u8>>, dir: &Path) -> Result<()> {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().context("a file without a directory")?)?;
        fs::write(path, bytes)?;
    }
    Ok(())
}

/// An image on disk in every format.
#[derive(Clone, Debug)]
pub struct Image {
    dir: PathBuf,
    unpacked_once: bool,
}

impl Image {
    /// Writes `content`, or finds it written.
    pub fn store(content: &Content) -> Result<Self> {
        let config = content.config_json();
        let path = once(&format!("image-{}", &sha256(&config)[..16]), |dir| {
            fs::write(dir.join("docker.tar"), content.docker_archive()?)?;
            let files = content.oci_files()?;
            write_oci(&files, &dir.join("oci"))?;
            let mut archive = Layer::new();
            for (name, bytes) in &files {
                archive = archive.file(name, 0o644, bytes)?;
            }
            fs::write(dir.join("oci.tar"), archive.finish()?)?;
            ensure!(
                content.layers.len() == 1,
                "the runc half of the harness takes images of one layer"
            );
            fs::write(dir.join("rootfs.tar"), &content.layers[0])?;
            Ok(())
        })?;
        Ok(Self {
            dir: path,
            unpacked_once: false,
        })
    }

    /// A large image in `dir`, which holds `docker.tar` and `rootfs.tar` only. runc runs it on an overlay over one
    /// unpacked copy, instead of unpacking it for each container.
    pub(crate) fn unpacked_once(dir: PathBuf) -> Self {
        Self {
            dir,
            unpacked_once: true,
        }
    }

    /// Debian's static busybox with a small file tree around it.
    pub fn busybox() -> Result<Self> {
        Self::store(&Content::new(busybox_layer()?.finish()?))
    }

    /// The busybox image with `programs` (name, ELF file) as `/t/NAME`.
    pub fn with_programs(programs: &[(String, PathBuf)]) -> Result<Self> {
        let mut layer = busybox_layer()?.dir("t/", 0o755)?;
        for (name, file) in programs {
            layer = layer.file(&format!("t/{name}"), 0o755, &fs::read(file)?)?;
        }
        Self::store(&Content::new(layer.finish()?))
    }

    /// The archive in the format of `docker save`.
    pub fn docker_archive(&self) -> PathBuf {
        self.dir.join("docker.tar")
    }

    /// The OCI layout directory.
    pub fn oci(&self) -> PathBuf {
        self.dir.join("oci")
    }

    /// The OCI layout as an archive.
    pub fn oci_archive(&self) -> PathBuf {
        self.dir.join("oci.tar")
    }

    /// Where the unpacked layer is kept for all containers, if it is.
    pub fn shared_rootfs(&self) -> Option<PathBuf> {
        self.unpacked_once.then(|| self.dir.join("rootfs"))
    }

    /// The one layer, from which runc's root file system is unpacked.
    pub fn rootfs_tar(&self) -> PathBuf {
        self.dir.join("rootfs.tar")
    }
}

/// Debian's busybox-static.
pub fn busybox_binary() -> Result<Vec<u8>> {
    let path = Path::new("/bin/busybox");
    let bytes = fs::read(path).context("no /bin/busybox: install Debian's busybox-static")?;
    let interpreter = b"/lib64/ld-linux";
    ensure!(
        !bytes
            .windows(interpreter.len())
            .any(|window| window == interpreter),
        "/bin/busybox is linked dynamically: install Debian's busybox-static"
    );
    Ok(bytes)
}

/// The layer of the busybox image; like the official one it has no /proc and no /sys.
pub fn busybox_layer() -> Result<Layer> {
    let mut layer =
        Layer::new()
            .dir("bin/", 0o755)?
            .file("bin/busybox", 0o755, &busybox_binary()?)?;
    let list = std::process::Command::new("/bin/busybox")
        .arg("--list")
        .output()?
        .stdout;
    for applet in String::from_utf8(list)?
        .lines()
        .filter(|name| *name != "busybox")
    {
        layer = layer.link(&format!("bin/{applet}"), "bin/busybox")?;
    }
    layer
        .dir("dev/", 0o755)?
        .dir("etc/", 0o755)?
        .file("etc/passwd", 0o644, PASSWD.as_bytes())?
        .file("etc/group", 0o644, GROUP.as_bytes())?
        .file("etc/shadow", 0o600, b"root:*:19000:0:99999:7:::\n")?
        .dir("home/", 0o755)?
        .dir("home/ada/", 0o700)?
        .file("home/ada/poem.txt", 0o644, POEM.as_bytes())?
        .file("home/ada/not-executable", 0o644, b"#!/bin/sh\necho never\n")?
        .file(
            "home/ada/hello.sh",
            0o755,
            b"#!/bin/sh\necho hello from $0 with $# arguments: \"$@\"\n",
        )?
        .file(
            "home/ada/garbage",
            0o755,
            &[0x7f, b'E', b'L', b'F', 1, 2, 3, 4, 0, 0, 0, 0],
        )?
        .dir("root/", 0o700)?
        .dir("tmp/", 0o1777)?
        .dir("usr/", 0o755)?
        .dir("usr/bin/", 0o755)?
        .symlink("usr/bin/env", "../../bin/env")?
        .dir("var/", 0o755)?
        .symlink("var/poem", "/home/ada/poem.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let content = || Content::new(busybox_layer().unwrap().finish().unwrap());
        assert_eq!(
            sha256(&content().docker_archive().unwrap()),
            sha256(&content().docker_archive().unwrap())
        );
        assert_eq!(
            content().oci_files().unwrap(),
            content().oci_files().unwrap()
        );
    }
}
