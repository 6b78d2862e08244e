//! The shard: some connections, the slices of their rooms, their deadlines.

/// A connection's place in its shard. The generation tells a slot that was used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot {
    /// The place in the shard's and the host's tables.
    pub index: u32,
    /// How often the place was used before.
    pub generation: u32,
}
