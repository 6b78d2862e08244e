//! Tokens made by hand, good ones and bad ones.
//!
//! The server's own library must not sign what the server checks, or both would be wrong together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// A secret that is long enough for HS256.
pub const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough-for-hs256";

/// A good HS256 token over exactly these claims.
#[must_use]
pub fn hs256(secret: &str, claims: &Value) -> String {
    signed(secret, &json!({"alg": "HS256", "typ": "JWT"}), claims)
}

/// Any header over any claims, signed with HMAC-SHA-256 whatever the header says.
#[must_use]
pub fn signed(secret: &str, header: &Value, claims: &Value) -> String {
    let content = format!("{}.{}", part(header), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key will do");
    mac.update(content.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{content}.{signature}")
}

/// A token that nobody signed: `alg` is `none` and the signature is empty.
#[must_use]
pub fn unsigned(claims: &Value) -> String {
    with_signature(&json!({"alg": "none", "typ": "JWT"}), claims, b"")
}

/// Any header, any claims, any signature.
#[must_use]
pub fn with_signature(header: &Value, claims: &Value, signature: &[u8]) -> String {
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

/// Claims of `user`, good for an hour, allowed all in rooms that match `pattern`.
#[must_use]
pub fn claims(user: &str, pattern: &str) -> Value {
    let all = ["subscribe", "publish", "presence", "history"];
    json!({
        "sub": user,
        "name": user,
        "roles": [],
        "rooms": [{"pattern": pattern, "allow": all}],
        "iat": now(),
        "exp": now() + 3600,
    })
}

/// `claims` with one of them set to another value.
#[must_use]
pub fn with_claim(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

/// `claims` without one of them.
#[must_use]
pub fn without_claim(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().expect("claims are an object").remove(name);
    claims
}

/// Seconds since 1970, as claims count.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.as_ref().map(Duration::as_secs).expect("the clock is past 1970")
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_rfc_7515_says_it_is() {
        // Appendix A.1 of RFC 7515, with its key and its line breaks.
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = URL_SAFE_NO_PAD.decode(key).unwrap();
        let content = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(content.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        assert_eq!(signature, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    }

    #[test]
    fn a_token_nobody_signed_ends_in_a_dot() {
        let token = unsigned(&claims("ann", "*"));
        assert_eq!(token.split('.').count(), 3);
        assert!(token.ends_with('.'));
    }

    #[test]
    fn a_claim_can_be_changed_and_left_out() {
        let changed = with_claim(claims("ann", "*"), "exp", json!(1));
        assert_eq!(changed["exp"], 1);
        assert!(without_claim(changed, "exp").get("exp").is_none());
    }
}
