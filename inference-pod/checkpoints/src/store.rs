//! A place that has checkpoints: which files one has there, and their bytes by range.
//! Knows servers; does not know the cache, nor whether bytes are the right ones.

mod fault;
mod oci;
mod s3;

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use easel_api::engine::{Access, Source};
use futures::stream::BoxStream;

pub(crate) use fault::Fault;

use crate::digest::Digest;
use crate::signature::Payload;

/// When a server counts as gone.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    /// Without a byte, before an answer or within it.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(30) }
    }
}

/// One file as its store names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    /// Within the checkpoint.
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) identity: FileIdentity,
}

/// What makes a file of a store this one and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileIdentity {
    /// A manifest names it.
    Digest(Digest),
    /// The store numbers its states; what the bytes hash to is known when all are there.
    ETag(Option<String>),
}

/// What the store has of a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    pub(crate) files: Vec<RemoteFile>,
    /// What the pinned digest is of, if the store keeps it: an OCI manifest.
    pub(crate) manifest: Option<Bytes>,
}

/// The answer to a request for a range.
pub(crate) struct Body {
    /// Where the bytes begin: 0 instead of what was asked for when the server gives whole files only.
    pub(crate) offset: u64,
    pub(crate) whole: bool,
    pub(crate) bytes: BoxStream<'static, Result<Bytes, Fault>>,
}

pub(crate) enum Store {
    Oci(Box<oci::Repository>),
    S3(s3::Bucket),
}

impl Store {
    /// Connects to nothing yet. `Ok(None)`: the source is a folder.
    pub(crate) fn open(source: &Source, access: Option<&Access>, timeouts: Timeouts) -> Result<Option<Self>, Fault> {
        match source {
            Source::Folder { path: _ } => Ok(None),
            Source::Oci { registry, repository, plain_http } => {
                let place = oci::Place { registry, repository, plain_http: *plain_http };
                oci::Repository::open(&place, access, timeouts).map(|store| Some(Self::Oci(Box::new(store))))
            }
            Source::S3 { bucket, prefix, endpoint, region } => {
                let place = s3::Place { bucket, prefix, endpoint: endpoint.as_deref(), region: region.as_deref() };
                s3::Bucket::open(&place, access, timeouts).map(|store| Some(Self::S3(store)))
            }
        }
    }

    /// The files of the checkpoint with this digest.
    pub(crate) async fn catalog(&self, digest: &Digest) -> Result<Catalog, Fault> {
        match self {
            Self::Oci(store) => store.catalog(digest).await,
            Self::S3(store) => store.catalog().await,
        }
    }

    pub(crate) async fn read(&self, file: &RemoteFile, range: Range<u64>) -> Result<Body, Fault> {
        match self {
            Self::Oci(store) => store.read(file, range).await,
            Self::S3(store) => store.read(file, range).await,
        }
    }

    /// What cosign put beside the artifact; `None`: this store has no place for it.
    pub(crate) async fn signatures(&self, digest: &Digest) -> Result<Option<Vec<Payload>>, Fault> {
        match self {
            Self::Oci(store) => store.signatures(digest).await.map(Some),
            Self::S3(_) => Ok(None),
        }
    }
}
