//! The seats of one node alone, in its memory: what a host has that gives none of its own.
//!
//! It must never be shared by nodes in different processes; and it must never hold its lock while it tells
//! of who was replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use async_trait::async_trait;
use domain::id::{ConnectionId, UserId};
use domain::seats::{Fence, SeatRule};

use crate::ports::{EndReplaced, SeatError, Seats, Spread, Standing, Taken};

/// A seat that lasts as long as this value does.
pub struct HeldSeat {
    seats: Arc<dyn Seats>,
    user: UserId,
    connection: ConnectionId,
    taken: Option<Taken>,
}

impl std::fmt::Debug for HeldSeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldSeat").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl HeldSeat {
    /// Takes a seat. It is given back with what this answers, also when nobody waits for that.
    ///
    /// # Errors
    /// [`SeatError`] says why there is none.
    pub async fn take(
        seats: &Arc<dyn Seats>,
        user: &UserId,
        connection: ConnectionId,
        rule: SeatRule,
    ) -> Result<Self, SeatError> {
        // Before the question: whoever stops waiting for the answer drops it.
        let (seats, user) = (Arc::clone(seats), user.clone());
        let mut held = Self { seats, user, connection, taken: None };
        held.taken = Some(held.seats.take(&held.user, connection, rule).await?);
        Ok(held)
    }

    /// The number that lets its connection act, where only the newest may.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.taken.as_ref()?.fence
    }

    /// Over how many nodes its user is connected, for whoever looks at that again and again.
    #[must_use]
    pub fn spread(&self) -> Option<&Arc<Spread>> {
        self.taken.as_ref().map(|taken| &taken.spread)
    }

    /// Over how many nodes its user is connected.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.taken.as_ref().map_or(1, |taken| taken.spread.nodes())
    }
}

impl Drop for HeldSeat {
    fn drop(&mut self) {
        self.seats.leave(&self.user, self.connection);
    }
}

/// See the module's text.
#[derive(Default)]
pub struct NodeSeats {
    all: Mutex<All>,
    ends: RwLock<Vec<EndReplaced>>,
}

#[derive(Default)]
struct All {
    /// Only those who are here.
    users: BTreeMap<UserId, Here>,
    /// The last number that anybody drew: larger than all before, of whichever user.
    last: u64,
}

/// A user.
#[derive(Default)]
struct Here {
    connections: BTreeSet<ConnectionId>,
    /// That of the newest, also after it has gone.
    fence: Option<Fence>,
}

impl NodeSeats {
    fn lock(&self) -> MutexGuard<'_, All> {
        // Every change is one step, so a poisoned map is still whole.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is there beside the newest.
    fn take_over(
        &self,
        user: &UserId,
        connection: ConnectionId,
    ) -> Option<(Fence, Vec<ConnectionId>)> {
        let mut all = self.lock();
        let fence = Fence::new(all.last + 1)?;
        all.last = fence.get();
        let here = all.users.entry(user.clone()).or_default();
        here.connections.insert(connection);
        here.fence = Some(fence);
        let others = here.connections.iter().filter(|other| **other != connection);
        let others = others.copied().collect();
        Some((fence, others))
    }
}

#[async_trait]
impl Seats for NodeSeats {
    async fn take(
        &self,
        user: &UserId,
        connection: ConnectionId,
        rule: SeatRule,
    ) -> Result<Taken, SeatError> {
        let max = match rule {
            SeatRule::AtMost(max) => max as usize,
            SeatRule::NewestWins => {
                let (fence, others) = self.take_over(user, connection).ok_or(SeatError::Full)?;
                let ends = self.ends.read().unwrap_or_else(PoisonError::into_inner);
                for other in others {
                    ends.iter().for_each(|end| end(other));
                }
                return Ok(Taken { fence: Some(fence), spread: Arc::default() });
            }
        };
        let mut all = self.lock();
        let here = all.users.entry(user.clone()).or_default();
        if !here.connections.contains(&connection) && here.connections.len() >= max {
            if here.connections.is_empty() {
                all.users.remove(user);
            }
            return Err(SeatError::Full);
        }
        here.connections.insert(connection);
        Ok(Taken { fence: None, spread: Arc::default() })
    }

    fn leave(&self, user: &UserId, connection: ConnectionId) {
        let mut all = self.lock();
        if let Some(here) = all.users.get_mut(user) {
            here.connections.remove(&connection);
            if here.connections.is_empty() {
                all.users.remove(user);
            }
        }
    }

    fn standing(&self, user: &UserId, fence: Fence) -> Standing {
        let all = self.lock();
        let largest = all.users.get(user).and_then(|here| here.fence);
        if largest == Some(fence) { Standing::Holds } else { Standing::Replaced }
    }

    async fn confirm(&self, user: &UserId, fence: Fence) -> Standing {
        self.standing(user, fence)
    }

    fn on_replaced(&self, end: EndReplaced) {
        self.ends.write().unwrap_or_else(PoisonError::into_inner).push(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::seats_contract::SeatsContract;

    #[tokio::test]
    async fn seats_of_one_node_keep_the_contract() {
        let seats = NodeSeats::default();
        SeatsContract { seats: &seats }.check().await;
        assert!(seats.lock().users.is_empty(), "nobody who has left is remembered");
    }
}
