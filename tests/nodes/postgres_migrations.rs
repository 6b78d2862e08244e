//! Tables of an earlier version, with something in each of them, as a server of this one finds them.
//!
//! What they hold is written by this version and copied, column by column: so it is what a server reads. A step of the
//! migrations must never lose any of it.

use std::sync::Arc;
use std::time::Duration;

use application::ports::{
    Archive as _, Created, Inbox as _, Letter, LetterLimits, Matches as _, MatchesAfter,
    MatchesKept, Moderation as _, Revocations as _, RoomHead, Spending, SpentTokens as _,
    Succession as _, Successor,
};
use application::testing::archive_contract::{offset, record, room};
use application::testing::matches_contract::{over, waiting};
use application::testing::moderation_contract::{at, entry};
use bytes::Bytes;
use domain::id::{ConnectionId, Epoch, TokenId, UserId};
use domain::matches::Phase;
use domain::message::Sender;
use domain::moderation::{Act, Deed, Until};
use domain::position::Offset;
use domain::principal::{Credential, Principal};
use domain::revocation::Revocation;
use domain::time::Wall;
use store_postgres::{
    Config, PostgresArchive, PostgresInbox, PostgresMatches, PostgresModeration,
    PostgresRevocations, PostgresSpentTokens,
};
use tests::postgres::Postgres;

use crate::postgres_stores::{build, config, fresh_schema};

const FIRST: Epoch = Epoch::from_bits(7);
const SECOND: Epoch = Epoch::from_bits(8);
const SPAN: Duration = Duration::from_secs(3_600);
const KEPT: MatchesKept = MatchesKept { matches_max: 9, retention: SPAN };
const LIMITS: LetterLimits = LetterLimits { of_user: 9, of_pair: 9, of_sender: 9, of_all: 9 };
/// Which numbers tables give out themselves.
const NUMBERED: [(&str, &str); 4] =
    [("rooms", "id"), ("ended_epochs", "n"), ("letters", "id"), ("moderation_log", "id")];

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn now() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Wall::from_millis(i64::try_from(since.as_millis()).unwrap())
}

fn letter(text: &str) -> Letter {
    Letter { sender: Sender::default(), data: Bytes::from(format!("\"{text}\"")), at: now() }
}

fn token() -> TokenId {
    TokenId::parse("t1").unwrap()
}

/// All that is kept, over one store.
struct Kept {
    store: Arc<PostgresArchive>,
    inbox: PostgresInbox,
    matches: PostgresMatches,
    moderation: PostgresModeration,
    revocations: PostgresRevocations,
    spent: PostgresSpentTokens,
}

impl Kept {
    async fn load(settings: Config) -> Self {
        let store = build(settings).await;
        Self {
            inbox: PostgresInbox::load(Arc::clone(&store)).await.unwrap(),
            matches: PostgresMatches::new(Arc::clone(&store), KEPT),
            moderation: PostgresModeration::load(Arc::clone(&store)).await.unwrap(),
            revocations: PostgresRevocations::load(Arc::clone(&store), SPAN).await.unwrap(),
            spent: PostgresSpentTokens::load(Arc::clone(&store), 60).await.unwrap(),
            store,
        }
    }

    /// Puts something into every table.
    async fn fill(&self) {
        let (store, lone, shared) = (&self.store, room("chat:lone"), room("chat:shared"));
        store.open_room(&lone, FIRST, None).await.unwrap();
        store.append((1..=5).map(|n| record(&lone, FIRST, n)).collect()).await.unwrap();
        let next = |of, epoch| Successor { of, epoch, behind: Offset::ZERO };
        store.succeed(&shared, next(None, FIRST)).await.unwrap();
        store.place((1..=3).map(|n| record(&shared, FIRST, n)).collect()).await.unwrap();
        store.succeed(&shared, next(Some(FIRST), SECOND)).await.unwrap();
        store.place((4..=5).map(|n| record(&shared, SECOND, n)).collect()).await.unwrap();
        for text in ["a", "b"] {
            self.inbox.put(&user("ann"), letter(text), LIMITS).await.unwrap();
        }
        for name in ["m1", "m2"] {
            assert_eq!(self.matches.create(&waiting(name)).await, Ok(Created::New));
        }
        self.matches.update(&over(&waiting("m2"), 1), Phase::Waiting).await.unwrap();
        for act in acts() {
            self.moderation.record(&act).await.unwrap();
        }
        let revoked = Revocation::User { user: user("eve"), issued_until: now() };
        self.revocations.add(&revoked, now()).await.unwrap();
        assert_eq!(self.spent.spend(&token(), now().after(SPAN), now()).await, Ok(Spending::First));
    }

    /// Finds all of that.
    async fn check(&self) {
        let (store, lone, shared) = (&self.store, room("chat:lone"), room("chat:shared"));
        let head = store.open_room(&lone, Epoch::from_bits(99), None).await.unwrap();
        assert_eq!(head, RoomHead::new(FIRST, offset(5)));
        let read = store.read(&lone, FIRST, Offset::ZERO, 9, usize::MAX).await.unwrap();
        let said = |room, epoch, n| record(room, epoch, n).publication;
        assert_eq!(read.messages, (1..=5).map(|n| said(&lone, FIRST, n)).collect::<Vec<_>>());
        let lives = store.read_lives(&shared, Offset::ZERO, 9, usize::MAX).await.unwrap().unwrap();
        let both = (1..=5).map(|n| said(&shared, if n < 4 { FIRST } else { SECOND }, n));
        assert_eq!((lives.messages, lives.holes), (both.collect::<Vec<_>>(), Vec::new()));
        assert_eq!((lives.lives.epoch, lives.lives.behind), (SECOND, offset(3)));
        let letters = self.inbox.read(&user("ann"), None, 9, usize::MAX).await.unwrap();
        let texts: Vec<_> = letters.iter().map(|(_, letter)| &letter.data[..]).collect();
        assert_eq!(texts, [b"\"a\"", b"\"b\""]);
        let page = MatchesAfter { phase: None, after: None, matches_max: 9, bytes_max: usize::MAX };
        let matches = self.matches.list(&page).await.unwrap().matches;
        assert_eq!(matches, [waiting("m1"), over(&waiting("m2"), 1)]);
        let read = self.moderation.read(None, 9).await.unwrap();
        let read: Vec<_> = read.into_iter().rev().map(|(_, act)| act).collect();
        assert_eq!(read, acts());
        let banned = self.moderation.forbids(&user("bob"), &room("chat:a"), Deed::Enter, at(9));
        assert_eq!(banned, Some(Until::Lifted));
        let credential =
            Credential { issued_at: Some(Wall::from_millis(0)), ..Credential::default() };
        let eve = Principal { user: Some(user("eve")), credential, ..Principal::default() };
        assert!(self.revocations.concerns(&eve, ConnectionId::from_bits(1)));
        assert_eq!(self.spent.spend(&token(), now().after(SPAN), now()).await, Ok(Spending::Again));
    }

    /// Writes on, into each of them.
    async fn go_on(&self) {
        let (lone, shared) = (room("chat:lone"), room("chat:shared"));
        self.store.append(vec![record(&lone, FIRST, 6)]).await.unwrap();
        self.store.place(vec![record(&shared, SECOND, 6)]).await.unwrap();
        let third =
            Successor { of: Some(SECOND), epoch: Epoch::from_bits(9), behind: Offset::ZERO };
        let lives = self.store.succeed(&shared, third).await.unwrap();
        assert_eq!(lives.earlier.iter().map(|end| end.offset.get()).collect::<Vec<_>>(), [6, 3]);
        self.inbox.put(&user("ann"), letter("c"), LIMITS).await.unwrap();
        let letters = self.inbox.read(&user("ann"), None, 9, usize::MAX).await.unwrap();
        assert_eq!(letters.len(), 3);
        self.inbox.remove(&user("ann"), letters[2].0).await.unwrap();
        assert_eq!(self.inbox.read(&user("ann"), None, 9, usize::MAX).await, Ok(Vec::new()));
        assert_eq!(self.matches.create(&waiting("m3")).await, Ok(Created::New));
        self.matches.update(&over(&waiting("m1"), 2), Phase::Waiting).await.unwrap();
        let unban = entry(3, Act::Unban(user("bob")));
        self.moderation.record(&unban).await.unwrap();
        let banned = self.moderation.forbids(&user("bob"), &room("chat:a"), Deed::Enter, at(9));
        assert_eq!(banned, None);
        assert_eq!(self.moderation.read(None, 1).await.unwrap()[0].1, unban);
    }
}

fn acts() -> [domain::moderation::Entry; 2] {
    [entry(1, Act::Kick(user("ann"))), entry(2, Act::Ban(user("bob"), None))]
}

/// A schema as the first version made it, with all that the tables of another one hold.
fn first_version(postgres: &Postgres, from: &str) -> String {
    let to = fresh_schema();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = folder.join("adapters/store_postgres/migrations/0001_store.sql");
    let step = std::fs::read_to_string(file).unwrap();
    postgres.tell(&format!("CREATE SCHEMA {to}; SET search_path = {to}; {step}"));
    let of = |what: &str| format!("FROM information_schema.{what} WHERE table_schema = '{to}'");
    for table in postgres.ask(&format!("SELECT table_name {}", of("tables"))).lines() {
        let columns = postgres.ask(&format!(
            "SELECT string_agg(column_name, ', ') {} AND table_name = '{table}'",
            of("columns")
        ));
        postgres.tell(&format!(
            "INSERT INTO {to}.{table} ({columns}) OVERRIDING SYSTEM VALUE \
             SELECT {columns} FROM {from}.{table}"
        ));
        assert_ne!(postgres.ask(&format!("SELECT count(*) FROM {to}.{table}")), "0", "{table}");
    }
    for (table, number) in NUMBERED {
        postgres.tell(&format!(
            "SELECT setval(pg_get_serial_sequence('{to}.{table}', '{number}'), max({number})) \
             FROM {to}.{table}"
        ));
    }
    postgres.tell(&format!(
        "SET search_path = {to}; \
         CREATE TABLE _sqlx_migrations (LIKE {from}._sqlx_migrations INCLUDING ALL); \
         INSERT INTO _sqlx_migrations SELECT * FROM {from}._sqlx_migrations WHERE version = 1"
    ));
    to
}

/// PG10: tables of the first version that are in use, with every step since.
#[tokio::test]
async fn all_that_the_first_version_kept_is_there_behind_every_step_since_and_is_written_on() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = config(&postgres);
    let made = Kept::load(settings.clone()).await;
    made.fill().await;
    made.check().await;
    made.store.close().await;
    let schema = first_version(&postgres, &settings.schema);
    let later = Config { schema: schema.clone(), ..settings.clone() };
    let found = Kept::load(later.clone()).await;
    let steps =
        |schema: &str| postgres.ask(&format!("SELECT max(version) FROM {schema}._sqlx_migrations"));
    assert_eq!(steps(&schema), steps(&settings.schema));
    found.check().await;
    found.go_on().await;
    found.store.close().await;
    let again = Kept::load(later).await;
    assert_eq!(again.matches.find(&waiting("m3").id).await, Ok(Some(waiting("m3"))));
    let head = again.store.open_room(&room("chat:lone"), Epoch::from_bits(99), None).await;
    assert_eq!(head, Ok(RoomHead::new(FIRST, offset(6))));
    again.store.close().await;
}
