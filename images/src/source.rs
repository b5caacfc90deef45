//! Where an image comes from, as the user types it.
//!
//! | text | what it names |
//! |---|---|
//! | `docker-archive:PATH[:REF]` | a file made by `docker save` (or `podman save`); `REF` is `name[:tag]` as in the archive, or `@N` for the N-th image, counted from 0 |
//! | `oci:DIR[:TAG]` | an OCI image layout directory |
//! | `oci-archive:PATH[:TAG]` | a tar file of one |
//!
//! These are the transport names of skopeo and podman. `PATH` ends at the first colon that is followed
//! by a well-formed `REF` or `TAG`; where no colon is, all of the text is the path. So a path
//! may hold a colon only where the rest cannot be a reference: `/a:/b.tar` is one path, `/a:b.tar`
//! is the file `/a` and the reference `b.tar`. A path that does not fit has to be renamed or linked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::reference::Reference;
use crate::text::shown;

/// The transports, in the order shown to the user.
pub const TRANSPORTS: [&str; 3] = ["docker-archive", "oci", "oci-archive"];

/// A parsed source. `Display` gives the text form back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A `docker save` archive, perhaps compressed.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// `name[:tag]`, or `@N`.
        reference: Option<String>,
    },
    /// An OCI image layout directory.
    Oci {
        /// The directory that holds `index.json`.
        path: PathBuf,
        /// The value of `org.opencontainers.image.ref.name`.
        tag: Option<String>,
    },
    /// A tar file of an OCI image layout, perhaps compressed.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// The value of `org.opencontainers.image.ref.name`.
        tag: Option<String>,
    },
}

/// Why a text is not a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The word before the first colon is no transport.
    #[error("unknown image transport {found} in {text}: write one of {} before the path, as in docker-archive:image.tar", TRANSPORTS.join(":, ") + ":")]
    UnknownTransport {
        /// The word found, in quotes.
        found: String,
        /// The whole text, in quotes.
        text: String,
    },
    /// No colon at all.
    #[error("image source {text} has no transport: write one of {} before the path, as in docker-archive:image.tar", TRANSPORTS.join(":, ") + ":")]
    NoTransport {
        /// The whole text, in quotes.
        text: String,
    },
    /// Nothing after the transport.
    #[error("image source {text} has no path: write a file or directory after the transport")]
    EmptyPath {
        /// The whole text, in quotes.
        text: String,
    },
    /// A trailing colon with nothing behind it.
    #[error("image source {text} ends in a colon: write a reference after it or remove it")]
    EmptyReference {
        /// The whole text, in quotes.
        text: String,
    },
    /// A NUL byte, which no path can hold.
    #[error("image source {text} holds a NUL byte: no path can")]
    Nul {
        /// The whole text, in quotes.
        text: String,
    },
}

impl Source {
    /// The file or directory named.
    pub fn path(&self) -> &Path {
        match self {
            Self::DockerArchive { path, .. }
            | Self::Oci { path, .. }
            | Self::OciArchive { path, .. } => path,
        }
    }

    /// The reference or tag, where one was given.
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::DockerArchive { reference, .. } => reference.as_deref(),
            Self::Oci { tag, .. } | Self::OciArchive { tag, .. } => tag.as_deref(),
        }
    }

    /// The same file or directory, another image of it.
    #[must_use]
    pub fn with_reference(&self, text: &str) -> Self {
        let mut other = self.clone();
        match &mut other {
            Self::DockerArchive { reference, .. } => *reference = Some(text.to_owned()),
            Self::Oci { tag, .. } | Self::OciArchive { tag, .. } => *tag = Some(text.to_owned()),
        }
        other
    }

    fn transport(&self) -> &'static str {
        match self {
            Self::DockerArchive { .. } => "docker-archive",
            Self::Oci { .. } => "oci",
            Self::OciArchive { .. } => "oci-archive",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport(), self.path().display())?;
        self.reference().map_or(Ok(()), |r| write!(f, ":{r}"))
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let shown_text = || shown(text);
        if text.contains('\0') {
            return Err(SourceError::Nul { text: shown_text() });
        }
        let (transport, rest) = text
            .split_once(':')
            .ok_or_else(|| SourceError::NoTransport { text: shown_text() })?;
        let is_reference: fn(&str) -> bool = match transport {
            "docker-archive" => is_docker_reference,
            "oci" | "oci-archive" => is_oci_tag,
            _ => {
                return Err(SourceError::UnknownTransport {
                    found: shown(transport),
                    text: shown_text(),
                });
            }
        };
        let (path, reference) = split(rest, is_reference);
        if path.is_empty() {
            return Err(SourceError::EmptyPath { text: shown_text() });
        }
        if path.ends_with(':') {
            return Err(SourceError::EmptyReference { text: shown_text() });
        }
        let path = PathBuf::from(path);
        let reference = reference.map(str::to_owned);
        Ok(match transport {
            "docker-archive" => Self::DockerArchive { path, reference },
            "oci" => Self::Oci {
                path,
                tag: reference,
            },
            _ => Self::OciArchive {
                path,
                tag: reference,
            },
        })
    }
}

/// Splits at the first colon whose right side `is_reference` accepts.
fn split(rest: &str, is_reference: fn(&str) -> bool) -> (&str, Option<&str>) {
    rest.match_indices(':')
        .map(|(at, _)| (&rest[..at], &rest[at + 1..]))
        .find(|(_, right)| is_reference(right))
        .map_or((rest, None), |(left, right)| (left, Some(right)))
}

/// `[host[:port]/]name[:tag]` without a digest, as an archive is not addressed by one, or `@N`.
fn is_docker_reference(text: &str) -> bool {
    if let Some(number) = text.strip_prefix('@') {
        return !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    }
    text.parse::<Reference>()
        .is_ok_and(|reference| reference.digest().is_none())
}

/// `alphanumeric (separator alphanumeric)*` parts joined by slashes (OCI image-spec,
/// annotations.md, `org.opencontainers.image.ref.name`).
fn is_oci_tag(text: &str) -> bool {
    text.split('/').all(|part| {
        let word = |b: u8| b.is_ascii_alphanumeric();
        let ok = |b: u8| word(b) || b"-._:@+".contains(&b);
        part.bytes().all(ok)
            && part.bytes().next().is_some_and(word)
            && part.bytes().next_back().is_some_and(word)
    })
}

/// The form references are compared in: `docker.io/library/busybox` and `busybox:latest` are one.
pub(crate) fn normalize_reference(text: &str) -> String {
    let parsed = text.parse::<Reference>();
    parsed.map_or_else(|_| text.to_owned(), |reference| reference.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docker(path: &str, reference: Option<&str>) -> Source {
        Source::DockerArchive {
            path: path.into(),
            reference: reference.map(str::to_owned),
        }
    }

    fn oci(path: &str, tag: Option<&str>) -> Source {
        Source::Oci {
            path: path.into(),
            tag: tag.map(str::to_owned),
        }
    }

    #[test]
    fn forms_of_every_transport() {
        let table = [
            ("docker-archive:b.tar", docker("b.tar", None)),
            (
                "docker-archive:/a/b.tar:busybox",
                docker("/a/b.tar", Some("busybox")),
            ),
            (
                "docker-archive:b.tar:busybox:1.36",
                docker("b.tar", Some("busybox:1.36")),
            ),
            ("docker-archive:b.tar:@2", docker("b.tar", Some("@2"))),
            (
                "docker-archive:b.tar:reg.io:5000/x/y:z",
                docker("b.tar", Some("reg.io:5000/x/y:z")),
            ),
            ("docker-archive:/a:/b.tar", docker("/a:/b.tar", None)),
            ("docker-archive:/a:b.tar", docker("/a", Some("b.tar"))),
            (
                "docker-archive:/A:B/c.tar:x:y",
                docker("/A:B/c.tar", Some("x:y")),
            ),
            ("oci:dir", oci("dir", None)),
            ("oci:dir/:v1.0", oci("dir/", Some("v1.0"))),
            (
                "oci:dir:docker.io/library/x:latest",
                oci("dir", Some("docker.io/library/x:latest")),
            ),
            (
                "oci-archive:x.tar:latest",
                Source::OciArchive {
                    path: "x.tar".into(),
                    tag: Some("latest".into()),
                },
            ),
        ];
        for (text, source) in table {
            assert_eq!(text.parse::<Source>().as_ref(), Ok(&source), "{text}");
            assert_eq!(source.to_string(), text);
        }
    }

    #[test]
    fn unknown_transport_lists_the_known() {
        let error = "docker:busybox".parse::<Source>().unwrap_err().to_string();
        for transport in TRANSPORTS {
            assert!(error.contains(&format!("{transport}:")), "{error}");
        }
        assert!(error.contains("\"docker\""), "{error}");
        let error = "busybox.tar".parse::<Source>().unwrap_err();
        assert!(matches!(error, SourceError::NoTransport { .. }));
    }

    #[test]
    fn empty_parts() {
        assert!(matches!(
            "oci:".parse::<Source>(),
            Err(SourceError::EmptyPath { .. })
        ));
        assert!(matches!(
            "oci::tag".parse::<Source>(),
            Err(SourceError::EmptyPath { .. })
        ));
        assert!(matches!(
            "oci:dir:".parse::<Source>(),
            Err(SourceError::EmptyReference { .. })
        ));
        assert!(matches!(
            "oci:a\0b".parse::<Source>(),
            Err(SourceError::Nul { .. })
        ));
    }

    #[test]
    fn references_compare_in_one_form() {
        for text in [
            "busybox",
            "busybox:latest",
            "docker.io/library/busybox",
            "library/busybox",
        ] {
            assert_eq!(normalize_reference(text), "busybox:latest");
        }
        assert_eq!(normalize_reference("h:5000/x"), "h:5000/x:latest");
    }
}
