//! Descriptors that callers want passed on beyond the first three: `--preserve-fds` and socket activation (sd_listen_fds(3)).
//!
//! A guest has no descriptors of the host's. What is asked for and there is refused by name, before anything is made.

use super::Error;

/// The first that is not a standard stream.
const FIRST: u32 = 3;

/// Looks at the descriptors that `--preserve-fds count` names.
///
/// # Errors
/// [`Error::PreserveFds`] for one that is open, which cannot be passed on; [`Error::NoPreservedFd`] for one that is not, as
/// with runc.
pub fn check(count: u32) -> Result<(), Error> {
    look(FIRST, count, "--preserve-fds")
}

/// Looks at the sockets that whoever started this process handed over, for the container it is to make.
///
/// # Errors
/// As [`check`].
pub fn check_activation() -> Result<(), Error> {
    // What runc does: only for this very process.
    let own = std::process::id().to_string();
    let is_ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == own);
    let sockets = std::env::var("LISTEN_FDS").ok().filter(|_| is_ours);
    let count = sockets.and_then(|text| text.parse().ok()).unwrap_or(0);
    look(FIRST, count, "LISTEN_FDS")
}

/// The first of them decides: it is refused, or it is missing.
fn look(first: u32, count: u32, asked_by: &'static str) -> Result<(), Error> {
    if count == 0 {
        return Ok(());
    }
    Err(match std::fs::read_link(format!("/proc/self/fd/{first}")) {
        Ok(what) => Error::PreserveFds {
            asked_by,
            number: first,
            what,
        },
        Err(_) => Error::NoPreservedFd {
            asked_by,
            number: first,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    #[test]
    fn none_is_wanted_one_is_there_one_is_not() {
        look(3, 0, "--preserve-fds").unwrap();
        let null = File::open("/dev/null").unwrap();
        let number = null.as_raw_fd().unsigned_abs();
        let error = look(number, 2, "--preserve-fds").unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "--preserve-fds: descriptor {number} (/dev/null) cannot be passed on: a guest has no descriptors of the host's"
            )
        );
        let error = look(1 << 20, 1, "LISTEN_FDS").unwrap_err().to_string();
        assert_eq!(error, "LISTEN_FDS: descriptor 1048576 is not open");
    }
}
