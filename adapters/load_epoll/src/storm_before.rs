//! The first half of a storm: members get what is published, are cut off, and miss what is
//! published then; a server that shall be started again is waited for.
//!
//! It must never leave one of the two crowds unread while it waits for what is published: who does
//! not answer a ping is closed.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use domain::client::{Ask, PublishOptions};
use domain::id::MessageId;
use domain::room::RoomId;

use crate::PUBLISHERS;
use crate::client::{Asked, Manner, PUBLISH_TIMEOUT, PUBLISHES_MAX};
use crate::crowd::{Crowd, LOOK};
use crate::error::BenchError;
use crate::knock::is_ready;
use crate::members::Said;
use crate::messages;
use crate::plan::{Plan, Storm};
use crate::report::Reporter;
use crate::storm::Books;
use crate::tally::Tally;

/// How long the server may be away.
const RESTART_DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks whether the server is ready again.
const KNOCK: Duration = Duration::from_millis(5);
/// What is told when the server may be stopped; whoever stops it by a script waits for this.
const PHASE_READY: &str = "ready: stop the server and start it again";
const PHASE_READY_TO_DIE: &str = "ready: end the server";
const PHASE_AWAY: &str = "waiting until the server is ready again";

/// Everybody who is there until the storm.
pub(crate) struct Before<'p> {
    plan: &'p Plan,
    storm: &'p Storm,
    members: Crowd<'p>,
    /// They have connections of their own and stay when the members are cut off.
    publishers: Crowd<'p>,
    n_publishers: usize,
    rooms: Vec<RoomId>,
    books: Books<'p>,
    /// When a member last got something that it was to get.
    progressed: Instant,
}

/// How far one publisher is: how many messages it has said, and how many are acknowledged.
#[derive(Clone, Copy, Default)]
struct Share {
    said: usize,
    acked: usize,
}

impl<'p> Before<'p> {
    pub(crate) fn new(
        plan: &'p Plan,
        storm: &'p Storm,
        (members, rooms, books): (Crowd<'p>, Vec<RoomId>, Books<'p>),
        progress: &mut Reporter<'_>,
    ) -> Result<Self, BenchError> {
        let targets = storm.returns_to(plan);
        // One for each server at least: its end is how a restart is seen.
        let n_publishers = PUBLISHERS.min(plan.rooms.max(targets.len()));
        let in_none = Box::new(|_: usize| Vec::new());
        let mut publishers = Crowd::at(targets, plan, Manner::Staying, in_none, plan.connections)?;
        publishers.open_all(n_publishers, Duration::ZERO, progress, &mut |_, _| {})?;
        let progressed = Instant::now();
        Ok(Self { plan, storm, members, publishers, n_publishers, rooms, books, progressed })
    }

    /// Deals with what members get, and waits for it until then at most.
    fn hear_members(&mut self, until: Instant) -> Result<(), BenchError> {
        let Self { members, books, progressed, .. } = self;
        members.turn(until, &mut |arrival, said| {
            if books.take(arrival, &said) {
                *progressed = arrival.at;
            }
        })
    }

    /// Publishes so many messages to every room, and waits until all of them are acknowledged.
    pub(crate) fn publish(
        &mut self,
        each: u32,
        phase: &'static str,
        progress: &mut Reporter<'_>,
    ) -> Result<(), BenchError> {
        let numbers = self.books.published..self.books.published + each;
        self.books.published = numbers.end;
        let (total, patience) = (self.plan.rooms * numbers.len(), self.plan.patience);
        let mut shares = vec![Share::default(); self.n_publishers];
        let (mut done, mut last) = (0, Instant::now());
        while done < total {
            let before = done;
            let mut refused = None;
            self.say(&numbers, &mut shares)?;
            self.publishers.turn(Instant::now() + LOOK, &mut |arrival, said| match said {
                Said::Acked => {
                    shares[arrival.member].acked += 1;
                    done += 1;
                }
                Said::Refused(refusal) => {
                    let (code, message) = (refusal.code, refusal.message.clone());
                    refused = Some(BenchError::Refused { code, message });
                }
                Said::Message(_) | Said::Event(_) => {}
            })?;
            self.hear_members(Instant::now())?;
            if let Some(refused) = refused {
                return Err(refused);
            }
            if done > before {
                last = Instant::now();
            }
            if last.elapsed() > patience {
                let what = "messages were acknowledged";
                return Err(self.silence(patience, what, done, total));
            }
            progress.tell(phase, || self.publishers.progress("messages", done, total));
        }
        Ok(())
    }

    /// Lets each publisher say what it has to, as long as few enough are on their way. Each has
    /// every so many-th room, and fills one after the other.
    fn say(&mut self, numbers: &Range<u32>, shares: &mut [Share]) -> Result<(), BenchError> {
        let Self { plan, publishers, n_publishers, rooms, .. } = self;
        let each = numbers.len();
        for (publisher, share) in shares.iter_mut().enumerate() {
            let all = plan.rooms.saturating_sub(publisher).div_ceil(*n_publishers) * each;
            while share.said < all && share.said - share.acked < PUBLISHES_MAX {
                let place = publisher + share.said / each * *n_publishers;
                let text = messages::text(plan.run, numbers.start + (share.said % each) as u32, "");
                let room = rooms[place].clone();
                let msg_id =
                    MessageId::parse(&format!("{text}-{place}")).map_err(io::Error::other)?;
                let options = PublishOptions { echo: false, ..PublishOptions::default() };
                let ask = Ask::Publish { room, data: messages::data(&text), msg_id, options };
                publishers.ask(publisher, (ask, Asked::Publish, PUBLISH_TIMEOUT), &mut |_, _| {});
                share.said += 1;
            }
        }
        Ok(())
    }

    /// Waits until everybody has what was published before the cut.
    pub(crate) fn settle(&mut self) -> Result<(), BenchError> {
        let all = self.plan.connections * self.storm.rooms_each * self.storm.before as usize;
        self.progressed = Instant::now();
        while self.books.ledger.counts.delivered < all as u64 {
            self.hear_members(Instant::now() + LOOK)?;
            self.publishers.turn(Instant::now(), &mut |_, _| {})?;
            if self.progressed.elapsed() > self.plan.patience {
                let what = "members got the messages that were published before they were cut off";
                let delivered = self.books.ledger.counts.delivered as usize;
                return Err(self.silence(self.plan.patience, what, delivered, all));
            }
        }
        Ok(())
    }

    /// Cuts the members off.
    pub(crate) fn cut(&mut self) {
        self.members.cut_all();
    }

    /// Waits until the server has ended and is ready again. Nobody but the publishers is there to
    /// see the end. A server that drains is not ready, so that whoever is then must be the new one.
    pub(crate) fn wait_for_restart(
        &mut self,
        progress: &mut Reporter<'_>,
    ) -> Result<(), BenchError> {
        let (begun, all) = (Instant::now(), self.n_publishers);
        while self.publishers.inside() > 0 {
            let gone = all - self.publishers.inside();
            progress
                .tell(PHASE_READY, || self.publishers.progress("publishers cut off", gone, all));
            self.publishers.turn(Instant::now() + LOOK, &mut |_, _| {})?;
            if begun.elapsed() > RESTART_DEADLINE {
                let what = "the server was to be stopped";
                return Err(self.silence(RESTART_DEADLINE, what, gone, all));
            }
        }
        let n_targets = self.plan.targets.len();
        for (n_ready, target) in self.plan.targets.iter().enumerate() {
            while !is_ready(target) {
                progress.tell(PHASE_AWAY, || {
                    self.publishers.progress("servers are ready", n_ready, n_targets)
                });
                if begun.elapsed() > RESTART_DEADLINE {
                    let what = "the server was to be started again and to answer 200 at /readyz";
                    return Err(self.silence(RESTART_DEADLINE, what, n_ready, n_targets));
                }
                std::thread::sleep(KNOCK);
            }
        }
        Ok(())
    }

    /// Waits until the members' server has ended, and answers when the first of them was cut off. The publishers are
    /// at others.
    pub(crate) fn wait_for_death(
        &mut self,
        progress: &mut Reporter<'_>,
    ) -> Result<Instant, BenchError> {
        let (begun, all) = (Instant::now(), self.plan.connections);
        let mut first = None;
        while self.members.inside() > 0 {
            let gone = all - self.members.inside();
            progress
                .tell(PHASE_READY_TO_DIE, || self.members.progress("members cut off", gone, all));
            self.hear_members(Instant::now() + LOOK)?;
            self.publishers.turn(Instant::now(), &mut |_, _| {})?;
            if first.is_none() && self.members.inside() < all {
                first = Some(Instant::now());
            }
            if begun.elapsed() > RESTART_DEADLINE {
                let what = "the server was to be ended";
                return Err(self.silence(RESTART_DEADLINE, what, gone, all));
            }
        }
        Ok(first.unwrap_or(begun))
    }

    /// What is not coming, and what else the server did.
    fn silence(&self, time: Duration, what: &'static str, done: usize, total: usize) -> BenchError {
        let tallies = [self.members.tally(), self.publishers.tally()];
        BenchError::Silence {
            seconds: time.as_secs(),
            what,
            done: done as u64,
            total: total as u64,
            meanwhile: tallies.into_iter().flat_map(Tally::faults).collect(),
        }
    }

    /// The members, and what they have got.
    pub(crate) fn end(mut self) -> (Crowd<'p>, Books<'p>) {
        self.publishers.close_all();
        (self.members, self.books)
    }
}
