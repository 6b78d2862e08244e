//! Revocations in a real file: over a restart, and where they can't be stored.

use super::*;

async fn revocations(archive: &Arc<SqliteArchive>) -> SqliteRevocations {
    SqliteRevocations::load(Arc::clone(archive), SPAN).await.unwrap()
}

#[tokio::test]
async fn revocations_in_a_file_keep_the_contract() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    let revocations = revocations(&archive).await;
    let now = Wall::from_millis(1_700_000_000_000);
    RevocationsContract { revocations: &revocations, span: SPAN, now }.check().await;
}

#[tokio::test]
async fn what_is_revoked_stays_so_over_a_restart_and_is_forgotten_on_disk_too() {
    let directory = tempdir().unwrap();
    let now = Wall::from_millis(1_700_000_000_000);
    let user = UserId::parse("ann").unwrap();
    let all = [
        Revocation::Token(TokenId::parse("t-1").unwrap()),
        Revocation::User { user: user.clone(), issued_until: now },
        Revocation::Connection(ConnectionId::from_bits(u64::MAX)),
    ];
    let archive = Arc::new(build(&directory).await);
    let written = revocations(&archive).await;
    for revocation in &all {
        written.add(revocation, now).await.unwrap();
    }
    // An earlier moment of the same user takes nothing away.
    let earlier = Revocation::User { user: user.clone(), issued_until: Wall::default() };
    written.add(&earlier, now).await.unwrap();
    archive.close().await;
    drop((written, archive));

    let archive = Arc::new(build(&directory).await);
    let found = revocations(&archive).await;
    let ann = |token: Option<&str>, issued_at| Principal {
        user: Some(user.clone()),
        credential: Credential {
            id: token.and_then(|id| TokenId::parse(id).ok()),
            issued_at: Some(issued_at),
            ..Credential::default()
        },
        ..Principal::default()
    };
    let later = now.after(std::time::Duration::from_secs(1));
    let other = ConnectionId::from_bits(1);
    assert!(found.concerns(&ann(None, now), other));
    assert!(!found.concerns(&ann(None, later), other));
    assert!(found.concerns(&ann(Some("t-1"), later), other));
    assert!(found.concerns(&Principal::anonymous(), ConnectionId::from_bits(u64::MAX)));
    found.forget(now.after(SPAN)).await;
    archive.close().await;
    drop((found, archive));

    let archive = Arc::new(build(&directory).await);
    let found = revocations(&archive).await;
    assert!(!found.concerns(&ann(Some("t-1"), now), other));
}

#[tokio::test]
async fn a_revocation_that_can_not_be_stored_says_so_and_counts_all_the_same() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    let revocations = revocations(&archive).await;
    archive.close().await;
    let id = ConnectionId::from_bits(7);
    let added = revocations.add(&Revocation::Connection(id), Wall::default()).await;
    assert!(matches!(added, Err(RevokeError::Storage(_))), "{added:?}");
    assert!(revocations.concerns(&Principal::anonymous(), id));
}
