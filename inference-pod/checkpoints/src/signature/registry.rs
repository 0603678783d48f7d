//! Where cosign keeps an artifact's signatures in a registry: a manifest under the tag `sha256-HEX.sig`.
//! Fetches and pushes them; does not judge them.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use oci_client::Reference;
use oci_client::client::Client;
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use serde::{Deserialize, Serialize};

use super::{Payload, SigningKey, sign, verify};
use crate::artifact::MANIFEST;
use crate::digest::Digest;

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// cosign's own choice, and what registries expect.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A payload has some hundred bytes.
const MAX_PAYLOAD_BYTES: u64 = 64 << 10;
/// Somebody signs again at every release; more than this and only the newest are looked at.
const MAX_SIGNATURES: usize = 64;

/// Why signatures could not be fetched or pushed. Says nothing about whether the checkpoint is signed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("failed to fetch the signatures of {artifact}; check the network and the credential")]
    Fetch {
        artifact: String,
        #[source]
        source: Box<OciDistributionError>,
    },
    #[error("failed to push the signature of {artifact}; check the network and that the credential may push there")]
    Push {
        artifact: String,
        #[source]
        source: Box<OciDistributionError>,
    },
    #[error("the signatures of {artifact} can't be read ({why}); remove the tag {tag} and sign again")]
    Unreadable { artifact: String, tag: String, why: String },
}

/// The signatures of the artifact that `artifact` names with its repository, and `digest`. None is no error.
pub async fn fetch(
    client: &Client,
    auth: &RegistryAuth,
    artifact: &Reference,
    digest: &Digest,
) -> Result<Vec<Payload>, StoreError> {
    let place = Place::new(artifact, digest);
    let Some(Manifest { schema_version: _, media_type: _, config: _, layers }) = place.manifest(client, auth).await?
    else {
        return Ok(Vec::new());
    };
    let signatures: Vec<_> = layers.into_iter().filter(|layer| layer.media_type == SIMPLE_SIGNING).collect();
    let newest = signatures.len().saturating_sub(MAX_SIGNATURES);
    let mut payloads = Vec::new();
    for Layer { media_type: _, digest, size, mut annotations } in signatures.into_iter().skip(newest) {
        let layer = digest.parse().map_err(|()| place.unreadable("a layer's digest is not SHA-256"))?;
        if size > MAX_PAYLOAD_BYTES {
            return Err(place.unreadable(&format!("a signature has {size} bytes")));
        }
        let bytes = place.payload(client, &digest).await?;
        payloads.push(Payload { layer, bytes, signature: annotations.remove(SIGNATURE) });
    }
    Ok(payloads)
}

/// Signs the artifact and puts the signature beside those that are there. Says whether there was anything to do: a
/// signature that this key made before is enough.
pub async fn push(
    client: &Client,
    auth: &RegistryAuth,
    artifact: &Reference,
    digest: &Digest,
    key: &SigningKey,
) -> Result<bool, StoreError> {
    let there = fetch(client, auth, artifact, digest).await?;
    if verify(&[key.public_key()], digest, &there).is_ok() {
        return Ok(false);
    }
    let place = Place::new(artifact, digest);
    let payload = sign(key, &place.repository(), digest);
    let mut layers = place.manifest(client, auth).await?.map_or_else(Vec::new, |manifest| manifest.layers);
    layers.push(Layer {
        media_type: SIMPLE_SIGNING.to_owned(),
        digest: payload.layer.to_string(),
        size: payload.bytes.len() as u64,
        annotations: payload.signature.into_iter().map(|text| (SIGNATURE.to_owned(), text)).collect(),
    });
    let config = config(&layers);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST.to_owned()),
        config: Layer {
            media_type: CONFIG.to_owned(),
            digest: Digest::of(&config).to_string(),
            size: config.len() as u64,
            annotations: BTreeMap::new(),
        },
        layers,
    };
    place.push(client, vec![payload.bytes, config], &manifest).await?;
    Ok(true)
}

/// cosign writes an image's config, with the layers as its files.
fn config(layers: &[Layer]) -> Vec<u8> {
    let layers: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    let config = serde_json::json!({
        "architecture": "",
        "config": {},
        "created": "0001-01-01T00:00:00Z",
        "history": layers.iter().map(|_| serde_json::json!({ "created": "0001-01-01T00:00:00Z" })).collect::<Vec<_>>(),
        "os": "",
        "rootfs": { "type": "layers", "diff_ids": layers },
    });
    config.to_string().into_bytes()
}

/// Of one artifact.
struct Place {
    artifact: String,
    manifest: Reference,
}

impl Place {
    fn new(artifact: &Reference, digest: &Digest) -> Self {
        let (registry, repository) = (artifact.registry(), artifact.repository());
        let tag = format!("sha256-{}.sig", digest.hex());
        let manifest = Reference::with_tag(registry.to_owned(), repository.to_owned(), tag);
        Self { artifact: format!("{registry}/{repository}@{digest}"), manifest }
    }

    fn repository(&self) -> String {
        format!("{}/{}", self.manifest.registry(), self.manifest.repository())
    }

    async fn manifest(&self, client: &Client, auth: &RegistryAuth) -> Result<Option<Manifest>, StoreError> {
        match client.pull_manifest_raw(&self.manifest, auth, &[MANIFEST]).await {
            Ok((bytes, _)) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|error| self.unreadable(&error.to_string()))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(self.fetching(source)),
        }
    }

    /// The bytes are checked against the layer's digest by who judges the signature.
    async fn payload(&self, client: &Client, digest: &str) -> Result<Vec<u8>, StoreError> {
        let layer = oci_client::client::LayerDescriptor { digest, urls: &None };
        let mut stream = client.pull_blob_stream(&self.manifest, &layer).await.map_err(|e| self.fetching(e))?.stream;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| self.fetching(error.into()))?);
            if bytes.len() as u64 > MAX_PAYLOAD_BYTES {
                return Err(self.unreadable("a signature is longer than the manifest says"));
            }
        }
        Ok(bytes)
    }

    async fn push(&self, client: &Client, blobs: Vec<Vec<u8>>, manifest: &Manifest) -> Result<(), StoreError> {
        let failed = |source| StoreError::Push { artifact: self.artifact.clone(), source: Box::new(source) };
        for blob in blobs {
            let digest = Digest::of(&blob).to_string();
            client.push_blob(&self.manifest, blob, &digest).await.map_err(failed)?;
        }
        let body = serde_json::to_vec(manifest).map_err(|error| failed(error.into()))?;
        let kind = reqwest::header::HeaderValue::from_static(MANIFEST);
        client.push_manifest_raw(&self.manifest, body, kind).await.map_err(failed)?;
        Ok(())
    }

    fn fetching(&self, source: OciDistributionError) -> StoreError {
        StoreError::Fetch { artifact: self.artifact.clone(), source: Box::new(source) }
    }

    fn unreadable(&self, why: &str) -> StoreError {
        let tag = self.manifest.tag().unwrap_or_default().to_owned();
        StoreError::Unreadable { artifact: self.artifact.clone(), tag, why: why.to_owned() }
    }
}

fn is_absent(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::ServerError { code, url: _, message: _ } => *code == 404,
        OciDistributionError::RegistryError { envelope, url: _ } => envelope.errors.iter().any(|error| {
            matches!(error.code, OciErrorCode::ManifestUnknown | OciErrorCode::NotFound | OciErrorCode::NameUnknown)
        }),
        // A foreign enum of two dozen failures, of which these three are an answer.
        _ => false,
    }
}

/// cosign's and ours; unknown fields are dropped when a signature is added, as cosign does.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    config: Layer,
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}
