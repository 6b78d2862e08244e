//! Short ways to build a stream and to decode all of it. It must never hide an event or an error.

use websocket_codec::{
    CloseCode, Decoder, Event, Limits, Opcode, ProtocolError, Role, encode_masked,
};

pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) const LIMITS: Limits = Limits { message_bytes_max: 64 * 1024, fragments_max: 1024 };

/// An event that outlives its read buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(CloseCode, String)>),
}

impl From<Event<'_>> for Heard {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.into_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.into_owned()),
            Event::Ping(bytes) => Self::Ping(bytes.into_owned()),
            Event::Pong(bytes) => Self::Pong(bytes.into_owned()),
            Event::Close(frame) => {
                Self::Close(frame.map(|frame| (frame.code, frame.reason.into_owned())))
            }
        }
    }
}

/// What came out of a stream: its events, and the error that ended it, if one did.
pub(crate) type Outcome = (Vec<Heard>, Option<ProtocolError>);

/// Feeds one input to the end and appends what is heard.
pub(crate) fn feed(
    decoder: &mut Decoder,
    input: &[u8],
    limits: &Limits,
    heard: &mut Vec<Heard>,
) -> Result<(), ProtocolError> {
    let mut input = input.to_vec();
    let mut rest = input.as_mut_slice();
    while !rest.is_empty() {
        let decoded = decoder.decode(rest, limits)?;
        let used = decoded.used;
        assert!(used > 0, "a call must make progress");
        match decoded.event {
            Some(event) => heard.push(event.into()),
            None => assert_eq!(used, rest.len(), "no event means that all input is used"),
        }
        rest = &mut rest[used..];
    }
    Ok(())
}

/// Feeds pieces until their end or the first error.
pub(crate) fn feed_all<'a>(
    role: Role,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
) -> Outcome {
    let mut decoder = Decoder::new(role);
    let mut heard = Vec::new();
    for piece in pieces {
        if let Err(error) = feed(&mut decoder, piece, limits, &mut heard) {
            assert_eq!(decoder.buffer_bytes(), 0, "an ended decoder holds nothing");
            return (heard, Some(error));
        }
    }
    (heard, None)
}

/// Decodes as a server in one piece and byte by byte, and insists that both agree.
pub(crate) fn decode_as_server(stream: &[u8]) -> Outcome {
    decode(Role::Server, stream, &LIMITS)
}

pub(crate) fn decode(role: Role, stream: &[u8], limits: &Limits) -> Outcome {
    let whole = feed_all(role, [stream], limits);
    let bytes = feed_all(role, stream.chunks(1), limits);
    assert_eq!(whole, bytes);
    whole
}

/// The index of the byte at which a stream is refused, and the error.
pub(crate) fn refused_at(stream: &[u8]) -> Option<(usize, ProtocolError)> {
    let mut decoder = Decoder::new(Role::Server);
    let mut heard = Vec::new();
    stream.iter().enumerate().find_map(|(index, byte)| {
        let error = feed(&mut decoder, &[*byte], &LIMITS, &mut heard).err()?;
        Some((index, error))
    })
}

/// A masked frame of a client.
pub(crate) fn client_frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    encode_masked(opcode, fin, payload, KEY).to_vec()
}

/// A masked header alone, of any first byte, which declares a length in 64 bits.
pub(crate) fn client_header_64(first: u8, declared: u64) -> Vec<u8> {
    [&[first, 0xff], declared.to_be_bytes().as_slice(), &KEY].concat()
}
