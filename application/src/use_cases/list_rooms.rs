//! Lists the rooms of a node page by page, for the server API.
//!
//! Every shard is asked for its first rooms behind the last page, and of all answers the first are
//! the page: names are the order, so a room that is there throughout is in exactly one page,
//! whatever comes and goes. The caller has been authorised by its key.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::position::Position;
use domain::room::RoomId;

use crate::inquiry::{Answer, PAGE_MAX, Question, RoomHere, Unanswered, ask_all};
use crate::mailbox::Mailbox;

/// A question for a page of rooms.
#[derive(Clone, Debug)]
pub struct ListRooms {
    /// What their names begin with; empty for all.
    pub prefix: Arc<str>,
    /// The last room of the page before.
    pub after: Option<RoomId>,
    /// The most rooms of the page; above [`PAGE_MAX`] that many.
    pub rooms_max: u32,
}

/// A page of rooms.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoomsPage {
    /// In the order of their names.
    pub rooms: Vec<RoomHere>,
    /// Whether there are later ones.
    pub more: bool,
}

impl ListRooms {
    /// Asks all shards.
    ///
    /// # Errors
    /// [`Unanswered`] when one of them has ended.
    pub async fn execute(self, mailboxes: &[Arc<Mailbox>]) -> Result<RoomsPage, Unanswered> {
        let rooms_max = self.rooms_max.clamp(1, PAGE_MAX) as usize;
        let question = Question::Rooms { prefix: self.prefix, after: self.after, rooms_max };
        let answers = ask_all(mailboxes, &question).await?;
        Ok(merge(answers, rooms_max))
    }
}

/// Each answer has the first rooms of one shard, so the first of all are the first of the node.
fn merge(answers: Vec<Answer>, rooms_max: usize) -> RoomsPage {
    let (mut all, mut is_more) = (BTreeMap::<RoomId, RoomHere>::new(), false);
    for answer in answers {
        let Answer::Rooms { rooms, more } = answer else { continue };
        is_more |= more;
        for here in rooms {
            let known = all.entry(here.room.clone()).or_insert_with(|| here.clone());
            // Counted over all shards by each, but not at the same moment.
            known.members = known.members.max(here.members);
            known.position = later(known.position, here.position);
        }
    }
    is_more |= all.len() > rooms_max;
    RoomsPage { rooms: all.into_values().take(rooms_max).collect(), more: is_more }
}

/// The position of whoever is further; of two epochs nobody can say which is the later one.
pub(crate) fn later(one: Option<Position>, other: Option<Position>) -> Option<Position> {
    match (one, other) {
        (Some(one), Some(other)) if one.epoch == other.epoch && other.offset > one.offset => {
            Some(other)
        }
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::id::Epoch;
    use domain::position::Offset;

    fn here(room: &str, members: u32, offset: u64) -> RoomHere {
        let position =
            Position { epoch: Epoch::from_bits(1), offset: Offset::parse(offset).unwrap() };
        RoomHere { room: RoomId::parse(room).unwrap(), members, position: Some(position) }
    }

    fn answer(rooms: &[RoomHere], more: bool) -> Answer {
        Answer::Rooms { rooms: rooms.to_vec(), more }
    }

    #[test]
    fn a_room_of_two_shards_is_one_room_as_far_as_whoever_is_further() {
        let one = answer(&[here("public:a", 3, 4), here("public:b", 1, 1)], false);
        let other = answer(&[here("public:b", 1, 7), here("public:c", 2, 2)], false);
        let page = merge(vec![one, other], 10);
        let rooms = [here("public:a", 3, 4), here("public:b", 1, 7), here("public:c", 2, 2)];
        assert_eq!(page, RoomsPage { rooms: rooms.to_vec(), more: false });
    }

    #[test]
    fn what_does_not_fit_the_page_and_what_a_shard_has_left_is_more() {
        let one = answer(&[here("public:a", 1, 1), here("public:d", 1, 1)], false);
        let other = answer(&[here("public:b", 1, 1), here("public:c", 1, 1)], true);
        let page = merge(vec![one, other.clone()], 2);
        assert_eq!(page.rooms, [here("public:a", 1, 1), here("public:b", 1, 1)]);
        assert!(page.more && merge(vec![other], 2).more);
    }
}
