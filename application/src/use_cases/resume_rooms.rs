//! Brings a connection back into several rooms at once, with what it missed, cut to what one frame
//! may hold.
//!
//! Each room is joined exactly as by a `subscribe`, with the same questions asked; it must never
//! let one room's refusal be another's.

use crate::use_cases::join_room::{JoinRefused, JoinRoom, Joined};

/// A connection that comes back.
pub struct ResumeRooms {
    /// The joins, in the order of the client's rooms.
    pub joins: Vec<JoinRoom>,
    /// The most bytes of encoded messages to answer; what is beyond it is left to pages.
    pub bytes_max: usize,
}

impl ResumeRooms {
    /// Joins one room after the other, and answers for each in the same order.
    pub async fn execute(self) -> Vec<Result<Joined, JoinRefused>> {
        let mut bytes_left = self.bytes_max;
        let mut joined = Vec::with_capacity(self.joins.len());
        for mut join in self.joins {
            join.bytes_max = join.bytes_max.min(bytes_left);
            let result = join.execute().await;
            joined.push(result.map(|mut joined| {
                joined.fit(&mut bytes_left);
                joined
            }));
        }
        joined
    }
}
