//! A task that writes: takes whatever waits, makes it one transaction, then answers.
//!
//! It must never answer before the commit, never delay an idle server to gather more (what arrives during
//! one commit is the next group), and never keep anybody waiting for a server that is away.

use std::sync::Arc;
use std::time::Duration;

use application::ports::archive::ArchiveError;
use sqlx::Connection as _;
use tokio::sync::watch;

use crate::batch;
use crate::connect::{Connector, WriterConnection};
use crate::error::{Failure, Remedy, jitter, within};
use crate::queue::{Command, Queue};
use crate::status::Status;

/// Between two looks at a connection that nobody uses: whether it still stands, and its lock with it.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// The first and the longest pause between two tries to connect.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often a transaction that met another one is made again, and the longest pause before.
const RETRIES_MAX: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A writer and what it owns until its end.
pub(crate) struct Writer {
    /// Which one, from 0.
    pub(crate) place: usize,
    pub(crate) queue: Arc<Queue>,
    pub(crate) connector: Arc<Connector>,
    /// Dropped at the end, however it comes; that is what `close` waits for.
    pub(crate) alive: Arc<watch::Sender<()>>,
    /// Set while a connection stands.
    pub(crate) connection: Option<WriterConnection>,
}

/// Whatever ends a writer, a panic too, nobody waits for it in vain, nor takes it for alive.
struct AbandonOnDrop {
    place: usize,
    queue: Arc<Queue>,
    status: Arc<Status>,
}

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.status.writer_is_up(self.place, false);
        self.queue.abandon();
    }
}

impl Writer {
    /// Works until the queue is finished and empty, then closes its connection.
    pub(crate) async fn run(mut self) {
        let (queue, status) = (Arc::clone(&self.queue), Arc::clone(&self.connector.status));
        let guard = AbandonOnDrop { place: self.place, queue, status };
        loop {
            let goes_on = match self.connection.take() {
                Some(connection) => self.work(connection).await,
                None => self.come_back().await,
            };
            if !goes_on {
                break;
            }
        }
        if let Some(connection) = self.connection.take() {
            self.connector.status.writer_is_up(self.place, false);
            drop(within(self.connector.patience(), connection.connection.close()).await);
        }
        drop(guard);
        drop(self.alive);
    }

    /// One batch, or a look at an idle connection. Says whether there may be more.
    async fn work(&mut self, mut connection: WriterConnection) -> bool {
        let Ok(taken) = tokio::time::timeout(IDLE_LOOK, self.queue.take()).await else {
            match within(self.connector.patience(), connection.connection.ping()).await {
                Ok(()) => self.connection = Some(connection),
                Err(failure) => self.lost(&failure),
            }
            return true;
        };
        let Some(batch) = taken else {
            self.connection = Some(connection);
            return false;
        };
        let (commands, keys) = batch.split();
        let lost = self.commit_all(&mut connection, commands).await;
        self.queue.done(&keys);
        match lost {
            None => self.connection = Some(connection),
            Some(failure) => self.lost(&failure),
        }
        true
    }

    fn lost(&self, failure: &Failure) {
        self.connector.status.writer_is_up(self.place, false);
        tracing::warn!(error = %failure, "a connection to Postgres is lost");
    }

    /// Commits a group; what can't be committed because of one call is committed without it. Answers
    /// everybody, and says what made the connection useless.
    async fn commit_all(
        &self,
        connection: &mut WriterConnection,
        commands: Vec<Command>,
    ) -> Option<Failure> {
        let mut groups = vec![commands];
        while let Some(mut group) = groups.pop() {
            let Err(failure) = self.commit(connection, &mut group).await else {
                self.answer(group, None);
                continue;
            };
            match failure.remedy() {
                Remedy::Apart if group.len() > 1 => {
                    // The first half first: what is about one room stays in its order.
                    let later = group.split_off(group.len() / 2);
                    groups.extend([later, group]);
                }
                Remedy::Reconnect => {
                    let error = failure.to_archive_error();
                    self.answer(group, Some(&error));
                    groups.into_iter().for_each(|group| self.answer(group, Some(&error)));
                    return Some(failure);
                }
                Remedy::Apart | Remedy::Again | Remedy::None => {
                    tracing::warn!(error = %failure, calls = group.len(), "nothing of a group was stored");
                    self.answer(group, Some(&failure.to_archive_error()));
                }
            }
        }
        None
    }

    fn answer(&self, commands: Vec<Command>, failure: Option<&ArchiveError>) {
        let status = &self.connector.status;
        if failure.is_some() {
            status.failed(commands.len())
        } else {
            status.committed()
        }
        for command in commands {
            command.answer(failure);
        }
    }

    async fn commit(
        &self,
        connection: &mut WriterConnection,
        group: &mut [Command],
    ) -> Result<(), Failure> {
        // A few statements and a commit, each with its own time-out at the server: whoever is not done
        // by then gets no answer at all.
        let timeout = 2 * self.connector.patience();
        let is_alone = group.len() == 1;
        let mut tries = 0;
        loop {
            let done = within(timeout, batch::commit(connection, group, tries > 0)).await;
            let Err(failure) = done else { return Ok(()) };
            let again = match failure.remedy() {
                Remedy::Again => true,
                // It may be there already, from an earlier try of the same call or of another node.
                Remedy::Apart => batch::may_be_there_already(group) && (is_alone || tries == 0),
                Remedy::Reconnect | Remedy::None => false,
            };
            if !again || tries == RETRIES_MAX {
                return Err(failure);
            }
            tries += 1;
            self.connector.status.retried();
            tokio::time::sleep(jitter(RETRY_PAUSE * tries)).await;
        }
    }

    /// Connects again, and says no to everybody meanwhile if no other writer can say yes. Says whether
    /// there may be more to do.
    async fn come_back(&mut self) -> bool {
        let mut pause = Duration::ZERO;
        let mut away: Option<ArchiveError> = None;
        loop {
            let waited = pause;
            let connecting = async {
                tokio::time::sleep(waited).await;
                self.connector.connect_writer(self.place).await
            };
            tokio::pin!(connecting);
            let connected = loop {
                tokio::select! {
                    connected = &mut connecting => break connected,
                    goes_on = self.refuse(away.as_ref()) => if !goes_on { return false },
                }
            };
            match connected {
                Ok(connection) => {
                    tracing::info!("a connection to Postgres is back");
                    self.connector.status.writer_is_up(self.place, true);
                    self.connection = Some(connection);
                    return true;
                }
                Err(failure) => {
                    if away.is_none() {
                        tracing::warn!(error = %failure, "Postgres is away");
                    }
                    away = Some(failure.to_archive_error());
                    pause = jitter((pause * 2).clamp(PAUSE_MIN, PAUSE_MAX));
                }
            }
        }
    }

    /// Takes what waits and says no to it, as soon as it is known that nobody can do it. Answers whether
    /// there may be more, and never while others may still do it.
    async fn refuse(&self, away: Option<&ArchiveError>) -> bool {
        loop {
            let Some(away) = away.filter(|_| self.connector.status.no_writer_is_up()) else {
                tokio::time::sleep(PAUSE_MIN).await;
                continue;
            };
            let Ok(taken) = tokio::time::timeout(PAUSE_MAX, self.queue.take()).await else {
                continue;
            };
            let Some(batch) = taken else { return false };
            if !self.connector.status.no_writer_is_up() {
                // Another one has come back while this one waited for something to do.
                self.queue.give_back(batch);
                continue;
            }
            let (commands, keys) = batch.split();
            self.answer(commands, Some(away));
            self.queue.done(&keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[tokio::test]
    async fn a_writer_that_ends_by_a_panic_is_not_taken_for_alive() {
        let (queue, status) =
            (Arc::new(Queue::new(Limits::default())), Arc::new(Status::default()));
        status.writer_is_up(0, true);
        status.writer_is_up(1, true);
        for place in [0, 1] {
            assert!(status.is_up());
            let guard =
                AbandonOnDrop { place, queue: Arc::clone(&queue), status: Arc::clone(&status) };
            #[allow(clippy::panic, reason = "what is under test is what becomes of one")]
            let ends = tokio::spawn(async move {
                let _guard = guard;
                panic!("a mistake");
            });
            assert!(ends.await.is_err_and(|error| error.is_panic()));
        }
        assert!(!status.is_up());
    }
}
