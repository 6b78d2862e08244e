//! Headers that try to choose how the token is checked.

use std::io::ErrorKind;
use std::net::TcpListener;

use application::ports::token_verifier::TokenError;
use auth_jwt::Algorithm;
use jsonwebtoken::EncodingKey;

use crate::support::{
    CLAIMS, RSA_PRIVATE, RSA_PUBLIC, SECRET, b64, check, hs256, key, pem, secret, sign, verifier,
    with_header,
};

/// A30
#[test]
fn a_token_without_a_signature_never_passes() {
    for word in ["none", "None", "NONE", "nOnE", ""] {
        let header = format!(r#"{{"alg":"{word}","typ":"JWT"}}"#);
        let unsigned = format!("{}.{}", b64(&header), b64(CLAIMS));
        for token in [unsigned.clone(), format!("{unsigned}."), format!("{unsigned}..")] {
            assert_eq!(check(&hs256(), &token), Err(TokenError::Malformed), "{token}");
        }
        for token in [format!("{unsigned}.AAAA"), with_header(&header)] {
            assert_eq!(check(&hs256(), &token), Err(TokenError::UnknownKey), "{token}");
        }
    }
    let honest = format!("{}.{}.", b64(r#"{"alg":"HS256"}"#), b64(CLAIMS));
    assert_eq!(check(&hs256(), &honest), Err(TokenError::Malformed));
}

/// A32
#[test]
fn the_algorithm_is_one_exact_word() {
    for header in [
        r#"{}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":256}"#,
        r#"{"alg":null}"#,
        r#"{"alg":true}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":{"name":"HS256"}}"#,
        r#"{"ALG":"HS256"}"#,
        r#"["HS256"]"#,
        r#""HS256""#,
        r#"{"alg":"HS256"} {}"#,
        r#"{"alg":"HS256",}"#,
        r#"{"alg":"HS256"#,
        "\u{feff}{\"alg\":\"HS256\"}",
    ] {
        assert_eq!(check(&hs256(), &with_header(header)), Err(TokenError::Malformed), "{header}");
    }
    for word in ["HS256 ", " HS256", "hs256", "HS-256", "HS256\\u0000", "SHA256", "HS512", "ES512"]
    {
        let header = format!(r#"{{"alg":"{word}"}}"#);
        assert_eq!(check(&hs256(), &with_header(&header)), Err(TokenError::UnknownKey), "{word}");
    }
    assert!(check(&hs256(), &with_header(r#"{"alg":"HS256"}"#)).is_ok());
    assert!(check(&hs256(), &with_header(r#"{"\u0061lg":"\u0048S256"}"#)).is_ok());
}

/// A34
#[test]
fn an_unknown_key_id_finds_no_key() {
    let verifier = verifier(vec![key(Some("k1"), &[Algorithm::HS256], secret(SECRET))]);
    let header = |kid: &str| format!(r#"{{"alg":"HS256","kid":{kid}}}"#);
    for kid in [
        "k2",
        "",
        "K1",
        "k1 ",
        "k",
        "../../dev/null",
        "/proc/sys/kernel/randomize_va_space",
        "' OR 1=1--",
        "k1\\u0000",
        "\\u0000",
    ] {
        let token = with_header(header(&format!("\"{kid}\"")));
        assert_eq!(check(&verifier, &token), Err(TokenError::UnknownKey), "{kid}");
    }
    let long = format!("\"{}\"", "k".repeat(257));
    for kid in ["1", "null", "[\"k1\"]", "{}", &long] {
        let token = with_header(header(kid));
        assert_eq!(check(&verifier, &token), Err(TokenError::Malformed), "{kid}");
    }
    let huge = with_header(header(&format!("\"{}\"", "k".repeat(1024 * 1024))));
    assert_eq!(check(&verifier, &huge), Err(TokenError::Malformed));
    assert!(check(&verifier, &with_header(header("\"k1\""))).is_ok());
}

/// A34
#[test]
fn a_token_without_key_id_uses_the_key_without_one_or_the_only_one() {
    let plain = with_header(r#"{"alg":"HS256"}"#);
    let named = with_header(r#"{"alg":"HS256","kid":"k1"}"#);
    let hs = |kid: Option<&str>, bytes: &[u8]| key(kid, &[Algorithm::HS256], secret(bytes));
    let other = b"only for tests: fedcba9876543210";

    let only = verifier(vec![hs(Some("k1"), SECRET)]);
    assert!(check(&only, &plain).is_ok());
    let several = verifier(vec![hs(Some("k1"), SECRET), hs(Some("k2"), other)]);
    assert_eq!(check(&several, &plain), Err(TokenError::UnknownKey));
    let with_plain = verifier(vec![hs(Some("k1"), other), hs(None, SECRET)]);
    assert!(check(&with_plain, &plain).is_ok());
    assert_eq!(check(&with_plain, &named), Err(TokenError::Signature));
    assert_eq!(check(&hs256(), &named), Err(TokenError::UnknownKey));
}

/// A35
#[test]
fn keys_and_addresses_in_the_header_have_no_effect() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let attacker = b"the attacker's own secret 000000";
    let verifier = verifier(vec![
        key(Some("h"), &[Algorithm::HS256], secret(SECRET)),
        key(Some("r"), &[Algorithm::RS256], pem(RSA_PUBLIC)),
    ]);
    let more = [
        format!(r#""jku":"{url}""#),
        format!(r#""x5u":"{url}""#),
        format!(r#""jwk":{{"kty":"oct","alg":"HS256","k":"{}"}}"#, b64(attacker)),
        r#""x5c":["MIIB"]"#.to_owned(),
    ];
    for more in more {
        let header = format!(r#"{{"alg":"HS256","kid":"h",{more}}}"#);
        let forged = sign(Algorithm::HS256, &EncodingKey::from_secret(attacker), &header, CLAIMS);
        assert_eq!(check(&verifier, &forged), Err(TokenError::Signature), "{header}");
        assert!(check(&verifier, &with_header(&header)).is_ok(), "{header}");
        let header = format!(r#"{{"alg":"RS256","kid":"r",{more}}}"#);
        let private = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
        assert!(check(&verifier, &sign(Algorithm::RS256, &private, &header, CLAIMS)).is_ok());
    }
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// A36
#[test]
fn a_header_with_critical_extensions_is_refused() {
    for crit in [r#"["exp"]"#, r#"["b64"]"#, r#"["unknown"]"#, "[]", "null", "\"b64\""] {
        let token = with_header(format!(r#"{{"alg":"HS256","crit":{crit},"b64":true}}"#));
        assert_eq!(check(&hs256(), &token), Err(TokenError::Claim("crit")), "{crit}");
    }
}

/// A42
#[test]
fn a_header_that_names_another_type_of_token_is_refused() {
    for word in ["JWT", "jwt", "at+jwt", "AT+JWT"] {
        assert!(
            check(&hs256(), &with_header(format!(r#"{{"alg":"HS256","typ":"{word}"}}"#))).is_ok()
        );
    }
    for word in [
        "\"id+jwt\"",
        "\"refresh+jwt\"",
        "\"rt+jwt\"",
        "\"dpop+jwt\"",
        "\"logout+jwt\"",
        "\"JWE\"",
        "\"secevent+jwt\"",
        "\"\"",
        "\" JWT\"",
        "1",
        "null",
        "[\"JWT\"]",
    ] {
        let token = with_header(format!(r#"{{"alg":"HS256","typ":{word}}}"#));
        assert_eq!(check(&hs256(), &token), Err(TokenError::Claim("typ")), "{word}");
    }
}

/// A45, in the header
#[test]
fn a_header_member_twice_is_refused() {
    for header in [
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
        r#"{"alg":"HS256","typ":"JWT","typ":"JWT"}"#,
        r#"{"alg":"HS256","x":1,"x":2}"#,
    ] {
        assert_eq!(check(&hs256(), &with_header(header)), Err(TokenError::Malformed), "{header}");
    }
    let members: String = (0..40).map(|n| format!(r#","m{n}":0"#)).collect();
    let token = with_header(format!(r#"{{"alg":"HS256"{members}}}"#));
    assert_eq!(check(&hs256(), &token), Err(TokenError::Malformed));
}

/// A43
#[test]
fn only_three_segments_are_a_token() {
    let token = with_header(r#"{"alg":"HS256"}"#);
    let parts: Vec<&str> = token.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    let jwe = b64(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#);
    for text in [
        header.to_owned(),
        format!("{header}.{claims}"),
        format!("{token}.{signature}"),
        format!("{token}.{claims}.{signature}"),
        format!("{jwe}.AAAA.AAAA.AAAA.AAAA"),
        format!(".{token}"),
        format!("{token}."),
        format!("{header}..{claims}.{signature}"),
        format!(".{claims}.{signature}"),
    ] {
        assert_eq!(check(&hs256(), &text), Err(TokenError::Malformed), "{text}");
    }
    assert_eq!(check(&hs256(), &format!("{header}..{signature}")), Err(TokenError::Signature));
    // A token in a token, and one that says so.
    let shared = EncodingKey::from_secret(SECRET);
    for header in [r#"{"alg":"HS256","cty":"JWT"}"#, r#"{"alg":"HS256"}"#] {
        for inner in [token.clone(), format!("\"{token}\"")] {
            let nested = sign(Algorithm::HS256, &shared, header, inner);
            assert_eq!(check(&hs256(), &nested), Err(TokenError::Malformed));
        }
    }
}
