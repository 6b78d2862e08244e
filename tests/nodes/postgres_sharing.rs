//! Several stores on one schema, and one store on a server that changes under it: what one does leaves nothing
//! behind that another one meets, and what a node remembers is put right by the tables.

use std::sync::Arc;
use std::time::{Duration, Instant};

use application::ports::{
    ActsOfAll as _, Archive as _, ArchiveError, CreateMatchError, Created, Inbox as _, InboxError,
    Letter, LetterId, LetterLimits, Matches as _, MatchesAfter, MatchesKept, Moderation as _,
    Revocations as _, SpentTokens as _, Succession as _,
};
use application::testing::archive_contract::{offset, record, room};
use application::testing::matches_contract::{over, waiting};
use application::testing::moderation_contract::{at, entry};
use bytes::Bytes;
use domain::id::{ConnectionId, Epoch, TokenId, UserId};
use domain::matches::{GameType, Match, Phase};
use domain::message::Sender;
use domain::moderation::{Act, Deed, Entry, Until};
use domain::position::Offset;
use domain::principal::{Credential, Principal};
use domain::revocation::Revocation;
use domain::time::Wall;
use store_postgres::{
    Config, PostgresArchive, PostgresInbox, PostgresMatches, PostgresModeration,
    PostgresRevocations, PostgresSpentTokens, Sharing,
};
use tests::postgres::Postgres;

use crate::postgres_stores::{build, config, impatient, in_time, until};

const EPOCH: Epoch = Epoch::from_bits(7);
const KEPT: MatchesKept = MatchesKept { matches_max: 1_000, retention: Duration::from_secs(3_600) };

fn shared(postgres: &Postgres) -> Config {
    Config { sharing: Sharing::Shared, ..impatient(postgres) }
}

/// Two stores on one schema.
async fn two(settings: &Config) -> [Arc<PostgresArchive>; 2] {
    [build(settings.clone()).await, build(settings.clone()).await]
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn letter(text: &str) -> Letter {
    Letter { sender: Sender::default(), data: Bytes::from(format!("\"{text}\"")), at: now() }
}

fn now() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Wall::from_millis(i64::try_from(since.as_millis()).unwrap())
}

const fn limits(all: u32) -> LetterLimits {
    LetterLimits { of_user: 99, of_pair: 99, of_sender: 99, of_all: all }
}

#[tokio::test]
async fn a_match_that_was_refused_on_one_node_keeps_no_other_node_waiting() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let stores = two(&shared(&postgres)).await;
    let [one, other] = stores.clone().map(|store| PostgresMatches::new(store, KEPT));
    let known = waiting("known");
    let like = Match { game: GameType::parse("chess").unwrap(), ..known.clone() };
    assert_eq!(one.create(&known).await, Ok(Created::New));
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    for n in 0..3 {
        assert!(matches!(one.create(&known).await, Ok(Created::Already(_))));
        assert_eq!(one.create(&like).await, Err(CreateMatchError::Conflict));
        assert!(one.update(&over(&known, 1), Phase::Running).await.is_err());
        assert!(one.update(&over(&waiting("nobody"), 1), Phase::Waiting).await.is_err());
        assert_eq!(postgres.ask(idle), "0");
        // It needs the same turn, and then the same row.
        assert_eq!(other.create(&waiting(&format!("next{n}"))).await, Ok(Created::New));
    }
    assert_eq!(other.update(&over(&known, 1), Phase::Waiting).await, Ok(()));
    for store in stores {
        store.close().await;
    }
}

/// A database, or a user, may have another isolation than the usual one.
#[tokio::test]
async fn one_of_two_nodes_makes_a_match_and_the_other_finds_it_whatever_the_database_isolates() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start_with(&["default_transaction_isolation=serializable"]);
    let stores = two(&shared(&postgres)).await;
    let [one, other] = stores.clone().map(|store| PostgresMatches::new(store, KEPT));
    for n in 0..20 {
        let new = waiting(&format!("m{n}"));
        let (a, b) = tokio::join!(one.create(&new), other.create(&new));
        let n_new = [&a, &b].into_iter().filter(|made| **made == Ok(Created::New)).count();
        assert!(a.is_ok() && b.is_ok() && n_new == 1, "{a:?} {b:?}");
    }
    for store in stores {
        store.close().await;
    }
}

#[tokio::test]
async fn a_store_that_takes_no_writes_any_more_or_may_lose_them_is_away_until_it_is_mended() {
    if !Postgres::is_here() {
        return;
    }
    let mut postgres = Postgres::start();
    let store = build(impatient(&postgres)).await;
    let room = room("chat:a");
    store.open_room(&room, EPOCH, None).await.unwrap();
    let set = |value: &str| {
        postgres.tell(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}"));
        postgres.tell("SELECT pg_reload_conf()");
    };
    set("on");
    in_time("it is refused", async {
        let mut n = 1;
        while store.append(vec![record(&room, EPOCH, n)]).await.is_ok() {
            n += 1;
        }
    })
    .await;
    in_time("it is known", async {
        while store.status().is_up() {
            drop(store.open_room(&room, EPOCH, None).await);
        }
    })
    .await;
    postgres.tell("ALTER SYSTEM RESET default_transaction_read_only");
    postgres.tell("SELECT pg_reload_conf()");
    until("it is up", || store.status().is_up()).await;
    assert!(store.open_room(&room, EPOCH, None).await.is_ok());

    postgres.kill();
    until("it is away", || !store.status().is_up()).await;
    postgres.start_again_with(&["fsync=off"]);
    let connects = store.status().connects();
    until("it is looked at again", || store.status().connects() > connects + 3).await;
    assert!(!store.status().is_up());
    assert!(store.open_room(&room, EPOCH, None).await.is_err());
    postgres.start_again_with(&[]);
    until("it is up", || store.status().is_up()).await;
    store.close().await;
}

/// What a moderator did comes from every node that heard of it, and from some of them late.
#[tokio::test]
async fn an_act_is_one_line_whoever_brings_it_and_one_that_comes_late_undoes_nothing() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = shared(&postgres);
    let schema = settings.schema.clone();
    let stores = two(&settings).await;
    let mut nodes = Vec::new();
    for store in &stores {
        nodes.push(PostgresModeration::load(Arc::clone(store)).await.unwrap());
    }
    let (mute, unmute) =
        (entry(1, Act::Mute(user("ann"), None)), entry(2, Act::Unmute(user("ann"))));
    let (ban, unban) = (entry(3, Act::Ban(user("bob"), None)), entry(4, Act::Unban(user("bob"))));
    let kick = entry(5, Act::Kick(user("ann")));
    for act in [&mute, &unmute, &unban, &kick] {
        nodes[0].record(act).await.unwrap();
    }
    // The first has stood there already, the second comes after what took it back.
    for act in [&mute, &unmute, &ban, &kick] {
        nodes[1].record(act).await.unwrap();
    }
    let lines = |act: i16| {
        postgres.ask(&format!("SELECT count(*) FROM {schema}.moderation_log WHERE act = {act}"))
    };
    for act in 0..=4 {
        assert_eq!(lines(act), "1", "{act}");
    }
    assert_eq!(postgres.ask(&format!("SELECT count(*) FROM {schema}.sanctions")), "0");
    // What a later act says takes the place of what an earlier one says.
    nodes[1].record(&entry(9, Act::Ban(user("bob"), Some(Duration::from_secs(60))))).await.unwrap();
    nodes[0].record(&entry(8, Act::Ban(user("bob"), None))).await.unwrap();
    let again = PostgresModeration::load(Arc::clone(&stores[0])).await.unwrap();
    let until = again.forbids(&user("bob"), &room("chat:a"), Deed::Enter, at(10));
    assert_eq!(until, Some(Until::At(at(69))));
    for store in stores {
        store.close().await;
    }
}

/// Behind what a node did whose clock is ahead, an act lasts as long as it is meant to.
#[tokio::test]
async fn an_act_stands_behind_another_and_lasts_from_when_it_was_done() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let stores = two(&shared(&postgres)).await;
    let node = PostgresModeration::load(Arc::clone(&stores[0])).await.unwrap();
    let minute = Some(Duration::from_secs(60));
    let acts = [
        entry(100_000, Act::Unmute(user("ann"))),
        Entry { order: at(100_001), ..entry(0, Act::Mute(user("ann"), minute)) },
        // At one moment by its clock.
        Entry { order: at(100_002), ..entry(0, Act::Unmute(user("ann"))) },
        Entry { order: at(100_003), ..entry(0, Act::Mute(user("ann"), minute)) },
    ];
    for act in &acts {
        node.record(act).await.unwrap();
    }
    // One that comes late.
    let late = Entry { order: at(50_000), ..entry(1, Act::Unmute(user("ann"))) };
    node.record(&late).await.unwrap();
    let other = PostgresModeration::load(Arc::clone(&stores[1])).await.unwrap();
    for node in [&node, &other] {
        let until = node.forbids(&user("ann"), &room("chat:a"), Deed::Speak, at(1));
        assert_eq!(until, Some(Until::At(at(60))));
    }
    let read = node.read(None, 9).await.unwrap();
    let read: Vec<_> = read.into_iter().rev().map(|(_, act)| act).collect();
    assert_eq!((&read[..4], &read[4..]), (&acts[..], &[late][..]));
    for store in stores {
        store.close().await;
    }
}

/// What a node knows at its start is not brought to it again, nor what can't be read for ever.
#[tokio::test]
async fn the_log_of_acts_is_read_on_by_its_numbers_from_what_a_node_knew_at_its_start() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = shared(&postgres);
    let schema = settings.schema.clone();
    let stores = two(&settings).await;
    let one = PostgresModeration::load(Arc::clone(&stores[0])).await.unwrap();
    let kick = |n: i64| entry(n, Act::Kick(user("ann")));
    one.record(&kick(0)).await.unwrap();
    let other = PostgresModeration::load(Arc::clone(&stores[1])).await.unwrap();
    let nothing = other.read_on(other.begin(), 2).await.unwrap();
    assert_eq!((nothing.acts.len(), nothing.reached, nothing.is_end), (0, other.begin(), true));
    // By clocks that go back, and brought twice.
    for n in [9, 8, 8, 7, 6] {
        one.record(&kick(n)).await.unwrap();
    }
    postgres.tell(&format!(
        "SET search_path = {schema}; UPDATE moderation_log SET by_user = 'no user' WHERE at_ms = {}",
        at(7).as_millis()
    ));
    let (mut found, mut from) = (Vec::new(), other.begin());
    let before = stores[1].status().unreadable();
    for n in 0..3 {
        let page = other.read_on(from, 2).await.unwrap();
        assert_eq!(page.is_end, n == 2);
        (from, found) = (page.reached, [found, page.acts].concat());
    }
    assert_eq!(found, [kick(9), kick(8), kick(6)]);
    let _ = other.read_on(other.begin(), 9).await.unwrap();
    assert_eq!(stores[1].status().unreadable() - before, 1, "said once");
    for store in stores {
        store.close().await;
    }
}

/// A node whose clock is a day ahead has them over for itself alone.
#[tokio::test]
async fn a_clock_that_is_ahead_ends_no_sanction_for_others() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = shared(&postgres);
    let stores = two(&settings).await;
    let ahead = PostgresModeration::load(Arc::clone(&stores[0])).await.unwrap();
    let mut ban = entry(0, Act::Ban(user("bob"), Some(Duration::from_secs(3_600))));
    (ban.at, ban.order) = (now(), now());
    let mut gone = entry(0, Act::Ban(user("carl"), Some(Duration::from_secs(1))));
    (gone.at, gone.order) = (at(0), at(0));
    ahead.record(&ban).await.unwrap();
    ahead.record(&gone).await.unwrap();
    let tomorrow = now().after(Duration::from_secs(86_400));
    ahead.forget(tomorrow).await;
    ahead
        .record(&Entry { at: tomorrow, order: tomorrow, ..entry(0, Act::Kick(user("dora"))) })
        .await
        .unwrap();
    let other = PostgresModeration::load(Arc::clone(&stores[1])).await.unwrap();
    let forbidden = |name: &str| other.forbids(&user(name), &room("chat:a"), Deed::Enter, now());
    assert!(forbidden("bob").is_some());
    let left = format!("SELECT count(*) FROM {}.sanctions", settings.schema);
    assert_eq!(postgres.ask(&left), "1");
    for store in stores {
        store.close().await;
    }
}

#[tokio::test]
async fn letters_that_another_node_took_out_make_room_on_this_one() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let stores = two(&shared(&postgres)).await;
    let one = PostgresInbox::load(Arc::clone(&stores[0])).await.unwrap();
    let other = PostgresInbox::load(Arc::clone(&stores[1])).await.unwrap();
    for text in ["a", "b", "c"] {
        one.put(&user("ann"), letter(text), limits(3)).await.unwrap();
    }
    let read = other.read(&user("ann"), None, 9, usize::MAX).await.unwrap();
    other.remove(&user("ann"), LetterId(read[2].0.0)).await.unwrap();
    assert_eq!(one.put(&user("ann"), letter("d"), limits(3)).await, Err(InboxError::Full));
    one.forget(Wall::default()).await;
    assert_eq!(one.put(&user("ann"), letter("d"), limits(3)).await, Ok(()));
    for store in stores {
        store.close().await;
    }
}

/// A statement that was prepared on the tables of one version is made on those of the next.
#[tokio::test]
async fn a_column_that_a_newer_version_adds_disturbs_no_older_node() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = Config { readers_max: 1, ..config(&postgres) };
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let room = room("chat:a");
    store.open_room(&room, EPOCH, None).await.unwrap();
    store.append(vec![record(&room, EPOCH, 1)]).await.unwrap();
    let matches = PostgresMatches::new(Arc::clone(&store), KEPT);
    matches.create(&waiting("m")).await.unwrap();
    let inbox = PostgresInbox::load(Arc::clone(&store)).await.unwrap();
    inbox.put(&user("ann"), letter("a"), limits(9)).await.unwrap();
    let moderation = PostgresModeration::load(Arc::clone(&store)).await.unwrap();
    moderation.record(&entry(1, Act::Ban(user("bob"), None))).await.unwrap();
    let page = MatchesAfter { phase: None, after: None, matches_max: 9, bytes_max: usize::MAX };
    let of_phase = MatchesAfter { phase: Some(Phase::Waiting), ..page.clone() };
    for round in 0..2 {
        let read = store.read(&room, EPOCH, Offset::ZERO, 9, usize::MAX).await.unwrap();
        assert_eq!(read.messages, [record(&room, EPOCH, 1).publication]);
        let lives = store.read_lives(&room, Offset::ZERO, 9, usize::MAX).await.unwrap().unwrap();
        assert_eq!(lives.messages, read.messages);
        for page in [&page, &of_phase] {
            assert_eq!(matches.list(page).await.unwrap().matches.len(), 1);
        }
        assert!(matches.find(&waiting("m").id).await.unwrap().is_some());
        assert!(matches!(matches.create(&waiting("m")).await, Ok(Created::Already(_))));
        assert_eq!(inbox.read(&user("ann"), None, 9, usize::MAX).await.unwrap().len(), 1);
        assert_eq!(moderation.read(None, 9).await.unwrap().len(), 1);
        assert!(PostgresModeration::load(Arc::clone(&store)).await.is_ok());
        let span = Duration::from_secs(60);
        assert!(PostgresRevocations::load(Arc::clone(&store), span).await.is_ok());
        if round == 0 {
            for table in [
                "messages",
                "rooms",
                "matches",
                "letters",
                "moderation_log",
                "sanctions",
                "revocations",
            ] {
                postgres.tell(&format!("ALTER TABLE {schema}.{table} ADD COLUMN later bigint"));
            }
        }
    }
    store.close().await;
}

/// A table that answers slowly, each row after so many seconds.
fn slow(postgres: &Postgres, schema: &str, table: &str, seconds: u32) {
    postgres.tell(&format!(
        "SET search_path = {schema}; ALTER TABLE {table} RENAME TO true_{table}; \
         CREATE VIEW {table} AS SELECT * FROM true_{table} WHERE pg_sleep({seconds}) IS NOT NULL"
    ));
}

#[tokio::test]
async fn a_slow_read_ends_at_the_server_and_costs_no_connection() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = impatient(&postgres);
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let room = room("chat:a");
    store.open_room(&room, EPOCH, None).await.unwrap();
    store.append((1..=3).map(|n| record(&room, EPOCH, n)).collect()).await.unwrap();
    let read = || store.read(&room, EPOCH, Offset::ZERO, 9, usize::MAX);
    assert!(read().await.is_ok());
    slow(&postgres, &schema, "messages", 5);
    let connects = store.status().connects();
    for _ in 0..3 {
        let answer = read().await;
        let Err(ArchiveError::Storage(why)) = answer else { panic!("{answer:?}") };
        assert!(why.contains("statement timeout"), "{why}");
    }
    assert_eq!(store.status().connects(), connects);
    store.close().await;
}

#[tokio::test]
async fn whoever_commits_does_not_wait_behind_those_that_read_slowly() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings =
        Config { readers_max: 2, answer_timeout: Duration::from_secs(10), ..config(&postgres) };
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let inbox = Arc::new(PostgresInbox::load(Arc::clone(&store)).await.unwrap());
    inbox.put(&user("ann"), letter("a"), limits(9)).await.unwrap();
    slow(&postgres, &schema, "letters", 8);
    let reads: Vec<_> = (0..3)
        .map(|_| {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move { inbox.read(&user("ann"), None, 9, usize::MAX).await })
        })
        .collect();
    until("one is being read", || {
        let asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        postgres.ask(asked) != "0"
    })
    .await;
    let begun = Instant::now();
    assert_eq!(store.find(Vec::new()).await, Ok(Vec::new()));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    reads.iter().for_each(tokio::task::JoinHandle::abort);
    store.close().await;
}

/// What can't be read makes a page no shorter, and hides nothing that is behind it.
#[tokio::test]
async fn lines_and_matches_behind_some_that_can_not_be_read_are_found() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = config(&postgres);
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let matches = PostgresMatches::new(Arc::clone(&store), KEPT);
    for n in 100..300 {
        matches.create(&waiting(&format!("m{n}"))).await.unwrap();
    }
    let moderation = PostgresModeration::load(Arc::clone(&store)).await.unwrap();
    for n in 0..9 {
        moderation.record(&entry(n, Act::Kick(user("bob")))).await.unwrap();
    }
    postgres.tell(&format!(
        "SET search_path = {schema}; UPDATE matches SET spectators = 9 WHERE id > 'm101' AND id < 'm280'; \
         UPDATE moderation_log SET by_user = 'no user' WHERE id BETWEEN 4 AND 8"
    ));
    let list = |n| MatchesAfter { phase: None, after: None, matches_max: n, bytes_max: usize::MAX };
    let page = matches.list(&list(3)).await.unwrap();
    let names: Vec<_> = page.matches.iter().map(|one| one.id.to_string()).collect();
    assert_eq!((names, page.more), (["m100", "m101", "m280"].map(str::to_owned).to_vec(), true));
    let page = matches.list(&list(1_000)).await.unwrap();
    assert_eq!((page.matches.len(), page.more), (22, false));
    let lines = moderation.read(None, 3).await.unwrap();
    assert_eq!(lines.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [9, 3, 2]);
    store.close().await;
}

/// What a node knows when it begins is what the ones before it have stored.
#[tokio::test]
async fn a_node_that_begins_knows_what_was_revoked_sanctioned_spent_and_kept() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = shared(&postgres);
    let span = Duration::from_secs(3_600);
    let store = build(settings.clone()).await;
    let revocations = PostgresRevocations::load(Arc::clone(&store), span).await.unwrap();
    for n in 0..50 {
        let revoked = Revocation::User { user: user(&format!("u{n}")), issued_until: now() };
        revocations.add(&revoked, now()).await.unwrap();
    }
    let moderation = PostgresModeration::load(Arc::clone(&store)).await.unwrap();
    moderation.record(&entry(1, Act::Ban(user("bob"), None))).await.unwrap();
    let spent = PostgresSpentTokens::load(Arc::clone(&store), 60).await.unwrap();
    let token = TokenId::parse("t1").unwrap();
    spent.spend(&token, now().after(span), now()).await.unwrap();
    let inbox = PostgresInbox::load(Arc::clone(&store)).await.unwrap();
    inbox.put(&user("ann"), letter("a"), limits(1)).await.unwrap();
    store.close().await;

    let store = build(settings).await;
    let revocations = PostgresRevocations::load(Arc::clone(&store), span).await.unwrap();
    assert_eq!(revocations.remembered(), 50);
    let issued_at = Some(Wall::from_millis(0));
    let credential = Credential { issued_at, ..Credential::default() };
    let who = |name: &str| Principal {
        user: Some(user(name)),
        credential: credential.clone(),
        ..Principal::default()
    };
    assert!(revocations.concerns(&who("u7"), ConnectionId::from_bits(1)));
    assert!(!revocations.concerns(&who("ann"), ConnectionId::from_bits(1)));
    let moderation = PostgresModeration::load(Arc::clone(&store)).await.unwrap();
    let banned = moderation.forbids(&user("bob"), &room("chat:a"), Deed::Enter, at(9));
    assert_eq!(banned, Some(Until::Lifted));
    let spent = PostgresSpentTokens::load(Arc::clone(&store), 60).await.unwrap();
    assert_eq!(spent.remembered(), 1);
    let again = spent.spend(&token, now().after(span), now()).await;
    assert_eq!(again, Ok(application::ports::Spending::Again));
    let inbox = PostgresInbox::load(Arc::clone(&store)).await.unwrap();
    assert_eq!(inbox.put(&user("ann"), letter("b"), limits(1)).await, Err(InboxError::Full));
    store.close().await;
}

/// The pages of an epoch that ended begin behind the one before it.
#[tokio::test]
async fn an_epoch_that_ended_is_read_from_where_it_began() {
    use application::ports::Successor;
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let store = build(shared(&postgres)).await;
    let room = room("chat:a");
    let next = |of: Option<u64>, to: u64| Successor {
        of: of.map(Epoch::from_bits),
        epoch: Epoch::from_bits(to),
        behind: Offset::ZERO,
    };
    store.succeed(&room, next(None, 1)).await.unwrap();
    for epoch in 1..=3 {
        let first = (epoch - 1) * 5 + 1;
        let of = Epoch::from_bits(epoch);
        store.place((first..first + 5).map(|n| record(&room, of, n)).collect()).await.unwrap();
        store.succeed(&room, next(Some(epoch), epoch + 1)).await.unwrap();
    }
    for epoch in 1..=3 {
        let first = offset((epoch - 1) * 5 + 1);
        let page = store.read(&room, Epoch::from_bits(epoch), Offset::ZERO, 99, usize::MAX).await;
        let page = page.unwrap();
        assert_eq!((page.first, page.messages.len()), (first, 5));
        assert_eq!(page.messages[0].offset, Some(first));
    }
    store.close().await;
}
