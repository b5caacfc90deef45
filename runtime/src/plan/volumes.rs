//! Directories of the host in the container: its root and `--volume`.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use husk_abi::boundary::config::Tree;

use super::Error;
use crate::gate::fuse::TreeSource;

/// `SRC:DST[:ro]`, checked for its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// What of the host: an absolute path.
    pub source: PathBuf,
    /// Where in the container: an absolute path.
    pub target: String,
    /// Nothing may be changed through it.
    pub read_only: bool,
}

impl FromStr for Volume {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
            return Err("give SRC:DST or SRC:DST:ro".to_owned());
        };
        let read_only = match (parts.next(), parts.next()) {
            (None | Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => return Err("what follows DST is ro or rw".to_owned()),
        };
        if !source.starts_with('/') {
            return Err("SRC is not an absolute path".to_owned());
        }
        if !target.starts_with('/') || target.split('/').all(str::is_empty) {
            return Err("DST is not an absolute path below /".to_owned());
        }
        if target.split('/').any(|name| name == "..") {
            return Err("DST goes through ..".to_owned());
        }
        Ok(Self {
            source: source.into(),
            target: target.to_owned(),
            read_only,
        })
    }
}

/// Files by which names of hosts are found: with the host's network they are the host's, too.
const NAMES_OF_HOSTS: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

impl Volume {
    /// The host's files by which names of hosts are found, read-only, as far as it has them and nothing of `volumes` lies
    /// there already.
    #[must_use]
    pub fn names_of_hosts(volumes: &[Self]) -> Vec<Self> {
        let is_free = |target: &&str| {
            let covers = |volume: &Self| std::path::Path::new(target).starts_with(&volume.target);
            !volumes.iter().any(covers)
        };
        let shown = NAMES_OF_HOSTS.iter().filter(|target| is_free(target));
        shown
            .filter_map(|target| {
                // Often a symbolic link: what it leads to is not in the container.
                let source = std::fs::canonicalize(target).ok()?;
                Some(Self {
                    source,
                    target: (*target).to_owned(),
                    read_only: true,
                })
            })
            .collect()
    }
}

/// The trees of a container, as the host serves them and as the guest mounts them: its root, if that is a
/// served, and its volumes, outer ones first.
///
/// # Errors
/// [`Error::Volume`] for a source that cannot be looked at, [`Error::TwoVolumes`] for one target twice.
pub fn trees(
    root: Option<TreeSource>,
    volumes: &[Volume],
) -> Result<(Vec<TreeSource>, Vec<Tree>), Error> {
    let mut sources = Vec::new();
    let mut trees = Vec::new();
    if let Some(root) = root {
        sources.push(root);
        trees.push(Tree {
            target: b"/".to_vec(),
            source: b"husk".to_vec(),
            root: b"/".to_vec(),
            read_only: false,
        });
    }
    let mut ordered: Vec<(Vec<&str>, &Volume)> = volumes
        .iter()
        .map(|volume| {
            let names = volume.target.split('/');
            let names = names.filter(|name| !matches!(*name, "" | "."));
            (names.collect(), volume)
        })
        .collect();
    ordered.sort_by_key(|(names, _)| names.len());
    for (at, (names, volume)) in ordered.iter().enumerate() {
        if ordered[..at].iter().any(|(other, _)| other == names) {
            return Err(Error::TwoVolumes(volume.target.clone()));
        }
        std::fs::metadata(&volume.source).map_err(|source| Error::Volume {
            path: volume.source.clone(),
            source,
        })?;
        sources.push(TreeSource {
            path: volume.source.clone(),
            held: None,
            read_only: volume.read_only,
            exclusive: false,
        });
        trees.push(Tree {
            target: format!("/{}", names.join("/")).into_bytes(),
            source: volume.source.as_os_str().as_bytes().to_vec(),
            root: volume.source.as_os_str().as_bytes().to_vec(),
            read_only: volume.read_only,
        });
    }
    Ok((sources, trees))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts_unless_there_is_something() {
        let targets = |volumes: &[&str]| -> Vec<String> {
            let volumes: Vec<Volume> = volumes.iter().map(|text| text.parse().unwrap()).collect();
            let added = Volume::names_of_hosts(&volumes);
            assert!(added.iter().all(|volume| volume.read_only));
            added.into_iter().map(|volume| volume.target).collect()
        };
        assert!(targets(&["/tmp:/etc"]).is_empty());
        assert!(!targets(&["/tmp:/etc/hosts"]).contains(&"/etc/hosts".to_owned()));
        assert_eq!(targets(&["/tmp:/etc/hosts.d"]), targets(&[]));
    }

    #[test]
    fn forms() {
        let volume = |text: &str| text.parse::<Volume>();
        let full = volume("/a:/b:ro").unwrap();
        assert_eq!((full.target.as_str(), full.read_only), ("/b", true));
        assert!(!volume("/a:/b").unwrap().read_only);
        assert!(!volume("/a:/b:rw").unwrap().read_only);
        for bad in [
            "",
            "/a",
            "a:/b",
            "/a:b",
            "/a:/",
            "/a:/b:no",
            "/a:/b:ro:x",
            "/a:/b/../c",
            ":/b",
        ] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn outer_first() {
        let volumes: Vec<Volume> = ["/tmp:/a/b/c", "/:/a//b/", "/usr:/z:ro"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let root = TreeSource {
            path: "/r".into(),
            held: None,
            read_only: false,
            exclusive: true,
        };
        let (sources, trees) = trees(Some(root), &volumes).unwrap();
        let targets: Vec<&[u8]> = trees.iter().map(|tree| &*tree.target).collect();
        assert_eq!(targets, [b"/".as_slice(), b"/z", b"/a/b", b"/a/b/c"]);
        assert!(sources[0].exclusive && !sources[1].exclusive);
        assert!(trees[1].read_only && sources[1].read_only);
        let twice = ["/tmp:/a", "/usr:/a/"].map(|text| text.parse().unwrap());
        assert!(matches!(
            super::trees(None, &twice),
            Err(Error::TwoVolumes(_))
        ));
        let missing = ["/no such directory:/a".parse().unwrap()];
        assert!(matches!(
            super::trees(None, &missing),
            Err(Error::Volume { .. })
        ));
    }
}
