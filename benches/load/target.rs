//! The two servers that are measured, as what is said to them. The same messages go to both; only
//! what is wrapped around them differs, which is part of what is compared.

#[derive(Clone)]
pub(crate) enum TargetKind {
    Roomkeeper,
    Floor,
}

#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    pub(crate) token: Option<String>,
    /// With it, connections come back instead of coming for the first time.
    pub(crate) back: Option<Back>,
}

/// What it takes to come back.
#[derive(Clone)]
pub(crate) struct Back {
    pub(crate) session: String,
    /// Of each room.
    pub(crate) epochs: Vec<String>,
    /// Where everybody stands, in every room.
    pub(crate) offset: u64,
}

/// What a text from the server means to a member, when it is no message.
pub(crate) enum Notice {
    Joined,
    Ping,
    Refused,
    Other,
}

impl Target {
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            TargetKind::Roomkeeper => "roomkeeper",
            TargetKind::Floor => "floor",
        }
    }

    /// Path and query of the upgrade.
    pub(crate) fn path(&self, room: usize) -> String {
        match (&self.kind, &self.token) {
            (TargetKind::Floor, _) => format!("/ws?room=r{room}"),
            (TargetKind::Roomkeeper, _) if self.back.is_some() => "/ws/v2/connect".to_owned(),
            (TargetKind::Roomkeeper, None) => "/ws/v2/connect".to_owned(),
            (TargetKind::Roomkeeper, Some(token)) => format!("/ws/v2/connect?token={token}"),
        }
    }

    /// What is said once the socket is open; where it is nothing, the upgrade was the joining.
    pub(crate) fn join(&self, room: usize) -> Option<String> {
        match (&self.kind, &self.back) {
            (TargetKind::Floor, _) => None,
            (TargetKind::Roomkeeper, None) => Some(self.subscribe(room)),
            (TargetKind::Roomkeeper, Some(back)) => Some(connect(room, back)),
        }
    }

    pub(crate) fn subscribe(&self, room: usize) -> String {
        format!(r#"{{"type":"subscribe","id":1,"room":"public:r{room}"}}"#)
    }

    pub(crate) fn publish(&self, room: usize, data: &str) -> String {
        match self.kind {
            TargetKind::Floor => data.to_owned(),
            TargetKind::Roomkeeper => {
                format!(r#"{{"type":"publish","room":"public:r{room}","data":"{data}"}}"#)
            }
        }
    }

    pub(crate) fn notice(&self, text: &[u8]) -> Notice {
        let is = |kind: &str| text.starts_with(format!(r#"{{"type":"{kind}""#).as_bytes());
        match self.kind {
            TargetKind::Floor => Notice::Other,
            TargetKind::Roomkeeper if is("subscribed") => Notice::Joined,
            TargetKind::Roomkeeper if self.back.is_some() && is("hello") => Notice::Joined,
            TargetKind::Roomkeeper if is("ping") => Notice::Ping,
            TargetKind::Roomkeeper if is("error") || is("unsubscribed") => Notice::Refused,
            TargetKind::Roomkeeper => Notice::Other,
        }
    }

    /// The answer to a ping of the target's own protocol.
    pub(crate) fn pong(&self) -> &'static [u8] {
        br#"{"type":"pong"}"#
    }
}

/// Coming back to one room with a ticket.
fn connect(room: usize, back: &Back) -> String {
    let Back { session, epochs, offset } = back;
    let epoch = &epochs[room];
    let entry = format!(r#"{{"room":"public:r{room}","epoch":"{epoch}","offset":{offset}}}"#);
    format!(r#"{{"type":"connect","id":1,"session":"{session}","resume":[{entry}]}}"#)
}
