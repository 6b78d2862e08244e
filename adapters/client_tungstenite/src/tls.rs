//! TLS of the client: whose certificates it trusts, and the handshake.
//!
//! A certificate is always checked, with its name; there is no switch that leaves it out.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::dial::Wire;

/// A text holds no certificates of authorities.
#[derive(Debug, Error)]
pub enum AuthoritiesError {
    /// It is no PEM text.
    #[error("it is no PEM text")]
    Pem,
    /// There is none in it.
    #[error("it holds no certificate (-----BEGIN CERTIFICATE-----)")]
    None,
    /// One of them can't be used.
    #[error("one of its certificates can't be used")]
    Unusable(#[source] rustls::Error),
}

/// TLS can't be set up on this machine.
#[derive(Clone, Debug, Error)]
pub(crate) enum SetupError {
    #[error("the system has no certificates of authorities: name a file with some")]
    NoAuthorities,
    #[error("the cryptographic library does not offer what TLS needs: {0}")]
    Library(rustls::Error),
}

/// Whose certificates are trusted: the system's authorities, and others if any were added. Read
/// when the first `wss://` is opened; clones share what was read.
#[derive(Clone, Default)]
pub struct Authorities {
    added: Vec<CertificateDer<'static>>,
    config: Arc<OnceLock<Result<Arc<ClientConfig>, SetupError>>>,
}

impl Authorities {
    /// Trusts those of a PEM text as well.
    ///
    /// # Errors
    /// [`AuthoritiesError`] says what is wrong with it.
    pub fn and_pem(mut self, pem: &[u8]) -> Result<Self, AuthoritiesError> {
        let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let found = found.map_err(|_| AuthoritiesError::Pem)?;
        if found.is_empty() {
            return Err(AuthoritiesError::None);
        }
        let mut roots = RootCertStore::empty();
        for certificate in &found {
            roots.add(certificate.clone()).map_err(AuthoritiesError::Unusable)?;
        }
        self.added.extend(found);
        self.config = Arc::default();
        Ok(self)
    }

    /// It blocks the first time, to read the system's.
    fn config(&self) -> Result<Arc<ClientConfig>, SetupError> {
        self.config.get_or_init(|| self.build().map(Arc::new)).clone()
    }

    fn build(&self) -> Result<ClientConfig, SetupError> {
        let mut roots = RootCertStore::empty();
        // What the system has and can't be used is passed over, as others do.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(self.added.iter().cloned());
        if roots.is_empty() {
            return Err(SetupError::NoAuthorities);
        }
        // Named here, so that no other crate's choice of features can take it away.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(SetupError::Library)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("added", &self.added.len()).finish()
    }
}

/// Shakes hands over an open stream; `host` is the name that the certificate must be for.
pub(crate) async fn shake_hands(
    stream: Box<dyn Wire>,
    host: &str,
    authorities: Authorities,
) -> io::Result<Box<dyn Wire>> {
    // Files of the system may lie on a disk that takes its time.
    let config = tokio::task::spawn_blocking(move || authorities.config()).await;
    let config = config.map_err(io::Error::other)?.map_err(io::Error::other)?;
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidInput, "the host is no name");
    let name = ServerName::try_from(host.to_owned()).map_err(invalid)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Box::new(stream))
}

/// Whether a failed handshake would fail again: the server is not who it should be.
pub(crate) fn is_distrust(error: &io::Error) -> bool {
    let inner = error.get_ref();
    let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let setup = inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<SetupError>);
    setup || matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_certificates_is_refused_with_what_is_wrong() {
        let fault = |text: &str| Authorities::default().and_pem(text.as_bytes()).unwrap_err();
        assert!(matches!(fault(""), AuthoritiesError::None));
        assert!(matches!(fault("hello"), AuthoritiesError::None));
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(matches!(fault(cut), AuthoritiesError::Pem));
        let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(fault(odd), AuthoritiesError::Unusable(_)));
    }

    #[test]
    fn certificates_that_are_added_are_trusted_beside_the_systems() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let before = Authorities::default();
        let n_before = rustls_native_certs::load_native_certs().certs.len();
        let after = before.and_pem(made.cert.pem().as_bytes()).unwrap();
        assert_eq!(format!("{after:?}"), "Authorities { added: 1 }");
        // One that is trusted is enough, also where the system has none.
        assert!(after.config().is_ok(), "beside {n_before} of the system");
    }
}
