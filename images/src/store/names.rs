//! Names of images: one small file each, replaced by one `rename`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{MIN_ID, Store, StoreError, entries, failed, not_found, sync_parent};
use crate::digest::{Algorithm, Digest};
use crate::reference::Reference;
use crate::text::shown;

/// A name of an image, with what a registry knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// See [`Reference::to_name`].
    pub reference: Reference,
    /// Digests of the manifest and of the index that led to it, as far as known.
    pub manifests: Vec<Digest>,
}

/// A name as stored.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    image: String,
    manifests: Vec<String>,
}

/// What names what. A record that cannot be read names nothing; the next `put` replaces it.
#[derive(Debug, Clone)]
pub struct Named {
    /// The name.
    pub name: Name,
    /// The image's id.
    pub image: Digest,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);
/// Before the number of a record that is not yet in place; no digest begins so.
const NEW: &str = "new-";

impl Store {
    /// All names, sorted.
    ///
    /// # Errors
    /// [`StoreError::Store`].
    pub fn names(&self) -> Result<Vec<Named>, StoreError> {
        let mut all = Vec::new();
        for file in entries(&self.names)? {
            if file.starts_with(NEW) {
                continue;
            }
            let path = self.names.join(&file);
            match fs::read(&path) {
                Ok(bytes) => all.extend(decode(&bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(c) => return Err(failed("read", &path, c)),
            }
        }
        all.sort_by(|a, b| a.name.reference.cmp(&b.name.reference));
        Ok(all)
    }

    /// Gives an image a name, taking it from another that had it. The caller shares the store.
    pub(crate) fn put_name(&self, name: &Name, image: &Digest) -> Result<(), StoreError> {
        let record = Record {
            name: name.reference.name(),
            image: image.to_string(),
            manifests: name.manifests.iter().map(Digest::to_string).collect(),
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let new = self
            .names
            .join(format!("{NEW}{}-{number}", std::process::id()));
        let home = self.name_path(&name.reference);
        let text = serde_json::to_vec(&record).unwrap_or_default();
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        let moved = written.and_then(|()| fs::rename(&new, &home));
        if let Err(cause) = moved {
            let _ = fs::remove_file(&new);
            return Err(failed("write", &home, cause));
        }
        sync_parent(&home)
    }

    /// Takes a name away. Whether it was there.
    pub(super) fn remove_name(&self, reference: &Reference) -> Result<bool, StoreError> {
        let path = self.name_path(reference);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(c) => Err(failed("remove", &path, c)),
        }
    }

    /// Removes what killed processes left. The caller has the store to itself.
    pub(super) fn remove_unfinished_names(&self) -> Result<(), StoreError> {
        for file in entries(&self.names)? {
            if file.starts_with(NEW) {
                let path = self.names.join(file);
                fs::remove_file(&path).map_err(|c| failed("remove", &path, c))?;
            }
        }
        Ok(())
    }

    /// The id of the image `wanted` names; see [`Store::find`].
    pub(super) fn resolve(&self, wanted: &str) -> Result<Digest, StoreError> {
        // As Docker: a name wins over digits that an id begins with.
        if let Ok(reference) = wanted.parse::<Reference>() {
            let mut fitting = self
                .names()?
                .into_iter()
                .filter(|named| named.fits(&reference));
            if let Some(named) = fitting.next() {
                return Ok(named.image);
            }
        }
        let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        if digits.len() < MIN_ID || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(not_found(wanted));
        }
        let digits = digits.to_ascii_lowercase();
        let mut ids = self.image_ids()?;
        ids.retain(|id| id.hex().starts_with(&digits));
        match ids.len() {
            0 => Err(not_found(wanted)),
            1 => Ok(ids.remove(0)),
            _ => Err(StoreError::Ambiguous {
                wanted: shown(wanted),
            }),
        }
    }

    fn name_path(&self, reference: &Reference) -> PathBuf {
        let digest = Digest::of(Algorithm::Sha256, reference.name().as_bytes());
        self.names.join(digest.hex())
    }
}

impl Named {
    /// Whether a reference means this name: the tag as far as given, the digest as far as given.
    pub(super) fn fits(&self, reference: &Reference) -> bool {
        let own = &self.name.reference;
        let same_repository = (own.host(), own.path()) == (reference.host(), reference.path());
        let tag = reference.tag().is_none_or(|tag| own.tag() == Some(tag));
        let digest = reference
            .digest()
            .is_none_or(|digest| *digest == self.image || self.name.manifests.contains(digest));
        same_repository && tag && digest
    }
}

fn decode(bytes: &[u8]) -> Option<Named> {
    let record: Record = serde_json::from_slice(bytes).ok()?;
    let manifests = record
        .manifests
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    Some(Named {
        name: Name {
            reference: record.name.parse().ok()?,
            manifests,
        },
        image: record.image.parse().ok()?,
    })
}
