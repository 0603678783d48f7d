//! The private key that signs, and a new pair of keys.
//! Knows keys; does not know what is signed, and never shows a private key but to who asked for a new one.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use easel_api::engine::Secret;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::pem;
use super::public_key::PublicKey;

/// An ECDSA key on P-256: what `kubectl easel generate-key-pair` and `openssl genpkey` make.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

/// A new pair, both halves in PEM.
#[derive(Debug)]
pub struct KeyPair {
    pub private: Secret,
    pub public: String,
}

/// Why a key can't sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    #[error("the file holds no PEM; give a private key that begins with -----BEGIN PRIVATE KEY-----")]
    None,
    #[error("the key can't be read as PEM: {0}; copy the whole file, with its first and last line")]
    Pem(String),
    #[error("the file holds a public key; signing takes the private one")]
    Public,
    #[error(
        "the key is encrypted with a password by cosign; sign with cosign itself, whose signatures are accepted: \
         `cosign sign --key FILE REF`, or `cosign sign-blob --key FILE` over the text of the digest"
    )]
    Cosign,
    #[error("the key is encrypted; decrypt it: `openssl pkcs8 -in FILE -out easel.key`")]
    Encrypted,
    #[error(
        "the key is in the older form of openssl; convert it: `openssl pkcs8 -topk8 -nocrypt -in FILE -out easel.key`"
    )]
    Sec1,
    #[error("the key is a {0}; give a PRIVATE KEY, such as `kubectl easel generate-key-pair` makes")]
    Label(String),
    #[error(
        "the key is not an ECDSA key on P-256 ({0}); make one: `kubectl easel generate-key-pair`, \
         or `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"
    )]
    Kind(String),
    #[error("the system gave no random bytes")]
    Random,
}

impl SigningKey {
    /// PKCS#8 in PEM, not encrypted.
    pub fn from_pem(text: &str) -> Result<Self, SigningKeyError> {
        let block = pem::blocks(text).next().ok_or(SigningKeyError::None)?;
        let pem::Block { label, der } = block.map_err(SigningKeyError::Pem)?;
        match label.as_str() {
            "PRIVATE KEY" => Self::from_pkcs8(&der),
            "PUBLIC KEY" => Err(SigningKeyError::Public),
            "ENCRYPTED COSIGN PRIVATE KEY" | "ENCRYPTED SIGSTORE PRIVATE KEY" => Err(SigningKeyError::Cosign),
            "ENCRYPTED PRIVATE KEY" => Err(SigningKeyError::Encrypted),
            "EC PRIVATE KEY" | "EC PARAMETERS" => Err(SigningKeyError::Sec1),
            _ => Err(SigningKeyError::Label(label)),
        }
    }

    /// Base64 of a signature over SHA-256 of the message.
    pub fn sign(&self, message: &[u8]) -> String {
        let Self { pair, random } = self;
        // Fails only when the system has no randomness, which opening the key proved that it has.
        let signature = pair.sign(random, message).expect("the system's random numbers have worked before");
        BASE64.encode(signature)
    }

    pub fn public_key(&self) -> PublicKey {
        PublicKey::p256(self.pair.public_key().as_ref())
    }

    pub fn public_pem(&self) -> String {
        let der = [SPKI_P256, self.pair.public_key().as_ref()].concat();
        pem::write("PUBLIC KEY", &der)
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, SigningKeyError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random)
            .map_err(|why| SigningKeyError::Kind(why.to_string()))?;
        Ok(Self { pair, random })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public_key()).finish_non_exhaustive()
    }
}

impl KeyPair {
    pub fn generate() -> Result<Self, SigningKeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| SigningKeyError::Random)?;
        let private = pem::write("PRIVATE KEY", document.as_ref());
        let public = SigningKey::from_pkcs8(document.as_ref())?.public_pem();
        Ok(Self { private: Secret(private), public })
    }
}

/// RFC 5480's `SubjectPublicKeyInfo` of a key on P-256, up to the point.
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
