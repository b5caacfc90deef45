//! The `docker save` format: `manifest.json` lists images, each with the paths of its configuration
//! and layers (moby, image/spec/v1.2.md). Docker 25 and later put the same files under
//! `blobs/sha256/` and add an OCI index, which is not needed here.

use serde::Deserialize;

use super::blobs::Blobs;
use super::{FoundImage, ReadError, Stored, config_document, found, json, small_blob};
use crate::config::or_default;
use crate::source::normalize_reference;
use crate::text::shown;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default, deserialize_with = "or_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<String>,
}

/// Finds the image `reference` names, or the only one.
pub(super) fn find(blobs: Blobs, reference: Option<&str>) -> Result<FoundImage, ReadError> {
    const NAME: &str = "manifest.json";
    let bytes = small_blob(&blobs, NAME, None)?;
    let items: Vec<Item> = json(&blobs, NAME, &bytes)?;
    let (item, names) = choose(&blobs, items, reference)?;

    let stored = stored_by_name(&item.config);
    let config_bytes = small_blob(&blobs, &item.config, stored.as_ref())?;
    let document = config_document(&blobs, &item.config, &config_bytes)?;
    let with_digest = |name: String| {
        let stored = name.starts_with("blobs/").then(|| stored_by_name(&name));
        (name, stored.flatten())
    };
    let layers = item.layers.into_iter().map(with_digest).collect();
    found(blobs, names, Vec::new(), config_bytes, document, layers)
}

/// The item `reference` names and its names: all it has, or the one asked for.
fn choose(
    blobs: &Blobs,
    mut items: Vec<Item>,
    reference: Option<&str>,
) -> Result<(Item, Vec<String>), ReadError> {
    let path = || blobs.path().to_owned();
    let position = match reference {
        None if items.is_empty() => return Err(ReadError::NoImage { path: path() }),
        None if items.len() > 1 => {
            return Err(ReadError::SeveralImages {
                path: path(),
                references: references(&items),
            });
        }
        None => Some((0, None)),
        Some(text) => match text.strip_prefix('@') {
            Some(number) => {
                let position = number.parse::<usize>().ok();
                position.filter(|p| *p < items.len()).map(|p| (p, None))
            }
            None => {
                let wanted = normalize_reference(text);
                let tag_of = |item: &Item| {
                    let fits = |tag: &&String| normalize_reference(tag) == wanted;
                    item.repo_tags.iter().find(fits).cloned()
                };
                let mut found = items.iter().enumerate();
                found.find_map(|(p, item)| tag_of(item).map(|tag| (p, Some(vec![tag]))))
            }
        },
    };
    let Some((position, asked)) = position else {
        return Err(ReadError::NoSuchReference {
            path: path(),
            reference: shown(reference.unwrap_or_default()),
            references: references(&items),
        });
    };
    let item = items.swap_remove(position);
    let names = asked.unwrap_or_else(|| item.repo_tags.clone());
    Ok((item, names))
}

/// What each image may be asked for by.
fn references(items: &[Item]) -> Vec<String> {
    let name = |(i, item): (usize, &Item)| match item.repo_tags.first() {
        Some(tag) => shown(tag).trim_matches('"').to_owned(),
        None => format!("@{i}"),
    };
    items.iter().enumerate().map(name).collect()
}

/// The digest a path such as `<hex>.json` or `blobs/sha256/<hex>` promises for the bytes stored.
fn stored_by_name(name: &str) -> Option<Stored> {
    let file = name.rsplit('/').next()?;
    let hex = file.strip_suffix(".json").unwrap_or(file);
    let digest = format!("sha256:{hex}").parse().ok()?;
    Some(Stored {
        digest,
        size: None,
        #[cfg(feature = "registry")]
        urls: None,
    })
}
