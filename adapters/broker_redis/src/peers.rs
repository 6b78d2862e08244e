//! The port of the other nodes on Redis: asked over the channel of all nodes, answered through lists.
//!
//! A question names whom it is for, or everybody; each puts its answer into a list of the asker's that runs out by
//! itself, and rings.
//! Who has to answer is what the leases say. It must never answer from what is in its own memory of another
//! node, never keep more questions than it can name, and never let one of them wait for ever.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use application::ports::{
    ActsOfAll, Heard, KICK_COUNTS, NodeName, Peer, PeerQuestion, Peers, Word,
};
use async_trait::async_trait;
use domain::id::{Epoch, UserId};
use domain::moderation::Entry;
use redis::Cmd;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::batch::Batch;
use crate::broker::{RedisBroker, millis};
use crate::collected::Collected;
use crate::link::CallError;
use crate::missed::Missed;
use crate::peer_words::{
    Answered, is_about_one_user, read_entry, read_question, write_entry, write_question,
};

/// How long all the others may take together.
const ASK_TIMEOUT: Duration = Duration::from_millis(1_200);
/// How long an answer that nobody fetches lies there.
const ANSWER_KEPT: Duration = Duration::from_secs(10);
/// The most questions that are answered at a time, and that wait for that; more are not answered.
const ANSWERING_MAX: usize = 4;
const WAITING_MAX: usize = 256;
/// The same of questions about one user alone, which are asked for each private message to somebody on another node
/// and answered from memory.
const ANSWERING_OF_USERS_MAX: usize = 64;
const WAITING_OF_USERS_MAX: usize = 4_096;
/// The most acts of moderators that wait to be told, or to be obeyed.
const ACTS_MAX: usize = 10_000;
/// The most users of whom it waits to be told that something waits for them; who is left out is given it when it
/// comes again, or with the next.
const BELLS_MAX: usize = 10_000;
/// The most acts that count already and are being stored; the next one waits for one of them.
const STORING_MAX: usize = 256;
/// The largest answer, in bytes: the largest page and its names fit.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The most answers that are fetched at once.
const FETCHED_MAX: usize = 16;

/// What is said to all nodes begins with one of these.
const ASK: &str = "ask";
const ANSWERED: &str = "answered";
const MODERATED: &str = "moderated";
const LETTERS: &str = "letters";
/// Who is asked where everybody is.
const ALL: &str = "*";

/// What was heard and is to be done.
#[derive(Debug)]
enum ToDo {
    Answer { asker: String, number: u64, question: String },
    Obey(Entry, bool),
}

/// See the module's text.
pub struct RedisPeers {
    broker: Arc<RedisBroker>,
    name: NodeName,
    peer: OnceLock<Arc<dyn Peer>>,
    /// Those of this node that are asked now; held for a look only.
    asking: Mutex<(u64, BTreeMap<u64, Arc<Notify>>)>,
    questions: mpsc::Sender<ToDo>,
    of_users: mpsc::Sender<ToDo>,
    acts: mpsc::Sender<ToDo>,
    said: mpsc::Sender<(Entry, Instant)>,
    bells: mpsc::Sender<UserId>,
    inbox: Mutex<Option<Inbox>>,
    missed: Missed,
}

struct Inbox {
    questions: mpsc::Receiver<ToDo>,
    of_users: mpsc::Receiver<ToDo>,
    acts: mpsc::Receiver<ToDo>,
    said: mpsc::Receiver<(Entry, Instant)>,
    bells: mpsc::Receiver<UserId>,
}

impl RedisPeers {
    /// The nodes on this broker's Redis. The host spawns [`run`](Self::run).
    #[must_use]
    pub fn build(broker: &Arc<RedisBroker>) -> Arc<Self> {
        let (questions, asked) = mpsc::channel(WAITING_MAX);
        let (of_users, asked_of_users) = mpsc::channel(WAITING_OF_USERS_MAX);
        let (acts, to_obey) = mpsc::channel(ACTS_MAX);
        let (said, to_say) = mpsc::channel(ACTS_MAX);
        let (bells, to_ring) = mpsc::channel(BELLS_MAX);
        let name = Epoch::from_bits(broker.bits()).to_string();
        let Some(name) = NodeName::parse(&name) else { unreachable!("sixteen digits") };
        let inbox = Inbox {
            questions: asked,
            of_users: asked_of_users,
            acts: to_obey,
            said: to_say,
            bells: to_ring,
        };
        let this = Arc::new(Self {
            broker: Arc::clone(broker),
            name,
            peer: OnceLock::new(),
            asking: Mutex::default(),
            questions,
            of_users,
            acts,
            said,
            bells,
            inbox: Mutex::new(Some(inbox)),
            missed: Missed::default(),
        });
        let weak = Arc::downgrade(&this);
        broker.news().listen(move |said| {
            if let (Some(this), Ok(said)) = (weak.upgrade(), std::str::from_utf8(said)) {
                this.hear(said);
            }
        });
        this
    }

    /// Follows the log of what moderators did that all nodes write; where each has its own nobody learns from it.
    pub fn follow(&self, acts: Arc<dyn ActsOfAll>) {
        self.missed.follow(acts);
    }

    /// Answers, obeys and tells for as long as it is polled; once.
    pub async fn run(self: Arc<Self>) {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Inbox { questions, of_users, acts, said, bells }) = inbox else { return };
        tokio::join!(
            self.answer_all(questions, ANSWERING_MAX),
            self.answer_all(of_users, ANSWERING_OF_USERS_MAX),
            self.obey_all(acts),
            self.say_all(said, |(entry, done)| {
                (MODERATED, write_entry(entry, done.elapsed() > KICK_COUNTS))
            }),
            self.say_all(bells, |user| (LETTERS, user.to_string())),
            self.missed.run(&self.broker, &self.peer, |entry, is_late| self.obey(entry, is_late)),
        );
    }

    async fn answer_all(self: &Arc<Self>, mut questions: mpsc::Receiver<ToDo>, most: usize) {
        let places = Arc::new(Semaphore::new(most));
        let mut answering = JoinSet::new();
        while let Some(to_do) = questions.recv().await {
            let ToDo::Answer { asker, number, question } = to_do else { continue };
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let this = Arc::clone(self);
            answering.spawn(async move {
                // Nobody waits for longer.
                let _ = timeout(ASK_TIMEOUT, this.answer(&asker, number, &question)).await;
                drop(place);
            });
            while answering.try_join_next().is_some() {}
        }
    }

    /// Each counts at its turn, and is stored beside the next ones: a slow storage lets nobody stay.
    async fn obey_all(&self, mut acts: mpsc::Receiver<ToDo>) {
        let mut storing = Storing::default();
        loop {
            let act = tokio::select! {
                act = acts.recv(), if storing.0.len() < STORING_MAX => act,
                () = storing.next() => continue,
            };
            let Some(to_do) = act else { break };
            if let (ToDo::Obey(entry, is_late), Some(peer)) = (to_do, self.peer.get()) {
                let peer = Arc::clone(peer);
                storing.begin(Box::pin(async move { peer.moderated(entry, is_late).await })).await;
            }
        }
        while !storing.0.is_empty() {
            storing.next().await;
        }
    }

    /// Each is said until Redis has taken it.
    async fn say_all<T>(
        &self,
        mut said: mpsc::Receiver<T>,
        write: impl Fn(&T) -> (&'static str, String),
    ) {
        while let Some(one) = said.recv().await {
            let word = || {
                let (mark, text) = write(&one);
                format!("{mark} {} {text}", self.name)
            };
            while self.say(&word()).await.is_err() {
                self.broker.status().until_commands_up().await;
                sleep(self.broker.config.lease / 100).await;
            }
        }
    }

    async fn say(&self, word: &str) -> Result<(), CallError> {
        let link = self.broker.commands.link()?;
        let fill = |command: &mut Cmd| {
            let channel = self.broker.names.news_channel();
            command.arg(self.broker.commands.say()).arg(channel).arg(word);
        };
        self.broker.commands.ask_for::<i64>(&link, fill).await.map(drop)
    }

    async fn answer(&self, asker: &str, number: u64, question: &str) -> Option<()> {
        let (peer, question) = (self.peer.get()?, read_question(question)?);
        let answer = peer.answer(question).await?;
        let link = self.broker.commands.link().ok()?;
        let lease = self.broker.present.name_over(&link)?;
        let answered = Answered { node: self.name.clone(), lease, answer }.write();
        if answered.len() > ANSWER_BYTES_MAX {
            tracing::error!(bytes = answered.len(), "an answer to another node is too large");
            return None;
        }
        let key = self.broker.names.answers(asker, number);
        let mut batch = Batch::default();
        let command = |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            command
        };
        batch.ask(command(&["RPUSH", &key, &answered]));
        batch.tell(command(&["PEXPIRE", &key, &millis(ANSWER_KEPT).to_string()]));
        let bell = format!("{ANSWERED} {asker} {number}");
        let channel = self.broker.names.news_channel();
        batch.tell(command(&[self.broker.commands.say(), &channel, &bell]));
        let answers = self.broker.commands.run_batch(&link, &batch).await;
        answers.into_iter().all(|answer| answer.is_ok()).then_some(())
    }

    /// What all nodes are told. It must not wait.
    fn hear(&self, said: &str) {
        let mut words = said.splitn(3, ' ');
        let (Some(word), Some(who), Some(rest)) = (words.next(), words.next(), words.next()) else {
            return;
        };
        let is_own = who == self.name.as_str();
        match word {
            ANSWERED if is_own => {
                let bell =
                    rest.parse().ok().and_then(|number| self.asking().1.get(&number).cloned());
                if let Some(bell) = bell {
                    bell.notify_one();
                }
            }
            ASK if !is_own => {
                let mut words = rest.splitn(3, ' ');
                let (Some(number), Some(asked), Some(question)) =
                    (words.next(), words.next(), words.next())
                else {
                    return;
                };
                // Most of what is asked is for one or two of many nodes.
                let is_asked = |name: &str| self.broker.present.is_called(name);
                if asked != ALL && !asked.split(',').any(is_asked) {
                    return;
                }
                let Ok(number) = number.parse() else { return };
                let lane = match is_about_one_user(question) {
                    true => &self.of_users,
                    false => &self.questions,
                };
                let (asker, question) = (who.to_owned(), question.to_owned());
                // Who gets no answer says so.
                let _ = lane.try_send(ToDo::Answer { asker, number, question });
            }
            MODERATED if !is_own => {
                let Some((entry, is_late)) = read_entry(rest) else {
                    tracing::error!("what a moderator did over another node can't be read");
                    return;
                };
                // Before this node is put together nobody obeys: then it is read in the log of all.
                if self.peer.get().is_some() && self.missed.note(&entry) {
                    let is_obeyed = self.obey(entry.clone(), is_late);
                    if !is_obeyed {
                        self.missed.forget(&entry);
                    }
                }
            }
            LETTERS if !is_own => {
                if let (Some(peer), Ok(user)) = (self.peer.get(), UserId::parse(rest)) {
                    peer.letters_wait(&user);
                }
            }
            _ => {}
        }
    }

    /// Says whether it is to be.
    fn obey(&self, entry: Entry, is_late: bool) -> bool {
        let is_taken = self.acts.try_send(ToDo::Obey(entry, is_late)).is_ok();
        if !is_taken {
            tracing::error!("what a moderator did over another node is not obeyed here");
        }
        is_taken
    }

    fn asking(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Arc<Notify>>)> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and fetches what comes until everybody has answered.
    async fn call(
        &self,
        (number, bell): (u64, &Notify),
        question: &PeerQuestion,
        heard: &mut Collected,
    ) -> Result<(), CallError> {
        let link = self.broker.commands.link()?;
        heard.waits_for = match question {
            PeerQuestion::Hears(user) => self.broker.others_of(&link, user).await?,
            PeerQuestion::Rooms(_)
            | PeerQuestion::Connections { .. }
            | PeerQuestion::End { .. } => self.broker.others(&link).await?,
        };
        heard.is_known = true;
        if heard.waits_for.is_empty() && matches!(question, PeerQuestion::Hears(_)) {
            return Ok(());
        }
        let asked = match question {
            PeerQuestion::Hears(_) => {
                heard.waits_for.iter().map(String::as_str).collect::<Vec<_>>().join(",")
            }
            PeerQuestion::Rooms(_)
            | PeerQuestion::Connections { .. }
            | PeerQuestion::End { .. } => ALL.to_owned(),
        };
        let question = write_question(question);
        self.say(&format!("{ASK} {} {number} {asked} {question}", self.name)).await?;
        let key = self.broker.names.answers(self.name.as_str(), number);
        while !heard.waits_for.is_empty() && !heard.is_enough {
            // A ring that was lost with the subscription is not waited for.
            let _ = timeout(ASK_TIMEOUT / 6, bell.notified()).await;
            loop {
                let fill = |command: &mut Cmd| {
                    command.arg("LPOP").arg(&key).arg(FETCHED_MAX);
                };
                let fetched: Option<Vec<String>> =
                    self.broker.commands.ask_for(&link, fill).await?;
                let fetched = fetched.unwrap_or_default();
                fetched.iter().for_each(|text| heard.take(text));
                // Whoever answers later rings.
                if heard.is_enough || fetched.len() < FETCHED_MAX {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn call_count(&self, user: &UserId) -> Result<u32, CallError> {
        let link = self.broker.commands.link()?;
        Ok(self.broker.seats_of(&link, user).await?.iter().map(|(_, count)| count).sum())
    }
}

/// Acts that count and are being stored.
#[derive(Default)]
struct Storing(Vec<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Storing {
    /// Polled at once: acts count in the order in which they were heard.
    async fn begin(&mut self, mut storing: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let at_once = poll_fn(|cx| Poll::Ready(storing.as_mut().poll(cx))).await;
        if at_once.is_pending() {
            self.0.push(storing);
        }
    }

    /// Waits until one or more are stored; for ever where there are none.
    async fn next(&mut self) {
        poll_fn(|cx| {
            let before = self.0.len();
            self.0.retain_mut(|storing| storing.as_mut().poll(cx).is_pending());
            if self.0.len() < before { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Forgets a question when nobody waits for it any more.
struct Asking<'a> {
    peers: &'a RedisPeers,
    number: u64,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.peers.asking().1.remove(&self.number);
    }
}

#[async_trait]
impl Peers for RedisPeers {
    fn name(&self) -> Option<NodeName> {
        Some(self.name.clone())
    }

    async fn ask(&self, question: PeerQuestion) -> Heard {
        let bell = Arc::new(Notify::new());
        let number = {
            let mut asking = self.asking();
            asking.0 += 1;
            let number = asking.0;
            asking.1.insert(number, Arc::clone(&bell));
            number
        };
        let _asking = Asking { peers: self, number };
        let mut heard = Collected::default();
        let begin = Instant::now();
        let asked = timeout(ASK_TIMEOUT, self.call((number, &bell), &question, &mut heard)).await;
        if !matches!(asked, Ok(Ok(()))) {
            let (took, missing) = (begin.elapsed(), heard.waits_for.len());
            if matches!(question, PeerQuestion::Hears(_)) {
                // One for each private message to whoever is there.
                tracing::debug!(
                    ?took,
                    missing,
                    "nobody says whether a user hears what is said to it"
                );
            } else {
                tracing::warn!(?took, missing, "not all nodes have answered");
            }
        }
        heard.end()
    }

    async fn connections_of(&self, user: &UserId) -> Option<u32> {
        let counted = timeout(ASK_TIMEOUT, self.call_count(user)).await;
        counted.ok()?.ok()
    }

    fn tell(&self, word: &Word) {
        match word {
            Word::Moderated(entry) => {
                self.missed.note(entry);
                if self.said.try_send((entry.clone(), Instant::now())).is_err() {
                    tracing::error!("what a moderator did is not told to other nodes");
                }
            }
            Word::LettersWait(user) => {
                if self.bells.try_send(user.clone()).is_err() {
                    tracing::debug!("other nodes are not told that something waits for a user");
                }
            }
        }
    }

    fn serve(&self, peer: Arc<dyn Peer>) {
        let _ = self.peer.set(peer);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use application::ports::{Entropy, NoEntropy};

    use super::*;
    use crate::link::Link;
    use crate::presence::Lease;
    use crate::slots::SlotMap;

    struct One;

    impl Entropy for One {
        fn bits(&self) -> Result<u64, NoEntropy> {
            Ok(1)
        }
    }

    #[tokio::test]
    async fn what_others_are_asked_costs_nobody_else_a_place() {
        let config = crate::Config::new("redis://127.0.0.1:1".into());
        let broker = RedisBroker::build(config, Arc::new(One)).unwrap();
        let peers = RedisPeers::build(&broker);
        let mut inbox = peers.inbox.lock().unwrap().take().unwrap();
        for (asked, takes) in [("*", true), ("a1,b2", false), ("", false), ("a1", false)] {
            peers.hear(&format!(r#"ask ff 7 {asked} {{"Hears":"ann"}}"#));
            assert_eq!(inbox.of_users.try_recv().is_ok(), takes, "{asked}");
        }
        broker.present.set_lease(Some(Lease {
            node: "b2".to_owned(),
            link: Arc::new(Link::of(&[], &SlotMap::One)),
        }));
        peers.hear(r#"ask ff 7 a1,b2 {"Hears":"ann"}"#);
        let to_do = inbox.of_users.try_recv();
        let Ok(ToDo::Answer { asker, number, question }) = to_do else { panic!("{to_do:?}") };
        assert_eq!((&*asker, number, &*question), ("ff", 7, r#"{"Hears":"ann"}"#));
    }

    #[tokio::test]
    async fn an_act_counts_although_the_one_before_it_is_still_being_stored() {
        let begun = Arc::new(AtomicUsize::new(0));
        let (stored, waits) = tokio::sync::watch::channel(false);
        let mut storing = Storing::default();
        for n in 0..3 {
            let (count, mut waits) = (Arc::clone(&begun), waits.clone());
            let act = async move {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = waits.wait_for(|is_stored| *is_stored).await;
            };
            storing.begin(Box::pin(act)).await;
            assert_eq!((begun.load(Ordering::SeqCst), storing.0.len()), (n + 1, n + 1));
        }
        stored.send_replace(true);
        storing.next().await;
        assert!(storing.0.is_empty());
    }
}
