//! Checkpoints under a prefix of an S3 bucket: list, and objects by range.
//! Knows S3 through `object_store`; does not know where bytes go.

use std::ops::Range;
use std::sync::Arc;

use easel_api::engine::{Access, Secret};
use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, RetryConfig};

use super::{Body, Catalog, Fault, FileIdentity, RemoteFile, Timeouts};
use crate::artifact::MAX_FILES;

pub(crate) struct Place<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) prefix: &'a str,
    pub(crate) endpoint: Option<&'a str>,
    pub(crate) region: Option<&'a str>,
}

pub(crate) struct Bucket {
    store: Arc<AmazonS3>,
    prefix: Path,
}

impl Bucket {
    pub(crate) fn open(place: &Place<'_>, access: Option<&Access>, timeouts: Timeouts) -> Result<Self, Fault> {
        let unusable = |what: &str, why: String| Fault::Unsupported(format!("the {what} can't be used: {why}"));
        let prefix = Path::parse(place.prefix).map_err(|error| unusable("prefix", error.to_string()))?;
        let builder = sign(address(place), access)?;
        let options = options(place, authority(access), timeouts)?;
        // Every range is tried again here, where what has come already is known.
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let store = builder.with_client_options(options).with_retry(retry).build();
        let store = store.map_err(|error| unusable("bucket's address", error.to_string()))?;
        Ok(Self { store: Arc::new(store), prefix })
    }

    pub(super) async fn catalog(&self) -> Result<Catalog, Fault> {
        let mut listed = self.store.list(Some(&self.prefix));
        let mut files = Vec::new();
        while let Some(object) = listed.next().await {
            let object = object.map_err(|error| Fault::of_object_store(&error))?;
            files.extend(self.file(&object));
            if files.len() > MAX_FILES {
                let message = format!("there are more than {MAX_FILES} objects; name the prefix of one checkpoint");
                return Err(Fault::Unsupported(message));
            }
        }
        if files.is_empty() {
            return Err(Fault::NotFound);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Catalog { files, manifest: None })
    }

    /// `None`: names at the top that begin with a dot are no part of a listing, and an object with the name of the
    /// prefix is a folder's marker.
    fn file(&self, object: &ObjectMeta) -> Option<RemoteFile> {
        let parts: Vec<_> = object.location.prefix_match(&self.prefix)?.collect();
        let path = parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
        if path.is_empty() || path.starts_with('.') {
            return None;
        }
        Some(RemoteFile { path, size: object.size, identity: FileIdentity::ETag(object.e_tag.clone()) })
    }

    pub(super) async fn read(&self, file: &RemoteFile, range: Range<u64>) -> Result<Body, Fault> {
        let location = Path::parse(format!("{}/{}", self.prefix, file.path));
        let location = location.map_err(|error| Fault::Unsupported(error.to_string()))?;
        let if_match = match &file.identity {
            FileIdentity::ETag(tag) => tag.clone(),
            FileIdentity::Digest(_) => None,
        };
        let offset = range.start;
        let ranged =
            GetOptions { if_match: if_match.clone(), range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.store.get_opts(&location, ranged).await {
            Ok(answer) => Ok(body(answer, offset, false)),
            Err(error) if ignores_ranges(&error) => {
                let whole = GetOptions { if_match, ..GetOptions::default() };
                let answer = self.store.get_opts(&location, whole).await;
                Ok(body(answer.map_err(|error| Fault::of_object_store(&error))?, 0, true))
            }
            Err(error) => Err(Fault::of_object_store(&error)),
        }
    }
}

fn body(answer: object_store::GetResult, offset: u64, whole: bool) -> Body {
    let bytes = answer.into_stream().map(|chunk| chunk.map_err(|error| Fault::of_object_store(&error))).boxed();
    Body { offset, whole, bytes }
}

/// The library tells it in text only.
fn ignores_ranges(error: &object_store::Error) -> bool {
    error.to_string().contains("non-partial response")
}

fn address(place: &Place<'_>) -> AmazonS3Builder {
    let builder =
        AmazonS3Builder::new().with_bucket_name(place.bucket).with_region(place.region.unwrap_or("us-east-1"));
    match place.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint.trim_end_matches('/')),
        // A dot in the bucket's name is a level that AWS's certificate does not cover.
        None => builder.with_virtual_hosted_style_request(!place.bucket.contains('.')),
    }
}

fn sign(builder: AmazonS3Builder, access: Option<&Access>) -> Result<AmazonS3Builder, Fault> {
    match access {
        None | Some(Access::Authority { ca: _ }) => Ok(builder.with_skip_signature(true)),
        Some(Access::S3 { access_key_id, secret_access_key: Secret(secret), session_token, ca: _ }) => {
            let builder = builder.with_access_key_id(access_key_id).with_secret_access_key(secret);
            Ok(match session_token {
                Some(Secret(token)) => builder.with_token(token),
                None => builder,
            })
        }
        Some(Access::Registry { .. }) => Err(Fault::Unsupported(
            "the Secret has a registry's username and password, S3 wants keys; name another secretRef".into(),
        )),
    }
}

fn authority(access: Option<&Access>) -> Option<&str> {
    match access {
        None => None,
        Some(Access::Authority { ca }) => Some(ca),
        Some(Access::S3 { ca, .. } | Access::Registry { ca, .. }) => ca.as_deref(),
    }
}

fn options(place: &Place<'_>, ca: Option<&str>, timeouts: Timeouts) -> Result<ClientOptions, Fault> {
    let unreadable = |error: object_store::Error| Fault::Unsupported(format!("the ca can't be read: {error}"));
    let mut options = ClientOptions::new()
        .with_allow_http(place.endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")))
        .with_connect_timeout(timeouts.connect)
        .with_read_timeout(timeouts.silence)
        .with_timeout_disabled();
    // The pod's image has no distribution, and so no list of authorities.
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        options = options.with_root_certificate(Certificate::from_der(root).map_err(unreadable)?);
    }
    if let Some(ca) = ca {
        for certificate in Certificate::from_pem_bundle(ca.as_bytes()).map_err(unreadable)? {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}
