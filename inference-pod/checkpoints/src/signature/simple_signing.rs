//! cosign's "simple signing": a JSON document that names an artifact's digest, and a signature over its bytes.
//! Knows one signature; does not know registries.

use serde::{Deserialize, Serialize};

use super::public_key::PublicKey;
use super::{SigningKey, by_one_of};
use crate::digest::Digest;

/// One signature as it lies in a registry: a layer and its annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The digest that the layer is listed under.
    pub layer: Digest,
    /// The layer's bytes.
    pub bytes: Vec<u8>,
    /// Base64, from the layer's annotation; `None` when it has none.
    pub signature: Option<String>,
}

/// What is wrong with one signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("is not base64")]
    NotBase64,
    #[error("was not made with one of the trusted keys, or what it signs was changed")]
    Key,
    #[error("has other bytes than its digest says")]
    Damaged,
    #[error("is not a payload of cosign's ({0})")]
    Payload(String),
    #[error("is one of another artifact, {0}")]
    OtherDigest(String),
    #[error("has a payload and no signature beside it")]
    NoSignature,
}

impl Payload {
    pub(super) fn check(&self, keys: &[PublicKey], digest: &Digest) -> Result<(), Flaw> {
        let Self { layer, bytes, signature } = self;
        if Digest::of(bytes) != *layer {
            return Err(Flaw::Damaged);
        }
        // The key first: what nobody signed is not worth a look.
        by_one_of(keys, bytes, signature.as_deref().ok_or(Flaw::NoSignature)?)?;
        let Document { critical: Critical { identity: _, image, kind }, optional: _ } =
            serde_json::from_slice(bytes).map_err(|error| Flaw::Payload(error.to_string()))?;
        if kind != KIND {
            return Err(Flaw::Payload(format!("its type is {kind:?}, not {KIND:?}")));
        }
        if image.digest != digest.to_string() {
            return Err(Flaw::OtherDigest(image.digest));
        }
        Ok(())
    }
}

/// `repository` is where the artifact is, without tag or digest; it is for people, nothing verifies it.
pub fn sign(key: &SigningKey, repository: &str, digest: &Digest) -> Payload {
    let document = Document {
        critical: Critical {
            identity: Identity { reference: repository.to_owned() },
            image: Image { digest: digest.to_string() },
            kind: KIND.to_owned(),
        },
        optional: None,
    };
    let bytes = serde_json::to_vec(&document).expect("texts always serialise");
    let signature = Some(key.sign(&bytes));
    Payload { layer: Digest::of(&bytes), bytes, signature }
}

const KIND: &str = "cosign container image signature";

#[derive(Serialize, Deserialize)]
struct Document {
    critical: Critical,
    #[serde(default)]
    optional: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Serialize, Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}
