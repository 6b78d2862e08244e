//! A certificate chain and its key, read from two PEM files and checked before anything uses them.
//!
//! An error names the file and what is wrong with it, and never quotes from the key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage};

/// The largest of either file; a chain has a few thousand bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Which of the two a file is read as; by mistake both may be the same file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The chain of certificates.
    Certificate,
    /// The private key of the first of them.
    Key,
}

/// Why a certificate and its key can't be used.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It can't be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// What it was read as.
        part: Part,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no PEM file of a sensible size.
    #[error("{} {what}", .path.display())]
    Contents {
        /// What it was read as.
        part: Part,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The two files belong to different certificates; one of them may be half written.
    #[error(
        "the key in {} does not match the certificate in {}", .key.display(), .certificate.display()
    )]
    Mismatch {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
}

impl LoadError {
    /// Whether the same file may be read another time: the system was short of something.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        use io::ErrorKind::{NotFound, PermissionDenied};
        matches!(self, Self::Read { source, .. }
            if !matches!(source.kind(), NotFound | PermissionDenied))
    }

    /// Which of the files is at fault; of two that do not match, the key's.
    #[must_use]
    pub const fn part(&self) -> Part {
        match self {
            Self::Read { part, .. } | Self::Contents { part, .. } => *part,
            Self::Mismatch { .. } => Part::Key,
        }
    }
}

/// Whether a certificate counts at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Validity {
    /// It does.
    Valid,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYet,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Identity {
    pub(crate) certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads both files. It blocks.
    ///
    /// # Errors
    /// [`LoadError`] names the file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, LoadError> {
        let contents = |part, what| {
            let path = if part == Part::Key { key } else { certificate };
            LoadError::Contents { part, path: path.to_path_buf(), what }
        };
        let chain = CertificateDer::pem_slice_iter(&read(Part::Certificate, certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| contents(Part::Certificate, "is no PEM file"))?;
        if chain.is_empty() {
            let what = "holds no certificate (-----BEGIN CERTIFICATE-----)";
            return Err(contents(Part::Certificate, what));
        }
        if chain.iter().any(|der| EndEntityCert::try_from(der).is_err()) {
            return Err(contents(Part::Certificate, "holds a certificate that can't be parsed"));
        }
        let private = PrivateKeyDer::from_pem_slice(&read(Part::Key, key)?).map_err(|error| {
            let what = match error {
                pem::Error::NoItemsFound => "holds no private key (-----BEGIN PRIVATE KEY-----)",
                _ => "is no PEM file",
            };
            contents(Part::Key, what)
        })?;
        let provider = aws_lc_rs::default_provider();
        let certified =
            CertifiedKey::from_der(chain, private, &provider).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => LoadError::Mismatch {
                    certificate: certificate.to_path_buf(),
                    key: key.to_path_buf(),
                },
                rustls::Error::InvalidCertificate(_) => {
                    contents(Part::Certificate, "holds a certificate that can't be used")
                }
                _ => contents(Part::Key, "holds a key of a kind that can't be used"),
            })?;
        Ok(Self { certified: Arc::new(certified) })
    }

    /// Whether the certificate counts so long after the beginning of 1970.
    #[must_use]
    pub fn validity(&self, since_epoch: Duration) -> Validity {
        let Some(parsed) = self.certified.cert.first().map(EndEntityCert::try_from) else {
            return Validity::Expired;
        };
        // A path can't be built without authorities; the dates are looked at before that.
        let verified = parsed.and_then(|end| {
            let now = UnixTime::since_unix_epoch(since_epoch);
            end.verify_for_usage(&[], &[], &[], now, KeyUsage::server_auth(), None, None).map(drop)
        });
        match verified {
            Err(webpki::Error::CertExpired { .. }) => Validity::Expired,
            Err(webpki::Error::CertNotValidYet { .. }) => Validity::NotYet,
            Ok(()) | Err(_) => Validity::Valid,
        }
    }

    /// Whether both have the same certificates.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.certified.cert.len()).finish()
    }
}

fn read(part: Part, path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Read { part, path: path.to_path_buf(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let what = "is larger than 1 MiB";
        return Err(LoadError::Contents { part, path: path.to_path_buf(), what });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
