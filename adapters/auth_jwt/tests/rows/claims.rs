//! Claims of a token whose signature fits, one wrong at a time.

use application::ports::token_verifier::TokenError;
use auth_jwt::{Algorithm, Config, JwtVerifier};
use domain::principal::Credential;
use domain::time::Wall;

use crate::support::{
    NOW, SECRET, at, check, check_at, hs256, key, secret, with_claims, with_more,
};

fn expecting(issuer: Option<&str>, audience: Option<&str>) -> JwtVerifier {
    JwtVerifier::build(Config {
        keys: vec![key(None, &[Algorithm::HS256], secret(SECRET))],
        issuer: issuer.map(str::to_owned),
        audience: audience.map(str::to_owned),
        ..Config::default()
    })
    .unwrap()
}

/// A37. A21: an issuer whose clock is slow, within the leeway and beyond.
#[test]
fn an_end_is_required_and_honoured_to_the_millisecond() {
    let missing = with_claims(r#"{"sub":"u1"}"#);
    assert_eq!(check(&hs256(), &missing), Err(TokenError::Claim("exp")));
    let ended = |seconds_ago: i64| {
        check(&hs256(), &with_claims(format!(r#"{{"sub":"u1","exp":{}}}"#, NOW - seconds_ago)))
    };
    assert_eq!(ended(6), Err(TokenError::Expired));
    assert_eq!(ended(5), Err(TokenError::Expired));
    assert_eq!(ended(4).unwrap().expires_at, Some(at(NOW - 4)));
    let token = with_claims(format!(r#"{{"sub":"u1","exp":{NOW}.5}}"#));
    assert_eq!(
        check(&hs256(), &token).unwrap().expires_at,
        Some(Wall::from_millis(NOW * 1000 + 500))
    );
    let last = Wall::from_millis(NOW * 1000 + 5499);
    assert!(check_at(&hs256(), &token, last).is_ok());
    let over = Wall::from_millis(NOW * 1000 + 5500);
    assert_eq!(check_at(&hs256(), &token, over), Err(TokenError::Expired));
}

/// A37: that it has expired is said only of a token that is otherwise right.
#[test]
fn an_expired_token_for_somebody_else_is_not_called_expired() {
    let token = with_claims(r#"{"sub":"u1","exp":1,"aud":"other"}"#);
    assert_eq!(check(&expecting(None, Some("us")), &token), Err(TokenError::Claim("aud")));
}

/// A38
#[test]
fn times_are_numbers_within_four_digit_years() {
    let wrong = [
        "\"1800000600\"",
        "\"99999999999\"",
        "1e400",
        "-1",
        "-0.5",
        "-1e300",
        "null",
        "true",
        "{}",
        "[]",
        "[1800000600]",
        "18446744073709551616",
        "18446744073709551615",
        "9223372036854775808",
        "9e18",
        "253402300800",
        "253402300799.5",
        "NaN",
        "Infinity",
    ];
    for value in wrong {
        let token = with_claims(format!(r#"{{"sub":"u1","exp":{value}}}"#));
        assert_eq!(check(&hs256(), &token), Err(TokenError::Claim("exp")), "{value}");
        for claim in ["nbf", "iat"] {
            let answer = check(&hs256(), &with_more(&format!(r#","{claim}":{value}"#)));
            assert_eq!(answer, Err(TokenError::Claim(claim)), "{value}");
        }
    }
    for value in ["253402300799", "2534023007.99e2", "18000006e2", "1800000600.0"] {
        assert!(check(&hs256(), &with_claims(format!(r#"{{"sub":"u1","exp":{value}}}"#))).is_ok());
    }
    // The last year neither overflows nor is endless.
    let token = with_claims(r#"{"sub":"u1","exp":253402300799}"#);
    assert!(check_at(&hs256(), &token, Wall::MAX).is_ok());
}

#[test]
fn a_tokens_own_name_and_time_are_kept_so_that_it_can_be_taken_back() {
    let plain = check(&hs256(), &with_more("")).unwrap();
    assert_eq!(plain.credential, Credential::default());
    let more = format!(r#","jti":"7f3e-1","iat":{NOW}"#);
    let credential = check(&hs256(), &with_more(&more)).unwrap().credential;
    assert_eq!(credential.id.unwrap().as_str(), "7f3e-1");
    assert_eq!(credential.issued_at, Some(at(NOW)));
    let long = format!("\"{}\"", "x".repeat(257));
    for value in ["null", "7", "\"\"", "\"a b\"", "[\"a\"]", &long] {
        let answer = check(&hs256(), &with_more(&format!(r#","jti":{value}"#)));
        assert_eq!(answer, Err(TokenError::Claim("jti")), "{value}");
    }
}

/// A20: what a token that counts once has to be. It is not used up here.
#[test]
fn a_token_that_counts_once_says_so_has_a_name_and_ends_within_a_day() {
    let verifier = hs256();
    let once = with_more(r#","jti":"t-1","once":true"#);
    for _ in 0..2 {
        let credential = check(&verifier, &once).unwrap().credential;
        assert!(credential.once);
        assert_eq!(credential.id.unwrap().as_str(), "t-1");
    }
    for often in [r#","jti":"t-1""#, r#","jti":"t-1","once":false"#, r#","once":false"#] {
        assert!(!check(&verifier, &with_more(often)).unwrap().credential.once, "{often}");
    }
    let unnamed = check(&verifier, &with_more(r#","once":true"#));
    assert_eq!(unnamed, Err(TokenError::Claim("jti")));
    let endless = with_claims(r#"{"sub":"u1","jti":"t-1","once":true}"#);
    assert_eq!(check(&verifier, &endless), Err(TokenError::Claim("exp")));
    for value in ["\"true\"", "1", "0", "null", "[true]", "{}", "\"\""] {
        let answer = check(&verifier, &with_more(&format!(r#","jti":"t-1","once":{value}"#)));
        assert_eq!(answer, Err(TokenError::Claim("once")), "{value}");
    }
    let ends = |seconds: i64| {
        let exp = NOW + seconds;
        let claims = format!(r#"{{"sub":"u1","exp":{exp},"jti":"t-1","once":true}}"#);
        check(&verifier, &with_claims(claims)).map(drop)
    };
    assert_eq!(ends(86_400), Ok(()));
    assert_eq!(ends(86_401), Err(TokenError::Claim("exp")));
    assert_eq!(ends(-5), Err(TokenError::Expired));
}

/// A39. A21: an issuer whose clock is fast, within the leeway and beyond.
#[test]
fn a_token_is_not_valid_before_its_time() {
    let starts = |seconds_ahead: i64| {
        check(&hs256(), &with_more(&format!(r#","nbf":{}"#, NOW + seconds_ahead)))
    };
    assert_eq!(starts(6), Err(TokenError::NotYetValid));
    assert!(starts(5).is_ok());
    assert!(starts(-5).is_ok());
    assert_eq!(
        check(&hs256(), &with_more(&format!(r#","nbf":{}.001"#, NOW + 5))),
        Err(TokenError::NotYetValid)
    );
}

/// A40
#[test]
fn the_audience_has_to_be_us() {
    let us = expecting(None, Some("roomkeeper"));
    for good in [r#""roomkeeper""#, r#"["roomkeeper"]"#, r#"["other","roomkeeper"]"#] {
        assert!(check(&us, &with_more(&format!(r#","aud":{good}"#))).is_ok(), "{good}");
    }
    for bad in [
        r#""other""#,
        r#""roomkeeper ""#,
        r#""Roomkeeper""#,
        r#""roomkeeper/""#,
        r#""""#,
        "[]",
        r#"["other"]"#,
        r#"["other","roomkeeper2"]"#,
        "1",
        "null",
        "true",
        r#"{"roomkeeper":1}"#,
        r#"[["roomkeeper"]]"#,
        r#"["roomkeeper",1]"#,
    ] {
        let answer = check(&us, &with_more(&format!(r#","aud":{bad}"#)));
        assert_eq!(answer, Err(TokenError::Claim("aud")), "{bad}");
    }
    assert_eq!(check(&us, &with_more("")), Err(TokenError::Claim("aud")));
}

/// A40
#[test]
fn without_a_configured_audience_any_is_accepted_but_not_any_type() {
    for good in [r#""other""#, "[]", r#"["a","b"]"#] {
        assert!(check(&hs256(), &with_more(&format!(r#","aud":{good}"#))).is_ok(), "{good}");
    }
    for bad in ["1", "null", "{}", "[1]"] {
        let answer = check(&hs256(), &with_more(&format!(r#","aud":{bad}"#)));
        assert_eq!(answer, Err(TokenError::Claim("aud")), "{bad}");
    }
}

/// A41
#[test]
fn the_issuer_fits_byte_for_byte() {
    let ours = expecting(Some("https://id.example.com"), None);
    let answer = |iss: &str| check(&ours, &with_more(&format!(r#","iss":{iss}"#)));
    assert!(answer(r#""https://id.example.com""#).is_ok());
    for bad in [
        r#""https://id.example.com/""#,
        r#""https://id.example.com.evil.io""#,
        r#""https://ID.example.com""#,
        r#""http://id.example.com""#,
        r#""https://id.ex\u0430mple.com""#,
        r#""""#,
        r#"["https://id.example.com"]"#,
        "null",
        "1",
    ] {
        assert_eq!(answer(bad), Err(TokenError::Claim("iss")), "{bad}");
    }
    assert_eq!(check(&ours, &with_more("")), Err(TokenError::Claim("iss")));
    assert!(check(&hs256(), &with_more(r#","iss":"anyone""#)).is_ok());
    assert!(check(&hs256(), &with_more(r#","iss":1"#)).is_err());
}

/// A42
#[test]
fn a_token_marked_as_another_type_is_refused() {
    for (claim, value) in [
        ("typ", r#""ID""#),
        ("typ", r#""Refresh""#),
        ("typ", r#""Offline""#),
        ("token_use", r#""id""#),
        ("token_use", r#""refresh""#),
        ("token_use", "null"),
        ("token_type", r#""refresh""#),
        ("token_type", r#""subscription""#),
        ("at_hash", r#""MTIzNDU2Nzg5MDEyMzQ1Ng""#),
        ("c_hash", r#""MTIzNDU2Nzg5MDEyMzQ1Ng""#),
    ] {
        let answer = check(&hs256(), &with_more(&format!(r#","{claim}":{value}"#)));
        assert_eq!(answer, Err(TokenError::Claim(claim)), "{value}");
    }
    for fine in [r#","typ":"Bearer""#, r#","token_use":"access""#, r#","token_type":"access""#] {
        assert!(check(&hs256(), &with_more(fine)).is_ok(), "{fine}");
    }
}

/// A45
#[test]
fn a_claim_twice_is_refused() {
    for claims in [
        r#"{"sub":"a","sub":"b","exp":1800000600}"#,
        r#"{"sub":"u1","sub":"u1","exp":1800000600}"#,
        r#"{"sub":"u1","\u0073ub":"b","exp":1800000600}"#,
        r#"{"sub":"u1","exp":1,"exp":1800000600}"#,
        r#"{"sub":"u1","exp":1800000600,"x":1,"x":1}"#,
        r#"{"sub":"u1","exp":1800000600,"roles":[],"roles":["admin"]}"#,
    ] {
        assert_eq!(check(&hs256(), &with_claims(claims)), Err(TokenError::Malformed), "{claims}");
    }
}

/// A46
#[test]
fn a_subject_is_a_user_id() {
    let long = format!("\"{}\"", "u".repeat(129));
    for bad in [
        r#""""#,
        r#"" ""#,
        r#""a b""#,
        r#""a\n""#,
        r#""\u0000""#,
        r#""\u007f""#,
        r#""é""#,
        r#""e\u0301""#,
        r#""\u202eabc""#,
        r#""\ud800""#,
        r#""anonymous:00000000000000ab""#,
        r#""anonymous:""#,
        "null",
        "1",
        "{}",
        r#"["u1"]"#,
        &long,
    ] {
        let token = with_claims(format!(r#"{{"sub":{bad},"exp":1800000600}}"#));
        assert_eq!(check(&hs256(), &token), Err(TokenError::Claim("sub")), "{bad}");
    }
    let huge = with_claims(format!(r#"{{"sub":"{}","exp":1800000600}}"#, "u".repeat(65536)));
    assert_eq!(check(&hs256(), &huge), Err(TokenError::Malformed));
    let missing = with_claims(r#"{"exp":1800000600}"#);
    assert_eq!(check(&hs256(), &missing), Err(TokenError::Claim("sub")));
    for good in ["u1", "auth0|5f7c", "anonymous", "a@b.c"] {
        let token = with_claims(format!(r#"{{"sub":"{good}","exp":1800000600}}"#));
        assert_eq!(check(&hs256(), &token).unwrap().user.unwrap().as_str(), good);
    }
}

#[test]
fn claims_that_are_no_object_are_malformed() {
    for claims in ["", "null", "[]", "1", "\"x\"", "{", "{}{}", r#"{"sub":"u1","exp":1800000600}x"#]
    {
        assert_eq!(check(&hs256(), &with_claims(claims)), Err(TokenError::Malformed), "{claims}");
    }
    let not_utf8 = b"{\"sub\":\"u1\",\"exp\":1800000600,\"x\":\"\xff\"}";
    assert_eq!(check(&hs256(), &with_claims(not_utf8)), Err(TokenError::Malformed));
}

#[test]
fn nesting_and_numbers_of_claims_are_bounded() {
    let deep = |depth: usize| format!(r#","x":{}{}"#, "[".repeat(depth), "]".repeat(depth));
    for depth in [10, 2900] {
        // Skipped without recursion, so no depth that fits into a token exhausts the stack.
        assert!(check(&hs256(), &with_more(&deep(depth))).is_ok(), "{depth}");
    }
    let many = |n: usize| (0..n).map(|n| format!(r#","c{n}":0"#)).collect::<String>();
    assert!(check(&hs256(), &with_more(&many(126))).is_ok());
    assert_eq!(check(&hs256(), &with_more(&many(127))), Err(TokenError::Malformed));
}
