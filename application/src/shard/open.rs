//! Use case *connect*: from the upgrade to `hello`, and *revalidate*: a fresh token in place.
//!
//! Nobody is greeted before it is known who it is, or that nobody in particular is let in.

use std::sync::Arc;

use domain::codes::{CloseCode, ErrorCode};
use domain::connection::Connection;
use domain::id::ConnectionId;
use domain::membership::Membership;
use domain::protocol::{Resume, Resumed, ServerFrame};
use domain::rate_limit::RateLimiter;
use domain::time::Wall;
use smallvec::SmallVec;

use super::calls::Outcome;
use super::own_room::OwnRoom;
use super::resume::Entrance;
use super::seated::refused;
use super::table::{Door, Entry};
use super::{Host, Opening, Shard, Slot};
use crate::extensions::middleware::{Context, Who};
use crate::metrics::EndpointKind;
use crate::planted::{Mistake, is_planted};
use crate::refusal::Refusal;
use crate::security::SecurityEvent;
use crate::traces::{self, traced};
use crate::use_cases::authenticate::{Authenticate, AuthenticateError, Authenticated, Credentials};
use crate::use_cases::refresh_token::{RefreshError, RefreshToken, Refreshed};
use crate::view::View;

/// What this server offers, in `hello.features`.
const FEATURES: [&str; 11] = [
    "recovery",
    "history",
    "presence",
    "dedup",
    "echo_control",
    "classes",
    "refresh",
    "resume",
    "tags",
    "filter",
    "patterns",
];

/// What is known of a connection that has just come.
fn fresh(slot: Slot, who: Who, (life, door): (Connection, Door), opened_at: Wall) -> Entry {
    Entry {
        generation: slot.generation,
        view: who.view,
        who: Arc::new(who),
        life,
        rooms: Membership::default(),
        greeted: false,
        door,
        calls: 0,
        inbox: None,
        pages: None,
        commands: RateLimiter::default(),
        refused_commands: RateLimiter::default(),
        unparsable: RateLimiter::default(),
        presence_updates: RateLimiter::default(),
        showing: None,
        opened_at,
        visit_at: None,
        admission: None,
        echoes: Vec::new(),
        publishing: None,
        patterns: Vec::new(),
        own_room: OwnRoom::None,
        giving: None,
        letters_wait: None,
        leaving: false,
        rights: None,
    }
}

impl Shard {
    pub(super) fn open(&mut self, slot: Slot, opening: Opening, host: &mut Host<'_>) {
        let rules = &self.services.rules;
        let timing = opening.view.timing(rules);
        let who = Who {
            connection: opening.connection,
            client: opening.client,
            address: opening.address,
            view: opening.view,
            place: opening.place,
            principal: Arc::clone(&self.nobody),
            context: Context::default(),
            fence: None,
        };
        let life = Connection::opening(host.now, &timing).with_draw(draw_of(opening.connection));
        let door = if opening.token.is_some() { Door::Named } else { Door::Open };
        let entry = fresh(slot, who, (life, door), host.now.wall);
        let deadline = host.now.monotonic.after(timing.authentication_timeout);
        let is_open = (rules.allow_anonymous || opening.view.is_for_everyone())
            && !opening.view.needs_a_user();
        let asks_nobody = is_open && rules.middleware.is_empty();
        let anonymous =
            Credentials { anonymous: opening.view.is_for_everyone(), ..Credentials::default() };
        self.table.insert(slot, Box::new(entry));
        self.metrics.opened.add(1);
        self.metrics.endpoints.add(EndpointKind::of(opening.view), 1);
        self.table.sent_at[slot.index as usize] = host.now.monotonic;
        self.visit_at(slot, deadline);
        if self.draining.is_some() && !is_planted(Mistake::NewcomerForgotten) {
            self.end(slot, CloseCode::ServiceRestart, None, host);
        } else if let View::Refused(ending) = opening.view {
            self.end(slot, ending.code, None, host);
        } else if opening.conflicting_tokens {
            let event = SecurityEvent::AuthenticationFailed;
            self.note_because(slot, event, Some("conflicting_tokens"), host.now);
            self.end(slot, CloseCode::Unauthenticated, None, host);
        } else if let Some(token) = opening.token {
            let credentials = Credentials { token: Some(token), ..Credentials::default() };
            self.authenticate(slot, None, credentials, Vec::new());
        } else if asks_nobody {
            self.let_in(slot, host);
            self.greet(slot, None, Vec::new(), host);
        } else if opening.view.needs_a_user() {
            // Its clients have no words to say later who they are.
            let event = SecurityEvent::AuthenticationFailed;
            self.note_because(slot, event, Some("no_token"), host.now);
            self.end(slot, CloseCode::Unauthenticated, None, host);
        } else if is_open {
            self.authenticate(slot, None, anonymous, Vec::new());
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
            let entrances = resume.into_iter().map(Entrance::from).collect();
            self.bring_in(slot, command, entrances, host);
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
        let Some(entry) = self.table.get_mut(slot) else { return };
        entry.life.asked();
        let who = Arc::clone(&entry.who);
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
                self.end(slot, error.close_code(), error.come_back(), host);
            }
            Ok(authenticated) => {
                let who = Arc::clone(&authenticated.who);
                if let Some(entry) = self.table.get_mut(slot) {
                    entry.who = authenticated.who;
                    entry.admission = authenticated.admission;
                    let has_rooms = entry.view.has_rooms();
                    let own_room = authenticated.own_room.filter(|_| has_rooms);
                    entry.own_room = OwnRoom::due(own_room, authenticated.own_top);
                }
                if self.is_revoked(&who) {
                    self.note_order(slot, CloseCode::Revoked, host.now);
                    return self.end(slot, CloseCode::Revoked, None, host);
                }
                self.let_in(slot, host);
                self.greet_when_heard(slot, command, resume, host);
            }
        }
    }

    /// Greets a connection that is let in: with the rooms that it was in before, or with those that its
    /// endpoint begins in.
    pub(super) fn greet(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        resume: Vec<Resume>,
        host: &mut Host<'_>,
    ) {
        let Some(entry) = self.table.get(slot) else { return };
        let rooms_max = self.services.rules.limits.rooms_per_connection_max;
        let presence = entry.view.follows_presence();
        let first =
            entry.view.first_rooms(&entry.who, self.joins_own_room(), rooms_max).into_iter();
        let first = first.map(|room| Entrance { room, since: None, presence, filter: None });
        let entrances = first.chain(resume.into_iter().map(Entrance::from)).collect();
        self.bring_in(slot, command, entrances, host);
    }

    /// From here on the connection lives by its heartbeat and its token, and no longer by how long
    /// it takes to say who it is.
    fn let_in(&mut self, slot: Slot, host: &Host<'_>) {
        let rights = self.rights(host.now.monotonic);
        let Some(entry) = self.table.get_mut(slot) else { return };
        let timing = entry.view.timing(&self.services.rules);
        entry.greeted = true;
        entry.rights = rights;
        let visit = entry.life.opened(host.now, entry.who.principal.expires_at, &timing);
        self.visit_at(slot, visit);
        if let Some(at) = self.look_at_rights(slot, host) {
            self.visit_at(slot, at);
        }
    }

    pub(super) fn hello(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        resumed: &[Resumed<'_>],
        host: &mut Host<'_>,
    ) {
        let services = Arc::clone(&self.services);
        // Not before: nothing of a room comes before the client knows that it is in it.
        let own_room = self.enter_own_room(slot);
        let Some(who) = self.who(slot) else { return };
        let Some(view) = self.table.get(slot).map(|entry| entry.view) else { return };
        // The other endpoints have no words for a ticket.
        let seal = || services.ports.session_tickets.seal(&who.principal, host.now.wall);
        let session = (view == View::V2).then(seal).flatten();
        let interval = view.timing(&services.rules).heartbeat_interval.as_millis();
        let hello = ServerFrame::Hello {
            id: command,
            features: &FEATURES,
            request_id: &request_id(who.connection),
            client_id: &who.client,
            connection_id: who.connection,
            user_id: who.principal.user.as_ref(),
            rooms: &own_room.iter().collect::<SmallVec<[_; 1]>>(),
            session: session.as_deref(),
            resumed,
            heartbeat_interval_ms: u64::try_from(interval).unwrap_or(u64::MAX),
        };
        self.tell(slot, &hello, host);
    }

    /// The `refresh` command: a fresh token of the same user.
    pub(super) fn refresh(&mut self, slot: Slot, command: Option<u64>, token: String) {
        let Some(who) = self.who(slot) else { return };
        let (services, rooms) = (Arc::clone(&self.services), self.held(slot));
        let call = RefreshToken { services, who, token, rooms };
        let future = Box::pin(async move { Outcome::Refreshed(call.execute().await) });
        self.call_seated(slot, command, None, future, refused);
    }

    pub(super) fn finish_refresh(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        result: Result<Refreshed, RefreshError>,
        host: &mut Host<'_>,
    ) {
        let services = Arc::clone(&self.services);
        let Refreshed { who, lost } = match result {
            Ok(refreshed) => refreshed,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "token not refreshed");
                if error == RefreshError::OtherUser {
                    let event = SecurityEvent::AuthenticationFailed;
                    self.note_because(slot, event, Some("other_user"), host.now);
                }
                return match error.close_code() {
                    Some(code) => self.end(slot, code, None, host),
                    None => self.refuse(slot, command, &error.refusal(), host),
                };
            }
        };
        if self.is_revoked(&who) {
            self.note_order(slot, CloseCode::Revoked, host.now);
            return self.end(slot, CloseCode::Revoked, None, host);
        }
        let Some(entry) = self.table.get_mut(slot) else { return };
        let expires_at = who.principal.expires_at;
        let session = services.ports.session_tickets.seal(&who.principal, host.now.wall);
        entry.who = who;
        let visit = entry.life.renewed(host.now, expires_at, &entry.view.timing(&services.rules));
        self.restart_rights(slot, host.now.monotonic);
        self.visit_at(slot, visit);
        let session = session.as_deref();
        self.tell(slot, &ServerFrame::Refreshed { id: command, expires_at, session }, host);
        self.take_away(slot, &lost, host);
        self.revalidate_watches(slot, host);
    }

    /// It may have been taken back since it was verified; whoever did so has its order behind.
    fn is_revoked(&self, who: &Who) -> bool {
        self.services.ports.revocations.concerns(&who.principal, who.connection)
    }

    pub(super) fn who(&self, slot: Slot) -> Option<Arc<Who>> {
        self.table.get(slot).map(|entry| Arc::clone(&entry.who))
    }
}

/// What a connection has drawn by its name: a half of its bits that nothing else is made of.
const fn draw_of(connection: ConnectionId) -> u32 {
    (connection.bits() >> 32) as u32
}

/// What a client quotes when it asks for help; finds the connection in the log.
pub(crate) fn request_id(connection: ConnectionId) -> String {
    format!("r-{connection}")
}
