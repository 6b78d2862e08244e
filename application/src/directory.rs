//! How many connections each user has on this node.
//!
//! Locked when a connection is authenticated and when it ends, never per message.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::id::UserId;

/// The user has as many connections as allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooManyConnections;

/// Counts connections by user. At most one entry per admitted connection, so the host's limit on
/// connections bounds it.
#[derive(Debug, Default)]
pub struct Directory {
    users: Mutex<BTreeMap<UserId, u32>>,
}

/// One admitted connection; letting go of it makes room for another.
#[derive(Debug)]
pub struct Admission {
    directory: Arc<Directory>,
    user: UserId,
}

impl Directory {
    /// Admits one more connection of a user.
    ///
    /// # Errors
    /// [`TooManyConnections`] at `connections_max`.
    pub fn admit(
        self: &Arc<Self>,
        user: &UserId,
        connections_max: u32,
    ) -> Result<Admission, TooManyConnections> {
        let mut users = self.lock();
        let count = users.entry(user.clone()).or_default();
        if *count >= connections_max {
            return Err(TooManyConnections);
        }
        *count += 1;
        drop(users);
        Ok(Admission { directory: Arc::clone(self), user: user.clone() })
    }

    /// How many connections a user has.
    #[must_use]
    pub fn connections_of(&self, user: &UserId) -> u32 {
        self.lock().get(user).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UserId, u32>> {
        // Every change is one step, so a poisoned map is still whole.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut users = self.directory.lock();
        if let Some(count) = users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_once_a_connection_is_let_go() {
        let directory = Arc::new(Directory::default());
        let user = UserId::parse("u").unwrap();
        let first = directory.admit(&user, 2).unwrap();
        let _second = directory.admit(&user, 2).unwrap();
        assert_eq!(directory.admit(&user, 2).unwrap_err(), TooManyConnections);
        drop(first);
        assert!(directory.admit(&user, 2).is_ok());
        assert_eq!(directory.connections_of(&user), 1);
    }
}
