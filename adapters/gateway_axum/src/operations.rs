//! What operators and their tools ask for: metrics, and readiness in detail.
//!
//! On the public address metrics may need a key; nothing here may show a room, a user or a token.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::answer::HttpRefusal;
use crate::api::known_key;
use crate::shared::{Readiness, Shared};
use crate::upgrade::client_of;
use crate::{notice, routes};

/// `/metrics` on the public address.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match may_see_metrics(&shared, request) {
        Ok(_) => exposed(&shared).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Whether the names of rooms may be shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Names {
    Shown,
    /// The key is limited to some rooms, and whether others exist must not show.
    Hidden,
}

/// Whether a request to the public address may see what the server counts: where that needs a key,
/// any known one opens it.
pub(crate) fn may_see_metrics(shared: &Shared, request: Request) -> Result<Names, HttpRefusal> {
    let config = shared.config();
    if !config.metrics_need_key {
        return Ok(Names::Shown);
    }
    let (parts, _) = request.into_parts();
    let key = known_key(&config.api_keys, &parts.headers);
    key.map(|key| if key.rights.is_limited() { Names::Hidden } else { Names::Shown })
        .inspect_err(|_| notice::key_refused(shared, "metrics", client_of(&config, &parts)))
}

/// `/metrics` on the internal address.
pub(crate) async fn internal_metrics(State(shared): State<Arc<Shared>>) -> Response {
    exposed(&shared).await
}

async fn exposed(shared: &Shared) -> Response {
    let Some(exposition) = shared.config().exposition.clone() else {
        return routes::not_found().await.into_response();
    };
    let content_type = exposition.content_type();
    // It reads files of the system.
    match tokio::task::spawn_blocking(move || exposition.render()).await {
        Ok(text) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[derive(Serialize)]
struct Detail {
    ready: bool,
    reason: &'static str,
    /// Workers that have ended or show no sign of life.
    workers_lost: Vec<usize>,
    connections: u64,
}

/// `/readyz` on the internal address, which can be asked during a drain, too.
pub(crate) async fn ready_in_detail(State(shared): State<Arc<Shared>>) -> Response {
    let readiness = shared.readiness();
    let ready = readiness == Readiness::Ready;
    let services = shared.node.services();
    let shards = &services.metrics.shards;
    let detail = Detail {
        ready,
        reason: readiness.words(),
        workers_lost: shared.lost_workers(),
        connections: shards.iter().map(|shard| shard.connections()).sum(),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(detail)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::tests::shared_with;
    use application::ports::Exposition;
    use axum::body::Body;
    use axum::http::Request;
    use domain::id::ClientId;
    use domain::principal::RoomPattern;
    use domain::room::RoomId;
    use domain::scope::{KeyRights, Scope};
    use tower::ServiceExt;

    use crate::api::ApiKey;
    use crate::gateway::Config;

    const HEALTH: &str = "/api/v1/websocket/health";
    const METRICS: &str = "/api/v1/websocket/metrics";

    #[derive(Debug)]
    struct Sample;

    impl Exposition for Sample {
        fn content_type(&self) -> &'static str {
            "text/plain"
        }

        fn render(&self) -> String {
            "a 1\n".to_owned()
        }
    }

    fn with(change: impl FnOnce(&mut Config)) -> Arc<Shared> {
        shared_with(&[true], |config| {
            config.exposition = Some(Arc::new(Sample));
            config.api_keys =
                vec![ApiKey::new(ClientId::parse("ops").unwrap(), "the key", KeyRights::default())];
            change(config);
        })
    }

    async fn status(router: &axum::Router, path: &str, key: Option<&str>) -> StatusCode {
        let mut request = Request::get(path);
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request.body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn where_metrics_need_a_key_only_a_known_one_opens_them() {
        let shared = with(|config| config.metrics_need_key = true);
        let router = routes::router(&shared);
        let open = routes::router(&with(|_| {}));
        for path in ["/metrics", HEALTH, METRICS] {
            assert_eq!(status(&router, path, None).await, StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(status(&router, path, Some("wrong")).await, StatusCode::UNAUTHORIZED);
            assert_eq!(status(&router, path, Some("the key")).await, StatusCode::OK, "{path}");
            assert_eq!(status(&open, path, None).await, StatusCode::OK, "{path}");
        }
    }

    #[tokio::test]
    async fn with_an_internal_address_the_public_one_has_neither_metrics_nor_api() {
        let shared = with(|config| {
            config.internal_address = Some("127.0.0.1:9".parse().unwrap());
            config.metrics_need_key = true;
        });
        let public = routes::router(&shared);
        for path in ["/metrics", "/api/v1/publish", "/api/v1/revoke", HEALTH, METRICS] {
            assert_eq!(status(&public, path, Some("the key")).await, StatusCode::NOT_FOUND);
        }
        assert_eq!(status(&public, "/healthz", None).await, StatusCode::OK);
        let internal = routes::internal_router(&shared);
        assert_eq!(status(&internal, "/metrics", None).await, StatusCode::OK);
        assert_eq!(status(&internal, "/readyz", None).await, StatusCode::OK);
        assert_eq!(status(&internal, HEALTH, None).await, StatusCode::OK);
        assert_eq!(status(&internal, METRICS, None).await, StatusCode::OK);
        for path in ["/api/v1/publish", "/api/v1/revoke"] {
            let wrong_method = status(&internal, path, None).await;
            assert_eq!(wrong_method, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
        assert_eq!(status(&internal, "/ws/v2/connect", None).await, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn health_says_healthy_degraded_or_draining_and_what_is_not_healthy_is_no_200() {
        let asked = async |workers: &[bool], stopping: bool| {
            let shared = shared_with(workers, |_| {});
            shared.stopping.store(stopping, std::sync::atomic::Ordering::Relaxed);
            let request = Request::get(HEALTH).body(Body::empty()).unwrap();
            let routers = routes::routers(&shared);
            let router = if stopping { routers.draining } else { routers.serving };
            let answer = router.oneshot(request).await.unwrap();
            let status = answer.status();
            let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            (status, body["status"].as_str().unwrap().to_owned(), body["workers"].clone())
        };
        let (status, word, workers) = asked(&[true, true], false).await;
        assert_eq!((status, word.as_str()), (StatusCode::OK, "healthy"));
        assert_eq!(workers, serde_json::json!({"running": 2, "lost": []}));
        let (status, word, workers) = asked(&[true, false], false).await;
        assert_eq!((status, word.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "degraded"));
        assert_eq!(workers, serde_json::json!({"running": 1, "lost": [1]}));
        let (status, word, _) = asked(&[true], true).await;
        assert_eq!((status, word.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "draining"));
    }

    #[tokio::test(start_paused = true)]
    async fn matches_are_named_to_keys_of_every_room_and_told_without_their_messages_when_a_worker_is_silent()
     {
        let key = |name: &str, rooms: &[&str]| {
            let rooms = rooms.iter().map(|room| RoomPattern::parse(room).unwrap()).collect();
            let rights = KeyRights::new(&[Scope::Publish], rooms);
            ApiKey::new(ClientId::parse(name).unwrap(), name, rights)
        };
        let shared = with(|config| {
            config.metrics_need_key = true;
            config.api_keys = vec![key("every", &[]), key("some", &["chat:guild/*"])];
        });
        let room = RoomId::parse("match:m-1").unwrap();
        let seats = shared.node.services().directory.seats(&room);
        assert!(seats.take(5));
        let told = async |name: &str| {
            let request =
                Request::get(METRICS).header(header::AUTHORIZATION, format!("Bearer {name}"));
            let request = request.body(Body::empty()).unwrap();
            let answer = routes::router(&shared).oneshot(request).await.unwrap();
            let body = axum::body::to_bytes(answer.into_body(), 100_000).await.unwrap();
            serde_json::from_slice::<serde_json::Value>(&body).unwrap()["matches"].clone()
        };
        // Nobody runs the shard of this node.
        let listed = serde_json::json!([{"match_id": "m-1", "connections": 1, "messages": null}]);
        assert_eq!(told("every").await, serde_json::json!({"total": 1, "listed": listed}));
        assert_eq!(told("some").await, serde_json::json!({"total": 1, "listed": []}));
    }

    #[tokio::test]
    async fn a_build_without_metrics_has_nothing_there() {
        let router = routes::internal_router(&with(|config| config.exposition = None));
        assert_eq!(status(&router, "/metrics", None).await, StatusCode::NOT_FOUND);
    }
}
