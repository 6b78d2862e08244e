//! Keys from a file, and errors that say what to do without saying a secret.

use std::error::Error;
use std::io::Write;

use auth_jwt::{Algorithm, EntryProblem, KeyConfig, KeyFileError, KeyProblem, load_keys};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::support::{
    CLAIMS, EC256_PRIVATE, EC256_PUBLIC, EC521_PUBLIC, ED_PUBLIC, RSA_PRIVATE, RSA_PUBLIC, SECRET,
    algorithms, b64, check, der, sign, verifier,
};

const CANARY: &str = "canary-canary-canary-canary-canary-canary";

fn load(text: &str) -> Result<Vec<KeyConfig>, KeyFileError> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let answer = load_keys(file.path());
    if let Err(error) = &answer {
        let name = file.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(error.to_string().contains(&name), "{error}");
    }
    answer
}

fn load_one(key: &serde_json::Value) -> Result<Vec<KeyConfig>, KeyFileError> {
    load(&json!({ "keys": [key] }).to_string())
}

fn problem(key: &serde_json::Value) -> EntryProblem {
    match load_one(key) {
        Err(KeyFileError::Key { problem, .. }) => problem,
        other => panic!("{key}: {other:?}"),
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(" {source}"));
        next = source.source();
    }
    text
}

/// The public numbers of the test keys, as an identity provider would publish them.
fn jwk(pem: &str, algorithm: Algorithm) -> serde_json::Value {
    use jsonwebtoken::DecodingKey;
    use jsonwebtoken::jwk::Jwk;
    let key = match algorithm {
        Algorithm::RS256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
        Algorithm::ES256 => DecodingKey::from_ec_pem(pem.as_bytes()),
        _ => DecodingKey::from_ed_pem(pem.as_bytes()),
    };
    let mut jwk =
        Jwk::from_decoding_key(&key.unwrap(), Some(algorithm.to_string().parse().unwrap()))
            .unwrap();
    jwk.common.key_id = Some("jwk".to_owned());
    serde_json::to_value(&jwk).unwrap()
}

/// The library knows no key on P-521.
fn jwk_p521() -> serde_json::Value {
    // The point ends the encoding.
    let der = der(EC521_PUBLIC);
    let (x, y) = der[der.len() - 2 * 66..].split_at(66);
    json!({"kid": "jwk", "kty": "EC", "crv": "P-521", "alg": "ES512", "x": b64(x), "y": b64(y)})
}

#[test]
fn every_form_of_a_key_is_loaded_and_verifies() {
    let list = [
        (json!({"alg": ["HS256"], "secret": str::from_utf8(SECRET).unwrap()}), Algorithm::HS256),
        (json!({"alg": ["HS512"], "secret_base64": STANDARD.encode(SECRET)}), Algorithm::HS512),
        (json!({"alg": ["RS256", "PS256"], "pem": RSA_PUBLIC}), Algorithm::PS256),
        (json!({"alg": ["ES256"], "pem": EC256_PUBLIC}), Algorithm::ES256),
        (json!({"kid": "k", "kty": "oct", "alg": "HS384", "k": b64(SECRET)}), Algorithm::HS384),
        (jwk(RSA_PUBLIC, Algorithm::RS256), Algorithm::RS256),
        (jwk(EC256_PUBLIC, Algorithm::ES256), Algorithm::ES256),
        (jwk_p521(), Algorithm::ES512),
        (jwk(ED_PUBLIC, Algorithm::EdDSA), Algorithm::EdDSA),
    ];
    for (key, algorithm) in list {
        let verifier = verifier(load_one(&key).unwrap());
        let (_, private, _) =
            algorithms().into_iter().find(|(other, ..)| *other == algorithm).unwrap();
        let token = sign(algorithm, &private, format!(r#"{{"alg":"{algorithm:?}"}}"#), CLAIMS);
        assert!(check(&verifier, &token).is_ok(), "{key}");
    }
}

#[test]
fn members_that_providers_publish_are_taken_and_others_refused() {
    let mut key = jwk(RSA_PUBLIC, Algorithm::RS256);
    key["use"] = json!("sig");
    key["x5t"] = json!("AAAA");
    key["x5c"] = json!(["MIIB"]);
    assert!(load_one(&key).is_ok());
    key["oops"] = json!(1);
    assert!(matches!(problem(&key), EntryProblem::UnknownMember(name) if name == "oops"));
    let own = json!({"alg": ["RS256"], "pem": RSA_PUBLIC, "use": "sig"});
    assert!(matches!(problem(&own), EntryProblem::UnknownMember(name) if name == "use"));
    let mut key = jwk(RSA_PUBLIC, Algorithm::RS256);
    key["use"] = json!("enc");
    assert!(matches!(problem(&key), EntryProblem::JwkUse));
}

#[test]
fn private_keys_are_refused_and_the_message_says_what_is_needed() {
    for (alg, pem) in [("RS256", RSA_PRIVATE), ("ES256", EC256_PRIVATE)] {
        let key = json!({"kid": "mine", "alg": [alg], "pem": pem});
        let error = load_one(&key).unwrap_err();
        let text = chain(&error);
        assert!(text.contains(r#"token key 0 (kid "mine")"#) && text.contains("public"), "{text}");
    }
    let mut key = jwk(RSA_PUBLIC, Algorithm::RS256);
    key["d"] = json!("AAAA");
    assert!(matches!(problem(&key), EntryProblem::Key(KeyProblem::PrivateKey)));
}

#[test]
fn a_wrong_entry_is_named_with_what_is_wrong() {
    let secret = str::from_utf8(SECRET).unwrap();
    let is = |key: serde_json::Value, expected: &str| {
        let text = problem(&key).to_string();
        assert!(text.contains(expected), "{key}: {text}");
    };
    is(json!([]), "JSON object");
    is(json!({"alg": ["HS256"]}), "exactly one of");
    is(json!({"alg": ["HS256"], "secret": secret, "pem": RSA_PUBLIC}), "exactly one of");
    is(json!({"secret": secret}), "`alg` is missing");
    is(json!({"alg": "HS256", "secret": secret}), "`alg` must be an array");
    is(json!({"alg": ["HS257"], "secret": secret}), "HS512");
    is(json!({"alg": ["none"], "secret": secret}), "HS512");
    is(json!({"alg": [], "secret": secret}), "lists no algorithm");
    is(json!({"alg": ["HS256", "RS256"], "secret": secret}), "more than one family");
    is(json!({"alg": ["HS256"], "secret": "short"}), "openssl rand");
    is(json!({"alg": ["HS256"], "secret": 5}), "`secret` must be a string");
    is(json!({"alg": ["HS256"], "secret_base64": "%%%"}), "not standard base64");
    is(json!({"alg": ["RS256"], "pem": "x"}), "PEM");
    is(json!({"kid": "", "alg": ["HS256"], "secret": secret}), "kid");
    is(json!({"kid": null, "alg": ["HS256"], "secret": secret}), "`kid` must be a string");
    is(json!({"kty": "oct", "alg": "HS256", "k": b64(secret)}), "`kid` is missing");
    is(json!({"kty": "oct", "kid": "a", "k": b64(secret)}), "`alg` is missing");
    is(json!({"kty": "oct", "kid": "a", "alg": "HS256", "k": "="}), "base64url");
    is(json!({"kty": "EC", "crv": "secp256k1", "kid": "a", "alg": "ES256"}), "P-384");
    is(json!({"kty": "RSA", "kid": "a", "alg": "RS256", "n": "AQAB", "e": "AQAB"}), "17 bits");
}

#[test]
fn a_file_of_another_shape_is_refused() {
    for text in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[],"x":1}"#,
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[]} x"#,
    ] {
        assert!(matches!(load(text), Err(KeyFileError::Json { .. })), "{text}");
    }
    assert!(matches!(
        load(r#"{"keys":[{"kid":"a","kid":"b"}]}"#),
        Err(KeyFileError::Key { problem: EntryProblem::Object, .. })
    ));
    assert!(load(r#"{"keys":[]}"#).unwrap().is_empty());
    assert!(matches!(load(&" ".repeat(1024 * 1024 + 1)), Err(KeyFileError::TooLarge { .. })));
    let missing = std::path::Path::new("/nowhere/keys.json");
    assert!(matches!(load_keys(missing), Err(KeyFileError::Read { .. })));
}

#[test]
fn no_error_shows_key_material() {
    let long = format!("{CANARY}{CANARY}");
    for key in [
        json!({"alg": ["HS257"], "secret": CANARY}),
        json!({"alg": ["HS256"], "secret": [CANARY]}),
        json!({"alg": ["RS256"], "secret": CANARY}),
        json!({"alg": [CANARY], "secret": CANARY}),
        json!({"alg": CANARY, "secret": CANARY}),
        json!({"alg": ["HS256"], "secret": CANARY, "x": CANARY}),
        json!({"alg": ["HS256"], "secret_base64": format!("{CANARY}%")}),
        json!({"alg": ["RS256"], "pem": CANARY}),
        json!({"alg": ["RS256"], "pem": format!("-----BEGIN PRIVATE KEY-----\n{CANARY}")}),
        json!({"kty": "oct", "kid": "a", "alg": "HS256", "k": format!("{CANARY}=")}),
        json!({"alg": ["HS256"], "secret": CANARY, long: 1}),
        json!(CANARY),
    ] {
        let text = chain(&load_one(&key).unwrap_err());
        assert!(!text.contains(CANARY), "{text}");
    }
    let text = chain(&load(&format!(r#"{{"keys":[{{"secret":"{CANARY}"#)).unwrap_err());
    assert!(!text.contains(CANARY), "{text}");
    let shown = format!("{:?}", load_one(&json!({"alg": ["HS256"], "secret": CANARY})).unwrap());
    assert!(!shown.contains(CANARY), "{shown}");
}
