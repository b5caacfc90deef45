//! Documents and layers from a registry into a layout.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream};
use oci_client::Reference as Remote;
use oci_client::client::{BlobResponse, Client, LayerDescriptor, SizedStream};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;

use super::{RegistryError, make_layout};
use crate::digest::{Algorithm, Digest};
use crate::progress::Progress;
use crate::read::{BlobToFetch, Document, MAX_JSON_BYTES};
use crate::reference::Reference;

/// Downloads at once, as Docker has it.
const AT_ONCE: usize = 3;
/// Attempts at one layer; each goes on where the last one broke off.
const ATTEMPTS: usize = 4;
/// Manifests looked at for the platform. Indexes that do not name it make us look at each.
const MAX_MANIFESTS: usize = 32;

/// A connection to the repository of one image.
pub(super) struct Download<'a, 'p> {
    pub(super) client: Client,
    pub(super) remote: Remote,
    pub(super) auth: RegistryAuth,
    pub(super) reference: &'a Reference,
    pub(super) spool: &'a Path,
    pub(super) progress: &'a RefCell<&'p mut (dyn Progress + 'p)>,
}

impl Download<'_, '_> {
    /// Fetches the manifest, or the index and the manifests of it that may be ours, with their configurations, and
    /// writes an `index.json` that names the first.
    pub(super) async fn manifests(&mut self) -> Result<(), RegistryError> {
        make_layout(self.spool).map_err(|cause| self.write_failed(self.spool, cause))?;
        let top = self.manifest(&self.remote).await?;
        let asked = self.reference.digest();
        let algorithm = asked.map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of(algorithm, &top);
        if let Some(expected) = asked.filter(|expected| **expected != digest) {
            return Err(RegistryError::Digest {
                reference: self.reference.to_string(),
                expected: expected.clone(),
                found: digest,
            });
        }
        let bad = |why| RegistryError::Malformed {
            reference: self.reference.to_string(),
            why,
        };
        let document = Document::parse(&top).map_err(bad)?;
        let index = document.index_of(&digest, top.len() as u64);
        self.keep(&digest, &top)?;
        self.keep_as("index.json", index.as_bytes())?;

        let mut todo = vec![document];
        let mut fetched = 0;
        while let Some(document) = todo.pop() {
            match document {
                Document::Manifest { config, .. } => self.config(&config).await?,
                Document::Index { manifests, .. } => {
                    for wanted in manifests {
                        fetched += 1;
                        if fetched > MAX_MANIFESTS {
                            return Err(bad(format!(
                                "it names more than {MAX_MANIFESTS} manifests that may be for linux/amd64"
                            )));
                        }
                        let host = self.remote.registry().to_owned();
                        let path = self.remote.repository().to_owned();
                        let remote = Remote::with_digest(host, path, wanted.digest.to_string());
                        let bytes = self.manifest(&remote).await?;
                        self.keep(&wanted.digest, &bytes)?;
                        todo.push(Document::parse(&bytes).map_err(bad)?);
                    }
                }
            }
        }
        Ok(())
    }

    /// Fetches blobs, several at a time.
    pub(super) async fn layers(&self, missing: Vec<BlobToFetch>) -> Result<(), RegistryError> {
        if missing.is_empty() {
            return Ok(());
        }
        let total = missing.iter().map(|blob| blob.size).sum();
        let what = match missing.len() {
            1 => "downloading 1 layer".to_owned(),
            count => format!("downloading {count} layers"),
        };
        self.progress.borrow_mut().begin(&what, Some(total));
        let fetches = stream::iter(missing).map(|blob| async move { self.blob(&blob).await });
        fetches
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        self.progress.borrow_mut().end();
        Ok(())
    }

    async fn manifest(&self, remote: &Remote) -> Result<Vec<u8>, RegistryError> {
        let types = Document::media_types();
        let pulled = self
            .client
            .pull_manifest_raw(remote, &self.auth, &types)
            .await;
        let (bytes, _) = pulled.map_err(|e| RegistryError::of(self.reference, e))?;
        Ok(bytes.to_vec())
    }

    async fn config(&self, config: &BlobToFetch) -> Result<(), RegistryError> {
        if config.size > MAX_JSON_BYTES {
            let why = format!("its configuration has {} bytes", config.size);
            return Err(RegistryError::Malformed {
                reference: self.reference.to_string(),
                why,
            });
        }
        self.blob(config).await
    }

    /// A blob into its file. Its digest is checked when it is read from there.
    async fn blob(&self, blob: &BlobToFetch) -> Result<(), RegistryError> {
        let path = self.spool.join(blob.digest.blob_path());
        if path.exists() {
            // A layer that stands twice in an image.
            return Ok(());
        }
        let part = path.with_extension("part");
        let mut file = File::create_new(&part).map_err(|c| self.write_failed(&part, c))?;
        let mut done = 0;
        let mut attempt = 1;
        loop {
            match self.attempt(blob, &mut file, &mut done).await {
                Ok(()) => break,
                Err(Broken::Connection(_)) if attempt < ATTEMPTS => attempt += 1,
                Err(Broken::Connection(error)) => {
                    return Err(RegistryError::of(self.reference, error));
                }
                Err(Broken::File(cause)) => return Err(self.write_failed(&part, cause)),
                Err(Broken::TooLong) => {
                    return Err(RegistryError::Length {
                        reference: self.reference.to_string(),
                        digest: blob.digest.clone(),
                        expected: blob.size,
                    });
                }
            }
        }
        fs::rename(&part, &path).map_err(|c| self.write_failed(&path, c))
    }

    /// Reads on from `done` to the end of the blob.
    async fn attempt(
        &self,
        blob: &BlobToFetch,
        file: &mut File,
        done: &mut u64,
    ) -> Result<(), Broken> {
        let digest = blob.digest.to_string();
        let layer = LayerDescriptor {
            digest: &digest,
            urls: &blob.urls,
        };
        let mut stream: SizedStream = if *done == 0 {
            self.client.pull_blob_stream(&self.remote, &layer).await?
        } else {
            match self
                .client
                .pull_blob_stream_partial(&self.remote, &layer, *done, None)
                .await?
            {
                BlobResponse::Partial(stream) => stream,
                BlobResponse::Full(stream) => {
                    // It does not know of parts: from the start.
                    std::io::Seek::rewind(file).map_err(Broken::File)?;
                    file.set_len(0).map_err(Broken::File)?;
                    *done = 0;
                    stream
                }
            }
        };
        while let Some(bytes) = stream.stream.next().await {
            let bytes = bytes.map_err(OciDistributionError::IoError)?;
            *done += bytes.len() as u64;
            if *done > blob.size {
                return Err(Broken::TooLong);
            }
            file.write_all(&bytes).map_err(Broken::File)?;
            self.progress.borrow_mut().advance(bytes.len() as u64);
        }
        match *done < blob.size {
            true => {
                Err(OciDistributionError::IoError(std::io::ErrorKind::UnexpectedEof.into()).into())
            }
            false => Ok(()),
        }
    }

    fn keep(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        self.keep_as(&digest.blob_path(), bytes)
    }

    fn keep_as(&self, name: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let path = self.spool.join(name);
        fs::write(&path, bytes).map_err(|cause| self.write_failed(&path, cause))
    }

    fn write_failed(&self, path: &Path, cause: std::io::Error) -> RegistryError {
        RegistryError::Write {
            path: PathBuf::from(path),
            cause,
        }
    }
}

/// Why an attempt ended early.
enum Broken {
    /// Worth another, if not the registry's last word.
    Connection(OciDistributionError),
    File(std::io::Error),
    TooLong,
}

impl From<OciDistributionError> for Broken {
    fn from(error: OciDistributionError) -> Self {
        Self::Connection(error)
    }
}
