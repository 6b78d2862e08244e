//! What every answer over HTTP tells a browser not to do with it.
//!
//! One layer over all routes. An answer that says something of its own keeps it, and an upgrade is
//! no answer for a page.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::Response;

/// Not read as something else, not kept, not framed, no script, and no address told onwards.
const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// A year, for this host alone. Without TLS of our own it is the proxy's to say.
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds the headers to all answers of these routes.
pub(crate) fn secured(router: Router, has_tls: bool) -> Router {
    router.layer(map_response(move |response: Response| async move { with(response, has_tls) }))
}

/// The same without a word about paths that these routes don't have: what is answered there is
/// somebody else's.
pub(crate) fn secured_routes(router: Router) -> Router {
    router.route_layer(map_response(|response: Response| async move { with(response, false) }))
}

fn with(mut response: Response, has_tls: bool) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        add(&mut response, has_tls);
    }
    response
}

fn add(response: &mut Response, has_tls: bool) {
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(value);
    }
    if has_tls {
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(ONLY_TLS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use axum::routing::get;
    use tower::ServiceExt;

    async fn headers(has_tls: bool, path: &str) -> axum::http::HeaderMap {
        let own = || async { ([(header::CACHE_CONTROL, "max-age=60")], "page") };
        let upgrade = || async { StatusCode::SWITCHING_PROTOCOLS };
        let router = Router::new().route("/own", get(own)).route("/upgrade", get(upgrade));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = secured(router, has_tls).oneshot(request).await.unwrap();
        response.headers().clone()
    }

    #[tokio::test]
    async fn every_answer_has_them_even_one_for_a_path_that_is_none() {
        let headers = headers(false, "/nothing").await;
        for (name, value) in ALWAYS {
            assert_eq!(headers.get(&name), Some(&value), "{name}");
        }
        assert!(headers.get(header::STRICT_TRANSPORT_SECURITY).is_none());
    }

    #[tokio::test]
    async fn beside_routes_of_somebody_else_only_our_own_answers_have_them() {
        let ours = Router::new().route("/ours", get(|| async { "ours" }));
        let theirs = Router::new().route("/theirs", get(|| async { "theirs" }));
        let router = theirs.merge(secured_routes(ours));
        for (path, count) in [("/ours", ALWAYS.len()), ("/theirs", 0), ("/nothing", 0)] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let has = |(name, _): &&(HeaderName, _)| response.headers().contains_key(name);
            assert_eq!(ALWAYS.iter().filter(has).count(), count, "{path}");
        }
    }

    #[tokio::test]
    async fn what_an_answer_says_itself_stays_and_an_upgrade_says_nothing() {
        let own = headers(true, "/own").await;
        assert_eq!(own.get(header::CACHE_CONTROL).unwrap(), "max-age=60");
        assert_eq!(own.get(header::STRICT_TRANSPORT_SECURITY), Some(&ONLY_TLS));
        let upgrade = headers(true, "/upgrade").await;
        for name in ALWAYS.map(|(name, _)| name).iter().chain([&header::STRICT_TRANSPORT_SECURITY])
        {
            assert_eq!(upgrade.get(name), None, "{name}");
        }
    }
}
