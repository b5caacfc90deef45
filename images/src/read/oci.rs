//! OCI image layouts: `index.json`, nested indexes, the manifest of our platform (OCI image-spec,
//! image-layout.md, image-index.md, manifest.md). Docker's media types are the same documents.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::blobs::Blobs;
use super::{
    ARCHITECTURE, FoundImage, OS, ReadError, Stored, config_document, found, is_ours, json,
    platform_name, small_blob,
};
use crate::config::or_default;
use crate::digest::DigestError;
use crate::source::normalize_reference;
use crate::text::shown;

/// Indexes within indexes; real images have two levels.
const MAX_DEPTH: usize = 4;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Full name, written by containerd and Docker beside a short ref.name.
const FULL_NAME: &str = "io.containerd.image.name";
/// Marks attestations, which sit in indexes as if they were images.
const ATTESTATION: &str = "vnd.docker.reference.type";

pub(super) const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
pub(super) const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// Without the compression suffix. The non-distributable ones are layers like any other once here.
const LAYER_TYPES: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

#[derive(Deserialize)]
pub(super) struct Index {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) platform: Option<Platform>,
    #[cfg(feature = "registry")]
    urls: Option<Vec<String>>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Clone)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
}

impl Descriptor {
    /// The names the layout gives, best for showing first.
    fn names(&self) -> impl Iterator<Item = &String> {
        let names = [FULL_NAME, REF_NAME];
        names
            .into_iter()
            .filter_map(|key| self.annotations.get(key))
    }

    fn is_named(&self, tag: &str) -> bool {
        let full = self.annotations.get(FULL_NAME);
        self.names().any(|name| name == tag)
            || full.is_some_and(|f| normalize_reference(f) == normalize_reference(tag))
    }

    pub(super) fn is_image(&self) -> bool {
        !self.annotations.contains_key(ATTESTATION)
    }

    /// What the bytes must be.
    pub(super) fn stored(&self) -> Result<Stored, DigestError> {
        Ok(Stored {
            digest: self.digest.parse()?,
            size: Some(self.size),
            #[cfg(feature = "registry")]
            urls: self.urls.clone(),
        })
    }

    /// Name in [`Blobs`] and what the bytes must be.
    fn blob(&self, blobs: &Blobs) -> Result<(String, Stored), ReadError> {
        let stored = self.stored().map_err(|e| ReadError::Json {
            path: blobs.path().to_owned(),
            name: "a descriptor".to_owned(),
            why: format!("{e}"),
        })?;
        Ok((stored.digest.blob_path(), stored))
    }
}

/// Finds the image `tag` names, or the only one.
pub(super) fn find(blobs: Blobs, tag: Option<&str>) -> Result<FoundImage, ReadError> {
    const NAME: &str = "index.json";
    let bytes = small_blob(&blobs, NAME, None)?;
    let mut index: Index = json(&blobs, NAME, &bytes)?;
    index.manifests.retain(Descriptor::is_image);
    let candidates = candidates(&blobs, index.manifests, tag)?;

    let mut search = Search {
        blobs: &blobs,
        others: Vec::new(),
    };
    let mut hits: Vec<(Descriptor, &Descriptor)> = Vec::new();
    for candidate in &candidates {
        if let Some(hit) = search.manifest(candidate, 0)?
            && hits.iter().all(|(seen, _)| seen.digest != hit.digest)
        {
            hits.push((hit, candidate));
        }
    }
    if hits.len() > 1 {
        return Err(ReadError::Ambiguous {
            path: blobs.path().to_owned(),
            platform: platform_name(OS, ARCHITECTURE),
            digests: hits.into_iter().map(|(hit, _)| hit.digest).collect(),
        });
    }
    let Some((descriptor, named)) = hits.pop() else {
        if search.others.is_empty() {
            return Err(ReadError::NoImage {
                path: blobs.path().to_owned(),
            });
        }
        return Err(ReadError::Platform {
            path: blobs.path().to_owned(),
            found: search.others,
        });
    };
    let (_, manifest) = read_manifest(&blobs, &descriptor)?;
    let (config_name, config_stored) = manifest.config.blob(&blobs)?;
    let config_bytes = small_blob(&blobs, &config_name, Some(&config_stored))?;
    let document = config_document(&blobs, &config_name, &config_bytes)?;
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        let (name, stored) = layer.blob(&blobs)?;
        let plain = layer.media_type.strip_suffix("+gzip");
        let plain = plain.or_else(|| layer.media_type.strip_suffix(".gzip"));
        let plain = plain.or_else(|| layer.media_type.strip_suffix("+zstd"));
        let plain = plain.or_else(|| layer.media_type.strip_suffix(".zstd"));
        if !LAYER_TYPES.contains(&plain.unwrap_or(&layer.media_type)) {
            return Err(ReadError::MediaType {
                path: blobs.path().to_owned(),
                name: shown(name),
                found: shown(&layer.media_type),
                expected: "a tar, tar+gzip or tar+zstd layer",
            });
        }
        layers.push((name, Some(stored)));
    }
    let names = named.names().take(1).cloned().collect();
    let mut manifests = Vec::new();
    for at in [named, &descriptor] {
        let digest = at.blob(&blobs)?.1.digest;
        if !manifests.contains(&digest) {
            manifests.push(digest);
        }
    }
    found(blobs, names, manifests, config_bytes, document, layers)
}

/// The entries of `index.json` that `tag` names, or all when they cannot be different images.
fn candidates(
    blobs: &Blobs,
    manifests: Vec<Descriptor>,
    tag: Option<&str>,
) -> Result<Vec<Descriptor>, ReadError> {
    let path = || blobs.path().to_owned();
    let mut references: Vec<String> = manifests
        .iter()
        .filter_map(|d| d.names().next())
        .map(|name| shown(name).trim_matches('"').to_owned())
        .collect();
    references.sort();
    references.dedup();
    if manifests.is_empty() {
        return Err(ReadError::NoImage { path: path() });
    }
    if let Some(tag) = tag {
        let named: Vec<_> = manifests.into_iter().filter(|d| d.is_named(tag)).collect();
        if named.is_empty() {
            if references.is_empty() {
                references.push("one image without a name".to_owned());
            }
            return Err(ReadError::NoSuchReference {
                path: path(),
                reference: shown(tag),
                references,
            });
        }
        return Ok(named);
    }
    let one = manifests.iter().all(|d| d.digest == manifests[0].digest);
    if references.len() > 1 && !one {
        return Err(ReadError::SeveralImages {
            path: path(),
            references,
        });
    }
    Ok(manifests)
}

/// The walk from an entry of `index.json` to a manifest of our platform.
struct Search<'a> {
    blobs: &'a Blobs,
    /// Platforms passed by.
    others: Vec<String>,
}

impl Search<'_> {
    /// The first fitting manifest in depth-first order, as the specification advises.
    fn manifest(&mut self, at: &Descriptor, depth: usize) -> Result<Option<Descriptor>, ReadError> {
        if depth > MAX_DEPTH {
            return Err(ReadError::IndexDepth {
                path: self.blobs.path().to_owned(),
                limit: MAX_DEPTH,
            });
        }
        let media_type = at.media_type.as_str();
        if INDEX_TYPES.contains(&media_type) {
            let (name, stored) = at.blob(self.blobs)?;
            let bytes = small_blob(self.blobs, &name, Some(&stored))?;
            let index: Index = json(self.blobs, &name, &bytes)?;
            for inner in index.manifests.iter().filter(|d| d.is_image()) {
                // Artifacts of other kinds may stand beside the images.
                let known = INDEX_TYPES.iter().chain(&MANIFEST_TYPES);
                if known.clone().any(|t| *t == inner.media_type)
                    && let Some(hit) = self.manifest(inner, depth + 1)?
                {
                    return Ok(Some(hit));
                }
            }
            return Ok(None);
        }
        if !MANIFEST_TYPES.contains(&media_type) {
            return Err(ReadError::MediaType {
                path: self.blobs.path().to_owned(),
                name: shown(&at.digest),
                found: shown(media_type),
                expected: "an image manifest or index",
            });
        }
        let (os, architecture) = match &at.platform {
            Some(p) => (p.os.clone(), p.architecture.clone()),
            None => self.platform_of_config(at)?,
        };
        if is_ours(&os, &architecture) {
            return Ok(Some(at.clone()));
        }
        let name = platform_name(&os, &architecture);
        if !self.others.contains(&name) {
            self.others.push(name);
        }
        Ok(None)
    }

    fn platform_of_config(&self, at: &Descriptor) -> Result<(String, String), ReadError> {
        let (_, manifest) = read_manifest(self.blobs, at)?;
        let (name, stored) = manifest.config.blob(self.blobs)?;
        let bytes = small_blob(self.blobs, &name, Some(&stored))?;
        let config = config_document(self.blobs, &name, &bytes)?.config;
        Ok((config.os, config.architecture))
    }
}

fn read_manifest(blobs: &Blobs, at: &Descriptor) -> Result<(String, Manifest), ReadError> {
    let (name, stored) = at.blob(blobs)?;
    let bytes = small_blob(blobs, &name, Some(&stored))?;
    let manifest: Manifest = json(blobs, &name, &bytes)?;
    if !CONFIG_TYPES.contains(&manifest.config.media_type.as_str()) {
        return Err(ReadError::MediaType {
            path: blobs.path().to_owned(),
            name: shown(&manifest.config.digest),
            found: shown(&manifest.config.media_type),
            expected: "an image configuration",
        });
    }
    Ok((name, manifest))
}
