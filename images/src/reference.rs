//! Image references: `[host[:port]/]name[:tag][@digest]`, as Docker reads them.
//!
//! The grammar is that of the distribution project's `reference` package; what is left out is filled in as Docker
//! does: the host `docker.io`, there `library/` before a single name, and the tag `latest` without a digest.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::text::shown;

/// Docker's own registry, and where its official images are.
const DEFAULT_HOST: &str = "docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest host and name together, in bytes.
const MAX_NAME: usize = 255;
/// Longest tag in bytes.
const MAX_TAG: usize = 128;

/// A well-formed reference with nothing left out. `Display` gives the form people write: without the host and path
/// that Docker fills in, with the tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} is not an image reference ({why}): write [HOST[:PORT]/]NAME[:TAG][@DIGEST]")]
pub struct ReferenceError {
    /// The text, in quotes.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Reference {
    /// The registry's host, with its port where one is given.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository at that registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; there is none where only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index, where one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What an image of this reference is named by: the tag where there is one, else the digest.
    #[must_use]
    pub fn to_name(&self) -> Self {
        match self.tag {
            Some(_) => Self {
                digest: None,
                ..self.clone()
            },
            None => self.clone(),
        }
    }

    /// The name in full: what names are compared by.
    pub fn name(&self) -> String {
        let named = self.to_name();
        let tag = named.tag.map_or(String::new(), |tag| format!(":{tag}"));
        let digest = named
            .digest
            .map_or(String::new(), |digest| format!("@{digest}"));
        format!("{}/{}{tag}{digest}", self.host, self.path)
    }

    /// `host/path` as people write it.
    pub fn repository(&self) -> String {
        if self.host != DEFAULT_HOST {
            return format!("{}/{}", self.host, self.path);
        }
        let official = self.path.strip_prefix(OFFICIAL);
        // `library/a/b` would read as something else without its start.
        official
            .filter(|path| !path.contains('/'))
            .unwrap_or(&self.path)
            .to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest
            .as_ref()
            .map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bad = |why| ReferenceError {
            text: shown(text),
            why,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| bad("what follows the @ is no digest"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(bad(if tag.is_empty() {
                "nothing follows the colon"
            } else {
                "malformed tag"
            }));
        }
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path),
            _ => (DEFAULT_HOST, name),
        };
        if path.is_empty() || !path.split('/').all(is_component) {
            let upper = path.bytes().any(|b| b.is_ascii_uppercase());
            return Err(bad(if upper {
                "names are lower-case"
            } else {
                "malformed name"
            }));
        }
        if host == DEFAULT_HOST && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad("64 hexadecimal digits name an image by its id"));
        }
        let host = if host == "index.docker.io" {
            DEFAULT_HOST
        } else {
            host
        };
        let official = host == DEFAULT_HOST && !path.contains('/');
        let path = format!("{}{path}", if official { OFFICIAL } else { "" });
        if host.len() + 1 + path.len() > MAX_NAME {
            return Err(bad("the name is longer than 255 bytes"));
        }
        let tag = tag.map(str::to_owned);
        let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Self {
            host: host.to_owned(),
            path,
            tag,
            digest,
        })
    }
}

/// Name and tag of a reference: the tag follows the last colon when no slash comes after it.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
        && tag.len() <= MAX_TAG
}

/// Whether the part before the first slash is a host and not the start of the path: it looks like one.
fn is_host(part: &str) -> bool {
    let bracketed = part.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((address, "")) => (address, None),
        Some((address, rest)) => (address, rest.strip_prefix(':').or(Some(""))),
        None => part
            .split_once(':')
            .map_or((part, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        edge(label.bytes().next())
            && edge(label.bytes().next_back())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let well_formed = match bracketed {
        Some((address, _)) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    let looks = part.contains(['.', ':'])
        || part == "localhost"
        || part.bytes().any(|b| b.is_ascii_uppercase());
    let port_ok = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    looks && well_formed && port_ok
}

/// Lower-case words and numbers joined by `.`, `_`, `__` or dashes.
fn is_component(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separators = part.split(|c: char| u8::try_from(c).is_ok_and(word));
    part.bytes().next().is_some_and(word)
        && part.bytes().next_back().is_some_and(word)
        && separators.all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Reference {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn docker_fills_in_what_is_left_out() {
        let table = [
            (
                "busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "busybox:1.36",
                "docker.io/library/busybox:1.36",
                "busybox:1.36",
            ),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "index.docker.io/library/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("ada/tool:v1", "docker.io/ada/tool:v1", "ada/tool:v1"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost:5000/x/y",
                "localhost:5000/x/y:latest",
                "localhost:5000/x/y:latest",
            ),
            (
                "reg.io/a__b/c-d.e:T_1",
                "reg.io/a__b/c-d.e:T_1",
                "reg.io/a__b/c-d.e:T_1",
            ),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("Host/x", "Host/x:latest", "Host/x:latest"),
        ];
        for (text, name, shown) in table {
            let reference = parse(text);
            assert_eq!(
                (reference.name().as_str(), reference.to_string().as_str()),
                (name, shown)
            );
            assert_eq!(parse(shown), reference, "{shown} reads back");
        }
    }

    #[test]
    fn digests() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let only = parse(&format!("busybox@{digest}"));
        assert_eq!(
            (only.tag(), only.digest().unwrap().to_string()),
            (None, digest.clone())
        );
        assert_eq!(only.to_string(), format!("busybox@{digest}"));
        let both = parse(&format!("reg.io:1/b:t@{digest}"));
        assert_eq!(
            (both.host(), both.path(), both.tag()),
            ("reg.io:1", "b", Some("t"))
        );
        assert!("b@sha256:abc".parse::<Reference>().is_err());
    }

    #[test]
    fn what_is_no_reference() {
        let long = "a/".repeat(130) + "a";
        let hex = "a".repeat(64);
        let tag = format!("x:{}", "t".repeat(129));
        for text in [
            "",
            ":",
            "a:",
            ":tag",
            "Busybox",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a b",
            "a:-t",
            "a:b:c",
            "a@",
            "a\n",
            "ä",
            "host:port/x",
            "[::x]/a",
            &long,
            &hex,
            &tag,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
