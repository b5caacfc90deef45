//! Where a process's control groups are, in either version.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The control groups of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// A directory for each controller.
    V1(HashMap<String, PathBuf>),
    /// One directory.
    V2(PathBuf),
}

impl Cgroup {
    /// Those of process `pid`, where this process sees the hierarchies.
    pub fn of(pid: i32) -> Option<Self> {
        let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Self::parse(&membership, &mounts)
    }

    /// Of the texts of `/proc/PID/cgroup` and `/proc/self/mountinfo` (cgroups(7), proc(5)).
    fn parse(membership: &str, mountinfo: &str) -> Option<Self> {
        let mut controllers = HashMap::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(point)) = (left.next(), left.next()) else {
                continue;
            };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1));
            let own_path = |path: &str| {
                // What is mounted may be part of the hierarchy.
                let within = path.strip_prefix(root.trim_end_matches('/'))?;
                Some(Path::new(point).join(within.trim_start_matches('/')))
            };
            match kind {
                Some("cgroup2") => {
                    let path = membership.lines().find_map(|line| line.strip_prefix("0::"));
                    unified = unified.or(path.and_then(own_path));
                }
                Some("cgroup") => {
                    for line in membership.lines() {
                        let mut fields = line.splitn(3, ':').skip(1);
                        let (Some(names), Some(path)) = (fields.next(), fields.next()) else {
                            continue;
                        };
                        for name in names.split(',') {
                            let here = options.unwrap_or_default().split(',');
                            if let (true, Some(path)) = (
                                !name.is_empty() && here.clone().any(|option| option == name),
                                own_path(path),
                            ) {
                                controllers.entry(name.to_owned()).or_insert(path);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        match unified {
            // In a hybrid system the controllers are version 1's.
            _ if controllers.contains_key("memory") || controllers.contains_key("cpuacct") => {
                Some(Self::V1(controllers))
            }
            Some(path) => Some(Self::V2(path)),
            None => None,
        }
    }

    /// A file of a controller; in version 2 all are in one directory.
    pub fn file(&self, controller: &str, name: &str) -> Option<PathBuf> {
        match self {
            Self::V1(controllers) => Some(controllers.get(controller)?.join(name)),
            Self::V2(path) => Some(path.join(name)),
        }
    }

    /// The text of such a file.
    pub fn text(&self, controller: &str, name: &str) -> Option<String> {
        fs::read_to_string(self.file(controller, name)?).ok()
    }

    /// The number in such a file; `max` and what cannot be read are the default.
    pub fn number(&self, controller: &str, name: &str, default: u64) -> u64 {
        self.text(controller, name)
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(default)
    }

    /// The `name value` lines of such a file.
    pub fn table(&self, controller: &str, name: &str) -> Table {
        Table::parse(&self.text(controller, name).unwrap_or_default())
    }
}

/// `name value` lines.
#[derive(Debug, Default)]
pub struct Table(HashMap<String, u64>);

impl Table {
    /// Of a file's text.
    pub fn parse(text: &str) -> Self {
        let entries = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        });
        Self(entries.collect())
    }

    /// The value, or 0.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 /pod /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid() {
        let membership = "4:memory:/pod/c\n3:cpu,cpuacct:/c\n1:name=systemd:/\n0::/\n";
        let cgroup = Cgroup::parse(membership, HYBRID).unwrap();
        let file = |controller| cgroup.file(controller, "f").unwrap();
        assert_eq!(file("memory"), Path::new("/sys/fs/cgroup/memory/c/f"));
        assert_eq!(file("cpuacct"), Path::new("/sys/fs/cgroup/cpu/c/f"));
        assert_eq!(file("cpu"), Path::new("/sys/fs/cgroup/cpu/c/f"));
        assert_eq!(cgroup.file("pids", "f"), None);
    }

    #[test]
    fn unified() {
        let mounts = "33 30 0:29 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            Cgroup::parse("0::/default/c\n", mounts),
            Some(Cgroup::V2("/sys/fs/cgroup/default/c".into()))
        );
        assert_eq!(Cgroup::parse("0::/x\n", ""), None);
    }

    #[test]
    fn this_process_has_one() {
        let pid = std::process::id().cast_signed();
        assert!(Cgroup::of(pid).is_some());
    }

    #[test]
    fn tables() {
        let table = Table::parse("a 1\nb x\nc 18446744073709551615\n");
        assert_eq!(
            (table.get("a"), table.get("b"), table.get("c")),
            (1, 0, u64::MAX)
        );
    }
}
