//! The two servers that are measured, as what is said to them. The same messages go to both; only
//! what is wrapped around them differs, which is part of what is compared.

pub(crate) enum TargetKind {
    Roomkeeper,
    Floor,
}

pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    pub(crate) token: Option<String>,
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
            (TargetKind::Roomkeeper, None) => "/ws/v2/connect".to_owned(),
            (TargetKind::Roomkeeper, Some(token)) => format!("/ws/v2/connect?token={token}"),
        }
    }

    /// What is said once the socket is open; where it is nothing, the upgrade was the joining.
    pub(crate) fn join(&self, room: usize) -> Option<String> {
        match self.kind {
            TargetKind::Floor => None,
            TargetKind::Roomkeeper => {
                Some(format!(r#"{{"type":"subscribe","id":1,"room":"public:r{room}"}}"#))
            }
        }
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
