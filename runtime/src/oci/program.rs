//! Whether a container's program is there: looked at by `create`, as runc does, so that engines tell what is missing in the
//! words they know.
//!
//! Only what the host can see is judged. A program in a mount that the libOS makes, and one that turns out to be no
//! program, is an error of `start`.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use husk_abi::boundary::config::{GuestConfig, MountKind};

/// Where Linux looks without `PATH` (execvp(3)).
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// A program as it was named, and where it may be.
#[derive(Clone, Debug, Default)]
pub struct Program {
    name: String,
    /// The directory it starts in.
    cwd: PathBuf,
    candidates: Vec<PathBuf>,
    /// Below these are the libOS's own files.
    unseen: Vec<PathBuf>,
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

impl Program {
    /// The first process's.
    #[must_use]
    pub fn of(guest: &GuestConfig) -> Self {
        let process = &guest.process;
        let name = process.args.first().map_or(&[][..], Vec::as_slice);
        let cwd = path(&process.cwd);
        let candidates = if name.contains(&b'/') {
            vec![cwd.join(path(name))]
        } else {
            let search = process.env.iter().find_map(|it| it.strip_prefix(b"PATH="));
            let parts = search.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':');
            parts
                .map(|part| cwd.join(path(part)).join(path(name)))
                .collect()
        };
        let made = guest
            .mounts
            .iter()
            .filter(|mount| mount.kind != MountKind::Host);
        Self {
            name: String::from_utf8_lossy(name).into_owned(),
            cwd,
            candidates,
            unseen: made.map(|mount| path(&mount.target)).collect(),
        }
    }

    /// Looks for it below this process's own root.
    ///
    /// # Errors
    /// That it cannot be executed, and why, in runc's words.
    pub fn look(&self) -> Result<(), String> {
        // One that is missing is made.
        if !self.is_unseen(&self.cwd)
            && fs::metadata(&self.cwd).is_ok_and(|directory| !directory.is_dir())
        {
            let cwd = self.cwd.display();
            return Err(format!("process.cwd: {cwd} is not a directory"));
        }
        let mut why = match self.candidates.as_slice() {
            [only] if self.name.contains('/') => {
                format!("stat {}: no such file or directory", only.display())
            }
            _ => "executable file not found in $PATH".to_owned(),
        };
        for candidate in &self.candidates {
            if self.is_unseen(candidate) {
                return Ok(());
            }
            match fs::metadata(candidate) {
                Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => {
                    return Ok(());
                }
                Ok(_) => "permission denied".clone_into(&mut why),
                // A link whose end is in a mount that is not made yet.
                Err(_) if candidate.is_symlink() => return Ok(()),
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(_) => return Ok(()),
            }
        }
        Err(format!("exec: {:?}: {why}", self.name))
    }

    fn is_unseen(&self, candidate: &Path) -> bool {
        self.unseen.iter().any(|mount| candidate.starts_with(mount))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, candidates: &[&str]) -> Program {
        Program {
            name: name.to_owned(),
            cwd: "/".into(),
            candidates: candidates.iter().map(PathBuf::from).collect(),
            unseen: vec!["/proc".into()],
        }
    }

    #[test]
    fn what_is_there_and_what_is_not() {
        program("sh", &["/no/sh", "/bin/sh"]).look().unwrap();
        program("x", &["/no/x", "/proc/x"]).look().unwrap();
        let fails = |name, candidates: &[&str]| program(name, candidates).look().unwrap_err();
        assert_eq!(
            fails("no-such", &["/no/no-such", "/etc/passwd/no-such"]),
            r#"exec: "no-such": executable file not found in $PATH"#
        );
        assert_eq!(
            fails("/no", &["/no"]),
            r#"exec: "/no": stat /no: no such file or directory"#
        );
        assert_eq!(
            fails("passwd", &["/etc/passwd", "/no/passwd"]),
            r#"exec: "passwd": permission denied"#
        );
        let mut elsewhere = program("sh", &["/bin/sh"]);
        elsewhere.cwd = "/etc/passwd".into();
        assert_eq!(
            elsewhere.look().unwrap_err(),
            "process.cwd: /etc/passwd is not a directory"
        );
        elsewhere.cwd = "/no/such".into();
        elsewhere.look().unwrap();
        assert_eq!(
            fails("/etc", &["/etc"]),
            r#"exec: "/etc": permission denied"#
        );
    }
}
