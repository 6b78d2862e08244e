//! Whether a server is ready: one request to `/readyz`.
//!
//! It must never take a server that only listens for one that serves: one that stops still listens.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::address::Target;

/// How long each step of one request may take.
const STEP_DEADLINE: Duration = Duration::from_secs(1);
/// `HTTP/1.1 200 `: as much of the answer as is looked at.
const STATUS_BYTES: usize = 13;

/// Whether it takes connections now.
pub(crate) fn is_ready(target: &Target) -> bool {
    ask(target).unwrap_or(false)
}

fn ask(target: &Target) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&target.addr, STEP_DEADLINE)?;
    stream.set_read_timeout(Some(STEP_DEADLINE))?;
    stream.set_write_timeout(Some(STEP_DEADLINE))?;
    let request = format!(
        "GET /readyz HTTP/1.1\r\nHost: {}\r\nUser-Agent: roomkeeper-bench\r\n\
         Connection: close\r\n\r\n",
        target.host
    );
    stream.write_all(request.as_bytes())?;
    let mut status = [0; STATUS_BYTES];
    stream.read_exact(&mut status)?;
    Ok(status.starts_with(b"HTTP/1.") && status.ends_with(b" 200 "))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    /// What becomes of one question to a server that answers so.
    fn asked(answer: &'static str) -> (bool, String) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let target = Target::resolve(&url).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = vec![0; 1024];
            let came = stream.read(&mut head).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(head[..came].to_vec()).unwrap()
        });
        (is_ready(&target), server.join().unwrap())
    }

    #[test]
    fn only_a_server_that_says_so_is_ready() {
        let (ready, head) = asked("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert!(ready && head.starts_with("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:"), "{head}");
        for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP/1.1 2000\r\n", "", "hello"]
        {
            assert!(!asked(answer).0, "{answer}");
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("ws://{}", free.local_addr().unwrap());
        drop(free);
        assert!(!is_ready(&Target::resolve(&url).unwrap()), "nobody listens there");
    }
}
