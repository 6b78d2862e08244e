//! The servers and endpoints that are measured, as what is said to them. The same messages go to all;
//! only what is wrapped around them differs, which is part of what is compared.

#[derive(Clone)]
pub(crate) enum TargetKind {
    Roomkeeper,
    Floor,
    /// `/ws/chat`.
    Chat,
    /// The room of `/ws/chat` over protocol v2.
    ChatV2,
}

#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    pub(crate) token: Option<String>,
    /// One for each room, instead.
    pub(crate) tokens: Vec<String>,
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
            TargetKind::Chat => "chat",
            TargetKind::ChatV2 => "chat-v2",
        }
    }

    /// Path and query of the upgrade.
    pub(crate) fn path(&self, room: usize) -> String {
        let token = || self.tokens.get(room).or(self.token.as_ref()).map_or("", String::as_str);
        match (&self.kind, &self.token) {
            (TargetKind::Floor, _) => format!("/ws?room=r{room}"),
            (TargetKind::Chat, _) => format!("/ws/chat?token={}", token()),
            (TargetKind::ChatV2, _) => format!("/ws/v2/connect?token={}", token()),
            (TargetKind::Roomkeeper, _) if self.back.is_some() => "/ws/v2/connect".to_owned(),
            (TargetKind::Roomkeeper, None) => "/ws/v2/connect".to_owned(),
            (TargetKind::Roomkeeper, Some(token)) => format!("/ws/v2/connect?token={token}"),
        }
    }

    /// What is said once the socket is open; where it is nothing, the upgrade was the joining.
    pub(crate) fn join(&self, room: usize) -> Option<String> {
        match (&self.kind, &self.back) {
            (TargetKind::Floor, _) => None,
            // It is in the room already; the answer comes behind the greeting.
            (TargetKind::Chat, _) => Some(r#"{"type":"ping"}"#.to_owned()),
            (TargetKind::ChatV2, _) => {
                Some(r#"{"type":"subscribe","id":1,"room":"chat:global"}"#.to_owned())
            }
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
            TargetKind::Chat => format!(r#"{{"type":"chat_message","content":"{data}"}}"#),
            TargetKind::ChatV2 => format!(
                r#"{{"type":"publish","room":"chat:global","data":{{"type":"chat_message","content":"{data}"}}}}"#
            ),
            TargetKind::Roomkeeper => {
                format!(r#"{{"type":"publish","room":"public:r{room}","data":"{data}"}}"#)
            }
        }
    }

    pub(crate) fn notice(&self, text: &[u8]) -> Notice {
        let is = |kind: &str| text.starts_with(format!(r#"{{"type":"{kind}""#).as_bytes());
        match self.kind {
            TargetKind::Floor => Notice::Other,
            TargetKind::Chat if is("pong") => Notice::Joined,
            _ if is("subscribed") => Notice::Joined,
            _ if self.back.is_some() && is("hello") => Notice::Joined,
            _ if is("ping") => Notice::Ping,
            _ if is("error") || is("unsubscribed") || is("channel_left") => Notice::Refused,
            TargetKind::Roomkeeper | TargetKind::Chat | TargetKind::ChatV2 => Notice::Other,
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
