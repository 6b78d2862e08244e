//! Plain echo of text and binary: what a conformance suite talks to.
//!
//! It knows no rooms and no protocol. A client that does not read its echoes is not read.

use std::any::Any;
use std::io;
use std::rc::Rc;

use domain::rate_limit::RateLimiter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use websocket_codec::{
    CloseCode, Decoder, Event, Opcode, Role, encode_close, encode_frame, encode_pong,
};

use crate::core::{Core, Counted};

pub(crate) fn start(
    core: &Rc<Core>,
    stream: TcpStream,
    early: &[u8],
    permit: Option<Box<dyn Any + Send>>,
) {
    let counted = core.counted(permit);
    let session = Session {
        core: Rc::clone(core),
        stream,
        decoder: Decoder::new(Role::Server),
        pings: RateLimiter::default(),
        out: Vec::new(),
        closing: false,
        _counted: counted,
    };
    let early = early.to_vec();
    spawn_local(async move {
        // Its end, in whatever way, is all there is to know.
        let _ = session.run(early).await;
    });
}

struct Session {
    core: Rc<Core>,
    stream: TcpStream,
    decoder: Decoder,
    pings: RateLimiter,
    out: Vec<u8>,
    closing: bool,
    _counted: Counted,
}

impl Session {
    async fn run(mut self, mut early: Vec<u8>) -> io::Result<()> {
        self.decode(&mut early);
        drop(early);
        loop {
            if !self.out.is_empty() {
                let out = std::mem::take(&mut self.out);
                timeout(self.core.config.lag_max, self.stream.write_all(&out)).await??;
            }
            if self.closing {
                return self.close().await;
            }
            self.stream.readable().await?;
            let core = Rc::clone(&self.core);
            let mut buffer = core.read_buffer.borrow_mut();
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => self.decode(&mut buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn decode(&mut self, input: &mut [u8]) {
        let mut used = 0;
        while used < input.len() && !self.closing {
            match self.decoder.decode(&mut input[used..], &self.core.limits) {
                Ok(decoded) => {
                    used += decoded.used;
                    if let Some(event) = decoded.event {
                        self.answer(event);
                    }
                }
                Err(error) => self.end(error.close_code()),
            }
        }
    }

    fn answer(&mut self, event: Event<'_>) {
        let frame = match event {
            Event::Text(text) => encode_frame(Opcode::Text, true, text.as_bytes()),
            Event::Binary(data) => encode_frame(Opcode::Binary, true, &data),
            Event::Ping(payload) => {
                let (now, rate) = (self.core.now().monotonic, self.core.config.pings);
                if self.pings.take(rate, now).is_err() {
                    return self.end(CloseCode::POLICY_VIOLATION);
                }
                encode_pong(&payload)
            }
            Event::Pong(_) => return,
            Event::Close(frame) => {
                return self.end(frame.map_or(CloseCode::NORMAL, |frame| frame.code));
            }
        };
        self.out.extend_from_slice(&frame);
    }

    fn end(&mut self, code: CloseCode) {
        self.out.extend_from_slice(&encode_close(code, ""));
        self.closing = true;
    }

    /// Waits for the other side to end, so that it sees the close frame.
    async fn close(mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let rest = async {
            let mut sink = [0; 4096];
            while self.stream.read(&mut sink).await? > 0 {}
            Ok(())
        };
        timeout(self.core.config.close_timeout, rest).await?
    }
}
