//! Signatures in cosign's formats, made and verified with `ring`.
//! The `sigstore` crate builds only on OpenSSL or aws-lc, which this project does not carry (deny.toml); what is needed of
//! it, a signature over a few bytes of text, is in `ring`.
//!
//! An OCI artifact's signatures lie in the registry under the tag `sha256-HEX.sig`, one layer each, over a short JSON
//! document that names the artifact's digest (cosign's "simple signing"). Anything else is signed over the text of its
//! digest: 71 bytes, `sha256:` and 64 digits, no newline, as `printf %s DIGEST > FILE; cosign sign-blob FILE` does.

mod key;
mod pem;
mod public_key;
mod registry;
mod simple_signing;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use easel_api::engine::RefusalReason;

pub use key::{KeyPair, SigningKey, SigningKeyError};
pub use public_key::{PublicKey, PublicKeyError, public_keys};
pub use registry::{StoreError, fetch, push};
pub use simple_signing::{Flaw, Payload, sign};

use crate::digest::Digest;
use crate::refusal::Refusal;

/// Why a checkpoint is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error(
        "{digest} has no signature, and one by a trusted key is demanded; sign it: \
         `kubectl easel sign CHECKPOINT --key KEY`"
    )]
    Unsigned { digest: Digest },
    #[error(
        "no signature of {digest} was made with a trusted key: {}; sign it with the key whose public half is trusted: \
         `kubectl easel sign CHECKPOINT --key KEY`",
        flaws.iter().enumerate().map(|(i, flaw)| format!("signature {} {flaw}", i + 1)).collect::<Vec<_>>().join(", ")
    )]
    Invalid { digest: Digest, flaws: Vec<Flaw> },
}

impl From<Untrusted> for Refusal {
    fn from(untrusted: Untrusted) -> Self {
        let reason = match untrusted {
            Untrusted::Unsigned { digest: _ } => RefusalReason::Unsigned,
            Untrusted::Invalid { digest: _, flaws: _ } => RefusalReason::SignatureInvalid,
        };
        Self::new(reason, untrusted.to_string())
    }
}

/// Of an OCI artifact: one of its signatures must be sound, of this digest, and by one of the keys.
pub fn verify(keys: &[PublicKey], digest: &Digest, signatures: &[Payload]) -> Result<(), Untrusted> {
    trusted(digest, signatures.iter().map(|signature| signature.check(keys, digest)))
}

/// Of anything else. `signature` is base64 over the text of the digest.
pub fn verify_detached(keys: &[PublicKey], digest: &Digest, signature: Option<&str>) -> Result<(), Untrusted> {
    let message = digest.to_string();
    trusted(digest, signature.iter().map(|signature| by_one_of(keys, message.as_bytes(), signature)))
}

/// Base64, over the text of the digest.
pub fn sign_detached(key: &SigningKey, digest: &Digest) -> String {
    key.sign(digest.to_string().as_bytes())
}

fn trusted(digest: &Digest, verdicts: impl Iterator<Item = Result<(), Flaw>>) -> Result<(), Untrusted> {
    let mut flaws = Vec::new();
    for verdict in verdicts {
        match verdict {
            Ok(()) => return Ok(()),
            Err(flaw) => flaws.push(flaw),
        }
    }
    Err(if flaws.is_empty() {
        Untrusted::Unsigned { digest: *digest }
    } else {
        Untrusted::Invalid { digest: *digest, flaws }
    })
}

fn by_one_of(keys: &[PublicKey], message: &[u8], signature: &str) -> Result<(), Flaw> {
    // cosign's own output may be wrapped.
    let text: String = signature.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let signature = BASE64.decode(text).map_err(|_| Flaw::NotBase64)?;
    if keys.iter().any(|key| key.verifies(message, &signature)) { Ok(()) } else { Err(Flaw::Key) }
}

#[cfg(test)]
mod tests;
