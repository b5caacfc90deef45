//! Finding an image in its source and handing out what it names, verified.
//!
//! | module | idea |
//! |---|---|
//! | `blobs` | named byte strings in a directory or a tar file |
//! | `docker` | the `docker save` format |
//! | `oci` | index, platform choice, manifest |
//! | `remote` | what to fetch from a registry |
//! | `layer` | decompress and verify one layer while it is unpacked |

mod blobs;
mod compression;
mod docker;
mod error;
mod layer;
mod oci;
#[cfg(feature = "registry")]
mod remote;

use std::path::Path;

use serde::de::DeserializeOwned;

pub use error::ReadError;
#[cfg(feature = "registry")]
pub(crate) use remote::{BlobToFetch, Document};

use crate::config::{self, ConfigDocument, ImageConfig};
use crate::digest::{Algorithm, Digest};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::source::Source;
use crate::text::shown;
use crate::unpack::Unpacker;
use blobs::Blobs;

/// Longest JSON document read, in bytes. The distribution specification wants at least 4 MiB.
pub(crate) const MAX_JSON_BYTES: u64 = 8 << 20;

/// The platform of our guests.
const OS: &str = "linux";
const ARCHITECTURE: &str = "amd64";

/// An image found in its source: manifest and configuration read and verified, layers not yet.
pub struct FoundImage {
    /// Digest of the configuration: what Docker calls the image ID. It covers the `diff_ids` and by
    /// them every byte of the root.
    pub digest: Digest,
    /// Names the source gives the image, as they stand there.
    pub names: Vec<String>,
    /// Digests the image has at a registry: of its manifest and of the index that names it.
    pub manifests: Vec<Digest>,
    /// The configuration.
    pub config: ImageConfig,
    /// The bytes of the configuration.
    pub config_bytes: Vec<u8>,
    layers: Vec<LayerRef>,
    blobs: Blobs,
}

/// A layer as its manifest names it.
struct LayerRef {
    /// Name in [`Blobs`].
    name: String,
    /// What the stored bytes must be, where a descriptor says so.
    stored: Option<Stored>,
    /// What the decompressed bytes must be.
    diff_id: Digest,
}

/// Digest and size in bytes of a blob, from its descriptor.
#[derive(Clone)]
struct Stored {
    digest: Digest,
    size: Option<u64>,
    /// Where else than at a registry it is to be had.
    #[cfg(feature = "registry")]
    urls: Option<Vec<String>>,
}

/// Finds the image `source` names. Reads headers and JSON only, unless the archive as a whole is
/// compressed: then it is first expanded into a nameless file in `spool_dir`.
///
/// # Errors
/// [`ReadError`]: unreadable or malformed source, no or several matching images, another platform,
/// a digest that does not fit.
pub fn find(source: &Source, spool_dir: &Path) -> Result<FoundImage, ReadError> {
    let path = source.path();
    match source {
        Source::DockerArchive { reference, .. } => {
            docker::find(Blobs::open_tar(path, spool_dir)?, reference.as_deref())
        }
        Source::Oci { tag, .. } => oci::find(Blobs::open_dir(path, path), tag.as_deref()),
        Source::OciArchive { tag, .. } => {
            oci::find(Blobs::open_tar(path, spool_dir)?, tag.as_deref())
        }
    }
}

/// Finds the only image of the layout `dir`, which has been downloaded; `shown` stands for it in messages.
#[cfg(feature = "registry")]
pub(crate) fn find_downloaded(dir: &Path, shown: &Path) -> Result<FoundImage, ReadError> {
    oci::find(Blobs::open_dir(dir, shown), None)
}

impl FoundImage {
    /// The names that are image references. A layout may name its images by tags alone, which name nothing elsewhere.
    pub fn references(&self) -> Vec<Reference> {
        let full = self.names.iter().filter(|name| name.contains([':', '/']));
        full.filter_map(|name| name.parse().ok()).collect()
    }

    /// The digests of the uncompressed layers, lowest first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers
            .iter()
            .map(|layer| layer.diff_id.clone())
            .collect()
    }

    /// The stored form of those layers that `is_wanted` by their index, the lowest being 0.
    #[cfg(feature = "registry")]
    pub(crate) fn blobs_of(&self, is_wanted: impl Fn(usize) -> bool) -> Vec<BlobToFetch> {
        let wanted = self
            .layers
            .iter()
            .enumerate()
            .filter(|(index, _)| is_wanted(*index));
        let mut blobs: Vec<BlobToFetch> = Vec::new();
        for (_, layer) in wanted {
            // A layer may stand in an image twice.
            if let Some(Stored { digest, size, urls }) = layer.stored.clone()
                && blobs.iter().all(|blob| blob.digest != digest)
            {
                let size = size.unwrap_or_default();
                blobs.push(BlobToFetch { digest, size, urls });
            }
        }
        blobs
    }

    /// Applies layer `index`, the lowest being 0, and verifies it. Gives its uncompressed length in bytes. On an error
    /// the target holds part of the layer and must be thrown away.
    ///
    /// # Errors
    /// [`ReadError`]: a digest that does not fit, a corrupt layer, or [`ReadError::Unpack`].
    pub fn apply(
        &self,
        index: usize,
        unpacker: &mut Unpacker,
        progress: &mut dyn Progress,
    ) -> Result<u64, ReadError> {
        let label = format!("layer {} of {}", index + 1, self.layers.len());
        layer::apply(&self.blobs, &self.layers[index], &label, unpacker, progress)
    }
}

/// A blob no longer than [`MAX_JSON_BYTES`], checked against what a descriptor says.
fn small_blob(blobs: &Blobs, name: &str, stored: Option<&Stored>) -> Result<Vec<u8>, ReadError> {
    let bytes = blobs.read_small(name, MAX_JSON_BYTES)?;
    if let Some(stored) = stored {
        let found = Digest::of(stored.digest.algorithm(), &bytes);
        check_stored(blobs, name, stored, &found, bytes.len() as u64)?;
    }
    Ok(bytes)
}

fn check_stored(
    blobs: &Blobs,
    name: &str,
    stored: &Stored,
    found: &Digest,
    found_size: u64,
) -> Result<(), ReadError> {
    let (path, name) = (blobs.path().to_owned(), shown(name));
    if let Some(expected) = stored.size.filter(|size| *size != found_size) {
        return Err(ReadError::Size {
            path,
            name,
            expected,
            found: found_size,
        });
    }
    if *found != stored.digest {
        return Err(ReadError::Digest {
            path,
            name,
            expected: stored.digest.clone(),
            found: found.clone(),
        });
    }
    Ok(())
}

fn json<T: DeserializeOwned>(blobs: &Blobs, name: &str, bytes: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(bytes).map_err(|e| ReadError::Json {
        path: blobs.path().to_owned(),
        name: shown(name),
        why: e.to_string(),
    })
}

fn config_document(blobs: &Blobs, name: &str, bytes: &[u8]) -> Result<ConfigDocument, ReadError> {
    config::parse(bytes).map_err(|why| ReadError::Json {
        path: blobs.path().to_owned(),
        name: shown(name),
        why,
    })
}

/// Pairs layers with their `diff_ids` and puts the parts together.
fn found(
    blobs: Blobs,
    names: Vec<String>,
    manifests: Vec<Digest>,
    config_bytes: Vec<u8>,
    document: ConfigDocument,
    layers: Vec<(String, Option<Stored>)>,
) -> Result<FoundImage, ReadError> {
    let platform = platform_name(&document.config.os, &document.config.architecture);
    if !is_ours(&document.config.os, &document.config.architecture) {
        return Err(ReadError::Platform {
            path: blobs.path().to_owned(),
            found: vec![platform],
        });
    }
    if layers.len() != document.diff_ids.len() {
        return Err(ReadError::LayerCount {
            path: blobs.path().to_owned(),
            layers: layers.len(),
            diff_ids: document.diff_ids.len(),
        });
    }
    let layers = layers
        .into_iter()
        .zip(document.diff_ids)
        .map(|((name, stored), diff_id)| LayerRef {
            name,
            stored,
            diff_id,
        })
        .collect();
    Ok(FoundImage {
        // Docker's archives name the configuration freely; its content is what counts.
        digest: Digest::of(Algorithm::Sha256, &config_bytes),
        names,
        manifests,
        config: document.config,
        config_bytes,
        layers,
        blobs,
    })
}

/// Whether an image of this platform runs here. Very old images leave the members out.
fn is_ours(os: &str, architecture: &str) -> bool {
    (os.is_empty() || os == OS) && (architecture.is_empty() || architecture == ARCHITECTURE)
}

fn platform_name(os: &str, architecture: &str) -> String {
    let known = |text: &str| match text {
        "" => "unknown".to_owned(),
        _ => shown(text).trim_matches('"').to_owned(),
    };
    format!("{}/{}", known(os), known(architecture))
}

#[cfg(test)]
mod tests;
