//! The fuzzing server of the Autobahn test suite against that part of the client which speaks WebSocket: its own
//! way of dialling, its own link, with an echo in place of the protocol.
//!
//! Autobahn needs Python 2, which Debian does not have any more; `tests/run` has its cases as a table of our own
//! (`tests/conformance/client.rs`). Whoever has Autobahn starts `wstest -m fuzzingserver` and names it:
//! `ROOMKEEPER_AUTOBAHN=ws://127.0.0.1:9001 cargo test -p client_tungstenite autobahn -- --nocapture`.

use std::collections::BTreeMap;

use domain::client::Outbound;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::Options;
use crate::dial::{Target, Tcp, open};
use crate::link::{Heard, Link};

async fn dial(server: &str, path: &str) -> Box<Link> {
    let url = format!("{server}/{path}");
    let target = Target::parse(&url, None).unwrap();
    open(&Tcp, &target, None, &Options::new(url)).await.unwrap()
}

/// Sends back what comes, until the connection is over. Answers the last text.
async fn echo(mut link: Box<Link>, answers: bool) -> String {
    let mut out = Outbound::default();
    let mut last = String::new();
    loop {
        let message = match link.next(&mut out, true).await {
            Heard::Text(text) => {
                last = text.to_string();
                Frame::Text(text)
            }
            Heard::Binary(bytes) => Frame::Binary(bytes),
            Heard::Control | Heard::Sent => continue,
            Heard::Lost(lost) | Heard::Broken(lost) => {
                link.finish(lost.code).await;
                return last;
            }
        };
        if answers {
            // Where it can't be sent any more the end is read next.
            link.echo(message).await.ok();
        }
    }
}

/// K14: none of its cases fails.
#[tokio::test]
async fn autobahns_fuzzing_server_finds_no_failure() {
    let Ok(server) = std::env::var("ROOMKEEPER_AUTOBAHN") else {
        return println!("skipped: no ROOMKEEPER_AUTOBAHN names a fuzzing server");
    };
    let agent = "agent=client_tungstenite";
    let count: u32 = echo(dial(&server, "getCaseCount").await, false).await.parse().unwrap();
    let mut behaviours = BTreeMap::<String, Vec<u32>>::new();
    for case in 1..=count {
        echo(dial(&server, &format!("runCase?case={case}&{agent}")).await, true).await;
        let path = format!("getCaseStatus?case={case}&{agent}");
        let status: Value =
            serde_json::from_str(&echo(dial(&server, &path).await, false).await).unwrap();
        let behaviour = status["behavior"].as_str().unwrap().to_owned();
        behaviours.entry(behaviour).or_default().push(case);
    }
    echo(dial(&server, &format!("updateReports?{agent}")).await, false).await;
    for (behaviour, cases) in &behaviours {
        println!("{behaviour}: {}", cases.len());
    }
    let bad: Vec<_> = behaviours
        .iter()
        .filter(|(word, _)| {
            !matches!(word.as_str(), "OK" | "NON-STRICT" | "INFORMATIONAL" | "UNIMPLEMENTED")
        })
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
}
