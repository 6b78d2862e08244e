//! How a store on Postgres begins: what it waits for, what it refuses, and who may begin beside it.

use std::sync::Arc;
use std::time::Duration;

use application::ports::{Archive as _, RoomHead};
use application::testing::archive_contract::{offset, record, room};
use domain::id::Epoch;
use store_postgres::{BuildError, Config, PostgresArchive, Sharing};
use tests::postgres::Postgres;

use crate::postgres_stores::{build, config, impatient, in_time};

const EPOCH: Epoch = Epoch::from_bits(7);

async fn refusal(config: Config) -> BuildError {
    in_time("it is refused", PostgresArchive::build(config)).await.err().unwrap()
}

/// PG01: down at the start, for longer and for less long than is waited for.
#[tokio::test]
async fn a_start_waits_for_postgres_for_a_while_and_then_says_what_it_lacks() {
    if !Postgres::is_here() {
        return;
    }
    let mut postgres = Postgres::start();
    postgres.kill();
    let never = Config {
        start_timeout: Duration::from_millis(300),
        password: Some("hunter2".to_owned().into()),
        ..config(&postgres)
    };
    let error = refusal(never).await;
    assert!(matches!(error, BuildError::Unreachable { .. }), "{error:?}");
    let said = error.to_string();
    let place = format!("127.0.0.1:{}/postgres", postgres.port());
    assert!(said.contains(&place) && !said.contains("hunter2"), "{said}");

    let patient = Config { start_timeout: Duration::from_secs(60), ..config(&postgres) };
    let comes = async {
        // It has been tried once.
        tokio::task::yield_now().await;
        postgres.start_again();
    };
    let (store, ()) =
        in_time("it comes", async { tokio::join!(Box::pin(build(patient)), comes) }).await;
    assert!(store.open_room(&room("chat:a"), EPOCH, None).await.is_ok());
    store.close().await;
}

/// Whoever is not let in need not wait.
#[tokio::test]
async fn a_database_that_is_not_there_is_said_at_once() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let url = postgres.url().replace("/postgres?", "/nowhere?");
    let error =
        refusal(Config { start_timeout: Duration::from_secs(600), ..Config::new(url.into()) })
            .await;
    assert!(error.to_string().contains("/nowhere"), "{error}");
}

/// PG08: what the server may lose is not acknowledged as stored.
#[tokio::test]
async fn a_server_that_may_lose_what_it_commits_is_refused_or_made_to_keep_it() {
    if !Postgres::is_here() {
        return;
    }
    let mut postgres = Postgres::start_with(&["fsync=off"]);
    let error = refusal(config(&postgres)).await;
    assert!(matches!(error, BuildError::Unsafe { setting: "fsync", .. }), "{error:?}");
    let store = build(Config { accepts_loss: true, ..config(&postgres) }).await;
    store.close().await;

    // What is committed without waiting stays in the server's memory for ten seconds.
    postgres.start_again_with(&["synchronous_commit=off", "wal_writer_delay=10000ms"]);
    let settings = config(&postgres);
    let store = build(settings.clone()).await;
    let room = room("chat:a");
    store.open_room(&room, EPOCH, None).await.unwrap();
    for n in 1..=20 {
        store.append(vec![record(&room, EPOCH, n)]).await.unwrap();
    }
    postgres.crash();
    store.close().await;
    postgres.start_again();
    let store = build(settings).await;
    let head = store.open_room(&room, Epoch::from_bits(1), None).await;
    assert_eq!(head, Ok(RoomHead::new(EPOCH, offset(20))));
    store.close().await;
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_refused() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start_with(&["default_transaction_read_only=on"]);
    let error = refusal(config(&postgres)).await;
    assert!(matches!(error, BuildError::ReadOnly { .. }), "{error:?}");
}

/// PG10: missing, by two nodes at once, newer, and half applied.
#[tokio::test]
async fn the_tables_are_made_once_and_unknown_ones_are_left_alone() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = Config { sharing: Sharing::Shared, ..config(&postgres) };
    let many = (0..6).map(|_| build(settings.clone()));
    let stores = in_time("they begin", futures_util::future::join_all(many)).await;
    for store in stores {
        assert!(store.open_room(&room("chat:a"), EPOCH, None).await.is_ok());
        store.close().await;
    }
    let versions = format!("{}._sqlx_migrations", settings.schema);
    assert_eq!(postgres.ask(&format!("SELECT count(*) FROM {versions}")), "4");

    postgres.tell(&format!(
        "INSERT INTO {versions} (version, description, success, checksum, execution_time) \
         VALUES (99, 'later', true, '', 0)"
    ));
    let error = refusal(settings.clone()).await;
    assert!(matches!(error, BuildError::Newer { version: 99, .. }), "{error:?}");
    postgres.tell(&format!("UPDATE {versions} SET success = false WHERE version = 99"));
    let error = refusal(settings.clone()).await;
    assert!(matches!(error, BuildError::Migrate { .. }), "{error:?}");
    postgres.tell(&format!("DELETE FROM {versions} WHERE version = 99"));
    build(settings).await.close().await;
}

#[tokio::test]
async fn a_second_server_is_refused_unless_both_share() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let alone = impatient(&postgres);
    let shared = Config { sharing: Sharing::Shared, ..alone.clone() };
    let first = build(alone.clone()).await;
    for other in [&alone, &shared] {
        let error = refusal(other.clone()).await;
        assert!(matches!(error, BuildError::InUse { .. }), "{error:?}");
        assert!(error.to_string().contains("in use by roomkeeper/"), "{error}");
    }
    // Another schema is another store.
    build(config(&postgres)).await.close().await;
    first.close().await;
    let nodes = [build(shared.clone()).await, build(shared.clone()).await];
    let error = refusal(alone.clone()).await;
    assert!(matches!(error, BuildError::InUse { .. }), "{error:?}");
    for node in &nodes {
        node.close().await;
    }
    build(alone).await.close().await;
}

/// Whoever opens a room first gives it its epoch, and all others are told of it.
#[tokio::test]
async fn nodes_that_open_a_room_at_once_all_get_one_epoch() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let shared = Config { sharing: Sharing::Shared, ..config(&postgres) };
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(build(shared.clone()).await);
    }
    for n in 0..25 {
        let room = room(&format!("chat:{n}"));
        let opened = nodes.iter().zip(1..).map(|(node, epoch)| {
            let (node, room) = (Arc::clone(node), room.clone());
            tokio::spawn(async move { node.open_room(&room, Epoch::from_bits(epoch), None).await })
        });
        let mut heads = Vec::new();
        for head in opened.collect::<Vec<_>>() {
            heads.push(in_time("it opens", head).await.unwrap().unwrap());
        }
        assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");
    }
    for node in nodes {
        node.close().await;
    }
}

#[tokio::test]
async fn a_lone_server_changes_no_tables_that_another_one_has() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = impatient(&postgres);
    let first = build(settings.clone()).await;
    // As if the second one had a change to make.
    let versions = format!("{}._sqlx_migrations", settings.schema);
    postgres.tell(&format!("ALTER TABLE {versions} RENAME TO hidden"));
    let refused = in_time("it is refused", PostgresArchive::build(settings.clone())).await;
    assert!(matches!(refused.err(), Some(BuildError::InUse { .. })));
    assert_eq!(postgres.ask(&format!("SELECT to_regclass('{versions}') IS NULL")), "t");
    first.close().await;
}

/// A server that is slow with some rows, and more rooms than it deletes in the time of one statement.
#[tokio::test]
async fn empty_rooms_are_forgotten_in_steps_that_end_in_their_time() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = impatient(&postgres);
    let schema = settings.schema.clone();
    let store = build(settings.clone()).await;
    let kept = room("chat:kept");
    store.open_room(&kept, EPOCH, None).await.unwrap();
    store.append(vec![record(&kept, EPOCH, 1)]).await.unwrap();
    store.close().await;
    postgres.tell(&format!(
        "SET search_path = {schema}; INSERT INTO rooms (room, epoch, behind, last_offset) \
         SELECT 'chat:' || n, 1, 0, 0 FROM generate_series(1, 4000) AS n; \
         CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN IF OLD.id % 100 = 0 THEN PERFORM pg_sleep(0.05); END IF; RETURN OLD; END $$; \
         CREATE TRIGGER slowly BEFORE DELETE ON rooms FOR EACH ROW EXECUTE FUNCTION slowly()"
    ));
    let store = build(settings).await;
    assert_eq!(postgres.ask(&format!("SELECT room FROM {schema}.rooms")), "chat:kept");
    store.close().await;
}

/// The address is a secret, and a word in it that means nothing is logged by nobody.
#[tokio::test]
async fn an_address_with_an_unknown_parameter_is_refused_without_its_value() {
    for parameter in ["passwort=hunter2", "sslmode=disable&pass=hunter2"] {
        let url = format!("postgres://u@127.0.0.1:1/x?{parameter}");
        let refused = PostgresArchive::build(Config::new(url.into())).await.err().unwrap();
        let said = refused.to_string();
        assert!(said.contains("parameter") && !said.contains("hunter2"), "{said}");
    }
}
