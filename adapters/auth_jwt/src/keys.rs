//! Configured keys, checked once and found by what a token's header says.
//!
//! A key is never used with an algorithm that its configuration does not list, and no key ever
//! comes from a token.

use application::ports::token_verifier::TokenError;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, ParsedPublicKey};
use jsonwebtoken::crypto::JwtVerifier as SignatureVerifier;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};
use secrecy::ExposeSecret;

use crate::compact::{Compact, Header, decode};
use crate::config::{
    Algorithm, BuildError, KEYS_MAX, KID_BYTES_MAX, KeyConfig, KeyMaterial, KeyProblem,
    SECRET_BYTES_MIN,
};

/// How a key is called in an error: its number and its id, which are no secrets.
pub(crate) fn key_label(index: usize, kid: Option<&str>) -> String {
    match kid {
        Some(kid) if kid.len() <= KID_BYTES_MAX => format!("token key {index} (kid {kid:?})"),
        Some(_) => format!("token key {index} (a long kid)"),
        None => format!("token key {index} (no kid)"),
    }
}

/// The keys of one verifier.
#[derive(Debug)]
pub(crate) struct KeySet(Vec<Key>);

impl KeySet {
    /// Checks every key and that no two answer to one id.
    pub(crate) fn compile(configs: &[KeyConfig]) -> Result<Self, BuildError> {
        if configs.len() > KEYS_MAX {
            return Err(BuildError::TooManyKeys { n_keys: configs.len() });
        }
        let label = |index: usize| {
            key_label(index, configs.get(index).and_then(|config| config.kid.as_deref()))
        };
        let mut keys: Vec<Key> = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            let key = Key::compile(config)
                .map_err(|problem| BuildError::Key { which: label(index), problem })?;
            if let Some(first) = keys.iter().position(|other| other.kid == key.kid) {
                return Err(BuildError::DuplicateKid { first: label(first), second: label(index) });
            }
            keys.push(key);
        }
        Ok(Self(keys))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How the key that the header may use is called.
    pub(crate) fn label_of_chosen(&self, header: &Header) -> Result<String, TokenError> {
        let chosen = self.choose(header)?;
        let index = self.0.iter().position(|key| std::ptr::eq(key, chosen)).unwrap_or_default();
        Ok(key_label(index, chosen.kid.as_deref()))
    }

    /// The key that the header may use: the one of that id, or for a token without an id the one
    /// without an id, or the only one.
    pub(crate) fn choose(&self, header: &Header) -> Result<&Key, TokenError> {
        let named = self.0.iter().find(|key| key.kid == header.kid);
        let key = match (named, &header.kid, &*self.0) {
            (Some(key), _, _) | (None, None, [key]) => key,
            (None, _, _) => return Err(TokenError::UnknownKey),
        };
        if key.algorithms.contains(&header.algorithm) {
            Ok(key)
        } else {
            Err(TokenError::UnknownKey)
        }
    }

    /// Whether a key has this id, for whatever algorithm.
    pub(crate) fn has(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// Whether checking a signature with one of the keys costs enough to remember its outcome.
    pub(crate) fn is_costly(&self) -> bool {
        self.0.iter().any(Key::is_costly)
    }
}

/// One key, ready for use.
#[derive(Debug)]
pub(crate) struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    material: Material,
}

/// A key in the form of who checks signatures with it.
#[derive(Debug)]
enum Material {
    Library(DecodingKey),
    /// The library knows no `ES512`, the cryptography beneath it does.
    P521(ParsedPublicKey),
}

impl Key {
    /// Checks a key as far as it can be checked without a token.
    pub(crate) fn compile(config: &KeyConfig) -> Result<Self, KeyProblem> {
        if config.kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > KID_BYTES_MAX) {
            return Err(KeyProblem::Kid);
        }
        let family = one_family(&config.algorithms)?;
        let material = read_material(&config.material, family)?;
        check_size(&material, &config.algorithms)?;
        let material = match material.kind() {
            DecodingKeyKind::SecretOrDer(point)
                if config.algorithms.contains(&Algorithm::ES512) =>
            {
                let key = ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point);
                Material::P521(key.map_err(|_| KeyProblem::Kind)?)
            }
            _ => {
                for algorithm in &config.algorithms {
                    library_verifier(*algorithm, &material).ok_or(KeyProblem::Kind)?;
                }
                Material::Library(material)
            }
        };
        Ok(Self { kid: config.kid.clone(), algorithms: config.algorithms.clone(), material })
    }

    /// A hash of a hash is as cheap as looking it up.
    pub(crate) fn is_costly(&self) -> bool {
        match &self.material {
            Material::Library(key) => key.family() != AlgorithmFamily::Hmac,
            Material::P521(_) => true,
        }
    }

    /// Checks the signature of a token whose header this key was chosen for.
    pub(crate) fn verify(&self, header: &Header, token: Compact<'_>) -> Result<(), TokenError> {
        let signature = decode(token.signature)?;
        let signed = token.signed.as_bytes();
        match &self.material {
            Material::Library(key) => library_verifier(header.algorithm, key)
                .ok_or(TokenError::UnknownKey)?
                .verify(signed, &signature)
                .map_err(|_| TokenError::Signature),
            Material::P521(key) => {
                key.verify_sig(signed, &signature).map_err(|_| TokenError::Signature)
            }
        }
    }
}

/// The library's verifiers are not `Send`, so they cannot be kept; making one is cheap, as the key
/// is already decoded. The provider is named here, so that no other crate's choice of features can
/// take it away.
fn library_verifier(algorithm: Algorithm, key: &DecodingKey) -> Option<Box<dyn SignatureVerifier>> {
    (DEFAULT_PROVIDER.verifier_factory)(&algorithm.library()?, key).ok()
}

fn one_family(algorithms: &[Algorithm]) -> Result<AlgorithmFamily, KeyProblem> {
    let family = algorithms.first().ok_or(KeyProblem::NoAlgorithm)?.family();
    if algorithms.iter().any(|algorithm| algorithm.family() != family) {
        return Err(KeyProblem::MixedFamilies);
    }
    Ok(family)
}

fn read_material(
    material: &KeyMaterial,
    family: AlgorithmFamily,
) -> Result<DecodingKey, KeyProblem> {
    match (material, family) {
        (KeyMaterial::HmacSecret(secret), AlgorithmFamily::Hmac) => {
            let secret = secret.expose_secret();
            check_secret(secret)?;
            Ok(DecodingKey::from_secret(secret))
        }
        (KeyMaterial::HmacSecret(_), _) => Err(KeyProblem::SecretForPublicKey),
        (_, AlgorithmFamily::Hmac) => Err(KeyProblem::PublicKeyForSecret),
        (KeyMaterial::PublicKeyPem(pem), family) => read_pem(pem, family),
        (KeyMaterial::RsaComponents { modulus, exponent }, AlgorithmFamily::Rsa) => {
            Ok(DecodingKey::from_rsa_raw_components(modulus, exponent))
        }
        (KeyMaterial::EcPoint(point), AlgorithmFamily::Ec) => Ok(DecodingKey::from_ec_der(point)),
        (KeyMaterial::Ed25519(bytes), AlgorithmFamily::Ed) => Ok(DecodingKey::from_ed_der(bytes)),
        (KeyMaterial::RsaComponents { .. } | KeyMaterial::EcPoint(_), _)
        | (KeyMaterial::Ed25519(_), _) => Err(KeyProblem::Kind),
    }
}

/// Checks a secret that is to sign or to verify.
pub(crate) fn check_secret(secret: &[u8]) -> Result<(), KeyProblem> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(KeyProblem::SecretShort { n_bytes: secret.len() });
    }
    // A public key used as a secret would let everybody sign.
    if secret.trim_ascii_start().starts_with(b"-----BEGIN") {
        return Err(KeyProblem::SecretIsPem);
    }
    Ok(())
}

fn read_pem(pem: &str, family: AlgorithmFamily) -> Result<DecodingKey, KeyProblem> {
    if pem.contains("PRIVATE KEY-----") {
        return Err(KeyProblem::PrivateKey);
    }
    // The library would also take a certificate, but guesses which of its fields is the key.
    let pem = pem.trim();
    let one_block = pem.matches("-----BEGIN ").count() == 1
        && ["-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PUBLIC KEY-----"]
            .iter()
            .any(|begin| pem.starts_with(begin));
    if !one_block {
        return Err(KeyProblem::Pem);
    }
    match family {
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem.as_bytes()),
        AlgorithmFamily::Hmac => return Err(KeyProblem::PublicKeyForSecret),
    }
    .map_err(|_| KeyProblem::Kind)
}

/// The library checks sizes only with the first token, and then as a wrong signature.
fn check_size(material: &DecodingKey, algorithms: &[Algorithm]) -> Result<(), KeyProblem> {
    match (material.family(), material.kind()) {
        (AlgorithmFamily::Hmac, _) => Ok(()),
        (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e: _ }) => check_modulus(n),
        (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) => {
            let components = DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
            let (modulus, _) = components(der).map_err(|_| KeyProblem::Kind)?;
            check_modulus(&modulus)
        }
        (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => {
            let n_bytes = |algorithm: &Algorithm| match algorithm {
                Algorithm::ES256 => 1 + 2 * 32,
                Algorithm::ES384 => 1 + 2 * 48,
                Algorithm::ES512 => 1 + 2 * 66,
                _ => 0,
            };
            let fits = point.first() == Some(&0x04)
                && algorithms.iter().all(|algorithm| point.len() == n_bytes(algorithm));
            if fits { Ok(()) } else { Err(KeyProblem::Curve) }
        }
        (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(bytes)) if bytes.len() == 32 => Ok(()),
        (AlgorithmFamily::Ec | AlgorithmFamily::Ed, _) => Err(KeyProblem::Kind),
    }
}

fn check_modulus(modulus: &[u8]) -> Result<(), KeyProblem> {
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let bits = modulus.get(zeros).map_or(0, |first| {
        (modulus.len() - zeros) * 8 - usize::try_from(first.leading_zeros()).unwrap_or(0)
    });
    if (2048..=8192).contains(&bits) { Ok(()) } else { Err(KeyProblem::RsaBits { bits }) }
}
