//! Algorithms, families and the choice of the key.

use application::ports::token_verifier::TokenError;
use auth_jwt::{Algorithm, BuildError, Config, JwtVerifier, KeyConfig, KeyMaterial, KeyProblem};
use jsonwebtoken::EncodingKey;

use crate::support::{
    CLAIMS, EC256_PUBLIC, EC384_PUBLIC, EC521_PUBLIC, ED_PUBLIC, RSA_PRIVATE, RSA_PUBLIC, SECRET,
    algorithms, check, der, key, pem, secret, sign, verifier,
};

fn build(keys: Vec<KeyConfig>) -> Result<JwtVerifier, BuildError> {
    JwtVerifier::build(Config { keys, ..Config::default() })
}

fn problem(algorithms: &[Algorithm], material: KeyMaterial) -> KeyProblem {
    match build(vec![key(Some("k1"), algorithms, material)]) {
        Err(BuildError::Key { problem, which }) => {
            assert_eq!(which, r#"token key 0 (kid "k1")"#);
            problem
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_algorithm_verifies_what_its_own_key_signed() {
    for (algorithm, private, material) in algorithms() {
        let verifier = verifier(vec![key(None, &[algorithm], material)]);
        let token = sign(algorithm, &private, format!(r#"{{"alg":"{algorithm:?}"}}"#), CLAIMS);
        assert!(check(&verifier, &token).is_ok(), "{algorithm:?}");
    }
}

/// A33
#[test]
fn a_key_verifies_no_algorithm_that_it_does_not_list() {
    for (listed, _, material) in algorithms() {
        let verifier = verifier(vec![key(None, &[listed], material)]);
        for (used, private, _) in algorithms() {
            let token = sign(used, &private, format!(r#"{{"alg":"{used:?}"}}"#), CLAIMS);
            let answer = check(&verifier, &token);
            assert_eq!(answer.is_ok(), used == listed, "{used:?} against {listed:?}");
            if used != listed {
                assert_eq!(answer, Err(TokenError::UnknownKey));
                // The same signature under the listed name.
                let renamed = sign(used, &private, format!(r#"{{"alg":"{listed:?}"}}"#), CLAIMS);
                assert_eq!(check(&verifier, &renamed), Err(TokenError::Signature));
            }
        }
    }
}

/// A31
#[test]
fn a_public_key_is_no_hmac_secret() {
    let publics = [
        (Algorithm::RS256, RSA_PUBLIC),
        (Algorithm::ES256, EC256_PUBLIC),
        (Algorithm::ES384, EC384_PUBLIC),
        (Algorithm::ES512, EC521_PUBLIC),
        (Algorithm::EdDSA, ED_PUBLIC),
    ];
    for (algorithm, public) in publics {
        let verifier = verifier(vec![
            key(Some("public"), &[algorithm], pem(public)),
            key(Some("shared"), &[Algorithm::HS256], secret(SECRET)),
        ]);
        let secrets = [
            public.as_bytes().to_vec(),
            public.trim_end().as_bytes().to_vec(),
            format!("{public}\n").into_bytes(),
            public.replace('\n', "\r\n").into_bytes(),
            der(public),
        ];
        for bytes in secrets {
            let forger = EncodingKey::from_secret(&bytes);
            for used in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                for kid in ["public", "shared"] {
                    let header = format!(r#"{{"alg":"{used:?}","kid":"{kid}"}}"#);
                    assert!(check(&verifier, &sign(used, &forger, header, CLAIMS)).is_err());
                    let header = format!(r#"{{"alg":"{algorithm:?}","kid":"{kid}"}}"#);
                    assert!(check(&verifier, &sign(used, &forger, header, CLAIMS)).is_err());
                }
            }
        }
    }
}

/// A31
#[test]
fn a_public_key_configured_as_a_secret_is_refused() {
    for public in [RSA_PUBLIC, EC256_PUBLIC] {
        let material = secret(public.as_bytes());
        assert_eq!(problem(&[Algorithm::HS256], material), KeyProblem::SecretIsPem);
    }
    assert_eq!(problem(&[Algorithm::HS256], pem(RSA_PUBLIC)), KeyProblem::PublicKeyForSecret);
    assert_eq!(problem(&[Algorithm::RS256], secret(SECRET)), KeyProblem::SecretForPublicKey);
}

#[test]
fn a_key_lists_algorithms_of_one_family() {
    use Algorithm::*;
    for mixed in [&[HS256, RS256][..], &[RS256, ES256], &[ES256, EdDSA], &[EdDSA, HS512]] {
        assert_eq!(problem(mixed, pem(RSA_PUBLIC)), KeyProblem::MixedFamilies);
    }
    assert_eq!(problem(&[], secret(SECRET)), KeyProblem::NoAlgorithm);
    assert!(build(vec![key(None, &[RS256, RS512, PS256], pem(RSA_PUBLIC))]).is_ok());
    assert_eq!(problem(&[ES256, ES384], pem(EC256_PUBLIC)), KeyProblem::Curve);
}

#[test]
fn a_key_that_does_not_fit_its_algorithm_is_refused_before_the_first_token() {
    use Algorithm::*;
    assert_eq!(problem(&[RS256], pem(EC256_PUBLIC)), KeyProblem::Kind);
    assert_eq!(problem(&[ES256], pem(RSA_PUBLIC)), KeyProblem::Kind);
    assert_eq!(problem(&[EdDSA], pem(EC256_PUBLIC)), KeyProblem::Kind);
    assert_eq!(problem(&[ES256], pem(EC384_PUBLIC)), KeyProblem::Curve);
    assert_eq!(problem(&[ES384], pem(EC521_PUBLIC)), KeyProblem::Curve);
    assert_eq!(problem(&[ES512], pem(EC384_PUBLIC)), KeyProblem::Curve);
    let nowhere = KeyMaterial::EcPoint([&[4][..], &[1; 2 * 66]].concat());
    assert_eq!(problem(&[ES512], nowhere), KeyProblem::Kind, "not on the curve");
    let short = include_str!("../keys/rsa1024_public.pem");
    assert_eq!(problem(&[RS256], pem(short)), KeyProblem::RsaBits { bits: 1024 });
    assert!(
        build(vec![key(None, &[RS256], pem(include_str!("../keys/rsa_public_pkcs1.pem")))]).is_ok()
    );
}

#[test]
fn private_keys_certificates_and_heaps_of_keys_are_refused() {
    use Algorithm::*;
    assert_eq!(problem(&[RS256], pem(RSA_PRIVATE)), KeyProblem::PrivateKey);
    let both = format!("{RSA_PUBLIC}{RSA_PRIVATE}");
    assert_eq!(problem(&[RS256], pem(&both)), KeyProblem::PrivateKey);
    let two = format!("{RSA_PUBLIC}{RSA_PUBLIC}");
    assert_eq!(problem(&[RS256], pem(&two)), KeyProblem::Pem);
    let certificate = include_str!("../keys/rsa_certificate.pem");
    assert_eq!(problem(&[RS256], pem(certificate)), KeyProblem::Pem);
    for text in ["", "key", "-----BEGIN PUBLIC KEY-----"] {
        assert!(build(vec![key(None, &[RS256], pem(text))]).is_err(), "{text:?}");
    }
}

#[test]
fn a_secret_has_at_least_32_bytes() {
    let n_bytes = 31;
    let short = problem(&[Algorithm::HS256], secret(&SECRET[..n_bytes]));
    assert_eq!(short, KeyProblem::SecretShort { n_bytes });
    assert!(build(vec![key(None, &[Algorithm::HS256], secret(&SECRET[..32]))]).is_ok());
}

/// A21: no leeway above sixty seconds.
#[test]
fn settings_out_of_range_are_refused() {
    let keys = |n: usize| {
        (0..n).map(|n| key(Some(&format!("k{n}")), &[Algorithm::HS256], secret(SECRET))).collect()
    };
    assert!(build(keys(32)).is_ok());
    assert!(matches!(build(keys(33)), Err(BuildError::TooManyKeys { n_keys: 33 })));
    let kid = "k".repeat(257);
    for kid in ["", &kid] {
        let answer = build(vec![key(Some(kid), &[Algorithm::HS256], secret(SECRET))]);
        assert!(matches!(answer, Err(BuildError::Key { problem: KeyProblem::Kid, .. })));
    }
    for kid in [Some("a"), None] {
        let twice = || key(kid, &[Algorithm::HS256], secret(SECRET));
        assert!(matches!(build(vec![twice(), twice()]), Err(BuildError::DuplicateKid { .. })));
    }
    let leeway = std::time::Duration::from_secs(61);
    let wide = Config { leeway, ..Config::default() };
    assert!(matches!(JwtVerifier::build(wide), Err(BuildError::Leeway(_))));
    for token_bytes_max in [0, usize::MAX] {
        let config = Config { token_bytes_max, ..Config::default() };
        assert!(matches!(JwtVerifier::build(config), Err(BuildError::TokenBytesMax(_))));
    }
    let empty = Config { audience: Some(String::new()), ..Config::default() };
    assert!(matches!(JwtVerifier::build(empty), Err(BuildError::Empty("audience"))));
}

#[test]
fn without_keys_every_token_is_refused() {
    let verifier = verifier(Vec::new());
    for (algorithm, private, _) in algorithms() {
        let token = sign(algorithm, &private, format!(r#"{{"alg":"{algorithm:?}"}}"#), CLAIMS);
        assert_eq!(check(&verifier, &token), Err(TokenError::NoKeys));
    }
    assert_eq!(check(&verifier, ""), Err(TokenError::NoKeys));
}

#[test]
fn nothing_printed_shows_a_secret() {
    let config = Config {
        keys: vec![key(Some("k1"), &[Algorithm::HS256], secret(SECRET))],
        ..Config::default()
    };
    let shown = format!("{config:?}{:?}", crate::support::hs256());
    assert!(!shown.contains("only for tests") && !shown.contains("111, 110, 108"), "{shown}");
}

/// A49: while both keys are configured both are accepted; a removed key is refused.
#[test]
fn keys_rotate_by_their_ids() {
    let (old, new) = (SECRET, b"only for tests: fedcba9876543210");
    let token = |kid: &str, bytes: &[u8]| {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
        sign(Algorithm::HS256, &EncodingKey::from_secret(bytes), header, CLAIMS)
    };
    let both = verifier(vec![
        key(Some("old"), &[Algorithm::HS256], secret(old)),
        key(Some("new"), &[Algorithm::HS256], secret(new)),
    ]);
    assert!(check(&both, &token("old", old)).is_ok());
    assert!(check(&both, &token("new", new)).is_ok());
    assert_eq!(check(&both, &token("new", old)), Err(TokenError::Signature));
    let rotated = verifier(vec![key(Some("new"), &[Algorithm::HS256], secret(new))]);
    assert_eq!(check(&rotated, &token("old", old)), Err(TokenError::UnknownKey));
    assert!(check(&rotated, &token("new", new)).is_ok());
}
