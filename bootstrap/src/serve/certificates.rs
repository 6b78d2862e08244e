//! The certificate of a server that runs: read again when its files change, and at a reload.
//!
//! A pair that can't be used, or not yet, changes nothing and is named in the log; who is connected
//! goes on in any case.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tls_rustls::{Acceptor, Identity};
use tokio::task::spawn_blocking;

use crate::settings::tls::warning;
use crate::settings::tokens::chain;

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What tells a file from the one that was there before: device, inode, length, and both times.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));
/// Of both files; none where there is no file.
type Stamps = [Option<Stamp>; 2];

/// The acceptor with the files that it shows.
#[derive(Clone)]
pub(super) struct Certificates {
    acceptor: Acceptor,
    certificate: PathBuf,
    key: PathBuf,
    /// What is shown now.
    current: Arc<Mutex<Identity>>,
}

impl Certificates {
    pub(super) fn new(acceptor: Acceptor, identity: Identity, files: (&Path, &Path)) -> Self {
        Self {
            acceptor,
            certificate: files.0.to_path_buf(),
            key: files.1.to_path_buf(),
            current: Arc::new(Mutex::new(identity)),
        }
    }

    pub(super) fn acceptor(&self) -> Acceptor {
        self.acceptor.clone()
    }

    /// Reads both files. It blocks.
    pub(super) fn load(&self) -> Result<Identity, String> {
        Identity::load(&self.certificate, &self.key).map_err(|error| chain(&error))
    }

    /// Shows a certificate from now on, if it is another one.
    pub(super) fn show(&self, identity: Identity) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_same_as(&identity) {
            return;
        }
        self.acceptor.replace(identity.clone());
        *current = identity;
        tracing::info!(
            file = %self.certificate.display(),
            "the certificate was replaced; connections that are open go on"
        );
    }

    /// Looks at the files for ever.
    pub(super) async fn watch(self) {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        let mut change = Change::default();
        let mut has_warned = false;
        loop {
            interval.tick().await;
            let this = self.clone();
            let looked = spawn_blocking(move || {
                let stamps = this.stamps();
                (stamps, this.complaint())
            });
            let Ok((stamps, complaint)) = looked.await else { continue };
            // At the start it was said with the settings' other warnings.
            if let Some(complaint) =
                complaint.as_ref().filter(|_| !has_warned && change.has_begun())
            {
                tracing::warn!("{complaint}");
            }
            has_warned = complaint.is_some();
            if change.is_settled(stamps) && !self.reload().await {
                change.look_again();
            }
        }
    }

    /// Answers whether the files could be read, whatever they hold.
    async fn reload(&self) -> bool {
        let this = self.clone();
        let loaded = spawn_blocking(move || Identity::load(&this.certificate, &this.key)).await;
        match loaded {
            Ok(Ok(identity)) => {
                self.show(identity);
                true
            }
            Ok(Err(fault)) => {
                tracing::error!(
                    fault = chain(&fault),
                    "the certificate was not replaced; the one from before still counts"
                );
                !fault.may_pass()
            }
            Err(error) => {
                tracing::error!(%error, "the certificate was not read");
                false
            }
        }
    }

    fn complaint(&self) -> Option<String> {
        warning(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn stamps(&self) -> Stamps {
        [&self.certificate, &self.key].map(|path| {
            let file = fs::metadata(path).ok()?;
            let (changed, moved) =
                ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
            Some((file.dev(), file.ino(), file.len(), changed, moved))
        })
    }
}

/// Sees when files have changed and come to rest: who writes two files is not caught between them.
#[derive(Debug, Default)]
struct Change {
    acted_on: Option<Stamps>,
    last: Option<Stamps>,
}

impl Change {
    fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// What was acted on could not be read: the same files are worth another look.
    fn look_again(&mut self) {
        self.acted_on = None;
    }

    /// Whether this is other than what was acted on, and the same as at the last look. Nobody knows
    /// what the files were when they were read at the start, so they count as changed once.
    fn is_settled(&mut self, now: Stamps) -> bool {
        let before = self.last.replace(now);
        let settled = self.acted_on != Some(now) && before == Some(now);
        if settled {
            self.acted_on = Some(now);
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(of_certificate: u64, of_key: u64) -> Stamps {
        [of_certificate, of_key].map(|n| (n > 0).then_some((1, n, 1, (0, 0), (0, 0))))
    }

    #[test]
    fn files_are_read_once_when_both_have_come_to_rest() {
        let mut change = Change::default();
        let looks = [
            (1, 1),
            (1, 1),
            (2, 1),
            (2, 2),
            (2, 2),
            (2, 2),
            (2, 0),
            (2, 0),
            (2, 0),
            (3, 3),
            (3, 3),
        ];
        let settled: Vec<_> =
            looks.iter().map(|(a, b)| change.is_settled(stamps(*a, *b))).collect();
        let at: Vec<_> = settled.iter().enumerate().filter(|(_, s)| **s).map(|(n, _)| n).collect();
        // The second look finds what may have changed since the start.
        assert_eq!(at, [1, 4, 7, 10]);
    }
}
