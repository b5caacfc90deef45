//! Descriptors that processes are handed from outside, beyond their standard streams, until the guest takes them: what is
//! taken becomes a channel ([`super::fuse`]) or a socket ([`super::net`]), which the guest knows by a number of that service.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// What was handed and not taken yet, by session and place there.
#[derive(Debug, Default)]
pub struct Handed(Mutex<BTreeMap<(u32, u32), OwnedFd>>);

impl Handed {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u32, u32), OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what the process of `session` is handed, in its order.
    pub fn put(&self, session: u32, descriptors: Vec<OwnedFd>) {
        let numbered = (0..).zip(descriptors);
        self.lock()
            .extend(numbered.map(|(index, fd)| ((session, index), fd)));
    }

    /// Takes one.
    ///
    /// # Errors
    /// `EBADF` if there is none, or it was taken.
    pub fn take(&self, session: u32, index: u32) -> Result<OwnedFd, Errno> {
        self.lock().remove(&(session, index)).ok_or(Errno::BADF)
    }

    /// Closes what the process of `session` has not taken.
    pub fn forget(&self, session: u32) {
        let old = {
            let mut all = self.lock();
            let taken: Vec<_> = all
                .range((session, 0)..=(session, u32::MAX))
                .map(|(key, _)| *key)
                .collect();
            taken
                .into_iter()
                .filter_map(|key| all.remove(&key))
                .collect::<Vec<_>>()
        };
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_once_and_by_its_session() {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let handed = Handed::default();
        handed.put(1, vec![null(), null()]);
        handed.put(2, vec![null()]);
        assert!(handed.take(1, 1).is_ok());
        assert_eq!(handed.take(1, 1).unwrap_err(), Errno::BADF);
        assert_eq!(handed.take(0, 0).unwrap_err(), Errno::BADF);
        handed.forget(1);
        assert_eq!(handed.take(1, 0).unwrap_err(), Errno::BADF);
        assert!(handed.take(2, 0).is_ok());
    }
}
