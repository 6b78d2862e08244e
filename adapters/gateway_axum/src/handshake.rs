//! The head of a request, as axum has it, for [`application::upgrade`].
//!
//! It must decide nothing: what an upgrade may look like is the application's to say.

use application::upgrade::{Head, UpgradeRefusal};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, Version};

use crate::answer::HttpRefusal;

/// The header fields of a request.
pub(crate) fn fields(parts: &Parts) -> Vec<(&str, &[u8])> {
    parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

/// The head of a request with these fields.
pub(crate) fn head<'a>(parts: &'a Parts, fields: &'a [(&'a str, &'a [u8])]) -> Head<'a> {
    Head {
        method: parts.method.as_str(),
        is_http_1_1: parts.version == Version::HTTP_11,
        is_path: parts.uri.authority().is_none() && parts.uri.scheme().is_none(),
        query: parts.uri.query().unwrap_or_default(),
        fields,
    }
}

impl From<UpgradeRefusal> for HttpRefusal {
    fn from(refused: UpgradeRefusal) -> Self {
        let UpgradeRefusal { status, refusal, header } = refused;
        // The application gives no other statuses than HTTP has.
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let header = header.map(|(name, value)| (HeaderName::from_static(name), value));
        Self { status, refusal: Box::new(refusal), header, why: None }
    }
}

/// A text that came with the request or was made from it, as a header of the answer.
pub(crate) fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}
