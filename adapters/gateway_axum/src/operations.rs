//! What operators and their tools ask for: metrics, and readiness in detail.
//!
//! On the public address metrics may need a key; nothing here may show a room, a user or a token.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::known_key;
use crate::gateway::{Readiness, Shared};
use crate::upgrade::client_of;
use crate::{notice, routes};

/// `/metrics` on the public address.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let config = shared.config();
    let (parts, _) = request.into_parts();
    if config.metrics_need_key
        && let Err(refusal) = known_key(&config.api_keys, &parts.headers)
    {
        notice::key_refused(&shared, "metrics", client_of(&config, &parts));
        return refusal.into_response();
    }
    exposed(&shared).await
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
    use crate::gateway::tests::shared_with;
    use application::ports::Exposition;
    use axum::body::Body;
    use axum::http::Request;
    use domain::id::ClientId;
    use domain::scope::KeyRights;
    use tower::ServiceExt;

    use crate::api::ApiKey;
    use crate::gateway::Config;

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
        assert_eq!(status(&router, "/metrics", None).await, StatusCode::UNAUTHORIZED);
        assert_eq!(status(&router, "/metrics", Some("wrong")).await, StatusCode::UNAUTHORIZED);
        assert_eq!(status(&router, "/metrics", Some("the key")).await, StatusCode::OK);
        let open = routes::router(&with(|_| {}));
        assert_eq!(status(&open, "/metrics", None).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn with_an_internal_address_the_public_one_has_neither_metrics_nor_api() {
        let shared = with(|config| {
            config.internal_address = Some("127.0.0.1:9".parse().unwrap());
            config.metrics_need_key = true;
        });
        let public = routes::router(&shared);
        for path in ["/metrics", "/api/v1/publish", "/api/v1/revoke"] {
            assert_eq!(status(&public, path, Some("the key")).await, StatusCode::NOT_FOUND);
        }
        assert_eq!(status(&public, "/healthz", None).await, StatusCode::OK);
        let internal = routes::internal_router(&shared);
        assert_eq!(status(&internal, "/metrics", None).await, StatusCode::OK);
        assert_eq!(status(&internal, "/readyz", None).await, StatusCode::OK);
        for path in ["/api/v1/publish", "/api/v1/revoke"] {
            let wrong_method = status(&internal, path, None).await;
            assert_eq!(wrong_method, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
        assert_eq!(status(&internal, "/ws/v2/connect", None).await, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_build_without_metrics_has_nothing_there() {
        let router = routes::internal_router(&with(|config| config.exposition = None));
        assert_eq!(status(&router, "/metrics", None).await, StatusCode::NOT_FOUND);
    }
}
