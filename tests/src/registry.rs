//! A registry on this machine: Debian's `docker-registry`, its storage filled in by hand.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cache::sha256;
use crate::image::Content;

/// Who may log in where that is asked for.
pub const USER: &str = "ada";
/// Her password.
pub const PASSWORD: &str = "s3cret";
/// Both as `htpasswd -B` writes them.
const HTPASSWD: &str = "ada:$2y$04$jQPJYo6s5pS5WVcZzS/xiesbMI/aSUmsAn6afLjUsZYHahne6.kfS\n";

/// A running registry, ended with the value. It speaks plain HTTP.
pub struct Registry {
    child: Child,
    dir: PathBuf,
    /// `127.0.0.1:PORT`.
    pub host: String,
}

impl Registry {
    /// Starts one that keeps its data below `dir`.
    pub fn start(dir: &Path, wants_login: bool) -> Result<Self> {
        let dir = dir.join("registry");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("htpasswd"), HTPASSWD)?;
        // Another process may take the port between the two; then there is another.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let host = format!("127.0.0.1:{port}");
            let auth = match wants_login {
                true => json!({ "htpasswd": { "realm": "test", "path": dir.join("htpasswd") } }),
                false => json!({}),
            };
            // JSON is YAML.
            let config = json!({
                "version": "0.1",
                "storage": { "filesystem": { "rootdirectory": dir.join("data") } },
                "http": { "addr": host },
                "auth": auth,
            });
            fs::write(dir.join("config.yml"), config.to_string())?;
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(dir.join("config.yml"))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .context("no docker-registry: run xtask/setup")?;
            let mut lines = BufReader::new(child.stderr.take().context("no output")?).lines();
            let listens = lines
                .by_ref()
                .map_while(Result::ok)
                .any(|line| line.contains("listening on"));
            if listens {
                // It must not wait for somebody to read what it logs.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, dir, host });
            }
            child.wait()?;
        }
        bail!("docker-registry does not start");
    }

    /// Puts `bytes` where the registry looks for a blob of `repository`.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Result<String> {
        let hex = sha256(bytes);
        self.write(&format!("blobs/sha256/{}/{hex}/data", &hex[..2]), bytes)?;
        let link = format!("repositories/{repository}/_layers/sha256/{hex}/link");
        self.write(&link, format!("sha256:{hex}").as_bytes())?;
        Ok(hex)
    }

    /// Makes a document a manifest of `repository`, and what `tag` names. Gives its digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, document: &Value) -> Result<String> {
        let bytes = document.to_string().into_bytes();
        let hex = self.put_blob(repository, &bytes)?;
        let digest = format!("sha256:{hex}");
        let manifests = format!("repositories/{repository}/_manifests");
        for link in [
            format!("{manifests}/revisions/sha256/{hex}/link"),
            format!("{manifests}/tags/{tag}/current/link"),
            format!("{manifests}/tags/{tag}/index/sha256/{hex}/link"),
        ] {
            self.write(&link, digest.as_bytes())?;
        }
        Ok(digest)
    }

    /// Puts an image there. Gives the manifest's digest.
    pub fn put_image(&self, repository: &str, tag: &str, content: &Content) -> Result<String> {
        let mut manifest = Value::Null;
        for (name, bytes) in content.oci_files()? {
            if name.starts_with("blobs/") {
                self.put_blob(repository, &bytes)?;
                let document: Option<Value> = serde_json::from_slice(&bytes).ok();
                if let Some(document) = document.filter(|d| d.get("layers").is_some()) {
                    manifest = document;
                }
            }
        }
        self.put_manifest(repository, tag, &manifest)
    }

    /// The file that holds a blob.
    pub fn blob_path(&self, hex: &str) -> PathBuf {
        let name = format!(
            "data/docker/registry/v2/blobs/sha256/{}/{hex}/data",
            &hex[..2]
        );
        self.dir.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join("data/docker/registry/v2").join(name);
        fs::create_dir_all(path.parent().context("a file without a directory")?)?;
        Ok(fs::write(path, bytes)?)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
