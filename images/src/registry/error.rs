//! What can go wrong between us and a registry.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use oci_client::errors::{OciDistributionError, OciErrorCode};

use crate::digest::Digest;
use crate::reference::Reference;
use crate::text::shown;

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The part of us that talks to registries does not start.
    #[error("cannot start the network client: {cause}")]
    Start {
        /// Why.
        cause: io::Error,
    },
    /// No connection, or none that is trusted.
    #[error("cannot reach registry {host}: {why}{hint}")]
    Connect {
        /// Its host and port.
        host: String,
        /// Why.
        why: String,
        /// What may help, after a separator.
        hint: &'static str,
    },
    /// The registry wants other credentials than it got, or some.
    #[error(
        "registry {host} does not let us have {reference}: log in with docker login {host}, and see that the name is right"
    )]
    Unauthorized {
        /// Its host and port.
        host: String,
        /// The image.
        reference: String,
    },
    /// The registry has no such image.
    #[error("registry {host} has no {reference}: see that name and tag are right")]
    NotFound {
        /// Its host and port.
        host: String,
        /// The image.
        reference: String,
    },
    /// Anything else the registry or the connection says.
    #[error("cannot pull {reference}: {why}")]
    Other {
        /// The image.
        reference: String,
        /// Why.
        why: String,
    },
    /// A manifest or an index is not what it should be.
    #[error("the registry's {reference} is not an image husk can run: {why}")]
    Malformed {
        /// The image.
        reference: String,
        /// What does not fit.
        why: String,
    },
    /// Content that does not have the digest asked for.
    #[error("the registry sent something else for {reference}: expected {expected}, found {found}")]
    Digest {
        /// The image.
        reference: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More bytes than the manifest says.
    #[error("the registry sent more than the {expected} bytes that {digest} of {reference} has")]
    Length {
        /// The image.
        reference: String,
        /// The blob.
        digest: Digest,
        /// Its size.
        expected: u64,
    },
    /// Docker's configuration has credentials that cannot be used.
    #[error("cannot use the credentials for {host} that {} leads to: {why}", path.display())]
    Credentials {
        /// The configuration.
        path: PathBuf,
        /// The registry.
        host: String,
        /// Why.
        why: String,
    },
    /// What was downloaded cannot be written.
    #[error("cannot write {}: {cause}; check the image store's disk and permissions", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl RegistryError {
    pub(super) fn of(reference: &Reference, error: OciDistributionError) -> Self {
        let (host, image) = (reference.host().to_owned(), reference.to_string());
        match &error {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => Self::Unauthorized {
                host,
                reference: image,
            },
            OciDistributionError::ServerError { code: 404, .. } => Self::NotFound {
                host,
                reference: image,
            },
            OciDistributionError::ServerError {
                code: 401 | 403, ..
            } => Self::Unauthorized {
                host,
                reference: image,
            },
            OciDistributionError::RegistryError { envelope, .. } => {
                let codes = || envelope.errors.iter().map(|e| &e.code);
                let absent = |code: &OciErrorCode| {
                    matches!(
                        code,
                        OciErrorCode::ManifestUnknown
                            | OciErrorCode::NameUnknown
                            | OciErrorCode::NotFound
                            | OciErrorCode::BlobUnknown
                    )
                };
                let refused = |code: &OciErrorCode| {
                    matches!(code, OciErrorCode::Unauthorized | OciErrorCode::Denied)
                };
                if codes().any(absent) {
                    Self::NotFound {
                        host,
                        reference: image,
                    }
                } else if codes().any(refused) {
                    Self::Unauthorized {
                        host,
                        reference: image,
                    }
                } else {
                    Self::Other {
                        reference: image,
                        why: chain(&error),
                    }
                }
            }
            _ => Self::Other {
                reference: image,
                why: chain(&error),
            },
        }
    }

    pub(super) fn connect(
        reference: &Reference,
        tls_verify: bool,
        error: Option<OciDistributionError>,
    ) -> Self {
        let why = error.as_ref().map(chain).unwrap_or_default();
        // What rustls says of a certificate it does not trust, and of a server that speaks something else.
        let is_tls = ["certificate", "corrupt message"]
            .iter()
            .any(|word| why.contains(word));
        let hint = match tls_verify && is_tls {
            true => "; if it has no valid certificate, --tls-verify=false goes without",
            false => "",
        };
        Self::Connect {
            host: reference.host().to_owned(),
            why,
            hint,
        }
    }
}

/// An error with its causes, the innermost last. What a registry says is made fit for a terminal.
fn chain(error: &OciDistributionError) -> String {
    let mut parts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some repeat what they wrap.
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        cause = error.source();
    }
    shown(parts.join(": ")).trim_matches('"').to_owned()
}
