//! Fetches the text of a JSON Web Key Set: an adapter of `KeySource` on hyper and rustls.
//!
//! One address, fixed by the configuration: https, or http to this machine. It follows nobody
//! elsewhere, takes no more than a bounded number of bytes in a bounded time, and must never read
//! what the text means.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use application::ports::{KeySource, KeySourceError};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// The most bytes of a key set; those of large providers have a few thousand.
pub const JWKS_BYTES_MAX: usize = 256 << 10;
/// How long a fetch may take, from the name's lookup to the last byte.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an address can't be fetched from.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Not an absolute address with a host.
    #[error("it must be an address like https://issuer.example/.well-known/jwks.json")]
    Address,
    /// Keys that decide who somebody is would cross a network in the clear.
    #[error("it must begin with https://; http:// is for this machine only (localhost, 127.0.0.1)")]
    Scheme,
    /// The system trusts nobody.
    #[error("the system has no certificates of authorities to check the server's with")]
    Roots(#[source] std::io::Error),
    /// The cryptographic library does not offer what TLS needs.
    #[error("TLS can't be used")]
    Tls(#[source] rustls::Error),
}

/// Whether keys may be fetched from an address.
///
/// # Errors
/// [`BuildError::Address`] and [`BuildError::Scheme`].
pub fn check_url(url: &str) -> Result<(), BuildError> {
    parse(url).map(drop)
}

fn parse(url: &str) -> Result<Uri, BuildError> {
    let uri: Uri = url.parse().map_err(|_| BuildError::Address)?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(BuildError::Address)?;
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if has_user {
        return Err(BuildError::Address);
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_this_machine(host) => Ok(uri),
        Some(_) => Err(BuildError::Scheme),
        None => Err(BuildError::Address),
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A key set at an address.
pub struct HttpKeySource {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    uri: Uri,
    timeout: Duration,
}

impl HttpKeySource {
    /// Gets ready to fetch from `url`; nothing is sent yet.
    ///
    /// # Errors
    /// [`BuildError`] says what is wrong with the address or with TLS on this machine.
    pub fn build(url: &str) -> Result<Self, BuildError> {
        let uri = parse(url)?;
        let tls = tls(uri.scheme_str() == Some("https"))?;
        let mut http = HttpConnector::new();
        // The connector around it looks at the scheme.
        http.enforce_http(false);
        http.set_connect_timeout(Some(FETCH_TIMEOUT));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = builder.https_or_http().enable_http1().wrap_connector(http);
        // Between two fetches lie minutes; no socket is kept for them.
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, uri, timeout: FETCH_TIMEOUT })
    }

    /// The same with another limit on time.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    async fn get(&self) -> Result<String, KeySourceError> {
        let unreachable = |error: &dyn std::error::Error| KeySourceError::Unreachable(chain(error));
        let request = Request::get(self.uri.clone())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("roomkeeper/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| unreachable(&error))?;
        let answer = self.client.request(request).await.map_err(|error| unreachable(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(KeySourceError::Status(answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), JWKS_BYTES_MAX).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                KeySourceError::TooLarge { bytes_max: JWKS_BYTES_MAX }
            } else {
                unreachable(&*error)
            }
        })?;
        String::from_utf8(body.to_bytes().into()).map_err(|_| KeySourceError::NotText)
    }
}

fn tls(has_roots: bool) -> Result<ClientConfig, BuildError> {
    // Named here, so that no other crate's choice of features can take it away.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(BuildError::Tls)?;
    let builder = if has_roots {
        builder.with_native_roots().map_err(BuildError::Roots)?
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    Ok(builder.with_no_client_auth())
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[async_trait]
impl KeySource for HttpKeySource {
    async fn fetch(&self) -> Result<String, KeySourceError> {
        let got = tokio::time::timeout(self.timeout, self.get()).await;
        got.unwrap_or(Err(KeySourceError::Timeout))
    }
}

#[cfg(test)]
mod tests;
