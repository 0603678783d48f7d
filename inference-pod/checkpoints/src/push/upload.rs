//! Sends a hashed folder to a registry: what is missing, several files at once, then the manifest.
//! Knows the registry's protocol through `oci-client`; does not know why the folder may be pushed.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};

use super::{Event, Hashed, Patience, Progress, PushError};
use crate::artifact::{File, MANIFEST};
use crate::digest::Digest;

/// Files that are sent at once: one connection seldom fills a line.
const AT_ONCE: usize = 4;
/// Read and handed over at a time; times `AT_ONCE`, and what the sockets hold, is what a push needs of memory.
const PIECE_BYTES: usize = 1 << 20;

/// What a push came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    pub digest: Digest,
    pub sent_bytes: u64,
    /// Were in the registry before.
    pub present_bytes: u64,
}

/// `target`'s digest is not looked at; without a tag the artifact has no name but its digest.
pub async fn push(
    client: &Client,
    auth: &RegistryAuth,
    target: &Reference,
    folder: &Hashed,
    patience: Patience,
    progress: &Progress,
) -> Result<Pushed, PushError> {
    let push = Push { client, target, folder, patience, progress };
    client.auth(target, auth, RegistryOperation::Push).await.map_err(|error| push.failed("", 1, error))?;
    let mut seen = BTreeSet::new();
    let distinct: Vec<&File> = folder.files.iter().filter(|file| seen.insert(file.digest)).collect();
    let sent = stream::iter(distinct.iter().map(|file| push.file(file)))
        .buffer_unordered(AT_ONCE)
        .try_fold(0, async |sum, bytes| Ok(sum + bytes))
        .await?;
    push.config().await?;
    push.manifest().await?;
    let all: u64 = distinct.iter().map(|file| file.size).sum();
    Ok(Pushed { digest: folder.digest(), sent_bytes: sent, present_bytes: all - sent })
}

struct Push<'a> {
    client: &'a Client,
    target: &'a Reference,
    folder: &'a Hashed,
    patience: Patience,
    progress: &'a Progress,
}

impl Push<'_> {
    /// Bytes that had to be sent.
    async fn file(&self, file: &File) -> Result<u64, PushError> {
        let File { path, digest, size } = file;
        let digest = digest.to_string();
        let there = async || self.client.blob_exists(self.target, &digest).await.map_err(|error| (0, error));
        if self.retried(path, there).await? {
            (self.progress)(Event::Present { path: path.clone(), bytes: *size });
            return Ok(0);
        }
        // Opened once before: a file that is gone is no fault of the registry's.
        let full = self.folder.root.join(path);
        std::fs::File::open(&full).map_err(|source| PushError::Read { path: path.clone(), source })?;
        self.retried(path, async || {
            let sent = Arc::new(AtomicU64::new(0));
            let pieces = self.pieces(file, Arc::clone(&sent));
            let taken = self.client.push_blob_stream(self.target, pieces, &digest, Some(*size)).await;
            taken.map_err(|error| (sent.load(Ordering::Relaxed), error))
        })
        .await?;
        (self.progress)(Event::Done { path: path.clone(), bytes: *size });
        Ok(*size)
    }

    async fn config(&self) -> Result<(), PushError> {
        let config = &self.folder.artifact.config;
        let digest = Digest::of(config).to_string();
        self.retried("the config", async || {
            let there = self.client.blob_exists(self.target, &digest).await.map_err(|error| (0, error))?;
            if !there {
                self.client.push_blob(self.target, config.clone(), &digest).await.map_err(|error| (0, error))?;
            }
            Ok(())
        })
        .await
    }

    async fn manifest(&self) -> Result<(), PushError> {
        let (registry, repository) = (self.target.registry().to_owned(), self.target.repository().to_owned());
        // The protocol takes a digest where a tag stands; so the artifact is put even if nobody names it.
        let tag = self.target.tag().map_or_else(|| self.folder.digest().to_string(), str::to_owned);
        let target = Reference::with_tag(registry, repository, tag);
        self.retried("the manifest", async || {
            let kind = reqwest::header::HeaderValue::from_static(MANIFEST);
            let body = self.folder.artifact.manifest.clone();
            self.client.push_manifest_raw(&target, body, kind).await.map(|_| ()).map_err(|error| (0, error))
        })
        .await
    }

    /// `attempt`'s error comes with the bytes that were sent for nothing.
    async fn retried<T>(
        &self,
        what: &str,
        attempt: impl AsyncFn() -> Result<T, (u64, OciDistributionError)>,
    ) -> Result<T, PushError> {
        let Patience { attempts, mut pause } = self.patience;
        let mut number = 1;
        loop {
            let (bytes, error) = match attempt().await {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            if number >= attempts || !may_pass(&error) {
                return Err(self.failed(what, number, error));
            }
            (self.progress)(Event::Again { path: what.to_owned(), bytes, why: chain(&error) });
            tokio::time::sleep(pause).await;
            pause *= 2;
            number += 1;
        }
    }

    /// The bytes of a file, read while they are taken.
    fn pieces(
        &self,
        File { path, digest: _, size: _ }: &File,
        sent: Arc<AtomicU64>,
    ) -> impl Stream<Item = Result<Bytes, OciDistributionError>> + Send + 'static {
        let (full, path, progress) = (self.folder.root.join(path), path.clone(), Arc::clone(self.progress));
        let opened = stream::once(async move { blocking(move || std::fs::File::open(full)).await });
        let pieces = opened.map_ok(|file| stream::try_unfold(file, read_piece)).try_flatten();
        pieces.inspect_ok(move |piece| {
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            progress(Event::Sent { path: path.clone(), bytes: piece.len() as u64 });
        })
    }

    fn failed(&self, what: &str, attempts: u32, error: OciDistributionError) -> PushError {
        let registry = self.target.registry().to_owned();
        let source = Box::new(error);
        if let Some(why) = refused_credential(&source) {
            return PushError::Unauthorized { registry, repository: self.target.repository().to_owned(), why };
        }
        let never_connected =
            matches!(&*source, OciDistributionError::RequestError(error) if error.is_connect() || error.is_builder());
        if never_connected || what.is_empty() {
            return PushError::Unreachable { registry, source };
        }
        PushError::Refused { registry, what: what.to_owned(), attempts, source }
    }
}

async fn read_piece(mut file: std::fs::File) -> Result<Option<(Bytes, std::fs::File)>, OciDistributionError> {
    blocking(move || {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        Ok((!piece.is_empty()).then(|| (Bytes::from(piece), file)))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, OciDistributionError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(std::io::Error::other)??)
}

/// Whether the same request may succeed later.
fn may_pass(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::RequestError(error) => match error.status() {
            Some(status) => passes(status.as_u16()),
            None => !error.is_builder(),
        },
        // An upload that the registry forgot begins anew.
        OciDistributionError::ServerError { code: 404, url: _, message } => message.contains("BLOB_UPLOAD_UNKNOWN"),
        OciDistributionError::ServerError { code, url: _, message: _ } => passes(*code),
        OciDistributionError::IoError(_) => true,
        OciDistributionError::RegistryError { envelope, url: _ } => {
            envelope.errors.iter().any(|error| matches!(error.code, OciErrorCode::Toomanyrequests))
        }
        // A foreign enum of two dozen failures; the others are answers.
        _ => false,
    }
}

fn passes(status: u16) -> bool {
    matches!(status, 408 | 416 | 425 | 429) || status >= 500
}

fn refused_credential(error: &OciDistributionError) -> Option<String> {
    let of_status = |status| match status {
        401 => Some("401: none was given, or it is wrong".to_owned()),
        403 => Some("403: it may not push there".to_owned()),
        _ => None,
    };
    match error {
        OciDistributionError::AuthenticationFailure(why) => {
            Some(format!("its token server says: {}", why.trim().chars().take(200).collect::<String>()))
        }
        OciDistributionError::UnauthorizedError { url: _ } => of_status(401),
        OciDistributionError::ServerError { code, url: _, message: _ } => of_status(*code),
        OciDistributionError::RequestError(error) => of_status(error.status()?.as_u16()),
        OciDistributionError::RegistryError { envelope, url: _ } => envelope.errors.iter().find_map(|error| {
            match error.code {
                OciErrorCode::Unauthorized => of_status(401),
                OciErrorCode::Denied => of_status(403),
                _ => None, // a foreign enum
            }
        }),
        _ => None, // a foreign enum; the others do not speak of credentials
    }
}

/// An error and its causes, for one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
