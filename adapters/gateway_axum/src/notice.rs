//! What the gateway tells the security log and the counters.
//!
//! Addresses and origins may stand in it; a token, a key or a query never.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use application::inquiry::Whom;
use application::metrics::{EdgeRefusal, RevokeOutcome, Row};
use application::security::{SecurityEvent, TARGET};
use axum::http::StatusCode;
use domain::codes::CloseCode;
use domain::id::ClientId;
use domain::revocation::Revocation;

use crate::answer::HttpRefusal;
use crate::shared::Shared;
use crate::wire::Failure;

/// A socket was turned away before anything of it was read.
pub(crate) fn turned_away(shared: &Shared, why: EdgeRefusal, peer: Option<SocketAddr>) {
    let services = shared.node.services();
    services.metrics.edge.refused.add(why, 1);
    let event = SecurityEvent::ConnectionRefused;
    let now = services.ports.clock.now().monotonic;
    if let Some(left_out) = services.metrics.edge.admit(event, now) {
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            reason = why.label(),
            peer = peer.map(tracing::field::display),
            left_out,
            "a socket was turned away"
        );
    }
}

/// A client and this server found no TLS session. Who was only gone is not counted, and who spoke
/// plain HTTP was told so.
pub(crate) fn no_session(shared: &Shared, failure: Failure, peer: SocketAddr) {
    let what = match failure {
        Failure::Gone => return,
        Failure::PlainHttp => "plain HTTP came where TLS is spoken",
        Failure::TooSlow => "a TLS handshake took too long",
        Failure::Tls => "no TLS session came about",
    };
    let services = shared.node.services();
    let edge = &services.metrics.edge;
    edge.refused.add(EdgeRefusal::Tls, 1);
    let event = SecurityEvent::ConnectionRefused;
    if let Some(left_out) = edge.admit(event, services.ports.clock.now().monotonic) {
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            reason = EdgeRefusal::Tls.label(),
            peer = %peer,
            left_out,
            what,
            "a socket was turned away"
        );
    }
}

/// An upgrade was refused. What is only no upgrade is counted, and not for guards to read.
pub(crate) fn upgrade_refused(
    shared: &Shared,
    refusal: &HttpRefusal,
    address: Option<IpAddr>,
    origin: Option<&str>,
) {
    let services = shared.node.services();
    let edge = &services.metrics.edge;
    let why = refusal.why.unwrap_or(match refusal.status {
        StatusCode::FORBIDDEN => EdgeRefusal::Origin,
        StatusCode::SERVICE_UNAVAILABLE if shared.stopping.load(Ordering::Relaxed) => {
            EdgeRefusal::Stopping
        }
        StatusCode::SERVICE_UNAVAILABLE => EdgeRefusal::ConnectionLimit,
        StatusCode::TOO_MANY_REQUESTS => EdgeRefusal::AddressLimit,
        _ => EdgeRefusal::Handshake,
    });
    edge.refused.add(why, 1);
    if !matches!(why, EdgeRefusal::Origin | EdgeRefusal::AddressLimit) {
        return;
    }
    let event = SecurityEvent::ConnectionRefused;
    if let Some(left_out) = edge.admit(event, services.ports.clock.now().monotonic) {
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            reason = why.label(),
            address = address.map(tracing::field::display),
            origin,
            left_out,
            "an upgrade was refused"
        );
    }
}

/// A request came without a key that is known. `what` is the path's name in this code.
pub(crate) fn key_refused(shared: &Shared, what: &'static str, address: Option<IpAddr>) {
    let services = shared.node.services();
    let event = SecurityEvent::ApiKeyRefused;
    let now = services.ports.clock.now().monotonic;
    if let Some(left_out) = services.metrics.edge.admit(event, now) {
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            what,
            address = address.map(tracing::field::display),
            left_out,
            "a request came without a known key"
        );
    }
}

/// The holder of a key asked for what the key does not allow. `needs` is what it lacks.
pub(crate) fn not_allowed(
    shared: &Shared,
    key: &ClientId,
    what: &'static str,
    needs: &'static str,
) {
    let services = shared.node.services();
    let event = SecurityEvent::ApiNotAllowed;
    let now = services.ports.clock.now().monotonic;
    if let Some(left_out) = services.metrics.edge.admit(event, now) {
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            %key,
            what,
            needs,
            left_out,
            "an API key does not allow what was asked for"
        );
    }
}

/// The holder of a key ended connections; `count` is none where not all workers answered. Written
/// each time, like a revocation.
pub(crate) fn disconnection(
    shared: &Shared,
    key: &ClientId,
    whom: &Whom,
    code: CloseCode,
    count: Option<usize>,
) {
    let (what, subject): (_, &dyn std::fmt::Display) = match whom {
        Whom::User(user) => ("user", user),
        Whom::Connection(connection) => ("connection", connection),
    };
    let event = SecurityEvent::DisconnectOrdered;
    shared.node.services().metrics.edge.security.add(event, 1);
    tracing::warn!(
        target: TARGET,
        event = event.label(),
        %key,
        what,
        %subject,
        code = code.number(),
        count,
        left_out = 0,
        "connections were ended on order"
    );
}

/// The holder of a key took something back. It is written each time: what a key may do is worth a
/// line, and no client can cause it.
pub(crate) fn revocation(
    shared: &Shared,
    key: &ClientId,
    revocation: &Revocation,
    outcome: RevokeOutcome,
) {
    let (what, subject): (_, &dyn std::fmt::Display) = match revocation {
        Revocation::Token(id) => ("token", id),
        Revocation::User { user, .. } => ("user", user),
        Revocation::Connection(id) => ("connection", id),
    };
    let event = SecurityEvent::RevocationOrdered;
    shared.node.services().metrics.edge.security.add(event, 1);
    tracing::warn!(
        target: TARGET,
        event = event.label(),
        %key,
        what,
        %subject,
        outcome = outcome.label(),
        left_out = 0,
        "something was taken back"
    );
}
