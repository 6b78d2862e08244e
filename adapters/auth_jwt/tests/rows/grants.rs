//! Name, roles and rooms: what a token says beyond who it is.

use application::ports::token_verifier::TokenError;
use domain::delivery::Class;
use domain::policy::{Access, NamespacePolicy};
use domain::principal::Action;
use domain::retention::Retention;
use domain::room::RoomId;

use crate::support::{check, hs256, with_more};

fn answer(members: &str) -> Result<domain::principal::Principal, TokenError> {
    check(&hs256(), &with_more(members))
}

#[test]
fn a_name_is_short_and_cannot_rearrange_its_surroundings() {
    let named = answer(r#","name":"Zoë 🦀""#).unwrap();
    assert_eq!(named.name.as_deref(), Some("Zoë 🦀"));
    assert_eq!(answer(r#","name":"""#).unwrap().name, None);
    assert!(answer(&format!(r#","name":"{}""#, "n".repeat(128))).is_ok());
    let long = format!("\"{}\"", "n".repeat(129));
    for bad in [
        r#""a\u0000""#,
        r#""a\nb""#,
        r#""\u0085""#,
        r#""\u202eevil""#,
        r#""\u2066evil""#,
        r#""\u200f""#,
        r#""\u061c""#,
        "null",
        "1",
        "[]",
        &long,
    ] {
        assert_eq!(answer(&format!(r#","name":{bad}"#)), Err(TokenError::Claim("name")), "{bad}");
    }
}

#[test]
fn roles_are_at_most_sixteen_words() {
    let roles = answer(r#","roles":["moderator","a:b"]"#).unwrap().roles;
    assert_eq!(roles.iter().map(|role| role.as_str()).collect::<Vec<_>>(), ["moderator", "a:b"]);
    let many = |n: usize| format!(r#","roles":[{}]"#, vec!["\"r\""; n].join(","));
    assert!(answer(&many(16)).is_ok());
    assert_eq!(answer(&many(17)), Err(TokenError::Claim("roles")));
    for bad in ["\"admin\"", "[\"\"]", "[\"a b\"]", "[1]", "[null]", "null", "{}", "[[\"a\"]]"] {
        assert_eq!(answer(&format!(r#","roles":{bad}"#)), Err(TokenError::Claim("roles")), "{bad}");
    }
}

#[test]
fn rooms_allow_exactly_what_they_say() {
    let who =
        answer(r#","rooms":[{"pattern":"chat:guild/*","allow":["subscribe","history"]}]"#).unwrap();
    let policy = NamespacePolicy {
        replicated: false,
        subscribe: Access::Granted,
        publish: Access::Granted,
        presence: Access::Granted,
        history: Access::Granted,
        presence_listed: true,
        presence_named_max: 1_000,
        retention: Retention::default(),
        default_class: Class::Reliable,
        durable: false,
        members_max: 10,
        patterns: true,
    };
    let may = |action, room: &str| who.may(action, &RoomId::parse(room).unwrap(), &policy);
    assert!(may(Action::Subscribe, "chat:guild/7"));
    assert!(may(Action::History, "chat:guild/7"));
    assert!(!may(Action::Publish, "chat:guild/7"));
    assert!(!may(Action::Moderate, "chat:guild/7"));
    assert!(!may(Action::Subscribe, "chat:other"));
    let all = r#","rooms":[{"allow":["subscribe","publish","presence","history","moderate"],"pattern":"chat:a"}]"#;
    assert!(answer(all).is_ok());
}

#[test]
fn rooms_of_a_wrong_shape_are_refused_as_a_whole() {
    let grant = r#"{"pattern":"chat:a","allow":[]}"#;
    let many = |n: usize| format!(r#","rooms":[{}]"#, vec![grant; n].join(","));
    assert!(answer(&many(64)).is_ok());
    assert_eq!(answer(&many(65)), Err(TokenError::Claim("rooms")));
    for bad in [
        "null",
        "{}",
        "\"chat:a\"",
        r#"["chat:a"]"#,
        r#"[["chat:a",["subscribe"]]]"#,
        r#"[{}]"#,
        r#"[{"pattern":"chat:a"}]"#,
        r#"[{"allow":["subscribe"]}]"#,
        r#"[{"pattern":"*","allow":["subscribe"]}]"#,
        r#"[{"pattern":"ch*","allow":["subscribe"]}]"#,
        r#"[{"pattern":"chat:a","allow":["admin"]}]"#,
        r#"[{"pattern":"chat:a","allow":["Subscribe"]}]"#,
        r#"[{"pattern":"chat:a","allow":"subscribe"}]"#,
        r#"[{"pattern":"chat:a","allow":[1]}]"#,
        r#"[{"pattern":"chat:a","allow":null}]"#,
        r#"[{"pattern":1,"allow":[]}]"#,
        r#"[{"pattern":"chat:a","allow":[],"deny":[]}]"#,
        r#"[{"pattern":"chat:a","pattern":"chat:b","allow":[]}]"#,
        r#"[{"pattern":"chat:a","allow":[],"allow":["moderate"]}]"#,
    ] {
        assert_eq!(answer(&format!(r#","rooms":{bad}"#)), Err(TokenError::Claim("rooms")), "{bad}");
    }
}
