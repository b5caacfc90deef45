//! Who logged in: the user and session that processes carry on, whatever ids they take later (`/proc/PID/loginuid` and
//! `sessionid`, `proc(5)`).

use core::sync::atomic::{AtomicU32, Ordering};

use crate::{Errno, Result};

/// Nobody, or no session.
pub const UNSET: u32 = u32::MAX;

static LAST_SESSION: AtomicU32 = AtomicU32::new(0);

/// A process's; children have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: u32,
    /// The session.
    pub session: u32,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            user: UNSET,
            session: UNSET,
        }
    }
}

impl Login {
    /// `user` logs in, in a session of its own; [`UNSET`] ends that. `privileged` is who has `CAP_AUDIT_CONTROL`.
    ///
    /// # Errors
    /// `EPERM` if somebody is logged in, and the caller is not privileged.
    pub fn change(&mut self, user: u32, privileged: bool) -> Result<()> {
        if self.user != UNSET && !privileged {
            return Err(Errno::EPERM);
        }
        let session = match user {
            UNSET => UNSET,
            _ => LAST_SESSION.fetch_add(1, Ordering::Relaxed) + 1,
        };
        *self = Self { user, session };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_login_is_free() {
        let mut login = Login::default();
        login.change(UNSET, false).unwrap();
        assert_eq!(login, Login::default());
        login.change(1000, false).unwrap();
        let first = login;
        assert_eq!(first.user, 1000);
        assert_eq!(login.change(0, false), Err(Errno::EPERM));
        assert_eq!(login.change(UNSET, false), Err(Errno::EPERM));
        assert_eq!(login, first);
        login.change(0, true).unwrap();
        assert_ne!(login.session, first.session);
    }
}
