//! Use case *connect*: from the upgrade to `hello`, and *revalidate*: a fresh token in place.
//!
//! Nobody is greeted before it is known who it is, or that nobody in particular is let in.

use std::sync::Arc;

use domain::codes::{CloseCode, ErrorCode};
use domain::connection::Connection;
use domain::id::ConnectionId;
use domain::membership::{MemberState, Membership};
use domain::principal::{Action, Principal};
use domain::protocol::{Resume, Resumed, ServerFrame};
use domain::rate_limit::RateLimiter;

use super::calls::Outcome;
use super::table::{Door, Entry};
use super::{Host, Opening, Shard, Slot};
use crate::extensions::middleware::{Context, Who};
use crate::refusal::Refusal;
use crate::security::SecurityEvent;
use crate::traces::{self, traced};
use crate::use_cases::authenticate::{
    Authenticate, AuthenticateError, Authenticated, Credentials, identify,
};

/// What this server offers, in `hello.features`.
const FEATURES: [&str; 8] =
    ["recovery", "history", "presence", "dedup", "echo_control", "classes", "refresh", "resume"];

impl Shard {
    pub(super) fn open(&mut self, slot: Slot, opening: Opening, host: &mut Host<'_>) {
        let rules = &self.services.rules;
        let who = Who {
            connection: opening.connection,
            client: opening.client,
            principal: Arc::new(Principal::anonymous()),
            context: Context::default(),
        };
        let entry = Entry {
            generation: slot.generation,
            who: Arc::new(who),
            life: Connection::opening(host.now, &rules.timing),
            rooms: Membership::default(),
            greeted: false,
            door: if opening.token.is_some() { Door::Named } else { Door::Open },
            calls: 0,
            inbox: None,
            pages: None,
            commands: RateLimiter::default(),
            refused_commands: RateLimiter::default(),
            unparsable: RateLimiter::default(),
            opened_at: host.now.wall,
            visit_at: None,
            admission: None,
            echoes: Vec::new(),
            publishing: None,
            leaving: false,
        };
        let deadline = host.now.monotonic.after(rules.timing.authentication_timeout);
        let asks_nobody = rules.allow_anonymous && rules.middleware.is_empty();
        let may_wait = !rules.allow_anonymous;
        self.table.insert(slot, Box::new(entry));
        self.metrics.opened.add(1);
        self.table.sent_at[slot.index as usize] = host.now.monotonic;
        self.visit_at(slot, deadline);
        if self.draining.is_some() {
            self.end(slot, CloseCode::ServiceRestart, None, host);
        } else if opening.conflicting_tokens {
            let event = SecurityEvent::AuthenticationFailed;
            self.note_because(slot, event, Some("conflicting_tokens"), host.now);
            self.end(slot, CloseCode::Unauthenticated, None, host);
        } else if let Some(token) = opening.token {
            let credentials = Credentials { session: None, token: Some(token) };
            self.authenticate(slot, None, credentials, Vec::new());
        } else if asks_nobody {
            self.let_in(slot, host);
            self.hello(slot, None, &[], host);
        } else if !may_wait {
            self.authenticate(slot, None, Credentials::default(), Vec::new());
        }
    }

    /// The `connect` command: who the client is and where it was, once and before the first room.
    pub(super) fn connect(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        credentials: Credentials,
        resume: Vec<Resume>,
        host: &mut Host<'_>,
    ) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        let services = &self.services;
        let names_another = |session: &String| {
            let opened = services.ports.session_tickets.open(session, host.now.wall);
            opened.is_ok_and(|ticket| ticket.user != entry.who.principal.user)
        };
        let refusal = match entry.door {
            Door::Shut => Some(("connect comes once, before the first subscribe", None)),
            Door::Named if credentials.token.is_some() => {
                Some(("a token came with the upgrade already", Some("token")))
            }
            Door::Named if credentials.session.as_ref().is_some_and(names_another) => {
                Some(("the ticket is another user's than the token", Some("session")))
            }
            Door::Named | Door::Open => None,
        };
        if let Some((message, field)) = refusal {
            let mut refusal = Refusal::new(ErrorCode::AlreadyConnected, message);
            refusal.field = field.map(Into::into);
            return self.refuse(slot, command, &refusal, host);
        }
        let was_named = std::mem::replace(&mut entry.door, Door::Shut) == Door::Named;
        if was_named || (credentials == Credentials::default() && entry.greeted) {
            // It is known who it is, or let in as nobody in particular; that does not change.
            self.bring_back(slot, command, resume, host);
        } else {
            self.authenticate(slot, command, credentials, resume);
        }
    }

    fn authenticate(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        credentials: Credentials,
        resume: Vec<Resume>,
    ) {
        let Some(who) = self.who(slot) else { return };
        let span = traces::of_command("connect", &who, None, None);
        let call = Authenticate { services: Arc::clone(&self.services), who, credentials };
        let future =
            Box::pin(
                async move { Outcome::Authenticated { result: call.execute().await, resume } },
            );
        self.call(slot, command, None, traced(span, future));
    }

    pub(super) fn finish_open(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        result: Result<Authenticated, AuthenticateError>,
        resume: Vec<Resume>,
        host: &mut Host<'_>,
    ) {
        match result {
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "connection refused");
                self.end(slot, error.close_code(), None, host);
            }
            Ok(authenticated) => {
                if let Some(entry) = self.table.get_mut(slot) {
                    entry.who = authenticated.who;
                    entry.admission = authenticated.admission;
                }
                self.let_in(slot, host);
                self.bring_back(slot, command, resume, host);
            }
        }
    }

    /// From here on the connection lives by its heartbeat and its token, and no longer by how long
    /// it takes to say who it is.
    fn let_in(&mut self, slot: Slot, host: &Host<'_>) {
        let timing = self.services.rules.timing;
        let Some(entry) = self.table.get_mut(slot) else { return };
        entry.greeted = true;
        let visit = entry.life.opened(host.now, entry.who.principal.expires_at, &timing);
        self.visit_at(slot, visit);
    }

    pub(super) fn hello(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        resumed: &[Resumed<'_>],
        host: &mut Host<'_>,
    ) {
        let services = Arc::clone(&self.services);
        let Some(who) = self.who(slot) else { return };
        let session = services.ports.session_tickets.seal(&who.principal, host.now.wall);
        let interval = services.rules.timing.heartbeat_interval.as_millis();
        let hello = ServerFrame::Hello {
            id: command,
            features: &FEATURES,
            request_id: &request_id(who.connection),
            client_id: &who.client,
            connection_id: who.connection,
            user_id: who.principal.user.as_ref(),
            session: session.as_deref(),
            resumed,
            heartbeat_interval_ms: u64::try_from(interval).unwrap_or(u64::MAX),
        };
        self.tell(slot, &hello, host);
    }

    /// The `refresh` command: a fresh token of the same user.
    pub(super) fn refresh(&mut self, slot: Slot, command: Option<u64>, token: String) {
        let Some(who) = self.who(slot) else { return };
        let services = Arc::clone(&self.services);
        let future = Box::pin(async move {
            let credentials = Credentials { session: None, token: Some(token) };
            Outcome::Refreshed(identify(&services, &who, &credentials).await)
        });
        self.call(slot, command, None, future);
    }

    pub(super) fn finish_refresh(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        result: Result<Principal, AuthenticateError>,
        host: &mut Host<'_>,
    ) {
        let services = Arc::clone(&self.services);
        let Some(entry) = self.table.get_mut(slot) else { return };
        let principal = match result {
            Ok(fresh) if fresh.user == entry.who.principal.user => fresh,
            Ok(_) => {
                let event = SecurityEvent::AuthenticationFailed;
                self.note_because(slot, event, Some("other_user"), host.now);
                self.end(slot, CloseCode::Unauthenticated, None, host);
                return;
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "token not refreshed");
                self.end(slot, error.close_code(), None, host);
                return;
            }
        };
        let expires_at = principal.expires_at;
        let session = services.ports.session_tickets.seal(&principal, host.now.wall);
        entry.who = Arc::new(Who { principal: Arc::new(principal), ..(*entry.who).clone() });
        let visit = entry.life.renewed(host.now, expires_at, &services.rules.timing);
        self.visit_at(slot, visit);
        let session = session.as_deref();
        self.tell(slot, &ServerFrame::Refreshed { id: command, expires_at, session }, host);
        self.revalidate(slot, host);
    }

    /// Ends the memberships that a connection's token does not allow any more.
    fn revalidate(&mut self, slot: Slot, host: &mut Host<'_>) {
        let Some(entry) = self.table.get(slot) else { return };
        let lost: Vec<_> = entry
            .rooms
            .rooms()
            .filter(|key| {
                self.rooms.get(*key).is_some_and(|slice| {
                    let principal = &entry.who.principal;
                    !principal.may(Action::Subscribe, &slice.id, &slice.policy)
                })
            })
            .collect();
        self.unfollow(slot);
        for key in lost {
            let Some(room) = self.rooms.get(key).map(|slice| slice.id.clone()) else { continue };
            self.leave_now(slot, key, host);
            let code = ErrorCode::PermissionDenied;
            let frame = ServerFrame::Unsubscribed {
                id: None,
                room: &room,
                code: Some(code.number()),
                reason: Some(code.word()),
            };
            self.tell(slot, &frame, host);
        }
    }

    /// Ends the following of presence where a connection's token does not allow it any more.
    fn unfollow(&mut self, slot: Slot) {
        let Some(entry) = self.table.get(slot) else { return };
        for key in entry.rooms.rooms() {
            let Some(slice) = self.rooms.get_mut(key) else { continue };
            if entry.who.principal.may(Action::Presence, &slice.id, &slice.policy) {
                continue;
            }
            let follows = match entry.rooms.state(key) {
                Some(MemberState::Live(place)) => {
                    std::mem::take(&mut slice.members[place as usize].presence)
                }
                Some(MemberState::Joining) => {
                    slice.joiner(slot).is_some_and(|joiner| std::mem::take(&mut joiner.presence))
                }
                None => false,
            };
            slice.n_followers -= u32::from(follows);
        }
    }

    pub(super) fn who(&self, slot: Slot) -> Option<Arc<Who>> {
        self.table.get(slot).map(|entry| Arc::clone(&entry.who))
    }
}

/// What a client quotes when it asks for help; finds the connection in the log.
pub(crate) fn request_id(connection: ConnectionId) -> String {
    format!("r-{connection}")
}
