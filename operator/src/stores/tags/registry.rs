//! Asks a registry which manifest a tag names. The one place of the operator that talks to registries.
//! Turns what went wrong into a reason and a sentence that says how to mend it, without a credential in it.

use std::time::Duration;

use easel_api::engine::{Access, Secret};
use easel_crds::condition::Reason;
use oci_client::Reference;
use oci_client::client::{Certificate, CertificateEncoding, Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;

use super::{Question, TagFailure};
use crate::controller::Chain;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For all of it: the token, and the manifest where there is no HEAD.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Of what a registry says, as much as a condition should show.
const MAX_WORDS: usize = 300;

/// The digest of the manifest that the tag names now.
pub(super) async fn digest(question: &Question) -> Result<String, TagFailure> {
    let Question { uid: _, uri: _, registry, repository, tag, plain_http, access } = question;
    let (auth, ca) = show(access.as_ref());
    let client = client(*plain_http, ca).map_err(|error| unreachable(registry, &Chain(&error).to_string()))?;
    let reference = Reference::with_tag(registry.clone(), repository.clone(), tag.clone());
    let asked = client.fetch_manifest_digest(&reference, &auth);
    let Ok(answered) = tokio::time::timeout(TIMEOUT, asked).await else {
        return Err(unreachable(registry, &format!("no answer in {} s", TIMEOUT.as_secs())));
    };
    let digest = answered.map_err(|error| failure(question, &error))?;
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(digest);
    }
    let message = format!("{registry} names the manifest by a digest that is not SHA-256; push the checkpoint again");
    Err(TagFailure { reason: Reason::Unsupported, message })
}

fn show(access: Option<&Access>) -> (RegistryAuth, Option<&str>) {
    match access {
        Some(Access::Registry { username, password: Secret(password), ca }) => {
            (RegistryAuth::Basic(username.clone(), password.clone()), ca.as_deref())
        }
        Some(Access::Authority { ca }) => (RegistryAuth::Anonymous, Some(ca)),
        // Never made for a registry.
        Some(Access::S3 { .. }) | None => (RegistryAuth::Anonymous, None),
    }
}

fn client(plain_http: bool, ca: Option<&str>) -> Result<Client, OciDistributionError> {
    // `oci_client` panics where this fails: without a single authority on the system.
    reqwest::Client::builder().build()?;
    let pem = |ca: &str| Certificate { encoding: CertificateEncoding::Pem, data: ca.as_bytes().to_vec() };
    Client::try_from(ClientConfig {
        protocol: if plain_http { ClientProtocol::Http } else { ClientProtocol::Https },
        extra_root_certificates: ca.map(pem).into_iter().collect(),
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(TIMEOUT),
        ..ClientConfig::default()
    })
}

fn unreachable(registry: &str, words: &str) -> TagFailure {
    let words: String = words.chars().take(MAX_WORDS).collect();
    let message = format!("failed to ask {registry} for the tag: {words}; it is tried again by itself");
    TagFailure { reason: Reason::Unreachable, message }
}

fn failure(question: &Question, error: &OciDistributionError) -> TagFailure {
    let Question { registry, repository, tag, access, .. } = question;
    match kind(error) {
        Reason::NotFound => {
            let message = format!("{registry} has no {repository}:{tag}; push it, or mend spec.checkpoint.uri");
            TagFailure { reason: Reason::NotFound, message }
        }
        Reason::Unauthorized => {
            let mend = if access.is_some() {
                "renew the login in the Secret of spec.checkpoint.secretRef"
            } else {
                "name a Secret with a login in spec.checkpoint.secretRef"
            };
            let message = format!("{registry} does not let us read {repository}; {mend}");
            TagFailure { reason: Reason::Unauthorized, message }
        }
        _ => unreachable(registry, &Chain(error).to_string()),
    }
}

/// Whatever is neither a missing manifest nor a refused credential may mend itself.
fn kind(error: &OciDistributionError) -> Reason {
    use OciDistributionError::{
        AuthenticationFailure, ImageManifestNotFoundError, RegistryError, ServerError, UnauthorizedError,
    };
    match error {
        AuthenticationFailure(_) | UnauthorizedError { url: _ } | ServerError { code: 401 | 403, .. } => {
            Reason::Unauthorized
        }
        ServerError { code: 404, .. } | ImageManifestNotFoundError(_) => Reason::NotFound,
        RegistryError { envelope, url: _ } => {
            envelope.errors.iter().find_map(|error| code(&error.code)).unwrap_or(Reason::Unreachable)
        }
        _ => Reason::Unreachable,
    }
}

fn code(code: &OciErrorCode) -> Option<Reason> {
    match code {
        OciErrorCode::Unauthorized | OciErrorCode::Denied => Some(Reason::Unauthorized),
        OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound => Some(Reason::NotFound),
        _ => None,
    }
}
