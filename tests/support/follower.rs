//! Who follows a room's presence, as the protocol's document says how.
//!
//! It must never repair what it was told: a test compares it with the truth.

use std::collections::BTreeMap;

use serde_json::Value;

/// What one follower knows.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    /// The number of the last change that it knows of.
    pub seq: u64,
    /// How many there are.
    pub total: u64,
    /// Who is there, with what they show; none while that is not known.
    pub members: Option<BTreeMap<String, Value>>,
    /// Whether only their number is told.
    pub is_counted: bool,
}

impl Follower {
    /// A frame came. Answers whether the list has to be asked for.
    ///
    /// # Panics
    /// When a frame of presence lacks what it has to have.
    pub fn hear(&mut self, frame: &Value) -> bool {
        let number = |field: &str| frame[field].as_u64().expect("a number");
        match frame["type"].as_str() {
            Some("presence") => return self.listed(frame, number("seq"), number("total")),
            Some("presence_event") => {
                let seq = number("seq");
                return self.changed((seq, seq), std::slice::from_ref(frame), None);
            }
            Some("presence_events") => {
                let changes = frame["changes"].as_array().expect("a list");
                return self.changed(
                    (number("from"), number("seq")),
                    changes,
                    Some(number("total")),
                );
            }
            Some("presence_count") => {
                (self.seq, self.total) = (number("seq").max(self.seq), number("total"));
                (self.members, self.is_counted) = (None, true);
            }
            _ => {}
        }
        false
    }

    fn listed(&mut self, list: &Value, seq: u64, total: u64) -> bool {
        if seq < self.seq {
            return !self.is_counted;
        }
        let members = list["members"].as_array().expect("a list").iter();
        let member = |m: &Value| (name(&m["user_id"]), m["data"].clone());
        (self.seq, self.total, self.is_counted) = (seq, total, false);
        self.members = Some(members.map(member).collect());
        false
    }

    fn changed(&mut self, (from, seq): (u64, u64), changes: &[Value], total: Option<u64>) -> bool {
        if seq <= self.seq {
            return false;
        }
        let is_next = from <= self.seq + 1;
        self.seq = seq;
        let Some(members) = self.members.as_mut() else { return false };
        if !is_next {
            self.members = None;
            return true;
        }
        for change in changes {
            if change["event"] == "leave" {
                members.remove(&name(&change["user_id"]));
            } else {
                members.insert(name(&change["user_id"]), change["data"].clone());
            }
        }
        self.total = total.unwrap_or(members.len() as u64);
        false
    }
}

fn name(value: &Value) -> String {
    value.as_str().expect("a name").to_owned()
}
