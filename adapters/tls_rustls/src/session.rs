//! One TLS session, sans-io: records in, bytes out, and the other way round.
//!
//! An idle session owns no buffer: it keeps bytes of its own only while a record is incomplete. It
//! must always be shown what it keeps when rustls is called, because rustls counts positions in it.

use std::fmt;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use thiserror::Error;

/// The most plaintext of one record.
pub const RECORD_BYTES_MAX: usize = 16 << 10;
/// What a record adds at most: header, nonce, type and tag; a notice of new keys may come before it.
const OVERHEAD_BYTES_MAX: usize = 128;
/// What may be kept of incomplete records: the largest handshake message, and one more record.
const REST_BYTES_MAX: usize = (64 << 10) + RECORD_BYTES_MAX + 2_048;

/// A session came to its end by a fault, of the other side or of its keys.
#[derive(Debug, Error)]
pub enum TlsError {
    /// What rustls found.
    #[error("{0}")]
    Broken(#[from] rustls::Error),
    /// So many records were sent that another would not be safe.
    #[error("the keys of the session are used up")]
    Exhausted,
    /// A record or a message that does not end.
    #[error("an endless message")]
    Endless,
    /// The session had come to its end before.
    #[error("the session is over")]
    Over,
}

/// What came of received bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Received {
    /// The other side has said that it sends nothing more.
    pub ended: bool,
}

/// See the module's text.
pub struct Session {
    connection: UnbufferedServerConnection,
    /// Received, and not yet whole.
    rest: Vec<u8>,
    ended: bool,
    /// After a fault rustls is not called again: what it counted positions in may be gone.
    broken: bool,
}

impl Session {
    pub(crate) const fn new(connection: UnbufferedServerConnection) -> Self {
        Self { connection, rest: Vec::new(), ended: false, broken: false }
    }

    /// Whether no bytes may be sealed yet.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes received bytes, which it changes. What they say is put behind `plain`, what the session
    /// itself has to answer behind `out`. After an error `out` ends with the alert that tells it.
    ///
    /// # Errors
    /// [`TlsError`]; the session is of no more use.
    pub fn receive(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Received, TlsError> {
        if self.ended {
            return Ok(Received { ended: true });
        }
        if self.broken {
            return Err(TlsError::Over);
        }
        let received = self.take(incoming, plain, out);
        self.broken = received.is_err();
        received.map(|()| Received { ended: self.ended })
    }

    fn take(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        if self.rest.is_empty() {
            let used = self.process(incoming, plain, out)?;
            self.rest.extend_from_slice(&incoming[used..]);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            rest.extend_from_slice(incoming);
            let used = self.process(&mut rest, plain, out)?;
            rest.drain(..used);
            // Room that was needed once is not kept for ever.
            if rest.is_empty() {
                rest = Vec::new();
            }
            self.rest = rest;
        }
        if self.rest.len() > REST_BYTES_MAX {
            return Err(TlsError::Endless);
        }
        Ok(())
    }

    fn process(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, TlsError> {
        let mut used = 0;
        loop {
            let status = self.connection.process_tls_records(&mut incoming[used..]);
            let UnbufferedStatus { mut discard, state } = status;
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    self.tell(&mut incoming[used + discard..], out);
                    return Err(error.into());
                }
            };
            let mut is_done = false;
            match state {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(data) => encode(data, out)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    (self.ended, is_done) = (true, true);
                }
                // None is offered, so none comes.
                ConnectionState::ReadEarlyData(_) => return Err(TlsError::Endless),
                _ => is_done = true,
            }
            used += discard;
            if is_done {
                return Ok(used);
            }
        }
    }

    /// The alerts that a fault has left to be sent.
    fn tell(&mut self, incoming: &mut [u8], out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(data)) =
                self.connection.process_tls_records(incoming).state
            else {
                return;
            };
            if encode(data, out).is_err() {
                return;
            }
        }
    }

    /// Puts bytes as records behind `out`.
    ///
    /// # Errors
    /// [`TlsError`], also before the handshake is done.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        self.write(out, |traffic, room| traffic.encrypt(plain, room), plain.len())
    }

    /// Puts behind `out` that nothing more comes from here.
    ///
    /// # Errors
    /// [`TlsError`], also before the handshake is done.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        self.write(out, |traffic, room| traffic.queue_close_notify(room), 0)
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        mut write: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
        bytes: usize,
    ) -> Result<(), TlsError> {
        if self.broken {
            return Err(TlsError::Over);
        }
        loop {
            let status = self.connection.process_tls_records(&mut self.rest);
            match status.state? {
                ConnectionState::EncodeTlsData(data) => encode(data, out)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    let n_records = bytes / RECORD_BYTES_MAX + 1;
                    let mut room = bytes + n_records * OVERHEAD_BYTES_MAX;
                    let begin = out.len();
                    loop {
                        out.resize(begin + room, 0);
                        match write(&mut traffic, &mut out[begin..]) {
                            Ok(written) => {
                                out.truncate(begin + written);
                                return Ok(());
                            }
                            Err(EncryptError::InsufficientSize(needed)) => {
                                room = needed.required_size.max(room + 1);
                            }
                            Err(EncryptError::EncryptExhausted) => {
                                out.truncate(begin);
                                return Err(TlsError::Exhausted);
                            }
                        }
                    }
                }
                // The other side has ended its half, which leaves ours.
                ConnectionState::PeerClosed => self.ended = true,
                _ => return Err(rustls::Error::HandshakeNotComplete.into()),
            }
        }
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), TlsError> {
    let begin = out.len();
    let mut room = 4_096;
    loop {
        out.resize(begin + room, 0);
        match data.encode(&mut out[begin..]) {
            Ok(written) => {
                out.truncate(begin + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) => {
                room = needed.required_size.max(room + 1);
            }
            Err(EncodeError::AlreadyEncoded) => {
                out.truncate(begin);
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("rest", &self.rest.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
