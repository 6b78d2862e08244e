//! What new sessions begin with: the versions, ALPN, and the certificate that counts now.
//!
//! The certificate is replaced for sessions that begin afterwards; those that run go on.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use thiserror::Error;

use crate::identity::Identity;
use crate::session::{Session, TlsError};

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MinVersion {
    /// 1.2, with forward secrecy and authenticated encryption only.
    Tls12,
    /// 1.3.
    Tls13,
}

/// TLS can't be set up.
#[derive(Debug, Error)]
#[error("TLS can't be set up")]
pub struct SetupError(#[from] rustls::Error);

/// The certificate that counts now.
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(…)")
    }
}

/// Begins sessions; clones share the certificate.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
}

impl Acceptor {
    /// An acceptor with its first certificate.
    ///
    /// # Errors
    /// [`SetupError`] when the cryptographic library does not offer what TLS needs.
    pub fn build(identity: Identity, min_version: MinVersion) -> Result<Self, SetupError> {
        let current = Arc::new(Current(RwLock::new(identity.certified)));
        let versions: &[_] = match min_version {
            MinVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            MinVersion::Tls13 => &[&version::TLS13],
        };
        // Named here, so that no other crate's choice of features can take it away.
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(versions)?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(&current) as _);
        // The upgrade to a WebSocket is HTTP/1.1's.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Who comes back proves itself without a signature of ours, and nothing is kept for it here.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), current })
    }

    /// Shows another certificate to those who come from now on.
    pub fn replace(&self, identity: Identity) {
        let mut current = self.current.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = identity.certified;
    }

    /// Begins a session.
    ///
    /// # Errors
    /// [`TlsError`] when rustls refuses its own configuration.
    pub fn session(&self) -> Result<Session, TlsError> {
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.config))?;
        Ok(Session::new(connection))
    }
}
