//! Joining a room and coming back to it: in which order the ports are asked, and what is told.

use super::*;

#[tokio::test]
async fn who_may_not_subscribe_is_neither_subscribed_nor_listed() {
    let refused = joining(Mocks::default(), None, Access::Granted).execute().await.unwrap_err();
    assert_eq!(refused, JoinRefused::NotAllowed(NotAllowed::Denied(None)));
}

/// RD10: the position that is read comes behind the subscription.
#[tokio::test]
async fn a_join_subscribes_before_it_reads_so_that_nothing_falls_in_between() {
    let (mut mocks, mut order) = (Mocks::default(), Sequence::new());
    mocks
        .broker
        .expect_subscribe()
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _, _, _| Box::pin(async { Ok(top(5)) }));
    mocks
        .presence
        .expect_enter()
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _, _| Box::pin(async { Ok(()) }));
    mocks
        .broker
        .expect_read()
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _, _| Box::pin(async { Ok(page(EPOCH, 1, 5, &[4, 5], false)) }));
    let since = Some(Position { epoch: EPOCH, offset: offset(3) });
    let joined = joining(mocks, since, Access::Anyone).execute().await.unwrap();
    assert!(joined.recovered);
    assert_eq!((joined.page.messages.len(), joined.page.reached.offset), (2, offset(5)));
}

#[tokio::test]
async fn a_join_whose_log_can_not_be_read_leaves_presence_again() {
    let mut mocks = Mocks::default();
    mocks.broker.expect_subscribe().returning(|_, _, _, _| Box::pin(async { Ok(top(5)) }));
    mocks.presence.expect_enter().returning(|_, _, _| Box::pin(async { Ok(()) }));
    mocks.broker.expect_read().returning(|_, _, _| {
        Box::pin(async { Err(BrokerError::Unavailable { retry_after: Duration::from_secs(1) }) })
    });
    mocks.presence.expect_leave().times(1).returning(|_, _, _| Box::pin(async {}));
    let since = Some(Position { epoch: EPOCH, offset: offset(3) });
    let refused = joining(mocks, since, Access::Anyone).execute().await.unwrap_err();
    assert!(matches!(refused, JoinRefused::Broker(_)));
}

#[tokio::test]
async fn what_rooms_bring_back_is_cut_to_one_frame_and_each_says_where_it_goes_on() {
    let mut mocks = Mocks::default();
    mocks.broker.expect_subscribe().returning(|_, _, _, _| Box::pin(async { Ok(top(5)) }));
    mocks.presence.expect_enter().returning(|_, _, _| Box::pin(async { Ok(()) }));
    mocks.broker.expect_read().times(3).returning(|_, _, read| {
        assert!(read.bytes_max <= 1_000);
        Box::pin(async { Ok(page(EPOCH, 1, 5, &[4, 5], false)) })
    });
    let message = page(EPOCH, 1, 5, &[4], false).messages[0].message().len();
    let since = Some(Position { epoch: EPOCH, offset: offset(3) });
    let services = mocks.services();
    let again = || JoinRoom {
        services: Arc::clone(&services),
        ..joining(Mocks::default(), since, Access::Anyone)
    };
    let joins = vec![again(), again(), again()];
    let resumed = ResumeRooms { joins, bytes_max: 3 * message + 1 }.execute().await;
    let resumed: Vec<_> = resumed
        .into_iter()
        .map(Result::unwrap)
        .map(|joined| (joined.page.messages.len(), joined.page.reached.offset, joined.page.more))
        .collect();
    assert_eq!(resumed, [(2, offset(5), false), (1, offset(4), true), (0, offset(3), true)]);
}

#[tokio::test]
async fn a_value_that_has_expired_is_not_handed_to_whoever_joins() {
    let ending = |n: u64, ms: i64| {
        let publication = message(EPOCH, n).publication.clone();
        let expires_at = Some(Wall::from_millis(ms));
        Arc::new(Published::new(Publication { expires_at, ..publication }))
    };
    let mut mocks = Mocks::default();
    mocks.broker.expect_subscribe().times(1).returning(move |_, _, _, _| {
        // It is the first millisecond of all time.
        let latest = vec![ending(1, 0), ending(2, 1)];
        Box::pin(async { Ok(RoomTop { latest, ..top(5) }) })
    });
    mocks.presence.expect_enter().times(1).returning(|_, _, _| Box::pin(async { Ok(()) }));
    let joined = joining(mocks, None, Access::Anyone).execute().await.unwrap();
    let offsets: Vec<_> = joined.latest.iter().map(|value| value.publication.offset).collect();
    assert_eq!(offsets, [Some(offset(2))]);
}

#[tokio::test]
async fn a_room_that_is_refused_is_refused_alone() {
    let mut mocks = Mocks::default();
    mocks.broker.expect_subscribe().times(1).returning(|_, _, _, _| Box::pin(async { Ok(top(5)) }));
    mocks.presence.expect_enter().times(1).returning(|_, _, _| Box::pin(async { Ok(()) }));
    let allowed = joining(mocks, None, Access::Anyone);
    let denied = joining(Mocks::default(), None, Access::Granted);
    let resumed = ResumeRooms { joins: vec![denied, allowed], bytes_max: 1_000 }.execute().await;
    assert!(matches!(resumed.as_slice(), [Err(JoinRefused::NotAllowed(_)), Ok(_)]), "{resumed:?}");
}

async fn recover(
    since: Position,
    pages: Vec<LogPage>,
) -> crate::use_cases::recover_room::RecoveredPage {
    let mut mocks = Mocks::default();
    let n_pages = pages.len();
    let pages = std::sync::Mutex::new(pages.into_iter());
    mocks.broker.expect_read().times(n_pages).returning(move |_, _, _| {
        let next = pages.lock().unwrap().next().unwrap();
        Box::pin(async move { Ok(next) })
    });
    let services = mocks.services();
    let policy = policy(Access::Anyone);
    let (filter, bytes_max) = (None, 1_000);
    let call =
        RecoverRoom { services, room: room(), policy, since, own_hole: false, bytes_max, filter };
    call.execute().await.unwrap()
}

#[tokio::test]
async fn a_position_of_a_lost_epoch_is_read_again_from_the_new_ones_beginning() {
    // The first read begins behind the client's offset, which means nothing in the new epoch.
    let since = Position { epoch: OTHER, offset: offset(2) };
    let pages = vec![page(EPOCH, 1, 4, &[3, 4], false), page(EPOCH, 1, 4, &[1, 2, 3, 4], false)];
    let recovered = recover(since, pages).await;
    assert_eq!(recovered.gap.unwrap().reason, GapReason::EpochChanged);
    assert_eq!(recovered.messages.len(), 4);
}

#[tokio::test]
async fn what_the_log_no_longer_keeps_is_named_before_what_it_does() {
    let since = Position { epoch: EPOCH, offset: offset(2) };
    let recovered = recover(since, vec![page(EPOCH, 6, 7, &[6, 7], false)]).await;
    let gap = recovered.gap.unwrap();
    assert_eq!((gap.from, gap.to, gap.reason), (offset(3), offset(5), GapReason::Retention));
    assert_eq!(recovered.reached.offset, offset(7));
}

#[tokio::test]
async fn a_position_ahead_of_the_log_is_a_gap_and_not_believed() {
    let since = Position { epoch: EPOCH, offset: offset(9) };
    let recovered = recover(since, vec![page(EPOCH, 1, 4, &[], false)]).await;
    assert_eq!(recovered.gap.unwrap().reason, GapReason::UnknownPosition);
    assert_eq!(recovered.reached.offset, offset(4));
}

/// A filter that no message of these tests passes, since none has tags.
fn unmet() -> Option<Filter> {
    let condition = Condition::In { name: "k".into(), values: vec!["v".into()] };
    Filter::build(condition).ok()
}

#[tokio::test]
async fn a_page_that_would_be_empty_for_its_filter_reads_on_but_not_without_end() {
    let since = Position { epoch: EPOCH, offset: offset(0) };
    for (n_pages, more) in [(3, false), (8, true)] {
        let mut mocks = Mocks::default();
        let next = std::sync::atomic::AtomicU64::new(1);
        mocks.broker.expect_read().times(n_pages).returning(move |_, _, read| {
            let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(read.after, offset(n - 1));
            let last = n == n_pages as u64 && !more;
            Box::pin(async move { Ok(page(EPOCH, 1, 99, &[n], !last)) })
        });
        let (services, policy) = (mocks.services(), policy(Access::Anyone));
        let (filter, bytes_max) = (unmet(), 1_000);
        let call = RecoverRoom {
            services,
            room: room(),
            policy,
            since,
            own_hole: false,
            bytes_max,
            filter,
        };
        let page = call.execute().await.unwrap();
        assert!(page.messages.is_empty());
        assert_eq!((page.reached.offset, page.more), (offset(n_pages as u64), more));
    }
}

#[tokio::test]
async fn a_gap_between_two_pages_of_a_filtered_member_is_told_by_the_next_one() {
    let mut mocks = Mocks::default();
    let pages = [page(EPOCH, 1, 9, &[1], true), page(EPOCH, 6, 9, &[6], true)];
    let pages = std::sync::Mutex::new(pages.into_iter());
    mocks.broker.expect_read().times(2).returning(move |_, _, _| {
        let next = pages.lock().unwrap().next().unwrap();
        Box::pin(async move { Ok(next) })
    });
    let since = Position { epoch: EPOCH, offset: offset(0) };
    let (services, policy, filter) = (mocks.services(), policy(Access::Anyone), unmet());
    let bytes_max = 1_000;
    let call =
        RecoverRoom { services, room: room(), policy, since, own_hole: false, bytes_max, filter };
    let page = call.execute().await.unwrap();
    assert_eq!((page.gap, page.reached.offset, page.more), (None, offset(1), true));
}
