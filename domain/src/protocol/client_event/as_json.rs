//! How the model's types look in JSON: as in the protocol. It must never leave out or change a value.

use std::time::Duration;

use serde::ser::{Error as _, SerializeMap};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::client::ErrorClass;
use crate::id::{ConnectionId, Epoch, MessageId};
use crate::position::{Offset, Position};
use crate::principal::RoomPattern;
use crate::room::RoomId;

pub(super) fn class<S: Serializer>(class: &ErrorClass, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(class.word())
}

pub(super) fn room<S: Serializer>(room: &RoomId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(room.as_str())
}

pub(super) fn pattern<S: Serializer>(pattern: &RoomPattern, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(pattern)
}

pub(super) fn epoch<S: Serializer>(epoch: &Epoch, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(epoch)
}

pub(super) fn connection<S: Serializer>(id: &ConnectionId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}

pub(super) fn message_id<S: Serializer>(id: &MessageId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(id.as_str())
}

pub(super) fn place<S: Serializer>(offset: &Offset, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(offset.get())
}

pub(super) fn offset<S: Serializer>(offset: &Option<Offset>, to: S) -> Result<S::Ok, S::Error> {
    offset.map(Offset::get).serialize(to)
}

/// Two fields of the frame, so for use with `flatten`.
pub(super) fn position<S: Serializer>(at: &Position, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("epoch", &at.epoch.to_string())?;
    map.serialize_entry("offset", &at.offset.get())?;
    map.end()
}

pub(super) fn duration<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn millis<S: Serializer>(span: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)).serialize(to)
}

/// JSON that is passed through as it came.
pub(super) fn raw<S: Serializer>(json: &str, to: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<&RawValue>(json).map_err(S::Error::custom)?.serialize(to)
}
