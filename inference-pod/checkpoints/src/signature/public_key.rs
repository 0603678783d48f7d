//! Keys that signatures are verified with, read from concatenated PEM.
//! Knows the kinds of keys that cosign makes or imports; does not know what was signed.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use super::pem;

/// One key that is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    /// What `ring` calls the key: a point, or RSA's two numbers.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    EcdsaP256,
    EcdsaP384,
    Ed25519,
    Rsa,
}

/// Why a list of keys is not taken; `number` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    #[error("there is no key in the text; give PEM that begins with -----BEGIN PUBLIC KEY-----, such as cosign.pub")]
    None,
    #[error("key {number} can't be read as PEM: {why}; copy the whole file, with its first and last line")]
    Pem { number: usize, why: String },
    #[error("key {number} is a private key; keep it to yourself and give its public half, such as cosign.pub")]
    Private { number: usize },
    #[error(
        "key {number} is a {label}; give a PUBLIC KEY (of a certificate: `openssl x509 -pubkey -noout -in FILE`; of an \
         RSA PUBLIC KEY: `openssl rsa -RSAPublicKey_in -pubout -in FILE`)"
    )]
    Label { number: usize, label: String },
    #[error("key {number} is damaged; copy the whole file, with its first and last line")]
    Damaged { number: usize },
    #[error(
        "key {number} is of a kind that is not known (algorithm {algorithm}); give an ECDSA key on P-256 or P-384, an \
         Ed25519 key or an RSA key, such as `kubectl easel generate-key-pair` or `cosign generate-key-pair` make"
    )]
    Kind { number: usize, algorithm: String },
}

/// Reads one or more keys, concatenated.
pub fn public_keys(text: &str) -> Result<Vec<PublicKey>, PublicKeyError> {
    let mut keys = Vec::new();
    for block in pem::blocks(text) {
        let number = keys.len() + 1;
        let pem::Block { label, der } = block.map_err(|why| PublicKeyError::Pem { number, why })?;
        if label.contains("PRIVATE") {
            return Err(PublicKeyError::Private { number });
        }
        if label != "PUBLIC KEY" {
            return Err(PublicKeyError::Label { number, label });
        }
        keys.push(PublicKey::from_der(&der, number)?);
    }
    if keys.is_empty() { Err(PublicKeyError::None) } else { Ok(keys) }
}

impl PublicKey {
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.kind
            .algorithms()
            .into_iter()
            .any(|algorithm| UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok())
    }

    /// `point` as `ring` gives it for a key pair on P-256.
    pub(super) fn p256(point: &[u8]) -> Self {
        Self { kind: Kind::EcdsaP256, bytes: point.to_vec() }
    }

    fn from_der(der: &[u8], number: usize) -> Result<Self, PublicKeyError> {
        let damaged = PublicKeyError::Damaged { number };
        let Ok((rest, SubjectPublicKeyInfo { algorithm, subject_public_key, raw: _ })) =
            SubjectPublicKeyInfo::from_der(der)
        else {
            return Err(damaged);
        };
        let kind = Kind::of(&algorithm).map_err(|algorithm| PublicKeyError::Kind { number, algorithm })?;
        let bytes = subject_public_key.data.into_owned();
        let whole = rest.is_empty() && kind.bytes().is_none_or(|expected| bytes.len() == expected);
        if whole { Ok(Self { kind, bytes }) } else { Err(damaged) }
    }
}

const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const ED25519_OID: &str = "1.3.101.112";
const RSA: &str = "1.2.840.113549.1.1.1";

impl Kind {
    /// The error is the algorithm's identifier.
    fn of(algorithm: &AlgorithmIdentifier<'_>) -> Result<Self, String> {
        let AlgorithmIdentifier { algorithm, parameters } = algorithm;
        let curve = || parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
        match (algorithm.to_id_string().as_str(), curve().as_deref()) {
            (EC, Some(P256)) => Ok(Self::EcdsaP256),
            (EC, Some(P384)) => Ok(Self::EcdsaP384),
            (ED25519_OID, _) => Ok(Self::Ed25519),
            (RSA, _) => Ok(Self::Rsa),
            (other, curve) => Err([Some(other), curve].into_iter().flatten().collect::<Vec<_>>().join(" on curve ")),
        }
    }

    /// cosign hashed with SHA-256 whatever the curve; newer versions take the curve's own.
    fn algorithms(self) -> Vec<&'static dyn VerificationAlgorithm> {
        match self {
            Self::EcdsaP256 => vec![&ECDSA_P256_SHA256_ASN1],
            Self::EcdsaP384 => vec![&ECDSA_P384_SHA384_ASN1, &ECDSA_P384_SHA256_ASN1],
            Self::Ed25519 => vec![&ED25519],
            Self::Rsa => vec![&RSA_PKCS1_2048_8192_SHA256],
        }
    }

    /// Uncompressed points have a byte before their two coordinates.
    fn bytes(self) -> Option<usize> {
        match self {
            Self::EcdsaP256 => Some(1 + 2 * 32),
            Self::EcdsaP384 => Some(1 + 2 * 48),
            Self::Ed25519 => Some(32),
            Self::Rsa => None,
        }
    }
}
