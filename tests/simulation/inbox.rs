//! The inbox of a seed in which one process runs the real in-memory broker: letters that outlive it, and
//! the account of what became of each, which the checker reads.
//!
//! It must never lose what it has taken, nor mend what the application makes of it. The account is kept
//! by number: every message of a [writer](crate::letters) has one of its own, however often it is tried.

use std::collections::{BTreeMap, VecDeque};

use application::ports::{Inbox, InboxError, Letter, LetterId, LetterLimits};
use async_trait::async_trait;
use broker_memory::MemoryInbox;
use bytes::Bytes;
use domain::id::UserId;
use domain::time::Wall;

use crate::checker::{Checked, Violation};
use crate::faults::{Effect, Fault};
use crate::ports::{Core, Shared};

/// What became of one private message.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) to: UserId,
    /// The connection that it was said over.
    pub(crate) from: usize,
    /// Its place among all letters, if it was kept as one.
    pub(crate) place: Option<u64>,
    /// Its writer was told that it waits.
    pub(crate) acked: bool,
    pub(crate) removed: bool,
    /// The link that was given it last, and how many removals had failed by then.
    given: Option<(usize, u64)>,
    /// The links whose sockets have taken it whole.
    pub(crate) taken_by: Vec<usize>,
    /// How often the user has got it.
    pub(crate) heard: u64,
}

/// The account of all private messages of a seed.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) said: Vec<Said>,
    n_stored: u64,
    /// The newest that was kept of what was said over a link.
    newest: BTreeMap<usize, usize>,
    /// How many removals have failed, by user.
    failed: BTreeMap<UserId, u64>,
    /// What a link was given and has not brought yet, and which place and how many failures stood
    /// behind the last.
    under_way: BTreeMap<usize, VecDeque<usize>>,
    last_given: BTreeMap<usize, (u64, u64)>,
}

/// The number of the message in a frame or in what is published; none for the writer's own copy and for
/// whatever else is said.
pub(crate) fn number_in(bytes: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, content) = text.split_once("\"content\":\"")?;
    let (number, _) = content.split_once(' ')?;
    number.parse().ok().filter(|_| !text.contains("\"to_user_id\":"))
}

fn accuse(text: String) -> Violation {
    Violation::new("I17", text)
}

impl Account {
    /// Something is about to be said; answers its number.
    pub(crate) fn begin(&mut self, to: UserId, from: usize) -> usize {
        let taken_by = Vec::new();
        self.said.push(Said {
            to,
            from,
            place: None,
            acked: false,
            removed: false,
            given: None,
            taken_by,
            heard: 0,
        });
        self.said.len() - 1
    }

    /// The inbox has taken a letter: once, for whom it is, and behind what was said before it.
    fn on_stored(&mut self, user: &UserId, data: &Bytes) -> Checked {
        let number = number_in(data).filter(|number| *number < self.said.len());
        let Some(number) = number else { return Err(accuse(format!("nobody wrote {data:?}"))) };
        let said = &mut self.said[number];
        if said.to != *user || said.place.is_some() {
            return Err(accuse(format!("letter {number} is kept for {user}: {said:?}")));
        }
        said.place = Some(self.n_stored);
        self.n_stored += 1;
        let before = self.newest.insert(said.from, number);
        if before.is_some_and(|before| before > number) {
            return Err(accuse(format!("letter {number} is kept behind {before:?}")));
        }
        Ok(())
    }

    /// A shard has given a letter to a link: behind those that were kept before it, and again only if the
    /// link that had it is over. What the inbox could not remove excuses both.
    pub(crate) fn on_given(
        &mut self,
        number: usize,
        link: usize,
        is_over: impl FnOnce(usize) -> bool,
    ) -> Result<bool, Violation> {
        let Some(said) = self.said.get_mut(number) else { return Ok(false) };
        let Some(place) = said.place else { return Ok(false) };
        let failed = self.failed.get(&said.to).copied().unwrap_or(0);
        self.under_way.entry(link).or_default().push_back(number);
        let last = self.last_given.insert(link, (place, failed));
        if last.is_some_and(|(last, failed_then)| place <= last && failed == failed_then) {
            return Err(accuse(format!(
                "letter {number} is given to {link} out of order: {last:?}"
            )));
        }
        let before = said.given.replace((link, failed));
        match before {
            None => Ok(false),
            Some((other, failed_then)) if failed > failed_then || is_over(other) => Ok(true),
            Some((other, _)) => {
                let text = format!("letter {number} is given to link {link}, and {other} has it");
                Err(accuse(text))
            }
        }
    }

    /// A user has got a message over a link. Answers whether it was a letter.
    pub(crate) fn on_heard(&mut self, number: usize, link: usize) -> Result<bool, Violation> {
        let said = &mut self.said[number];
        said.heard += 1;
        if said.place.is_none() {
            return Ok(false);
        }
        let next = self.under_way.get_mut(&link).and_then(VecDeque::pop_front);
        if next == Some(number) {
            return Ok(true);
        }
        Err(accuse(format!("letter {number} came over link {link} where {next:?} was next")))
    }

    /// The socket of a link has taken a message whole.
    pub(crate) fn on_taken(&mut self, number: usize, link: usize) {
        if let Some(said) = self.said.get_mut(number) {
            said.taken_by.push(link);
        }
    }
}

/// The port's futures, with the faults that a disk brings.
pub(crate) struct SimInbox {
    inbox: MemoryInbox,
    core: Shared,
}

impl SimInbox {
    pub(crate) fn new(core: Shared) -> Self {
        Self { inbox: MemoryInbox::default(), core }
    }

    /// Waits, longer if the draw says so.
    async fn spin(&self) {
        self.core.travel().await;
        let slow_ms = {
            let mut core = self.core.lock();
            let chance = core.weather.slow_inbox;
            core.rng.percent(chance).then(|| {
                core.counts.fault(Fault::InboxSlow);
                core.rng.between(50, 1_500)
            })
        };
        if let Some(slow_ms) = slow_ms {
            self.core.wait(slow_ms).await;
        }
    }

    /// Fails before the deed, or behind it.
    fn draw(&self, chance: impl FnOnce(&Core) -> u64, fault: Fault) -> Result<(), InboxError> {
        let mut core = self.core.lock();
        let chance = chance(&core);
        if core.rng.percent(chance) {
            core.counts.fault(fault);
            return Err(InboxError::Storage(fault.words().to_owned()));
        }
        Ok(())
    }

    fn refuse(&self) -> Result<(), InboxError> {
        self.draw(|core| core.weather.refuse_inbox, Fault::InboxFailed)
    }

    fn lose_answer(&self) -> Result<(), InboxError> {
        self.draw(|core| core.weather.lose_inbox_answers, Fault::InboxAnswerLost)
    }

    async fn try_remove(&self, user: &UserId, up_to: LetterId) -> Result<(), InboxError> {
        self.spin().await;
        self.refuse()?;
        let waiting = self.inbox.read(user, None, u32::MAX, usize::MAX).await?;
        self.inbox.remove(user, up_to).await?;
        for (_, letter) in waiting.iter().filter(|(id, _)| *id <= up_to) {
            if let Some(number) = number_in(&letter.data) {
                self.core.lock().letters.said[number].removed = true;
            }
        }
        self.spin().await;
        self.lose_answer()
    }
}

#[async_trait]
impl Inbox for SimInbox {
    async fn put(
        &self,
        user: &UserId,
        letter: Letter,
        limits: LetterLimits,
    ) -> Result<(), InboxError> {
        self.spin().await;
        self.refuse()?;
        let data = letter.data.clone();
        self.inbox.put(user, letter, limits).await?;
        {
            let mut core = self.core.lock();
            let kept = core.letters.on_stored(user, &data);
            core.counts.effect(Effect::LetterKept);
            core.violation = core.violation.take().or(kept.err());
        }
        self.spin().await;
        self.lose_answer()
    }

    async fn read(
        &self,
        user: &UserId,
        after: Option<LetterId>,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<(LetterId, Letter)>, InboxError> {
        self.spin().await;
        self.refuse()?;
        let letters = self.inbox.read(user, after, limit, bytes_max).await?;
        self.spin().await;
        Ok(letters)
    }

    async fn remove(&self, user: &UserId, up_to: LetterId) -> Result<(), InboxError> {
        let removed = self.try_remove(user, up_to).await;
        if removed.is_err() {
            *self.core.lock().letters.failed.entry(user.clone()).or_default() += 1;
        }
        removed
    }

    /// A seed is shorter than any letter's age.
    async fn forget(&self, _before: Wall) {}
}
