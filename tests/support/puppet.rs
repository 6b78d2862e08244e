//! A client in another language that does what the test says: people on devices, played by the scripts
//! `puppet` of `tests/node` and `tests/python`.
//!
//! It must never outlive its test, nor wait longer than [`SOON`] for anything.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::foreign::{Tool, script};
use crate::leaks;

/// How long anything may take.
pub const SOON: Duration = Duration::from_secs(20);

/// The running script, and what it told of each device and nobody has looked at yet.
#[derive(Debug)]
pub struct Puppet {
    child: Child,
    orders: ChildStdin,
    told: Receiver<Value>,
    of_devices: BTreeMap<String, VecDeque<Value>>,
}

impl Puppet {
    /// Starts it for a server at `ws://…`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start(tool: Tool, url: &str) -> Self {
        let mut command: Command = script(tool, "puppet");
        command.args(["--url", url]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // It sends what it is told to, so that is known here.
        command.env_remove(leaks::RECORD);
        let mut child = command.spawn().expect("the script starts");
        let orders = child.stdin.take().expect("its input is a pipe");
        let out = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let (tell, told) = channel();
        // Ends with the script's output.
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("the script tells JSON");
                if tell.send(value).is_err() {
                    return;
                }
            }
        });
        Self { child, orders, told, of_devices: BTreeMap::new() }
    }

    fn order(&mut self, order: &Value) {
        writeln!(self.orders, "{order}").expect("the script listens");
    }

    /// Connects a device and waits until it is connected.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn open(&mut self, device: &str, path: &str, token: &str) {
        self.order(&json!({"open": device, "path": path, "token": token}));
        let told = self.next(device);
        assert_eq!(told["opened"], true, "{told}");
    }

    /// Sends a text from a device.
    pub fn say(&mut self, device: &str, message: &Value) {
        let text = message.to_string();
        leaks::remember(&text);
        self.order(&json!({"say": device, "text": text}));
    }

    /// Closes a device and waits until it is closed.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn close(&mut self, device: &str) {
        self.order(&json!({"close": device}));
        while self.next(device).get("closed").is_none() {}
    }

    /// The next message of a device, which has to be of this type.
    ///
    /// # Panics
    ///
    /// When it is another one, or none comes.
    pub fn expect(&mut self, device: &str, kind: &str) -> Value {
        let told = self.next(device);
        let text = told["text"].as_str().unwrap_or_else(|| panic!("{device}: {told}"));
        let message: Value = serde_json::from_str(text).expect("a message is JSON");
        assert_eq!(message["type"], kind, "{device}: {text}");
        message
    }

    /// The code with which a device was closed, whatever came before.
    ///
    /// # Panics
    ///
    /// When it is not closed.
    pub fn closed(&mut self, device: &str) -> u64 {
        loop {
            if let Some(code) = self.next(device).get("closed") {
                return code.as_u64().expect("a code is a number");
            }
        }
    }

    /// Nothing has come to a device that nobody looked at: the answer to a `ping` is next.
    pub fn hears_nothing(&mut self, device: &str) {
        self.say(device, &json!({"type": "ping"}));
        self.expect(device, "pong");
    }

    fn next(&mut self, device: &str) -> Value {
        loop {
            if let Some(told) = self.of_devices.get_mut(device).and_then(VecDeque::pop_front) {
                return told;
            }
            let told = self.told.recv_timeout(SOON);
            let told = told.unwrap_or_else(|error| panic!("{device} hears nothing: {error}"));
            let of = told["from"].as_str().expect("it says of whom").to_owned();
            self.of_devices.entry(of).or_default().push_back(told);
        }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
