//! What a registry's manifests and indexes lead to: the part of them that is needed to know what to fetch. What is
//! fetched is read again, with all checks, from the layout it is put into.

use super::oci::{Descriptor, INDEX_TYPES, Index, MANIFEST_TYPES, Manifest};
use super::{Stored, is_ours};
use crate::digest::Digest;

/// A blob to be downloaded.
#[derive(Debug, Clone)]
pub(crate) struct BlobToFetch {
    pub(crate) digest: Digest,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// Where else it is to be had.
    pub(crate) urls: Option<Vec<String>>,
}

/// A manifest or an index.
#[derive(Debug)]
pub(crate) enum Document {
    Index {
        media_type: &'static str,
        /// Those that may be for our platform.
        manifests: Vec<BlobToFetch>,
    },
    Manifest {
        media_type: &'static str,
        config: BlobToFetch,
    },
}

impl Document {
    /// What to ask a registry for.
    pub(crate) fn media_types() -> Vec<&'static str> {
        INDEX_TYPES.iter().chain(&MANIFEST_TYPES).copied().collect()
    }

    /// Tells by content what it is: manifests have a configuration, indexes have manifests.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) {
            return Ok(Self::Manifest {
                media_type: media_type(bytes, &MANIFEST_TYPES),
                config: to_fetch(&manifest.config)?,
            });
        }
        let index: Index = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let known = |d: &&Descriptor| Self::media_types().contains(&d.media_type.as_str());
        let images = || {
            index
                .manifests
                .iter()
                .filter(|d| d.is_image())
                .filter(known)
        };
        // One that says it is ours is enough; where none does, those that do not say are looked at.
        let ours = images().find(|d| {
            d.platform
                .as_ref()
                .is_some_and(|p| is_ours(&p.os, &p.architecture))
        });
        let silent = images().filter(|d| d.platform.is_none());
        let chosen: Vec<&Descriptor> = match ours {
            Some(ours) => vec![ours],
            None => silent.collect(),
        };
        if chosen.is_empty() {
            return Err("it is not for linux/amd64".to_owned());
        }
        Ok(Self::Index {
            media_type: media_type(bytes, &INDEX_TYPES),
            manifests: chosen.into_iter().map(to_fetch).collect::<Result<_, _>>()?,
        })
    }

    /// An `index.json` that names this document.
    pub(crate) fn index_of(&self, digest: &Digest, size: u64) -> String {
        let (Self::Index { media_type, .. } | Self::Manifest { media_type, .. }) = self;
        serde_json::json!({
            "schemaVersion": 2,
            "manifests": [{ "mediaType": media_type, "digest": digest.to_string(), "size": size }],
        })
        .to_string()
    }
}

fn to_fetch(descriptor: &Descriptor) -> Result<BlobToFetch, String> {
    let Stored { digest, size, urls } = descriptor.stored().map_err(|e| e.to_string())?;
    Ok(BlobToFetch {
        digest,
        size: size.unwrap_or_default(),
        urls,
    })
}

/// The one of `types` a document says it is; the first where it says nothing, as OCI documents may.
fn media_type(bytes: &[u8], types: &[&'static str; 2]) -> &'static str {
    let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let says = document["mediaType"].as_str();
    types
        .iter()
        .copied()
        .find(|known| says == Some(*known))
        .unwrap_or(types[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INDEX, Layout, MANIFEST, platform};

    fn digests(document: &Document) -> Vec<u64> {
        match document {
            Document::Index { manifests, .. } => manifests.iter().map(|m| m.size).collect(),
            Document::Manifest { config, .. } => vec![config.size],
        }
    }

    #[test]
    fn what_may_be_ours_is_fetched() {
        let mut layout = Layout::default();
        let blob = |layout: &mut Layout, size: usize, more: &str| {
            layout.blob(MANIFEST, &vec![b'x'; size], more)
        };
        let arm = blob(&mut layout, 1, &platform("arm64"));
        let ours = blob(&mut layout, 2, &platform("amd64"));
        let again = blob(&mut layout, 3, &platform("amd64"));
        let silent = blob(&mut layout, 4, "");
        let index = |list: &[&String]| {
            let list: Vec<&str> = list.iter().map(|s| s.as_str()).collect();
            Document::parse(format!(r#"{{"manifests":[{}]}}"#, list.join(",")).as_bytes())
        };
        assert_eq!(
            digests(&index(&[&silent, &arm, &ours, &again]).unwrap()),
            [2]
        );
        assert_eq!(digests(&index(&[&arm, &silent]).unwrap()), [4]);
        assert!(index(&[&arm]).unwrap_err().contains("linux/amd64"));
        assert!(index(&[]).is_err());
        assert!(Document::parse(b"[").is_err());
        let manifest = format!(r#"{{"config":{silent},"layers":[]}}"#);
        assert_eq!(digests(&Document::parse(manifest.as_bytes()).unwrap()), [4]);
        let text = index(&[&ours])
            .unwrap()
            .index_of(&crate::testing::sha256(b""), 5);
        assert!(text.contains(INDEX), "{text}");
    }
}
