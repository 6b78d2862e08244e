//! What the gateway tells the security log and the counters.
//!
//! Addresses and origins may stand in it; a token, a key or a query never.

use std::net::SocketAddr;

use application::metrics::{EdgeRefusal, Row};
use application::security::{SecurityEvent, TARGET};
use axum::http::StatusCode;

use crate::gateway::Shared;

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

/// An upgrade was refused. What is only no upgrade is counted, and not for guards to read.
pub(crate) fn upgrade_refused(shared: &Shared, status: StatusCode, origin: Option<&str>) {
    let services = shared.node.services();
    let edge = &services.metrics.edge;
    let why = match status {
        StatusCode::FORBIDDEN => EdgeRefusal::Origin,
        StatusCode::SERVICE_UNAVAILABLE => EdgeRefusal::Stopping,
        _ => EdgeRefusal::Handshake,
    };
    edge.refused.add(why, 1);
    if why != EdgeRefusal::Origin {
        return;
    }
    let event = SecurityEvent::ConnectionRefused;
    if let Some(left_out) = edge.admit(event, services.ports.clock.now().monotonic) {
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            reason = why.label(),
            origin,
            left_out,
            "an upgrade was refused"
        );
    }
}

/// A request came without a key that is known. `what` is the path's name in this code.
pub(crate) fn key_refused(shared: &Shared, what: &'static str) {
    let services = shared.node.services();
    let event = SecurityEvent::ApiKeyRefused;
    let now = services.ports.clock.now().monotonic;
    if let Some(left_out) = services.metrics.edge.admit(event, now) {
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            what,
            left_out,
            "a request came without a known key"
        );
    }
}
