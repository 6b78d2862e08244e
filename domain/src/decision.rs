//! May somebody do a thing in a room, and which rule says so.
//!
//! A decision needs only the principal, the policy and the room. It must never say yes because
//! something is missing, and it costs no allocation: the words are made only when asked for.

use std::fmt;

use crate::policy::{Access, NamespacePolicy};
use crate::principal::{Action, Principal};
use crate::room::RoomId;

/// What decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// The room's policy lets this principal.
    Policy(Access),
    /// The token's grant with this place in its list, from 0.
    Grant(usize),
    /// Neither: the policy asks for this, and no grant of the token fits.
    Nothing(Access),
}

/// The answer and the rule behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// What decided.
    pub rule: Rule,
}

/// The whole question, for words about its answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// For what.
    pub action: Action,
    /// Where.
    pub room: &'a RoomId,
    /// The room's policy.
    pub policy: &'a NamespacePolicy,
}

/// Who may do a thing by the policy alone. Moderating is nothing that a policy gives away.
const fn access(policy: &NamespacePolicy, action: Action) -> Access {
    match action {
        Action::Subscribe => policy.subscribe,
        Action::Publish => policy.publish,
        Action::Presence => policy.presence,
        Action::History => policy.history,
        Action::Moderate => Access::Granted,
    }
}

impl Asked<'_> {
    /// Decides by the policy and, where that does not allow it, by the token's grants.
    #[must_use]
    pub fn decide(&self) -> Decision {
        let Self { principal, action, room, policy } = *self;
        let access = access(policy, action);
        let by_policy = match access {
            Access::Anyone => true,
            Access::Authenticated => principal.user.is_some(),
            Access::Owner => principal.user.as_ref().is_some_and(|u| u.as_str() == room.rest()),
            Access::Granted => false,
        };
        if by_policy {
            return Decision { allowed: true, rule: Rule::Policy(access) };
        }
        match principal.grants.iter().position(|grant| grant.allows(room, action)) {
            Some(place) => Decision { allowed: true, rule: Rule::Grant(place) },
            None => Decision { allowed: false, rule: Rule::Nothing(access) },
        }
    }

    /// The answer in words for whoever sets up tokens and policies: which rule decided, and what
    /// would have been needed. For the command line and for development, never for strangers.
    #[must_use]
    pub fn explain(&self) -> String {
        Explained(self).to_string()
    }
}

/// The word of an access in the settings.
const fn word(access: Access) -> &'static str {
    match access {
        Access::Anyone => "anyone",
        Access::Authenticated => "authenticated",
        Access::Granted => "granted",
        Access::Owner => "owner",
    }
}

struct Explained<'a>(&'a Asked<'a>);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { principal, action, room, .. } = *self.0;
        let (decision, action) = (self.0.decide(), action.word());
        let verdict = if decision.allowed { "allowed" } else { "denied" };
        write!(f, "{verdict}: {action} in {room}: ")?;
        match decision.rule {
            Rule::Policy(access) => {
                write!(f, "the policy of the room says {action} = {}", word(access))
            }
            Rule::Grant(place) => {
                let pattern = principal.grants.get(place).map(|grant| grant.pattern().to_text());
                let pattern = pattern.unwrap_or_default();
                write!(f, "rooms[{place}] of the token ({pattern}) allows {action}")
            }
            Rule::Nothing(access) => {
                write!(f, "the policy of the room says {action} = {}", word(access))?;
                self.needed(f, access)
            }
        }
    }
}

impl Explained<'_> {
    /// What stood in the way, and the grant that comes nearest.
    fn needed(&self, f: &mut fmt::Formatter<'_>, access: Access) -> fmt::Result {
        let Asked { principal, action, room, .. } = *self.0;
        let Some(user) = &principal.user else {
            return f.write_str(", and there is no token");
        };
        if access == Access::Owner {
            write!(f, ", and the user is {user}, not {}", room.rest())?;
        }
        let grants = principal.grants.iter().enumerate();
        let (mut here, mut there) = (None, None);
        for (place, grant) in grants {
            if grant.pattern().matches(room) {
                here.get_or_insert((place, grant));
            } else if grant.actions().any(|allowed| allowed == action) {
                there.get_or_insert((place, grant));
            }
        }
        let wanted = action.word();
        match (here, there) {
            (Some((place, grant)), _) => {
                let actions: Vec<_> = grant.actions().map(Action::word).collect();
                let (pattern, actions) = (grant.pattern().to_text(), actions.join(", "));
                write!(
                    f,
                    ", and rooms[{place}] of the token ({pattern}) allows [{actions}] without \
                     {wanted}"
                )
            }
            (None, Some((place, grant))) => {
                let pattern = grant.pattern().to_text();
                write!(f, ", and rooms[{place}] of the token allows {wanted} only in {pattern}")
            }
            (None, None) => write!(
                f,
                ", and none of the token's {} grants allows {wanted} there",
                principal.grants.len()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Class;
    use crate::id::UserId;
    use crate::principal::{Grant, RoomPattern};
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
            patterns: false,
        }
    }

    fn user(grants: &[(&str, &[Action])]) -> Principal {
        let grants = grants
            .iter()
            .map(|(pattern, actions)| Grant::new(RoomPattern::parse(pattern).unwrap(), actions));
        Principal {
            user: UserId::parse("ada").ok(),
            grants: grants.collect(),
            ..Principal::default()
        }
    }

    fn decide(principal: &Principal, action: Action, room: &str, access: Access) -> Decision {
        let (room, policy) = (RoomId::parse(room).unwrap(), policy(access));
        Asked { principal, action, room: &room, policy: &policy }.decide()
    }

    #[test]
    fn the_policy_is_asked_first_and_then_the_grants_in_their_order() {
        let who = user(&[
            ("chat:b/*", &[Action::Publish]),
            ("chat:a/*", &[Action::Publish]),
            ("chat:a/1", &[Action::Publish]),
        ]);
        let by = |access| decide(&who, Action::Publish, "chat:a/1", access);
        let policy = |access| Decision { allowed: true, rule: Rule::Policy(access) };
        assert_eq!(by(Access::Anyone), policy(Access::Anyone));
        assert_eq!(by(Access::Authenticated), policy(Access::Authenticated));
        assert_eq!(by(Access::Granted), Decision { allowed: true, rule: Rule::Grant(1) });
        assert_eq!(by(Access::Owner), Decision { allowed: true, rule: Rule::Grant(1) });
        let own = decide(&who, Action::Publish, "user:ada", Access::Owner);
        assert_eq!(own, policy(Access::Owner));
    }

    #[test]
    fn nothing_that_is_missing_says_yes() {
        let nobody = Principal::anonymous();
        for access in [Access::Authenticated, Access::Granted, Access::Owner] {
            for action in Action::ALL {
                assert!(!decide(&nobody, action, "chat:a", access).allowed, "{action:?}");
            }
        }
        // No policy gives moderating away, not even to everyone.
        assert!(!decide(&user(&[]), Action::Moderate, "chat:a", Access::Anyone).allowed);
    }

    #[test]
    fn the_words_name_the_rule_and_what_comes_nearest() {
        let room = RoomId::parse("chat:guild/7").unwrap();
        let granted = policy(Access::Granted);
        let explain = |principal: &Principal, policy| {
            Asked { principal, action: Action::Publish, room: &room, policy }.explain()
        };
        let words = |text: &str, wanted: &str| assert!(text.contains(wanted), "{text}");
        let anyone = policy(Access::Anyone);
        words(&explain(&Principal::anonymous(), &anyone), "allowed: publish in chat:guild/7");
        words(&explain(&Principal::anonymous(), &anyone), "publish = anyone");
        words(&explain(&Principal::anonymous(), &granted), "there is no token");
        let fits = user(&[("chat:guild/*", &[Action::Publish])]);
        words(&explain(&fits, &granted), "rooms[0] of the token (chat:guild/*) allows publish");
        let less = user(&[("chat:x", &[]), ("chat:guild/7", &[Action::Subscribe])]);
        words(&explain(&less, &granted), "rooms[1] of the token (chat:guild/7) allows [subscribe]");
        let elsewhere = user(&[("chat:guild/8", &[Action::Publish])]);
        words(&explain(&elsewhere, &granted), "only in chat:guild/8");
        words(&explain(&user(&[]), &granted), "none of the token's 0 grants");
        words(&explain(&user(&[]), &policy(Access::Owner)), "the user is ada, not guild/7");
    }
}
