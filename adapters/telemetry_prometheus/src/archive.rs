//! The archive with a watch on it: how long commits take, how many fail.
//!
//! It passes everything through unchanged and must never answer in the archive's place.

use std::sync::Arc;
use std::time::Instant;

use application::metrics::{Count, Histogram};
use application::ports::{
    Archive, ArchiveError, ArchivePage, ArchiveRecord, DedupKey, Forget, RoomHead,
};
use async_trait::async_trait;
use domain::id::Epoch;
use domain::position::{Offset, Position};
use domain::room::RoomId;

/// What is counted of an archive. There is one committer, so `commit_latency` has one writer.
#[derive(Debug, Default)]
pub struct ArchiveMetrics {
    /// From handing a batch over to its commit.
    pub commit_latency: Histogram,
    /// Batches that were committed.
    pub commits: Count,
    /// Messages of them.
    pub messages: Count,
    /// How often a room was opened.
    pub opens: Count,
    /// How often a room's messages were read.
    pub reads: Count,
    /// Calls of any kind that failed.
    pub failures: Count,
}

/// See the module's text.
pub struct MeasuredArchive {
    inner: Arc<dyn Archive>,
    metrics: Arc<ArchiveMetrics>,
}

impl MeasuredArchive {
    /// Watches an archive.
    #[must_use]
    pub fn new(inner: Arc<dyn Archive>, metrics: Arc<ArchiveMetrics>) -> Self {
        Self { inner, metrics }
    }

    fn noted<T>(&self, result: Result<T, ArchiveError>) -> Result<T, ArchiveError> {
        if result.is_err() {
            self.metrics.failures.add(1);
        }
        result
    }
}

#[async_trait]
impl Archive for MeasuredArchive {
    async fn open_room(
        &self,
        room: &RoomId,
        fresh: Epoch,
        known: Option<Position>,
    ) -> Result<RoomHead, ArchiveError> {
        self.metrics.opens.add(1);
        self.noted(self.inner.open_room(room, fresh, known).await)
    }

    async fn append(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        let (n_records, begun) = (records.len() as u64, Instant::now());
        let result = self.inner.append(records).await;
        if result.is_ok() {
            self.metrics.commit_latency.observe(begun.elapsed());
            self.metrics.commits.add(1);
            self.metrics.messages.add(n_records);
        }
        self.noted(result)
    }

    async fn find(&self, keys: Vec<DedupKey>) -> Result<Vec<Option<Position>>, ArchiveError> {
        self.noted(self.inner.find(keys).await)
    }

    async fn read(
        &self,
        room: &RoomId,
        epoch: Epoch,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<ArchivePage, ArchiveError> {
        self.metrics.reads.add(1);
        self.noted(self.inner.read(room, epoch, after, limit, bytes_max).await)
    }

    async fn forget(&self, room: &RoomId, what: Forget) -> Result<(), ArchiveError> {
        self.noted(self.inner.forget(room, what).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use application::ports::archive::MockArchive;

    #[tokio::test]
    async fn commits_and_failures_are_counted_and_answers_pass_unchanged() {
        let mut inner = MockArchive::new();
        inner.expect_append().times(1).returning(|_| Box::pin(async { Ok(()) }));
        inner.expect_append().returning(|_| Box::pin(async { Err(ArchiveError::Overloaded) }));
        inner.expect_find().returning(|_| Box::pin(async { Ok(vec![None]) }));
        let metrics = Arc::new(ArchiveMetrics::default());
        let archive = MeasuredArchive::new(Arc::new(inner), Arc::clone(&metrics));
        assert_eq!(archive.append(Vec::new()).await, Ok(()));
        assert_eq!(archive.append(Vec::new()).await, Err(ArchiveError::Overloaded));
        assert_eq!(archive.find(Vec::new()).await, Ok(vec![None]));
        assert_eq!((metrics.commits.get(), metrics.failures.get()), (1, 1));
        let mut seen = application::metrics::Distribution::default();
        metrics.commit_latency.add_to(&mut seen);
        assert_eq!(seen.count(), 1);
    }
}
