//! Layers of the store, named by chain ids.

use std::fs::{self, File};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, failed, key, make_dir, write_new};
use crate::digest::{Algorithm, Digest};
use crate::merged::Stack;
use crate::progress::Progress;
use crate::read::FoundImage;
use crate::unpack::Unpacker;

const DIFF: &str = "diff";
const RECORD: &str = "layer.json";

/// Most layers overlayfs stacks (OVL_MAX_STACK).
const MAX_LAYERS: usize = 500;

/// What is known of a stored layer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    diff_id: String,
    /// Chain id of the layer below.
    parent: Option<String>,
    /// Length of the uncompressed archive.
    pub(super) bytes: u64,
    /// Extended attributes that could not be set.
    skipped_xattrs: u64,
}

/// The names of layers, lowest first (OCI image-spec, config.md, "Layer ChainID"): what a layer becomes depends on those
/// below it.
pub(super) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(Algorithm::Sha256, format!("{below} {diff_id}").as_bytes()),
        });
    }
    chain
}

impl Store {
    /// Stores the layers that are not there yet. The caller shares the store.
    pub(super) fn add_layers(
        &self,
        found: &FoundImage,
        progress: &mut dyn Progress,
    ) -> Result<(), StoreError> {
        let diff_ids = found.diff_ids();
        if diff_ids.len() > MAX_LAYERS {
            return Err(StoreError::TooManyLayers {
                layers: diff_ids.len(),
                limit: MAX_LAYERS,
            });
        }
        let chain = chain_ids(&diff_ids);
        for (index, id) in chain.iter().enumerate() {
            let home = self.layers.join(key(id));
            if home.is_dir() {
                continue;
            }
            let below: Vec<PathBuf> = chain[..index]
                .iter()
                .rev()
                .map(|id| self.layer_dir(id))
                .collect();
            let work = format!("layer-{}", key(id));
            self.make(&work, &home, progress, |dir, progress| {
                let target = dir.join(DIFF);
                make_dir(&target)?;
                let lower = Stack::open(&below).map_err(|c| failed("open", &target, c))?;
                let mut unpacker = Unpacker::new(&target, lower).map_err(StoreError::Unpack)?;
                let bytes = found
                    .apply(index, &mut unpacker, progress)
                    .map_err(StoreError::Read)?;
                let unpacked = unpacker.finish().map_err(StoreError::Unpack)?;
                let record = LayerRecord {
                    diff_id: diff_ids[index].to_string(),
                    parent: index.checked_sub(1).map(|below| chain[below].to_string()),
                    bytes,
                    skipped_xattrs: unpacked.skipped_xattrs,
                };
                let path = dir.join(RECORD);
                let text = serde_json::to_vec(&record).unwrap_or_default();
                write_new(&path, &text)?;
                // One call writes out all the files, thousands often, and the directories.
                progress.begin("writing to disk", None);
                let opened = File::open(dir).map_err(|c| failed("open", dir, c))?;
                rustix::fs::syncfs(&opened).map_err(|e| failed("write out", dir, e.into()))?;
                progress.end();
                Ok(dir.to_owned())
            })?;
        }
        Ok(())
    }

    /// Which layers of an image with these `diff_ids` are stored, lowest first. Another process may remove them unless
    /// the store is shared.
    #[cfg(feature = "registry")]
    pub(crate) fn stored_layers(&self, diff_ids: &[Digest]) -> Vec<bool> {
        let is_stored = |id: &Digest| self.layers.join(key(id)).is_dir();
        chain_ids(diff_ids).iter().map(is_stored).collect()
    }

    /// The files of a layer.
    pub(super) fn layer_dir(&self, chain_id: &Digest) -> PathBuf {
        self.layers.join(key(chain_id)).join(DIFF)
    }

    pub(super) fn layer_record(&self, chain_id: &Digest) -> Result<LayerRecord, StoreError> {
        let path = self.layers.join(key(chain_id)).join(RECORD);
        let damaged = |why: String| StoreError::Damaged {
            path: path.clone(),
            why,
        };
        let bytes = fs::read(&path).map_err(|e| damaged(e.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))
    }
}
