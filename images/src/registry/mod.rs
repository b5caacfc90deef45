//! Registries: an image from its reference into the store (OCI distribution-spec, by the `oci-client` crate).
//!
//! What is missing is downloaded into an OCI layout in the store's `tmp/`, and read from there as any other layout: by
//! the same checks, sizes and digests among them, and with the same choice of the platform. Layers that are stored
//! already are not downloaded.

mod credentials;
mod download;
mod error;

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference as Remote, RegistryOperation};

use crate::digest::Digest;
use crate::progress::Progress;
use crate::read::{self, FoundImage};
use crate::reference::Reference;
use crate::store::{Image, Name, Store, StoreError};
use download::Download;
pub use error::RegistryError;

/// How to reach a registry.
#[derive(Debug, Clone, Copy)]
pub struct PullOptions {
    /// Whether the registry must show a valid certificate. If not, it may also speak plain HTTP.
    pub tls_verify: bool,
}

/// What a pull brought.
#[derive(Debug)]
pub struct Pulled {
    /// The image, stored.
    pub image: Image,
    /// Its name now.
    pub name: Reference,
    /// Digest the registry has it under: of the index, or of the manifest where there is no index.
    pub manifest: Digest,
    /// Whether anything of it was missing.
    pub is_new: bool,
}

/// Seconds without a byte before a connection counts as dead.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

impl Store {
    /// Stores the image that a registry has under `reference`, for our platform, and gives it that name. The
    /// credentials are those of Docker's configuration.
    ///
    /// # Errors
    /// [`StoreError`], with [`RegistryError`] among them.
    pub fn pull(
        &self,
        reference: &Reference,
        options: PullOptions,
        progress: &mut dyn Progress,
    ) -> Result<Pulled, StoreError> {
        let shared = self.share(progress)?;
        let result = self.pull_shared(reference, options, progress);
        drop(shared);
        if result.is_err() {
            self.sweep_soon();
        }
        result
    }

    fn pull_shared(
        &self,
        reference: &Reference,
        options: PullOptions,
        progress: &mut dyn Progress,
    ) -> Result<Pulled, StoreError> {
        let error = |error| StoreError::Registry(Box::new(error));
        let spool = self.own_dir("pull")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|cause| error(RegistryError::Start { cause }))?;
        let auth = credentials::of(reference.host()).map_err(error)?;
        let progress_cell = RefCell::new(progress);
        let found: Result<FoundImage, StoreError> = runtime.block_on(async {
            let mut download = connect(reference, options, auth, spool.path(), &progress_cell)
                .await
                .map_err(error)?;
            download.manifests().await.map_err(error)?;
            let shown = reference.to_string();
            let found = read::find_downloaded(spool.path(), Path::new(&shown));
            let found = found.map_err(StoreError::Read)?;
            let stored = self.stored_layers(&found.diff_ids());
            let missing = found.blobs_of(|index| !stored[index]);
            download.layers(missing).await.map_err(error)?;
            Ok(found)
        });
        let found = found?;
        let progress = progress_cell.into_inner();
        let is_new = !self.has_image(&found.digest);
        let image = self.add_found(&found, progress)?;
        let manifest = found
            .manifests
            .first()
            .cloned()
            .unwrap_or_else(|| found.digest.clone());
        let name = Name {
            reference: reference.to_name(),
            manifests: found.manifests.clone(),
        };
        self.put_name(&name, &image.digest)?;
        let name = name.reference;
        Ok(Pulled {
            image,
            name,
            manifest,
            is_new,
        })
    }
}

/// Finds out how the registry speaks and whether it lets us in.
async fn connect<'a, 'p>(
    reference: &'a Reference,
    options: PullOptions,
    auth: RegistryAuth,
    spool: &'a Path,
    progress: &'a RefCell<&'p mut (dyn Progress + 'p)>,
) -> Result<Download<'a, 'p>, RegistryError> {
    // Another part of the process may have chosen one; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let protocols = match options.tls_verify {
        true => vec![ClientProtocol::Https],
        false => vec![ClientProtocol::Https, ClientProtocol::Http],
    };
    let (host, path) = (reference.host().to_owned(), reference.path().to_owned());
    let remote = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Remote::with_digest(host, path, digest.to_string()),
        (None, tag) => Remote::with_tag(host, path, tag.unwrap_or("latest").to_owned()),
    };
    progress
        .borrow_mut()
        .begin(&format!("looking up {reference}"), None);
    let mut last = None;
    for protocol in protocols {
        let config = ClientConfig {
            protocol,
            accept_invalid_certificates: !options.tls_verify,
            read_timeout: Some(READ_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            user_agent: concat!("husk/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|e| RegistryError::of(reference, e))?;
        match client.auth(&remote, &auth, RegistryOperation::Pull).await {
            Ok(_) => {
                progress.borrow_mut().end();
                return Ok(Download {
                    client,
                    remote,
                    auth,
                    reference,
                    spool,
                    progress,
                });
            }
            // It may speak another protocol.
            Err(error @ OciDistributionError::RequestError(_)) => last = Some(error),
            Err(error) => return Err(RegistryError::of(reference, error)),
        }
    }
    Err(RegistryError::connect(reference, options.tls_verify, last))
}

/// Makes the directories of a layout in `spool`.
fn make_layout(spool: &Path) -> std::io::Result<()> {
    fs::create_dir_all(spool.join("blobs/sha256"))?;
    fs::create_dir_all(spool.join("blobs/sha512"))
}
