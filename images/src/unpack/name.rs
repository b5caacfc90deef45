//! Names of entries: cleaned, and what their form means.

use super::UnpackError;
use crate::text::shown;

/// Longest name accepted in bytes: Linux' PATH_MAX without the NUL. A longer one could not be opened
/// in the guest.
const MAX_NAME: usize = 4095;

/// A cleaned name: components from the root, none of them empty, `.` or `..`.
#[derive(Debug)]
pub(super) struct Name<'a> {
    raw: &'a [u8],
    parts: Vec<&'a [u8]>,
}

/// What a name's form means (layer.md, "Whiteouts").
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// A plain entry.
    None,
    /// Hides one name of the lower layers.
    Whiteout(&'a [u8]),
    /// Hides all the lower layers have in this directory.
    Opaque,
    /// AUFS' own files, which old layers contain.
    Ignored,
}

const PREFIX: &[u8] = b".wh.";
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl<'a> Name<'a> {
    /// Cleans an entry's name.
    pub(super) fn parse(raw: &'a [u8]) -> Result<Self, UnpackError> {
        let name = |why| UnpackError::Name {
            entry: shown(raw),
            why,
        };
        if raw.is_empty() {
            return Err(name("empty"));
        }
        if raw.len() > MAX_NAME {
            return Err(name("longer than 4095 bytes"));
        }
        if raw.contains(&0) {
            return Err(name("it holds a NUL"));
        }
        let parts = clean(raw).ok_or_else(|| UnpackError::Escape { entry: shown(raw) })?;
        Ok(Self { raw, parts })
    }

    /// Cleans the target of the hard link `of`.
    pub(super) fn parse_link(raw: &'a [u8], of: &Name<'_>) -> Result<Self, UnpackError> {
        Self::parse(raw).map_err(|error| match error {
            UnpackError::Escape { entry } => UnpackError::LinkEscape {
                entry: of.shown(),
                target: entry,
            },
            _ => UnpackError::LinkTarget {
                entry: of.shown(),
                target: shown(raw),
            },
        })
    }

    /// The last component; `None` for the root itself.
    pub(super) fn base(&self) -> Option<&'a [u8]> {
        self.parts.last().copied()
    }

    /// All components but the last.
    pub(super) fn parents(&self) -> &[&'a [u8]] {
        self.parts.split_last().map_or(&[], |(_, parents)| parents)
    }

    pub(super) fn mark(&self) -> Result<Mark<'a>, UnpackError> {
        if self
            .parts
            .iter()
            .any(|p| p.starts_with(AUFS_PREFIX) && *p != OPAQUE)
        {
            return Ok(Mark::Ignored);
        }
        if self.parents().iter().any(|p| p.starts_with(PREFIX)) {
            return Err(UnpackError::Name {
                entry: self.shown(),
                why: "it goes through a whiteout",
            });
        }
        let base = self.base().unwrap_or_default();
        match base.strip_prefix(PREFIX) {
            None => Ok(Mark::None),
            Some(_) if base == OPAQUE => Ok(Mark::Opaque),
            Some(b"" | b"." | b"..") => Err(UnpackError::Whiteout {
                entry: self.shown(),
            }),
            Some(hidden) => Ok(Mark::Whiteout(hidden)),
        }
    }

    /// The name as the archive has it, for messages.
    pub(super) fn shown(&self) -> String {
        shown(self.raw)
    }

    pub(super) fn failed(&self, action: &'static str, cause: std::io::Error) -> UnpackError {
        UnpackError::Io {
            action,
            entry: self.shown(),
            cause,
        }
    }
}

/// Components from the root; `None` when `..` leaves it.
fn clean(raw: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    for part in raw.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(raw: &str) -> Option<String> {
        let name = Name::parse(raw.as_bytes()).ok()?;
        Some(String::from_utf8(name.parts.join(&b'/')).unwrap())
    }

    #[test]
    fn cleaning() {
        assert_eq!(parts("./a//b/.").as_deref(), Some("a/b"));
        assert_eq!(parts("/etc/passwd").as_deref(), Some("etc/passwd"));
        assert_eq!(parts("a/../b").as_deref(), Some("b"));
        assert_eq!(parts("./").as_deref(), Some(""));
        for hostile in ["..", "../a", "/../a", "a/../../b", "", "a\0b"] {
            assert_eq!(parts(hostile), None, "{hostile:?}");
        }
        assert_eq!(parts(&"a/".repeat(3000)), None);
    }

    #[test]
    fn marks() {
        let mark = |raw: &'static str| Name::parse(raw.as_bytes()).unwrap().mark();
        assert_eq!(mark("a/b").unwrap(), Mark::None);
        assert_eq!(mark("a/.whx").unwrap(), Mark::None);
        assert_eq!(mark("a/.wh.b").unwrap(), Mark::Whiteout(b"b"));
        assert_eq!(mark("a/.wh..wh..opq").unwrap(), Mark::Opaque);
        assert_eq!(mark(".wh..wh.plnk/1.2").unwrap(), Mark::Ignored);
        assert_eq!(mark("a/.wh..wh.aufs").unwrap(), Mark::Ignored);
        for bad in ["a/.wh.", "a/.wh..", "a/.wh..."] {
            assert!(
                matches!(mark(bad), Err(UnpackError::Whiteout { .. })),
                "{bad}"
            );
        }
        assert!(matches!(mark(".wh.a/b"), Err(UnpackError::Name { .. })));
        assert!(matches!(
            mark(".wh..wh..opq/b"),
            Err(UnpackError::Name { .. })
        ));
    }
}
