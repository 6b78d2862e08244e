//! Panics in the log: where, and in words that were written in this code.
//!
//! A message that was put together when it happened may quote what a client sent (an index into a
//! text does), so only its place is told.

use std::panic::PanicHookInfo;

/// Has panics of all threads logged instead of printed.
pub fn log() {
    std::panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or_default();
        tracing::error!(location, thread, reason = words(info), "a thread panicked");
    }));
}

fn words(info: &PanicHookInfo<'_>) -> &'static str {
    let fixed = info.payload().downcast_ref::<&'static str>();
    fixed.copied().unwrap_or("(left out: it may quote what a client sent)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_message_that_was_put_together_is_left_out_and_a_fixed_one_is_told() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hook = Arc::clone(&seen);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| hook.lock().unwrap().push(words(info))));
        let secret = String::from("secret");
        let panicked = std::panic::catch_unwind(|| panic!("inside of `{secret}`"));
        let fixed = std::panic::catch_unwind(|| panic!("an invariant"));
        std::panic::set_hook(before);
        assert!(panicked.is_err() && fixed.is_err());
        let seen = seen.lock().unwrap();
        assert!(seen.contains(&"an invariant"), "{seen:?}");
        assert!(seen.iter().any(|words| words.starts_with("(left out")), "{seen:?}");
        assert!(seen.iter().all(|words| !words.contains("secret")));
    }
}
