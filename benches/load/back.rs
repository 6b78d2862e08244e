//! What it takes to come back with a ticket: asked for once, before anything is measured.
//!
//! It must never be part of a figure.

use crate::arguments::Arguments;
use crate::blocking::{Connection, number_of, text_of};
use crate::target::Back;

/// Few enough that no limit on rooms is met.
const ROOMS_AT_ONCE: usize = 100;

/// Joins every room once, and answers what it takes to come back to one of them.
pub(crate) fn prepare(arguments: &Arguments) -> Back {
    let path = arguments.target.path(0);
    let mut connection = Connection::open(arguments.addr, &path);
    let session = text_of(&connection.hear("hello"), "session").expect("a ticket").to_owned();
    let mut epochs = Vec::with_capacity(arguments.rooms);
    let mut offset = 0;
    for room in 0..arguments.rooms {
        if room > 0 && room.is_multiple_of(ROOMS_AT_ONCE) {
            connection = Connection::open(arguments.addr, &path);
            connection.hear("hello");
        }
        connection.say(&arguments.target.subscribe(room));
        let subscribed = connection.hear("subscribed");
        epochs.push(text_of(&subscribed, "epoch").expect("an epoch").to_owned());
        offset = number_of(&subscribed, "offset").expect("an offset");
    }
    Back { session, epochs, offset }
}
