//! Checkpoints in an OCI registry: manifest by digest, blobs by range, cosign's signatures beside them.
//! Knows the registry protocol through `oci-client`; does not know where bytes go.

use std::ops::Range;

use bytes::Bytes;
use easel_api::engine::{Access, Secret};
use futures::StreamExt;
use oci_client::client::{BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};

use super::{Body, Catalog, Fault, FileIdentity, RemoteFile, Timeouts};
use crate::artifact;
use crate::digest::Digest;
use crate::signature::{self, Payload, StoreError};

pub(crate) struct Place<'a> {
    pub(crate) registry: &'a str,
    pub(crate) repository: &'a str,
    pub(crate) plain_http: bool,
}

pub(crate) struct Repository {
    client: Client,
    /// Never asks for a token: for registries that want none, where the other would ask before every range.
    anonymous: Client,
    open: std::sync::atomic::AtomicBool,
    auth: RegistryAuth,
    registry: String,
    name: String,
}

impl Repository {
    pub(crate) fn open(place: &Place<'_>, access: Option<&Access>, timeouts: Timeouts) -> Result<Self, Fault> {
        let (auth, ca) = credentials(access)?;
        let client = || Client::try_from(config(place.plain_http, ca, timeouts)).map_err(Fault::of_oci);
        Ok(Self {
            client: client()?,
            anonymous: client()?,
            open: false.into(),
            auth,
            registry: place.registry.to_owned(),
            name: place.repository.to_owned(),
        })
    }

    fn reference(&self, digest: String) -> Reference {
        Reference::with_digest(self.registry.clone(), self.name.clone(), digest)
    }

    /// Asks for a token now, so that a refused credential is told from a registry that is away.
    async fn log_in(&self, reference: &Reference) -> Result<(), Fault> {
        let token = self.client.auth(reference, &self.auth, RegistryOperation::Pull).await.map_err(Fault::of_oci)?;
        let open = token.is_none() && self.auth == RegistryAuth::Anonymous;
        self.open.store(open, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    fn client(&self) -> &Client {
        if self.open.load(std::sync::atomic::Ordering::Relaxed) { &self.anonymous } else { &self.client }
    }

    pub(super) async fn catalog(&self, digest: &Digest) -> Result<Catalog, Fault> {
        let reference = self.reference(digest.to_string());
        self.log_in(&reference).await?;
        let manifest = self.manifest(&reference).await?;
        if Digest::of(&manifest) != *digest {
            return Err(Fault::Mismatch("the manifest".into()));
        }
        Ok(Catalog { files: files(&manifest)?, manifest: Some(manifest) })
    }

    async fn manifest(&self, reference: &Reference) -> Result<Bytes, Fault> {
        let types = [artifact::MANIFEST];
        let answer = self.client.pull_manifest_raw(reference, &self.auth, &types).await;
        answer.map(|(manifest, _)| manifest).map_err(Fault::of_oci)
    }

    pub(super) async fn read(&self, file: &RemoteFile, range: Range<u64>) -> Result<Body, Fault> {
        let FileIdentity::Digest(digest) = &file.identity else {
            return Err(Fault::Unsupported(format!("'{}' has no digest", file.path)));
        };
        let digest = digest.to_string();
        let reference = self.reference(digest.clone());
        let length = range.end - range.start;
        let first = self.blob(&reference, &digest, range.start, length).await;
        let answer = match first {
            // Tokens live for minutes, a fetch may take longer; a second refusal is one.
            Err(Fault::Unauthorized) => {
                self.log_in(&reference).await?;
                self.blob(&reference, &digest, range.start, length).await
            }
            answer => answer,
        };
        let (offset, whole, stream) = match answer? {
            BlobResponse::Partial(stream) => (range.start, false, stream),
            BlobResponse::Full(stream) => (0, true, stream),
        };
        let bytes = stream.stream.map(|chunk| chunk.map_err(|error| Fault::of_body(&error))).boxed();
        Ok(Body { offset, whole, bytes })
    }

    async fn blob(&self, at: &Reference, digest: &str, offset: u64, length: u64) -> Result<BlobResponse, Fault> {
        let answer = self.client().pull_blob_stream_partial(at, digest, offset, Some(length)).await;
        answer.map_err(Fault::of_oci)
    }

    pub(super) async fn signatures(&self, digest: &Digest) -> Result<Vec<Payload>, Fault> {
        let reference = self.reference(digest.to_string());
        self.log_in(&reference).await?;
        let found = signature::fetch(&self.client, &self.auth, &reference, digest).await;
        found.map_err(|error| match error {
            StoreError::Fetch { artifact: _, source } | StoreError::Push { artifact: _, source } => {
                Fault::of_oci(*source)
            }
            error @ StoreError::Unreadable { .. } => Fault::Unsupported(error.to_string()),
        })
    }
}

fn files(manifest: &[u8]) -> Result<Vec<RemoteFile>, Fault> {
    let files = artifact::files(manifest).map_err(|error| Fault::Unsupported(error.to_string()))?;
    let remote = |artifact::File { path, digest, size }: artifact::File| RemoteFile {
        path,
        size,
        identity: FileIdentity::Digest(digest),
    };
    Ok(files.into_iter().map(remote).collect())
}

fn credentials(access: Option<&Access>) -> Result<(RegistryAuth, Option<&str>), Fault> {
    match access {
        None => Ok((RegistryAuth::Anonymous, None)),
        Some(Access::Authority { ca }) => Ok((RegistryAuth::Anonymous, Some(ca))),
        Some(Access::Registry { username, password: Secret(password), ca }) => {
            Ok((RegistryAuth::Basic(username.clone(), password.clone()), ca.as_deref()))
        }
        Some(Access::S3 { .. }) => Err(Fault::Unsupported(
            "the Secret has keys of S3, a registry wants username and password; name another secretRef".into(),
        )),
    }
}

fn config(plain_http: bool, ca: Option<&str>, timeouts: Timeouts) -> ClientConfig {
    let pem = |ca: &str| Certificate { encoding: CertificateEncoding::Pem, data: ca.as_bytes().to_vec() };
    let der = |root: &[u8]| Certificate { encoding: CertificateEncoding::Der, data: root.to_vec() };
    // The pod's image has no distribution, and so no list of authorities.
    let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| der(root));
    ClientConfig {
        protocol: if plain_http { ClientProtocol::Http } else { ClientProtocol::Https },
        extra_root_certificates: public.chain(ca.into_iter().flat_map(certificates).map(pem)).collect(),
        connect_timeout: Some(timeouts.connect),
        read_timeout: Some(timeouts.silence),
        user_agent: concat!("easel/", env!("CARGO_PKG_VERSION")),
        platform_resolver: None,
        ..ClientConfig::default()
    }
}

/// The library reads one certificate of a PEM, a bundle may have several.
fn certificates(bundle: &str) -> impl Iterator<Item = &str> {
    bundle.split_inclusive("-----END CERTIFICATE-----").filter(|text| text.contains("BEGIN CERTIFICATE"))
}
