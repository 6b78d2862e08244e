//! The routes. What is not here is answered with 404 and a hint.

use std::sync::Arc;

use application::upgrade::Endpoint;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use domain::codes::ErrorCode;
use domain::documents::told::Endpoint as Document;
use domain::id::ClientId;
use domain::matches::MatchId;

use crate::answer::{HttpRefusal, stopping};
use crate::api;
use crate::monitoring;
use crate::operations;
use crate::secure_headers::{secured, secured_routes};
use crate::shared::{Readiness, Shared};
use crate::upgrade::{Wanted, upgrade, upgrade_known};

/// What is answered to those who come while the server serves, and while it drains.
#[derive(Clone)]
pub(crate) struct Routers {
    pub(crate) serving: Router,
    pub(crate) draining: Router,
}

/// Those of the public address.
pub(crate) fn routers(shared: &Arc<Shared>) -> Routers {
    let has_tls = shared.config().tls.is_some();
    Routers {
        serving: secured(router(shared), has_tls),
        draining: secured(draining(shared), has_tls),
    }
}

/// How the server is, and nothing else.
fn draining(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new().route("/healthz", get(healthy)).route("/readyz", get(ready));
    if shared.config().internal_address.is_none() {
        router = router.route("/api/v1/websocket/health", get(monitoring::health));
    }
    router.fallback(|| async { stopping() }).with_state(Arc::clone(shared))
}

/// What is served on the public address. Where there is an internal one, the API and what operators
/// ask for are there and not here.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    public(shared)
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(shared))
}

/// The same for the router of somebody else, whose fallback is its own.
pub(crate) fn mounted(shared: &Arc<Shared>) -> Router {
    let router = public(shared).method_not_allowed_fallback(wrong_method);
    secured_routes(router.with_state(Arc::clone(shared)))
}

fn public(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    let config = shared.config();
    let mut router = Router::new()
        .route("/ws/v2/connect", any(connect))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready));
    if config.internal_address.is_none() {
        router = router
            .merge(api::router())
            .route("/metrics", get(operations::metrics))
            .route("/api/v1/websocket/health", get(monitoring::health))
            .route("/api/v1/websocket/metrics", get(monitoring::metrics));
    }
    if config.client_endpoint {
        router = router.route("/ws/client", any(client));
    }
    let at = |endpoint| any(move |shared, request| document(shared, request, endpoint));
    for endpoint in config.endpoints.iter().copied() {
        router = match endpoint {
            Document::Lobby => router.route("/ws", at(endpoint)),
            Document::Game => router.route("/ws/game", at(endpoint)),
            Document::Chat => router.route("/ws/chat", at(endpoint)),
            Document::Combat => router.route("/ws/combat", at(endpoint)),
            Document::World => router.route("/ws/world", at(endpoint)),
            Document::Match => router.route("/ws/games/{match_id}", any(game)),
        };
    }
    if config.echo_endpoint {
        router = router.route("/ws/{client_id}", any(echo));
    }
    router
}

/// Those of the internal address: the same to the end.
pub(crate) fn internal(shared: &Arc<Shared>) -> Routers {
    let serving = secured(internal_router(shared), false);
    Routers { draining: serving.clone(), serving }
}

/// What is served on the internal address.
pub(crate) fn internal_router(shared: &Arc<Shared>) -> Router {
    api::router()
        .route("/healthz", get(healthy))
        .route("/readyz", get(operations::ready_in_detail))
        .route("/metrics", get(operations::internal_metrics))
        .route("/api/v1/websocket/health", get(monitoring::internal_health))
        .route("/api/v1/websocket/metrics", get(monitoring::internal_metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(shared))
}

async fn connect(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    upgrade(&shared, request, &Wanted::Endpoint(Endpoint::V2))
}

async fn client(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    upgrade(&shared, request, &Wanted::Endpoint(Endpoint::Client))
}

async fn document(
    State(shared): State<Arc<Shared>>,
    request: Request,
    endpoint: Document,
) -> Response {
    let wanted = Wanted::Endpoint(Endpoint::Document(endpoint));
    match endpoint {
        // A browser sees nothing of it, but the document has it so.
        Document::Lobby => upgrade_known(&shared, request, wanted).await,
        _ => upgrade(&shared, request, &wanted),
    }
}

async fn game(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    // As it stands there: no id of a match needs an escape, and one that has some is none.
    let id = request.uri().path().strip_prefix("/ws/games/").and_then(|id| MatchId::parse(id).ok());
    upgrade(&shared, request, &Wanted::Endpoint(Endpoint::Match(id)))
}

async fn echo(
    State(shared): State<Arc<Shared>>,
    Path(client_id): Path<String>,
    request: Request,
) -> Response {
    if ClientId::parse(&client_id).is_err() {
        let message = "the client id must be 1 to 128 of A-Z a-z 0-9 . _ ~ -";
        let status = StatusCode::BAD_REQUEST;
        return HttpRefusal::new(status, ErrorCode::InvalidField, message)
            .field("client_id")
            .into_response();
    }
    upgrade(&shared, request, &Wanted::Echo)
}

/// Alive: the process answers.
async fn healthy() -> &'static str {
    "ok\n"
}

/// Ready: new connections are welcome. A node with a worker that has ended should be replaced.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match shared.readiness() {
        Readiness::Ready => "ok\n".into_response(),
        not_ready => {
            let words = format!("{}\n", not_ready.words());
            (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
        }
    }
}

pub(crate) async fn not_found() -> HttpRefusal {
    let message = "nothing is here; WebSocket clients connect to /ws/v2/connect, and what backends \
                   may ask for stands in /api/v1/openapi.json";
    HttpRefusal::new(StatusCode::NOT_FOUND, ErrorCode::NotAvailable, message)
}

async fn wrong_method() -> HttpRefusal {
    let message = "this address does not take that method";
    HttpRefusal::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::tests::shared;
    use axum::body::Body;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_node_with_a_worker_that_has_ended_is_alive_and_not_ready() {
        for (are_running, status) in
            [([true, true], StatusCode::OK), ([true, false], StatusCode::SERVICE_UNAVAILABLE)]
        {
            let router = router(&shared(&are_running));
            let ask =
                |path| router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());
            assert_eq!(ask("/readyz").await.unwrap().status(), status);
            assert_eq!(ask("/healthz").await.unwrap().status(), StatusCode::OK);
        }
    }
}
