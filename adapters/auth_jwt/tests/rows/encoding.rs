//! One token has one spelling, and none passes with another's parts.

use application::ports::token_verifier::TokenError;
use auth_jwt::{Algorithm, Config, JwtVerifier};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use jsonwebtoken::EncodingKey;

use crate::support::{
    CLAIMS, SECRET, algorithms, b64, check, hs256, key, secret, sign, verifier, with_claims,
    with_more,
};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A44
#[test]
fn no_other_last_character_of_a_signature_passes() {
    for (algorithm, private, material) in algorithms() {
        let verifier = verifier(vec![key(None, &[algorithm], material)]);
        let token = sign(algorithm, &private, format!(r#"{{"alg":"{algorithm:?}"}}"#), CLAIMS);
        let passing = ALPHABET
            .iter()
            .map(|last| format!("{}{}", &token[..token.len() - 1], char::from(*last)))
            .filter(|text| check(&verifier, text).is_ok());
        assert_eq!(passing.collect::<Vec<_>>(), [token], "{algorithm:?}");
    }
}

/// A44
#[test]
fn every_other_character_at_every_position_is_refused() {
    let verifier = hs256();
    let token = with_claims(CLAIMS);
    for at in 0..token.len() {
        for other in ALPHABET.iter().chain(b"=+/. \n\0%") {
            let mut bytes = token.clone().into_bytes();
            if bytes[at] == *other {
                continue;
            }
            bytes[at] = *other;
            let text = String::from_utf8(bytes).unwrap();
            assert!(check(&verifier, &text).is_err(), "{at}: {text}");
        }
    }
}

/// A44: even signed by the issuer, a segment in another spelling is refused.
#[test]
fn segments_in_another_spelling_are_refused_even_when_signed() {
    let shared = EncodingKey::from_secret(SECRET);
    let token = |header: &str, claims: &str| {
        let message = format!("{header}.{claims}");
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &shared, jsonwebtoken::Algorithm::HS256)
                .unwrap();
        format!("{message}.{signature}")
    };
    // Lengths that need padding, and bytes that differ between the alphabets.
    let (header, claims) =
        (r#"{"alg":"HS256" }"#, r#"{"sub":"u1","exp":1800000600,"x":"???>>>"} "#);
    assert!(check(&hs256(), &token(&b64(header), &b64(claims))).is_ok());
    let trailing = |text: &str| {
        let last = text.as_bytes()[text.len() - 1];
        let index = ALPHABET.iter().position(|c| *c == last).unwrap();
        format!("{}{}", &text[..text.len() - 1], char::from(ALPHABET[index + 1]))
    };
    let headers = [
        URL_SAFE.encode(header),
        trailing(&b64(header)),
        format!("{}\n", b64(header)),
        format!(" {}", b64(header)),
        format!("{}A", b64(header)),
    ];
    for other in headers {
        let text = token(&other, &b64(claims));
        assert_eq!(check(&hs256(), &text), Err(TokenError::Malformed), "{text}");
    }
    for other in [
        URL_SAFE.encode(claims),
        STANDARD.encode(claims),
        STANDARD_NO_PAD.encode(claims),
        format!("{}\r\n", b64(claims)),
        trailing(&b64(claims)),
    ] {
        assert_ne!(other, b64(claims));
        let text = token(&b64(header), &other);
        assert_eq!(check(&hs256(), &text), Err(TokenError::Malformed), "{text}");
    }
}

/// A44
#[test]
fn a_signature_in_another_spelling_is_refused() {
    for n in 0..50 {
        let token = with_more(&format!(r#","n":{n}"#));
        let (message, signature) = token.rsplit_once('.').unwrap();
        let standard = signature.replace('-', "+").replace('_', "/");
        let mut others = vec![format!("{signature}="), format!("{signature}\n")];
        if standard != signature {
            others.push(standard);
        }
        for other in others {
            let text = format!("{message}.{other}");
            assert_eq!(check(&hs256(), &text), Err(TokenError::Malformed), "{text}");
        }
    }
}

/// A47
#[test]
fn a_token_longer_than_the_limit_is_refused_whatever_it_holds() {
    let small = |token_bytes_max: usize| {
        JwtVerifier::build(Config {
            keys: vec![key(None, &[Algorithm::HS256], secret(SECRET))],
            token_bytes_max,
            ..Config::default()
        })
        .unwrap()
    };
    let token = with_claims(CLAIMS);
    assert!(check(&small(token.len()), &token).is_ok());
    assert_eq!(check(&small(token.len() - 1), &token), Err(TokenError::Malformed));
    let huge = with_more(&format!(r#","x":"{}""#, "x".repeat(1024 * 1024)));
    assert_eq!(check(&hs256(), &huge), Err(TokenError::Malformed));
}

/// A48
#[test]
fn a_signature_over_another_tokens_claims_never_passes() {
    for (algorithm, private, material) in algorithms() {
        let verifier = verifier(vec![key(None, &[algorithm], material)]);
        let header = format!(r#"{{"alg":"{algorithm:?}"}}"#);
        let mine = sign(algorithm, &private, &header, CLAIMS);
        let theirs = sign(algorithm, &private, &header, r#"{"sub":"admin","exp":1800000600}"#);
        let (message, _) = theirs.rsplit_once('.').unwrap();
        let (_, signature) = mine.rsplit_once('.').unwrap();
        let mixed = format!("{message}.{signature}");
        assert_eq!(check(&verifier, &mixed), Err(TokenError::Signature), "{algorithm:?}");
    }
}

/// A48: half a signature, none, and one with more behind it.
#[test]
fn a_signature_of_another_length_never_passes() {
    for (algorithm, private, material) in algorithms() {
        let verifier = verifier(vec![key(None, &[algorithm], material)]);
        let token = sign(algorithm, &private, format!(r#"{{"alg":"{algorithm:?}"}}"#), CLAIMS);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap();
        let longer = [&bytes[..], &[0]].concat();
        let zeros = vec![0; bytes.len()];
        for other in [&bytes[..1], &bytes[..16], &bytes[..bytes.len() / 2], &longer, &zeros] {
            let text = format!("{message}.{}", b64(other));
            assert_eq!(check(&verifier, &text), Err(TokenError::Signature), "{algorithm:?}");
        }
    }
}
