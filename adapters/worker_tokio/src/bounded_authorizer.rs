//! A host's authorizer that always answers: within a time, in a bounded number of questions, and
//! when it panics.
//!
//! It runs elsewhere than the connections, so that one that blocks its thread holds up nobody who
//! does not ask it. No answer must never become a yes.

use std::sync::Arc;
use std::time::Duration;

use application::ports::{Authorizer, AuthorizerError, Question, Verdict};
use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// See the module's text.
pub struct BoundedAuthorizer {
    inner: Arc<dyn Authorizer>,
    runtime: Handle,
    timeout: Duration,
    /// Given back when a question has ended, which may be long after nobody waited any more.
    places: Arc<Semaphore>,
}

impl BoundedAuthorizer {
    /// How long an answer may take, unless said otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(2);
    /// The most questions under way at one time, unless said otherwise; a further one is answered
    /// with [`AuthorizerError::Busy`] at once.
    pub const QUESTIONS_MAX: usize = 1_024;

    /// Runs `inner` on `runtime`, which should be another than the workers'.
    #[must_use]
    pub fn new(inner: Arc<dyn Authorizer>, runtime: Handle) -> Self {
        let places = Arc::new(Semaphore::new(Self::QUESTIONS_MAX));
        Self { inner, runtime, timeout: Self::TIMEOUT, places }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, timeout: Duration, questions_max: usize) -> Self {
        Self { timeout, places: Arc::new(Semaphore::new(questions_max)), ..self }
    }
}

#[async_trait]
impl Authorizer for BoundedAuthorizer {
    async fn authorize(&self, question: Question) -> Result<Verdict, AuthorizerError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| AuthorizerError::Busy)?;
        let inner = Arc::clone(&self.inner);
        let mut asked = self.runtime.spawn(async move {
            let answer = inner.authorize(question).await;
            drop(place);
            answer
        });
        match tokio::time::timeout(self.timeout, &mut asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(ended)) if ended.is_panic() => Err(AuthorizerError::Panicked),
            // Its runtime is shut down.
            Ok(Err(_)) => Err(AuthorizerError::Unavailable("it was cancelled".to_owned())),
            Err(_) => {
                asked.abort();
                Err(AuthorizerError::Timeout)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use application::extensions::middleware::{Context, Who};
    use domain::decision::{Decision, Rule};
    use domain::delivery::Class;
    use domain::id::{ClientId, ConnectionId};
    use domain::policy::{Access, NamespacePolicy};
    use domain::principal::{Action, Principal};
    use domain::retention::Retention;
    use domain::room::RoomId;

    enum Does {
        Answers,
        Fails,
        Panics,
        Waits,
        Blocks(std::sync::Mutex<std::sync::mpsc::Receiver<()>>),
    }

    #[async_trait]
    impl Authorizer for Does {
        async fn authorize(&self, _: Question) -> Result<Verdict, AuthorizerError> {
            match self {
                Self::Answers => Ok(Verdict::Allowed),
                Self::Fails => Err(AuthorizerError::Unavailable("no database".to_owned())),
                Self::Panics => panic!("a fault of the host"),
                Self::Waits => std::future::pending().await,
                Self::Blocks(end) => {
                    // Until the test lets go of the other end.
                    let _ = end.lock().unwrap().recv();
                    Ok(Verdict::Allowed)
                }
            }
        }
    }

    fn question() -> Question {
        let who = Who {
            connection: ConnectionId::from_bits(1),
            client: ClientId::parse("c").unwrap(),
            address: None,
            view: application::view::View::V2,
            place: None,
            principal: Arc::new(Principal::anonymous()),
            context: Context::default(),
            fence: None,
        };
        let policy = NamespacePolicy {
            replicated: false,
            subscribe: Access::Anyone,
            publish: Access::Anyone,
            presence: Access::Anyone,
            history: Access::Anyone,
            presence_listed: true,
            presence_named_max: 1_000,
            retention: Retention::default(),
            default_class: Class::Reliable,
            durable: false,
            members_max: 10,
            patterns: false,
        };
        Question {
            who: Arc::new(who),
            action: Action::Publish,
            room: RoomId::parse("public:a").unwrap(),
            policy: Arc::new(policy),
            claims: Decision { allowed: true, rule: Rule::Policy(Access::Anyone) },
        }
    }

    fn bounded(does: Does) -> BoundedAuthorizer {
        BoundedAuthorizer::new(Arc::new(does), Handle::current())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_passed_on_and_anything_else_is_no_yes() {
        assert_eq!(bounded(Does::Answers).authorize(question()).await, Ok(Verdict::Allowed));
        let failed = bounded(Does::Fails).authorize(question()).await;
        assert_eq!(failed, Err(AuthorizerError::Unavailable("no database".to_owned())));
        let panicked = bounded(Does::Panics).authorize(question()).await;
        assert_eq!(panicked, Err(AuthorizerError::Panicked));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_answer_is_given_up_after_two_seconds_and_its_place_is_free_again() {
        let authorizer = bounded(Does::Waits).with_limits(BoundedAuthorizer::TIMEOUT, 1);
        let begun = tokio::time::Instant::now();
        assert_eq!(authorizer.authorize(question()).await, Err(AuthorizerError::Timeout));
        // Timers are as fine as milliseconds.
        let late = begun.elapsed() - Duration::from_secs(2);
        assert!(late < Duration::from_millis(10), "{late:?}");
        // It lets go of its place when it is next polled.
        tokio::task::yield_now().await;
        assert_eq!(authorizer.authorize(question()).await, Err(AuthorizerError::Timeout));
    }

    #[tokio::test(start_paused = true)]
    async fn more_questions_than_allowed_are_answered_at_once() {
        let authorizer = Arc::new(bounded(Does::Waits).with_limits(Duration::from_secs(2), 1));
        let first = tokio::spawn({
            let authorizer = Arc::clone(&authorizer);
            async move { authorizer.authorize(question()).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(authorizer.authorize(question()).await, Err(AuthorizerError::Busy));
        assert_eq!(first.await.unwrap(), Err(AuthorizerError::Timeout));
    }

    #[test]
    fn one_that_blocks_its_thread_holds_up_only_its_own_runtime() {
        let elsewhere = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let here = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (release, end) = std::sync::mpsc::channel();
        let does = Arc::new(Does::Blocks(std::sync::Mutex::new(end)));
        let authorizer = BoundedAuthorizer::new(does, elsewhere.handle().clone())
            .with_limits(Duration::from_millis(20), 10);
        let answer = here.block_on(authorizer.authorize(question()));
        assert_eq!(answer, Err(AuthorizerError::Timeout));
        drop(release);
        drop(elsewhere);
    }
}
