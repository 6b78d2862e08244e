//! Handlers: what they get, what they may want, and what a client never sees of them.
//!
//! It must never ask a broker that is not a mock.

use super::*;

struct Greets;

#[async_trait::async_trait]
impl MessageHandler for Greets {
    fn message_type(&self) -> &str {
        "greet"
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        if body.contains("name") {
            Ok(())
        } else {
            Err(Refusal::new(ErrorCode::InvalidField, "a name is needed").field("name"))
        }
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let publish = HandlerEffect::Publish(Publishing::new(room(), "\"hello\""));
        assert!(message.context.get::<u32>("seen").is_some());
        Ok(vec![publish, HandlerEffect::Join(room())])
    }
}

struct Sees;

#[async_trait::async_trait]
impl Middleware for Sees {
    async fn process_message(
        &self,
        _: &Who,
        _: Inbound<'_>,
        context: &mut Context,
    ) -> Result<(), Refusal> {
        context.set("seen", 1u32);
        Ok(())
    }
}

fn handling(
    services: Arc<Services>,
    handler: Arc<dyn MessageHandler>,
    body: Bytes,
) -> HandleMessage {
    let kind = handler.message_type().to_owned();
    HandleMessage { services, who: who(None), handler, kind, body }
}

#[tokio::test]
async fn a_handler_gets_what_middleware_found_and_publishes_under_the_usual_checks() {
    for (access, allowed) in [(Access::Anyone, true), (Access::Granted, false)] {
        let mut mocks = Mocks::default();
        let mut policies = Policies::default();
        policies.set_namespace("chat", (*policy(access)).clone());
        mocks.rules.policies = policies;
        mocks.rules.middleware.push(Arc::new(Sees));
        mocks.broker.expect_publish().times(usize::from(allowed)).returning(|_, _| {
            let level = AckLevel::Accepted;
            Box::pin(
                async move { Ok(Receipt { epoch: EPOCH, offset: None, duplicate: false, level }) },
            )
        });
        let services = mocks.services();
        let body = Bytes::from_static(br#"{"type":"greet","name":"x"}"#);
        match handling(services, Arc::new(Greets), body).execute().await {
            Ok(left) => {
                assert_eq!((allowed, left.effects), (true, vec![HandlerEffect::Join(room())]));
                assert_eq!(left.receipt.unwrap().0, room());
            }
            Err(refusal) => {
                assert_eq!((allowed, refusal.code), (false, ErrorCode::PermissionDenied))
            }
        }
    }
}

#[tokio::test]
async fn a_message_that_its_handler_finds_invalid_is_answered_and_not_handled() {
    let mut mocks = Mocks::default();
    mocks.rules.middleware.push(Arc::new(Sees));
    let services = mocks.services();
    let body = Bytes::from_static(br#"{"type":"greet"}"#);
    let call = handling(services, Arc::new(Greets), body);
    let refusal = call.execute().await.unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("name"));
}

struct Wants(Vec<HandlerEffect>);

#[async_trait::async_trait]
impl MessageHandler for Wants {
    fn message_type(&self) -> &str {
        "want"
    }

    fn validate(&self, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    async fn handle(&self, _: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        Ok(self.0.clone())
    }
}

pub(super) fn wants_publish(room: &str, data: &'static str) -> HandlerEffect {
    let room = RoomId::parse(room).unwrap();
    HandlerEffect::Publish(Publishing::new(room, data))
}

pub(super) fn wants_reply(data: &'static [u8]) -> HandlerEffect {
    HandlerEffect::Reply { kind: "wanted".to_owned(), data: Bytes::from_static(data) }
}

/// What is left to do, and what was published.
async fn handle(effects: Vec<HandlerEffect>) -> (Result<Vec<HandlerEffect>, Refusal>, Vec<Bytes>) {
    let mut mocks = Mocks::default();
    mocks.rules.policies.set_namespace("chat", (*policy(Access::Anyone)).clone());
    mocks.rules.policies.set_namespace("closed", (*policy(Access::Granted)).clone());
    let published = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&published);
    mocks.broker.expect_publish().returning(move |publish, _| {
        seen.lock().unwrap().push(publish.data);
        let level = AckLevel::Accepted;
        let receipt = Receipt { epoch: EPOCH, offset: None, duplicate: false, level };
        Box::pin(async move { Ok(receipt) })
    });
    let (services, handler) = (mocks.services(), Arc::new(Wants(effects)));
    let body = Bytes::from_static(br#"{"type":"want"}"#);
    let result = handling(services, handler, body).execute().await.map(|handled| handled.effects);
    let published = std::mem::take(&mut *published.lock().unwrap());
    (result, published)
}

#[tokio::test]
async fn a_handlers_publishes_are_all_checked_before_the_first_is_published() {
    for (second, code) in [
        (wants_publish("closed:a", "2"), ErrorCode::PermissionDenied),
        (wants_publish("nowhere:a", "2"), ErrorCode::UnknownRoom),
        (wants_publish("chat:a", "{"), ErrorCode::Internal),
        (wants_reply(b"{"), ErrorCode::Internal),
    ] {
        let (result, published) = handle(vec![wants_publish("chat:a", "1"), second]).await;
        assert_eq!((result.unwrap_err().code, published), (code, Vec::<Bytes>::new()));
    }
}

#[tokio::test]
async fn what_a_handler_made_leaves_as_one_json_value_on_one_line_or_not_at_all() {
    for broken in [&b""[..], b"1 2", b"1}", b"{\"a\":1},{}", b"\"a\nb\"", b"\xff"] {
        let (result, _) = handle(vec![wants_reply(broken)]).await;
        assert_eq!(result.unwrap_err().code, ErrorCode::Internal, "{broken:?}");
    }
    let effects = vec![wants_publish("chat:a", "{\r\n\"a\": 1\n}\n"), wants_reply(b"[1,\n2]")];
    let (result, published) = handle(effects).await;
    assert_eq!(published, [Bytes::from_static(br#"{"a": 1}"#)]);
    assert_eq!(result.unwrap(), [wants_reply(b"[1,2]")]);
}

#[test]
fn a_type_has_one_handler_and_the_protocols_own_types_have_none() {
    struct Named(&'static str);

    #[async_trait::async_trait]
    impl MessageHandler for Named {
        fn message_type(&self) -> &str {
            self.0
        }

        fn validate(&self, _: &str) -> Result<(), Refusal> {
            Ok(())
        }

        async fn handle(&self, _: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
            Ok(Vec::new())
        }
    }

    let mut handlers = HandlerRegistry::default();
    assert!(handlers.register(Arc::new(Named("roll"))).is_ok());
    assert!(handlers.register(Arc::new(Named("roll"))).is_err());
    assert!(handlers.register(Arc::new(Named("publish"))).is_err());
}

/// A page of a log in which some places hold nothing: it ends before them, and the next one begins behind them.
fn page_with_holes(held: &[u64], last: u64, after: u64, most: usize) -> LogPage {
    let behind: Vec<u64> = held.iter().copied().filter(|n| *n > after).collect();
    let begin = behind.first().copied().unwrap_or(last + 1);
    let whole = behind.iter().zip(begin..).take_while(|(n, expected)| *n == expected);
    let messages: Vec<u64> = whole.map(|(n, _)| *n).take(most).collect();
    let first = if begin == after + 1 { 1 } else { begin };
    page(EPOCH, first, last, &messages, messages.last().is_some_and(|n| *n < last))
}

/// The pages of a chat's history backwards, by their offsets, of a log that holds so much.
async fn history(held: &'static [u64], last: u64) -> Vec<Vec<u64>> {
    let mut mocks = Mocks::default();
    mocks.rules.policies.set_namespace("chat", (*policy(Access::Anyone)).clone());
    crate::built_in::BuiltIn::default().register(&mut mocks.rules.handlers).unwrap();
    mocks.broker.expect_read().returning(move |_, _, read| {
        let page = page_with_holes(held, last, read.after.get(), read.messages_max as usize);
        Box::pin(async move { Ok(page) })
    });
    let services = mocks.services();
    let view = crate::view::View::Document(domain::documents::told::Endpoint::Chat);
    let handler = Arc::clone(services.rules.handlers.of(view, "history").unwrap());
    let (mut pages, mut before) = (Vec::new(), String::new());
    for _ in 0..99 {
        let body = format!(r#"{{"type":"history","channel":"a","limit":2{before}}}"#);
        let handling = handling(Arc::clone(&services), Arc::clone(&handler), body.into());
        let effects = handling.execute().await.unwrap().effects;
        let [HandlerEffect::Reply { data, .. }] = &effects[..] else { panic!("{effects:?}") };
        let text = String::from_utf8(data.to_vec()).unwrap();
        let ids = text.split(r#""message_id":""#).skip(1);
        let offset = |id: &str| id.split('"').next()?.split('-').nth(1)?.parse::<u64>().ok();
        pages.push(ids.filter_map(offset).collect::<Vec<_>>());
        let Some((_, next)) = text.split_once(r#""before":""#) else { return pages };
        assert!(text.contains(r#""more":true"#), "{text}");
        before = format!(r#","before":"{}""#, next.split('"').next().unwrap());
    }
    panic!("it has no end: {pages:?}");
}

#[tokio::test]
async fn the_history_of_a_chat_goes_on_before_places_that_hold_nothing() {
    let pages = history(&[1, 2, 3, 50, 52, 53, 54], 60).await;
    assert_eq!(pages, [&[53, 54][..], &[52], &[50], &[2, 3], &[1]]);
}

/// So many that one answer does not find what is in front of them.
#[tokio::test]
async fn the_history_of_a_chat_does_not_end_with_a_long_stretch_of_nothing() {
    let pages = history(&[1, 2, 3, 100_000], 100_000).await;
    let found: Vec<_> = pages.iter().filter(|page| !page.is_empty()).cloned().collect();
    assert_eq!(found, [&[100_000][..], &[2, 3], &[1]]);
    assert!(pages.len() > found.len(), "some answers found nothing yet");
}
