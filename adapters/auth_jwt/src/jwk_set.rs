//! A published key set (RFC 7517 section 5): which of its keys may be used, and for what.
//!
//! The configuration says which algorithms count; a key can only narrow that to the one it names,
//! never widen it. Keys for other purposes are passed over, as providers publish all they have.

use serde_json::value::RawValue;
use thiserror::Error;

use crate::config::{Algorithm, KEYS_MAX, KID_BYTES_MAX, KeyConfig, KeyMaterial};
use crate::json;
use crate::key_file::{Members, MembersSeed, read_jwk_material};
use crate::keys::{Key, KeySet};

/// Why a text gives no keys.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum KeySetProblem {
    /// Not `{"keys": […]}`.
    #[error("it is not a JSON Web Key Set: an object with a list `keys`")]
    Form,
    /// Nothing in it can be used.
    #[error(
        "none of its {n_keys} keys can be used: they need a public key of a kind that one of \
         auth.jwks_algorithms has, for signatures"
    )]
    Empty {
        /// How many were looked at.
        n_keys: usize,
    },
}

/// The usable keys of a set, at most [`KEYS_MAX`], and how many were passed over.
pub(crate) fn read_set(
    text: &str,
    algorithms: &[Algorithm],
) -> Result<(KeySet, usize), KeySetProblem> {
    let top = json::read(text, MembersSeed).map_err(|_| KeySetProblem::Form)?;
    let list = top.get("keys").ok_or(KeySetProblem::Form)?;
    let entries: Vec<&RawValue> =
        serde_json::from_str(list.get()).map_err(|_| KeySetProblem::Form)?;
    let mut usable: Vec<KeyConfig> = Vec::new();
    for entry in &entries {
        let Some(config) = read_key(entry.get(), algorithms) else { continue };
        // Of two with one id the first counts: which one is meant, nobody knows.
        let is_new = usable.iter().all(|other| other.kid != config.kid);
        if is_new && usable.len() < KEYS_MAX {
            usable.push(config);
        }
    }
    let n_passed_over = entries.len() - usable.len();
    // Each was compiled alone, and no two have one id.
    let keys = KeySet::compile(&usable).map_err(|_| KeySetProblem::Form)?;
    if keys.is_empty() {
        return Err(KeySetProblem::Empty { n_keys: entries.len() });
    }
    Ok((keys, n_passed_over))
}

fn read_key(text: &str, allowed: &[Algorithm]) -> Option<KeyConfig> {
    let entry = json::read(text, MembersSeed).ok()?;
    let kid = entry.text("kid").ok()?;
    if kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > KID_BYTES_MAX) {
        return None;
    }
    let material = read_jwk_material(&entry).ok()?;
    let algorithms = algorithms(&entry, &material, allowed)?;
    let config = KeyConfig { kid, algorithms, material };
    Key::compile(&config).ok()?;
    Some(config)
}

/// The configured algorithms that fit the kind of key, and of these the one that it names.
fn algorithms(
    entry: &Members<'_>,
    material: &KeyMaterial,
    allowed: &[Algorithm],
) -> Option<Vec<Algorithm>> {
    use Algorithm::{ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let kind: &[Algorithm] = match material {
        // A secret that is published is none.
        KeyMaterial::HmacSecret(_) | KeyMaterial::PublicKeyPem(_) => return None,
        KeyMaterial::RsaComponents { .. } => &[RS256, RS384, RS512, PS256, PS384, PS512],
        KeyMaterial::EcPoint(point) if point.len() == 65 => &[ES256],
        KeyMaterial::EcPoint(point) if point.len() == 97 => &[ES384],
        KeyMaterial::EcPoint(_) => &[ES512],
        KeyMaterial::Ed25519(_) => &[EdDSA],
    };
    let named: Option<Algorithm> = match entry.text("alg").ok()? {
        // A name of no algorithm here is no permission to use another.
        Some(word) => Some(word.parse().ok()?),
        None => None,
    };
    let fits = |algorithm: &&Algorithm| {
        kind.contains(algorithm) && named.is_none_or(|named| named == **algorithm)
    };
    let algorithms: Vec<Algorithm> = allowed.iter().filter(fits).copied().collect();
    (!algorithms.is_empty()).then_some(algorithms)
}
