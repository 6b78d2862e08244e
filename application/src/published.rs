//! A publication on its way to members, with its encoded frames.
//!
//! Encoded once per wire format by the first shard that needs it and shared by all others; it
//! must never be encoded per member.

use std::sync::OnceLock;

use bytes::Bytes;
use domain::documents;
use domain::message::Publication;
use domain::protocol;

/// The forms in which a publication leaves this node. A closed set: each has a slot in every
/// publication.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(usize)]
pub enum WireFormat {
    /// Protocol v2: JSON in a text frame.
    #[default]
    V2,
    /// The words of the documents; nothing at all for what they have no words for.
    Document,
}

const WIRE_FORMATS: usize = 2;

/// One positioned publication, shared by the log and all shards.
#[derive(Debug)]
pub struct Published {
    /// The message.
    pub publication: Publication,
    message: OnceLock<Bytes>,
    frames: [OnceLock<Bytes>; WIRE_FORMATS],
}

impl Published {
    /// Takes a publication; nothing is encoded yet.
    #[must_use]
    pub const fn new(publication: Publication) -> Self {
        Self {
            publication,
            message: OnceLock::new(),
            frames: [const { OnceLock::new() }; WIRE_FORMATS],
        }
    }

    /// The encoded v2 message, as it stands in a `message` frame and in `messages` of a page.
    pub fn message(&self) -> &Bytes {
        self.message.get_or_init(|| Bytes::from(protocol::encode_message(&self.publication)))
    }

    /// The framed message, made by `frame` if no shard has made it yet. Empty where the format does not
    /// say it.
    pub fn frame(&self, format: WireFormat, frame: impl FnOnce(&[u8]) -> Bytes) -> &Bytes {
        self.frames[format as usize].get_or_init(|| match format {
            WireFormat::V2 => frame(self.message()),
            WireFormat::Document => {
                let mut said = Vec::new();
                let is_said = documents::said::encode(&self.publication, &mut said);
                if is_said { frame(&said) } else { Bytes::new() }
            }
        })
    }
}
