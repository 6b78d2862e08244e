//! Certificates made for one test, and a TLS client without manners.
//!
//! The client is rustls itself, blocking: what it does with its records is the test's to say.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::raw::DEADLINE;

/// A certificate for `localhost` and 127.0.0.1 that signed itself, with its key, as files.
#[derive(Debug)]
pub struct Certificate {
    folder: TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Makes one.
    #[must_use]
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// Makes one that differs.
    #[must_use]
    pub fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let folder = TempDir::with_prefix("roomkeeper-tls-").expect("a temporary folder");
        let der = Self::write(&folder, change);
        Self { folder, der }
    }

    fn write(
        folder: &TempDir,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = params_for(&["localhost", "127.0.0.1"]);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        write_pair(folder, &made, &key)
    }

    /// The file with the certificate, which is also what clients have to trust.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The file with the key.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// The file with the certificate, as an argument.
    #[must_use]
    pub fn ca(&self) -> String {
        self.file().to_str().expect("a file's name is UTF-8").to_owned()
    }

    /// The arguments of a server that uses it.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let set = |key: &str, file: PathBuf| {
            vec!["--set".to_owned(), format!("server.tls.{key}={}", file.display())]
        };
        [set("cert_file", self.file()), set("key_file", self.key_file())].concat()
    }

    /// A client that trusts it and nothing else.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("it can be trusted");
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the versions are known")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// What became of the handshake.
    pub fn connect(
        &self,
        addr: SocketAddr,
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        self.connect_with(addr, self.config())
    }

    /// The same with a changed client.
    ///
    /// # Errors
    /// What became of the handshake.
    pub fn connect_with(
        &self,
        addr: SocketAddr,
        config: ClientConfig,
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let socket = TcpStream::connect_timeout(&addr, DEADLINE)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        let name = ServerName::try_from("localhost").expect("a name");
        let session =
            ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }
}

fn params_for(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    CertificateParams::new(names).expect("names for a certificate")
}

fn write_pair(
    folder: &TempDir,
    made: &rcgen::Certificate,
    key: &KeyPair,
) -> CertificateDer<'static> {
    for (file, text) in [("cert.pem", made.pem()), ("key.pem", key.serialize_pem())] {
        fs::write(folder.path().join(file), text).expect("the folder takes files");
    }
    made.der().clone()
}

/// An authority that no system has heard of, and that signs certificates for whom a test wants.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one.
    #[must_use]
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("roomkeeper-ca-").expect("a temporary folder");
        let mut params = params_for(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another's certificate is then of somebody unknown, and not of somebody with a wrong signature.
        let name = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("the folder takes files");
        Self { folder, issuer }
    }

    /// A certificate for these names.
    #[must_use]
    pub fn certificate(&self, names: &[&str]) -> Certificate {
        let folder = TempDir::with_prefix("roomkeeper-tls-").expect("a temporary folder");
        let key = KeyPair::generate().expect("a key");
        let made = params_for(names).signed_by(&key, &self.issuer).expect("a certificate");
        let der = write_pair(&folder, &made, &key);
        Certificate { folder, der }
    }

    /// The file that clients have to trust, as an argument.
    #[must_use]
    pub fn file(&self) -> String {
        let path = self.folder.path().join("ca.pem");
        path.to_str().expect("a file's name is UTF-8").to_owned()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for Certificate {
    fn default() -> Self {
        Self::new()
    }
}

/// Upgrades, and gives the head of the answer.
pub fn upgrade(stream: &mut StreamOwned<ClientConnection, TcpStream>, path: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the server takes a request");
    stream.flush().expect("the server takes a request");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}
