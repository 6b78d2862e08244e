//! What the tests share: certificates made for them, and the other side of a session.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;

use crate::{Acceptor, Identity, MinVersion, Session};

/// A certificate for `localhost` in two files.
pub(crate) struct Files {
    pub(crate) folder: TempDir,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    der: rustls::pki_types::CertificateDer<'static>,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let folder = TempDir::new().unwrap();
        let files = Self {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            der: made.der().clone(),
            folder,
        };
        std::fs::write(&files.certificate, made.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::load(&self.certificate, &self.key).unwrap()
    }

    pub(crate) fn acceptor(&self) -> Acceptor {
        Acceptor::build(self.identity(), MinVersion::Tls12).unwrap()
    }

    /// A client that trusts this certificate and offers these versions and protocols.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> ClientConnection {
        self.client_with(versions, alpn, |_| {})
    }

    /// The same with a changed configuration.
    pub(crate) fn client_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
        change: impl FnOnce(&mut ClientConfig),
    ) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        change(&mut config);
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap()
    }
}

/// A session and its client, with what crosses between them in pieces of `step` bytes.
pub(crate) struct Pair {
    pub(crate) server: Session,
    pub(crate) client: ClientConnection,
    /// What the server has read.
    pub(crate) plain: Vec<u8>,
    pub(crate) ended: bool,
    step: usize,
}

impl Pair {
    pub(crate) fn new(server: Session, client: ClientConnection, step: usize) -> Self {
        Self { server, client, plain: Vec::new(), ended: false, step }
    }

    /// Carries bytes both ways until neither has more to say.
    pub(crate) fn carry(&mut self) -> Result<(), crate::TlsError> {
        loop {
            let mut from_client = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut from_client).unwrap();
            }
            if from_client.is_empty() {
                return Ok(());
            }
            let mut out = Vec::new();
            for piece in from_client.chunks_mut(self.step) {
                let received = self.server.receive(piece, &mut self.plain, &mut out);
                if received.is_err() {
                    self.feed_client(&out);
                }
                self.ended = received?.ended;
            }
            self.feed_client(&out);
        }
    }

    /// Answers what the client reads of these records.
    pub(crate) fn feed_client(&mut self, mut records: &[u8]) -> Vec<u8> {
        let mut got = Vec::new();
        while !records.is_empty() {
            self.client.read_tls(&mut records).unwrap();
            // An alert is seen by whoever asks the client afterwards.
            let _ = self.client.process_new_packets();
            let mut room = [0; 32 << 10];
            while let Ok(n @ 1..) = self.client.reader().read(&mut room) {
                got.extend_from_slice(&room[..n]);
            }
        }
        got
    }

    /// What the client reads of these records.
    pub(crate) fn read_by_client(&mut self, records: &[u8]) -> Vec<u8> {
        let pieces = records.chunks(self.step.max(1_000));
        pieces.flat_map(|piece| self.feed_client(piece)).collect()
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).unwrap();
    }
}
