//! Calls that are answered once replicas have what they wrote.
//!
//! `WAIT` counts what its own connection wrote, so these calls have one of their own, in batches with one `WAIT`
//! behind each. What replicas did not confirm in time must never be answered as if they had.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, RedisError, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::batch::error_of;
use crate::config::Config;
use crate::line::{Line, open};
use crate::link::{CallError, Commands, Server};

/// The most calls of one batch.
const BATCH: usize = 256;

/// What the server said.
type Answer = Result<Value, RedisError>;

struct Job {
    command: Cmd,
    answer: oneshot::Sender<Answer>,
}

/// The calls of one server that wait for replicas.
pub(crate) struct Replicating {
    jobs: mpsc::Sender<Job>,
    /// Until somebody carries them out.
    waiting: Mutex<Option<mpsc::Receiver<Job>>>,
    patience: Duration,
}

impl Replicating {
    pub(crate) fn new(config: &Config) -> Self {
        let (jobs, waiting) = mpsc::channel(config.calls_max.max(1));
        // Those of the batch before, and its own.
        let patience = 2 * (config.answer_timeout + config.replication_timeout);
        Self { jobs, waiting: Mutex::new(Some(waiting)), patience }
    }

    /// Asks, and waits until enough replicas have it.
    pub(crate) async fn ask(&self, command: Cmd) -> Result<Answer, CallError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.try_send(Job { command, answer }).map_err(|_| CallError::Away)?;
        match timeout(self.patience, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            // Nobody knows, or not enough have it.
            Ok(Err(_)) | Err(_) => Err(CallError::Away),
        }
    }
}

/// Carries out the calls of one server, for as long as it is polled.
pub(crate) async fn run(commands: &Commands, server: &Arc<Server>) {
    let waiting = &server.replicating.waiting;
    let Some(mut waiting) = waiting.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    let mut line: Option<Line> = None;
    let mut given_up = None;
    let mut jobs = Vec::with_capacity(BATCH);
    loop {
        jobs.clear();
        if waiting.recv_many(&mut jobs, BATCH).await == 0 {
            return;
        }
        // Who does not wait any more has not asked.
        jobs.retain(|job| !job.answer.is_closed());
        // Calls name the life of the server that the other connection is made to.
        let now = server.line().map(|line| line.identity.clone());
        if line.as_ref().is_some_and(|line| Some(&line.identity) != now.as_ref()) {
            given_up = line.take().map(|line| (line.identity.run, line.id)).or(given_up);
        }
        if line.is_none() && now.is_some() {
            let config = &commands.config;
            let patience = config.answer_timeout + config.replication_timeout;
            let opened = open(&commands.servers, server, config, patience, given_up.clone()).await;
            match opened {
                Ok(opened) if Some(&opened.identity) == now.as_ref() => {
                    given_up = None;
                    line = Some(opened);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "redis can't be reached for replicated rooms"),
            }
        }
        if let Some(here) = &line
            && run_batch(commands, here, &mut jobs).await.is_err()
        {
            given_up = Some((here.identity.run.clone(), here.id));
            line = None;
        }
    }
}

/// Does all of them, and answers those that it can. An error where the connection is of no use any more.
async fn run_batch(commands: &Commands, line: &Line, jobs: &mut Vec<Job>) -> Result<(), ()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let config = &commands.config;
    let mut pipeline = redis::Pipeline::with_capacity(jobs.len() + 1);
    for job in jobs.iter() {
        pipeline.add_command(job.command.clone());
    }
    let within = crate::broker::millis(config.replication_timeout);
    pipeline.cmd("WAIT").arg(config.replicas).arg(within).ignore_errors();
    let mut connection = line.connection.clone();
    let asking = pipeline.query_async::<Vec<Value>>(&mut connection);
    let patience = config.answer_timeout + config.replication_timeout;
    let Ok(Ok(mut values)) = timeout(patience, asking).await else { return Err(()) };
    let confirmed = match values.pop() {
        Some(Value::Int(replicas)) => replicas >= i64::from(config.replicas),
        _ => false,
    };
    let mut is_demoted = false;
    for (job, value) in jobs.drain(..).zip(values) {
        match error_of(&value) {
            Some(error) => {
                is_demoted |= crate::answers::Fault::of(&error) == crate::answers::Fault::Demoted;
                let _ = job.answer.send(Err(error));
            }
            None if confirmed => drop(job.answer.send(Ok(value))),
            // Dropped: it has happened, but not at the level that was asked for.
            None => {}
        }
    }
    if is_demoted { Err(()) } else { Ok(()) }
}
