//! Keys from a file: secrets, PEM blocks and JSON Web Keys in one list.
//!
//! An error names the file, the key and the member, never a value: the file holds secrets. The
//! file is the operator's; no address in it is ever fetched.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::{ExposeSecret, SecretString};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::config::{Algorithm, KID_BYTES_MAX, KeyConfig, KeyMaterial, KeyProblem};
use crate::json::{self, Names};
use crate::keys::{Key, key_label};

/// The largest key file, in bytes; the most keys allowed fit many times.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// More members than a key with a certificate chain has.
const MEMBERS_MAX: usize = 32;
/// What `openssl rand -base64` writes, with or without its padding.
const STANDARD: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a key file cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The file cannot be read as text.
    #[error("cannot read the key file {path:?}; check that it is there and readable")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is larger than a list of keys can be.
    #[error("the key file {path:?} is larger than {FILE_BYTES_MAX} bytes; is it another file?")]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// The file is not `{"keys": […]}`.
    #[error(
        "the key file {path:?} is wrong at line {line}, column {column}; it must be one JSON \
         object {{\"keys\": [...]}} with an object for each key and no member twice"
    )]
    Json {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// One key cannot be used.
    #[error("in the key file {path:?}, {which} cannot be used")]
    Key {
        /// Which file.
        path: PathBuf,
        /// The key's number, from 0, and its id.
        which: String,
        /// What is wrong with it.
        #[source]
        problem: EntryProblem,
    },
}

/// What is wrong with one key of a file.
#[derive(Debug, Error)]
pub enum EntryProblem {
    /// Not an object, or a member twice.
    #[error("it must be a JSON object in which no member occurs twice")]
    Object,
    /// A member that no key has.
    #[error("its member {0:?} is unknown; correct the spelling or remove it")]
    UnknownMember(String),
    /// A required member is not there.
    #[error("its member `{0}` is missing; add it")]
    Missing(&'static str),
    /// A member of the wrong type.
    #[error("its member `{0}` must be {1}")]
    Type(&'static str, &'static str),
    /// An algorithm nobody knows.
    #[error(
        "its `alg` must name HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, \
         ES256, ES384, ES512 or EdDSA; nothing else is supported"
    )]
    Algorithm,
    /// No material, or more than one kind.
    #[error("it must have exactly one of `pem`, `secret`, `secret_base64` and `kty`")]
    Material,
    /// A member that is not base64.
    #[error("its member `{0}` is not {1}; copy it again")]
    Base64(&'static str, &'static str),
    /// A kind of JSON Web Key that no supported algorithm uses.
    #[error(
        "its `kty` and `crv` must be RSA, EC with P-256, P-384 or P-521, OKP with Ed25519, or oct"
    )]
    JwkKind,
    /// A JSON Web Key made for something else.
    #[error("its `use` or `key_ops` says that it is not for verifying signatures; use another key")]
    JwkUse,
    /// The key itself cannot be used.
    #[error(transparent)]
    Key(#[from] KeyProblem),
}

/// Reads a file `{"keys": [key, …]}`. A key is one of
///
/// - `{"kid": "a", "alg": ["RS256"], "pem": "-----BEGIN PUBLIC KEY-----…"}`,
/// - `{"kid": "b", "alg": ["HS256"], "secret": "…"}`, or the same with `"secret_base64"`,
/// - a JSON Web Key with `kty`, `kid` and `alg`, as identity providers publish them.
///
/// Outside a JSON Web Key, `kid` may be left out. Every key is checked as
/// [`JwtVerifier::build`](crate::JwtVerifier::build) does.
///
/// # Errors
/// [`KeyFileError`] names the file and the first key that cannot be used.
pub fn load_keys(path: &Path) -> Result<Vec<KeyConfig>, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut text = String::new();
    let n_bytes = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(n_bytes).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(KeyFileError::TooLarge { path: path.to_owned() });
    }
    // Wiped when dropped.
    let text = SecretString::from(text);
    let at = |line, column| KeyFileError::Json { path: path.to_owned(), line, column };
    let top = json::read(text.expose_secret(), MembersSeed)
        .map_err(|error| at(error.line(), error.column()))?;
    let list = match &*top.0 {
        [(name, list)] if name == "keys" => list,
        _ => return Err(at(1, 1)),
    };
    let entries: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| at(1, 1))?;
    let read = |(index, entry): (usize, &&RawValue)| {
        let mut kid = None;
        read_entry(entry.get(), &mut kid).map_err(|problem| KeyFileError::Key {
            path: path.to_owned(),
            which: key_label(index, kid.as_deref()),
            problem,
        })
    };
    entries.iter().enumerate().map(read).collect()
}

/// Reads one key; `kid` is filled in as soon as it is known, for the error.
fn read_entry(text: &str, kid: &mut Option<String>) -> Result<KeyConfig, EntryProblem> {
    let entry = json::read(text, MembersSeed).map_err(|_| EntryProblem::Object)?;
    *kid = entry.text("kid")?;
    if kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > KID_BYTES_MAX) {
        return Err(KeyProblem::Kid.into());
    }
    let kinds = ["pem", "secret", "secret_base64", "kty"];
    let mut present = kinds.into_iter().filter(|kind| entry.get(kind).is_some());
    let (Some(kind), None) = (present.next(), present.next()) else {
        return Err(EntryProblem::Material);
    };
    let (algorithms, material) = if kind == "kty" {
        if kid.is_none() {
            return Err(EntryProblem::Missing("kid"));
        }
        (vec![algorithm(&entry.required("alg")?)?], read_jwk(&entry)?)
    } else {
        entry.known(&["kid", "alg", kind])?;
        (entry.algorithms()?, read_own(&entry, kind)?)
    };
    let config = KeyConfig { kid: kid.clone(), algorithms, material };
    Key::compile(&config)?;
    Ok(config)
}

fn algorithm(word: &str) -> Result<Algorithm, EntryProblem> {
    word.parse().map_err(|_| EntryProblem::Algorithm)
}

fn read_own(entry: &Members<'_>, kind: &'static str) -> Result<KeyMaterial, EntryProblem> {
    let text = entry.required(kind)?;
    match kind {
        "pem" => Ok(KeyMaterial::PublicKeyPem(text)),
        "secret" => Ok(KeyMaterial::HmacSecret(text.into_bytes().into())),
        _ => {
            let secret = STANDARD
                .decode(SecretString::from(text).expose_secret().trim())
                .map_err(|_| EntryProblem::Base64("secret_base64", "standard base64"))?;
            Ok(KeyMaterial::HmacSecret(secret.into()))
        }
    }
}

/// Reads the key of a JSON Web Key (RFC 7517, 7518 section 6, 8037).
fn read_jwk(entry: &Members<'_>) -> Result<KeyMaterial, EntryProblem> {
    entry.no_private()?;
    entry.known(&[
        "kty", "kid", "alg", "use", "key_ops", "n", "e", "crv", "x", "y", "k", "x5c", "x5t",
        "x5t#S256", "x5u",
    ])?;
    read_jwk_material(entry)
}

/// The same where a key may have members that nobody here knows.
pub(crate) fn read_jwk_material(entry: &Members<'_>) -> Result<KeyMaterial, EntryProblem> {
    entry.no_private()?;
    let operations: Option<Vec<String>> = entry.read("key_ops", "an array of strings")?;
    if entry.text("use")?.is_some_and(|purpose| purpose != "sig")
        || operations.is_some_and(|all| !all.iter().any(|one| one == "verify"))
    {
        return Err(EntryProblem::JwkUse);
    }
    let curve = entry.text("crv")?;
    match (&*entry.required("kty")?, curve.as_deref()) {
        ("RSA", None) => {
            let (modulus, exponent) = (entry.base64url("n")?, entry.base64url("e")?);
            Ok(KeyMaterial::RsaComponents { modulus, exponent })
        }
        ("EC", Some(curve @ ("P-256" | "P-384" | "P-521"))) => {
            let n_bytes = match curve {
                "P-256" => 32,
                "P-384" => 48,
                _ => 66,
            };
            let (x, y) = (entry.base64url("x")?, entry.base64url("y")?);
            if x.len() != n_bytes || y.len() != n_bytes {
                return Err(KeyProblem::Kind.into());
            }
            Ok(KeyMaterial::EcPoint([&[0x04], &*x, &*y].concat()))
        }
        ("OKP", Some("Ed25519")) => Ok(KeyMaterial::Ed25519(entry.base64url("x")?)),
        ("oct", None) => Ok(KeyMaterial::HmacSecret(entry.base64url("k")?.into())),
        (_, _) => Err(EntryProblem::JwkKind),
    }
}

/// The members of one object, each still unread.
pub(crate) struct Members<'de>(pub(crate) Vec<(Cow<'de, str>, &'de RawValue)>);

impl Members<'_> {
    fn no_private(&self) -> Result<(), EntryProblem> {
        // Every private key has `d`; the others come with it in RSA keys.
        let private = ["d", "p", "q", "dp", "dq", "qi", "oth"];
        if private.iter().any(|name| self.get(name).is_some()) {
            return Err(KeyProblem::PrivateKey.into());
        }
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    }

    fn known(&self, names: &[&str]) -> Result<(), EntryProblem> {
        match self.0.iter().find(|(name, _)| !names.contains(&&**name)) {
            // Cut, in case a value slipped into the place of a name.
            Some((name, _)) => Err(EntryProblem::UnknownMember(name.chars().take(24).collect())),
            None => Ok(()),
        }
    }

    fn read<T: DeserializeOwned>(
        &self,
        name: &'static str,
        type_name: &'static str,
    ) -> Result<Option<T>, EntryProblem> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        // The library's message would quote the value.
        let value =
            serde_json::from_str(value.get()).map_err(|_| EntryProblem::Type(name, type_name))?;
        Ok(Some(value))
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<Option<String>, EntryProblem> {
        self.read(name, "a string")
    }

    pub(crate) fn required(&self, name: &'static str) -> Result<String, EntryProblem> {
        self.text(name)?.ok_or(EntryProblem::Missing(name))
    }

    fn base64url(&self, name: &'static str) -> Result<Vec<u8>, EntryProblem> {
        URL_SAFE_NO_PAD
            .decode(SecretString::from(self.required(name)?).expose_secret())
            .map_err(|_| EntryProblem::Base64(name, "base64url without padding"))
    }

    fn algorithms(&self) -> Result<Vec<Algorithm>, EntryProblem> {
        let words: Vec<String> = self
            .read("alg", "an array of strings like [\"RS256\"]")?
            .ok_or(EntryProblem::Missing("alg"))?;
        words.iter().map(|word| algorithm(word)).collect()
    }
}

pub(crate) struct MembersSeed;

impl<'de> DeserializeSeed<'de> for MembersSeed {
    type Value = Members<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MembersSeed {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = Names::new(MEMBERS_MAX);
        let mut values = Vec::new();
        while names.next(&mut map)?.is_some() {
            values.push(map.next_value()?);
        }
        Ok(Members(names.into_seen().into_iter().zip(values).collect()))
    }
}
