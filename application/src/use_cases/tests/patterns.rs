//! Who may follow all rooms of a pattern.

use super::*;

async fn watch(policy: Option<NamespacePolicy>, times: usize) -> Result<(), JoinRefused> {
    let mut mocks = Mocks::default();
    mocks.broker.expect_watch().times(times).returning(|_, patterns, version| {
        assert_eq!((patterns.len(), version), (1, 5));
        Box::pin(async { Ok(()) })
    });
    if let Some(policy) = policy {
        mocks.rules.policies.set_namespace("chat", policy);
    }
    let pattern = RoomPattern::parse("chat:guild/*").unwrap();
    let mailbox = Arc::new(Mailbox::new(1, 10));
    let watching = Watching { mailbox, patterns: vec![pattern.clone()], version: 5 };
    let call = WatchRooms { services: mocks.services(), who: who(None), pattern, watching };
    call.execute().await
}

#[tokio::test]
async fn the_broker_is_asked_for_a_pattern_only_for_who_may_read_all_of_it() {
    let open = (*policy(Access::Anyone)).clone();
    let not_offered = NamespacePolicy { patterns: false, ..open.clone() };
    let closed = NamespacePolicy { subscribe: Access::Authenticated, ..open.clone() };
    for policy in [Some(not_offered), Some(closed), None] {
        assert_eq!(watch(policy, 0).await, Err(JoinRefused::NotAllowed(NotAllowed::Denied(None))));
    }
    assert_eq!(watch(Some(open), 1).await, Ok(()));
}
