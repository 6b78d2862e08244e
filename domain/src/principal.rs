//! Who a connection is, and the decision what it may do in a room.
//!
//! A decision needs only the principal, the policy and the room; it must never say yes because
//! something is missing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::decision::Asked;
use crate::id::{Role, TokenId, UserId};
use crate::policy::{Access, NamespacePolicy, Policies};
use crate::room::RoomId;
use crate::time::Wall;

/// What one may do in a room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Become a member and receive.
    Subscribe,
    /// Send to the members.
    Publish,
    /// List the members, follow them, and set one's own presence data.
    Presence,
    /// Read the log.
    History,
    /// Mute, kick, ban, delete.
    Moderate,
}

impl Action {
    /// The word in a token's `allow`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::History => "history",
            Self::Moderate => "moderate",
        }
    }

    /// Every action, in a fixed order.
    pub const ALL: [Self; 5] =
        [Self::Subscribe, Self::Publish, Self::Presence, Self::History, Self::Moderate];

    /// Reads the word in a token's `allow`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.word() == word)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Why a text is not a room pattern.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "a room pattern is a room name, or the beginning of one that names its namespace followed by one *"
)]
pub struct PatternError;

/// Rooms by name: exact, or everything that starts with what stands before a final `*`. The
/// namespace is always spelled out, so no pattern reaches into another namespace.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RoomPattern {
    text: Arc<str>,
    prefix: bool,
}

impl RoomPattern {
    /// Reads a pattern like `chat:guild/42` or `chat:guild/*`.
    ///
    /// # Errors
    /// [`PatternError`] when the text is neither a room name nor `namespace:prefix*`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (body, prefix) = text.strip_suffix('*').map_or((text, false), |body| (body, true));
        // A prefix is a room name once something follows it.
        let sample = if prefix { format!("{body}x") } else { body.to_owned() };
        RoomId::parse(&sample).map_err(|_| PatternError)?;
        Ok(Self { text: Arc::from(body), prefix })
    }

    /// Whether it means many rooms: those whose names begin with it.
    #[must_use]
    pub const fn is_prefix(&self) -> bool {
        self.prefix
    }

    /// The namespace of all rooms that are meant.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.text.split_once(':').map_or(&*self.text, |(namespace, _)| namespace)
    }

    /// Whether every room that the other means is meant.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.prefix { other.text.starts_with(&*self.text) } else { self == other }
    }

    /// The text it was read from.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}{}", self.text, if self.prefix { "*" } else { "" })
    }

    /// Whether the room is meant.
    #[must_use]
    pub fn matches(&self, room: &RoomId) -> bool {
        if self.prefix {
            room.as_str().starts_with(&*self.text)
        } else {
            room.as_str() == &*self.text
        }
    }
}

impl fmt::Display for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.prefix { "*" } else { "" })
    }
}

/// What a token allows in the rooms of one pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    pattern: RoomPattern,
    allowed: u8,
}

impl Grant {
    /// Allows these actions in these rooms.
    #[must_use]
    pub fn new(pattern: RoomPattern, actions: &[Action]) -> Self {
        Self { pattern, allowed: actions.iter().fold(0, |bits, action| bits | action.bit()) }
    }

    /// In which rooms.
    #[must_use]
    pub const fn pattern(&self) -> &RoomPattern {
        &self.pattern
    }

    /// What it allows there.
    pub fn actions(&self) -> impl Iterator<Item = Action> + '_ {
        Action::ALL.into_iter().filter(|action| self.has(*action))
    }

    const fn has(&self, action: Action) -> bool {
        self.allowed & action.bit() != 0
    }

    pub(crate) fn allows(&self, room: &RoomId, action: Action) -> bool {
        self.has(action) && self.pattern.matches(room)
    }
}

/// Which token a principal's rights come from, so that they can be taken back, and used up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Credential {
    /// The token's name (`jti`); none when it has none.
    pub id: Option<TokenId>,
    /// When the token was issued (`iat`); none when it does not say.
    pub issued_at: Option<Wall>,
    /// When the token itself was last verified; none when none was. A ticket passes it on as it is,
    /// so that coming back with tickets never makes it later.
    pub verified_at: Option<Wall>,
    /// Whether the token counts once and has yet to be spent. Nobody is let in while this is set:
    /// whoever lets somebody in spends the token first, and clears it.
    pub once: bool,
}

impl Credential {
    /// The farthest end, from now, of a token that counts once: that it was spent is remembered
    /// until then, and there is room for so many only.
    pub const ONCE_LIFE_MAX: Duration = Duration::from_secs(24 * 3_600);
}

/// Who a connection is: a user that a token names, or nobody in particular.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Principal {
    /// The user; none for an anonymous connection.
    pub user: Option<UserId>,
    /// What the user is called; shown, never trusted.
    pub name: Option<Arc<str>>,
    /// The roles the token names.
    pub roles: Vec<Role>,
    /// What the token allows beyond the policies.
    pub grants: Vec<Grant>,
    /// When the token ends; none for an anonymous connection.
    pub expires_at: Option<Wall>,
    /// The token that all of this comes from; a ticket keeps that of the token it was made for.
    pub credential: Credential,
}

impl Principal {
    /// The most grants one token may carry.
    pub const GRANTS_MAX: usize = 64;
    /// The most roles one token may carry.
    pub const ROLES_MAX: usize = 16;

    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Decides whether this principal may do `action` in `room` under `policy`.
    #[must_use]
    pub fn may(&self, action: Action, room: &RoomId, policy: &NamespacePolicy) -> bool {
        Asked { principal: self, action, room, policy }.decide().allowed
    }

    /// Decides whether this principal may subscribe to all rooms of a pattern, those that don't
    /// exist yet included. One grant has to cover the whole pattern where policy does not.
    #[must_use]
    pub fn may_subscribe_to_all(&self, pattern: &RoomPattern, policies: &Policies) -> bool {
        let by_policy = |policy: &NamespacePolicy| match policy.subscribe {
            Access::Anyone => true,
            Access::Authenticated => self.user.is_some(),
            // Nobody owns all rooms.
            Access::Owner | Access::Granted => false,
        };
        let covers = |grant: &Grant| grant.has(Action::Subscribe) && grant.pattern.covers(pattern);
        let granted = self.grants.iter().any(covers);
        let mut all = policies.of_pattern(pattern).peekable();
        all.peek().is_some() && all.all(|policy| policy.patterns && (granted || by_policy(policy)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Class;
    use crate::retention::Retention;

    fn policy(access: Access) -> NamespacePolicy {
        NamespacePolicy {
            subscribe: access,
            publish: access,
            presence: access,
            history: access,
            presence_listed: true,
            presence_named_max: 1_000,
            retention: Retention::default(),
            default_class: Class::Reliable,
            durable: false,
            replicated: false,
            members_max: 10,
            patterns: true,
        }
    }

    fn room(name: &str) -> RoomId {
        RoomId::parse(name).unwrap()
    }

    #[test]
    fn a_pattern_never_reaches_into_another_namespace() {
        assert!(RoomPattern::parse("*").is_err());
        assert!(RoomPattern::parse("ch*").is_err());
        assert!(RoomPattern::parse("chat:a*b").is_err());
        let guilds = RoomPattern::parse("chat:guild/*").unwrap();
        assert!(guilds.matches(&room("chat:guild/7")));
        assert!(!guilds.matches(&room("chat:guilds")));
        let one = RoomPattern::parse("chat:guild/7").unwrap();
        assert!(!one.matches(&room("chat:guild/77")));
    }

    #[test]
    fn a_grant_allows_its_actions_in_its_rooms_and_nothing_else() {
        let mut who = Principal { user: UserId::parse("u1").ok(), ..Principal::default() };
        who.grants.push(Grant::new(
            RoomPattern::parse("chat:guild/7").unwrap(),
            &[Action::Subscribe, Action::History],
        ));
        let closed = policy(Access::Granted);
        assert!(who.may(Action::Subscribe, &room("chat:guild/7"), &closed));
        assert!(who.may(Action::History, &room("chat:guild/7"), &closed));
        assert!(!who.may(Action::Publish, &room("chat:guild/7"), &closed));
        assert!(!who.may(Action::Subscribe, &room("chat:guild/8"), &closed));
        assert!(!who.may(Action::Moderate, &room("chat:guild/7"), &policy(Access::Anyone)));
    }

    fn policies(namespace: NamespacePolicy, room: Option<(&str, NamespacePolicy)>) -> Policies {
        let mut policies = Policies::default();
        policies.set_namespace("game", namespace);
        if let Some((name, policy)) = room {
            policies.set_room(RoomId::parse(name).unwrap(), policy);
        }
        policies
    }

    #[test]
    fn a_pattern_is_for_whom_policy_or_one_grant_allows_every_room_of_it() {
        let pattern = |text| RoomPattern::parse(text).unwrap();
        let zones = pattern("game:zone/*");
        let mut who = Principal { user: UserId::parse("u1").ok(), ..Principal::default() };
        let open = policies(policy(Access::Authenticated), None);
        assert!(who.may_subscribe_to_all(&zones, &open));
        assert!(!Principal::anonymous().may_subscribe_to_all(&zones, &open));
        assert!(!who.may_subscribe_to_all(&pattern("chat:*"), &open));
        let not_offered = NamespacePolicy { patterns: false, ..policy(Access::Anyone) };
        assert!(!who.may_subscribe_to_all(&zones, &policies(not_offered, None)));
        assert!(!who.may_subscribe_to_all(&zones, &policies(policy(Access::Owner), None)));
        // One room of it that is closed closes the pattern, whatever the namespace allows.
        let closed =
            policies(policy(Access::Anyone), Some(("game:zone/1", policy(Access::Granted))));
        assert!(!who.may_subscribe_to_all(&zones, &closed));
        assert!(who.may_subscribe_to_all(&pattern("game:zone/2*"), &closed));

        let granted = policies(policy(Access::Granted), None);
        assert!(!who.may_subscribe_to_all(&zones, &granted));
        who.grants.push(Grant::new(pattern("game:zone/*"), &[Action::Subscribe]));
        assert!(who.may_subscribe_to_all(&zones, &granted));
        assert!(who.may_subscribe_to_all(&pattern("game:zone/7*"), &granted));
        assert!(!who.may_subscribe_to_all(&pattern("game:*"), &granted));
        assert!(who.may_subscribe_to_all(&zones, &closed));
    }

    #[test]
    fn an_owners_room_is_closed_to_everyone_else() {
        let who = Principal { user: UserId::parse("u1").ok(), ..Principal::default() };
        let own = policy(Access::Owner);
        assert!(who.may(Action::Subscribe, &room("user:u1"), &own));
        assert!(!who.may(Action::Subscribe, &room("user:u2"), &own));
        assert!(!Principal::anonymous().may(Action::Subscribe, &room("user:u1"), &own));
    }
}
