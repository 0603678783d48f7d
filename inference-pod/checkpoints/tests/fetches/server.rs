//! A fake registry and a fake bucket: one server that speaks as much of both protocols as a fetch needs, and has faults.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;

/// How the server misbehaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Answers everything so.
    pub(crate) status: Option<u16>,
    /// Wants this token (registry: by Bearer, from its own /token, which wants user `u` and this as password).
    pub(crate) password: Option<String>,
    pub(crate) no_ranges: bool,
    /// Bodies break off after so many bytes, this many times.
    pub(crate) breaks: (usize, u32),
    /// Sends nothing after so many bytes.
    pub(crate) stalls_after: Option<usize>,
    /// Every chunk waits.
    pub(crate) slow: Option<Duration>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Manifests by digest or tag, blobs by digest, objects by key.
    manifests: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Vec<u8>>,
    faults: Faults,
    /// Bytes of blobs and objects that went out, and requests for them.
    sent: u64,
    asked: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Server {
    inner: Arc<Mutex<Inner>>,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { inner: Arc::default(), address: listener.local_addr().unwrap() };
        let routes = Router::new()
            .route("/v2/", get(version))
            .route("/token", get(token))
            .route("/v2/{name}/manifests/{reference}", get(manifest))
            .route("/v2/{name}/blobs/{digest}", get(blob))
            .route("/bucket", get(list))
            .route("/bucket/{*key}", get(object))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        server
    }

    pub(crate) fn put_manifest(&self, reference: &str, manifest: Vec<u8>) {
        self.inner.lock().unwrap().manifests.insert(reference.to_owned(), manifest);
    }

    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.inner.lock().unwrap().blobs.insert(name.to_owned(), bytes);
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.inner.lock().unwrap().blobs.get_mut(name).unwrap());
    }

    pub(crate) fn remove_all(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.manifests.clear();
        inner.blobs.clear();
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.inner.lock().unwrap().faults = faults;
    }

    pub(crate) fn sent(&self) -> u64 {
        self.inner.lock().unwrap().sent
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.inner.lock().unwrap().asked.clone()
    }

    /// What goes wrong before anything is looked up.
    fn refuses(&self, headers: &HeaderMap) -> Option<Response> {
        let faults = self.inner.lock().unwrap().faults.clone();
        if let Some(status) = faults.status {
            return Some(StatusCode::from_u16(status).unwrap().into_response());
        }
        let password = faults.password?;
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if given == format!("Bearer token-of-{password}") || given.contains(&format!("Credential={password}/")) {
            return None;
        }
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"fake\"", self.address);
        Some((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response())
    }

    fn send(&self, name: &str, headers: &HeaderMap) -> Response {
        let mut inner = self.inner.lock().unwrap();
        let Some(bytes) = inner.blobs.get(name).cloned() else { return StatusCode::NOT_FOUND.into_response() };
        let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        inner.asked.push(format!("{name} {}", range.as_deref().unwrap_or("all")));
        let mut faults = inner.faults.clone();
        if inner.faults.breaks.1 > 0 {
            inner.faults.breaks.1 -= 1;
        } else {
            faults.breaks.0 = usize::MAX;
        }
        drop(inner);
        let whole = bytes.len();
        let Some(range) = range.filter(|_| !faults.no_ranges) else {
            let told = [(header::CONTENT_LENGTH, whole.to_string())];
            return (StatusCode::OK, told, etag(&bytes), self.body(&bytes, &faults)).into_response();
        };
        let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
        if start >= whole {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
        let end = end.min(whole - 1);
        let told = [
            (header::CONTENT_RANGE, format!("bytes {start}-{end}/{whole}")),
            (header::CONTENT_LENGTH, (end + 1 - start).to_string()),
        ];
        let body = self.body(&bytes[start..=end], &faults);
        (StatusCode::PARTIAL_CONTENT, told, etag(&bytes), body).into_response()
    }

    /// In small pieces, so that a break is in the middle.
    fn body(&self, bytes: &[u8], faults: &Faults) -> Body {
        let (server, faults) = (self.clone(), faults.clone());
        let pieces: Vec<Bytes> = bytes.chunks(1000).map(Bytes::copy_from_slice).collect();
        let mut sent = 0;
        Body::from_stream(futures::stream::iter(pieces).then(move |piece| {
            sent += piece.len();
            server.inner.lock().unwrap().sent += piece.len() as u64;
            let (broken, stalled) = (sent > faults.breaks.0, faults.stalls_after.is_some_and(|after| sent > after));
            let slow = faults.slow;
            async move {
                if stalled {
                    std::future::pending::<()>().await;
                }
                if let Some(slow) = slow {
                    tokio::time::sleep(slow).await;
                }
                if broken { Err(std::io::Error::other("broke off")) } else { Ok(piece) }
            }
        }))
    }
}

fn etag(bytes: &[u8]) -> [(header::HeaderName, String); 2] {
    let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
    let modified = "Mon, 23 Nov 2026 12:00:00 GMT".to_owned();
    [(header::ETAG, format!("\"{}-{sum}\"", bytes.len())), (header::LAST_MODIFIED, modified)]
}

async fn version(State(server): State<Server>, headers: HeaderMap) -> Response {
    server.refuses(&headers).unwrap_or_else(|| StatusCode::OK.into_response())
}

async fn token(State(server): State<Server>, headers: HeaderMap) -> Response {
    use base64::Engine as _;
    let password = server.inner.lock().unwrap().faults.password.clone().unwrap_or_default();
    let wanted = base64::engine::general_purpose::STANDARD.encode(format!("u:{password}"));
    match headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        Some(given) if given == format!("Basic {wanted}") => {
            format!("{{\"token\":\"token-of-{password}\"}}").into_response()
        }
        Some(_) => StatusCode::UNAUTHORIZED.into_response(),
        None => "{\"token\":\"of-nobody\"}".into_response(),
    }
}

async fn manifest(
    State(server): State<Server>,
    Path((_, reference)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = server.refuses(&headers) {
        return refused;
    }
    match server.inner.lock().unwrap().manifests.get(&reference) {
        Some(manifest) => {
            ([(header::CONTENT_TYPE, "application/vnd.oci.image.manifest.v1+json")], manifest.clone()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn blob(State(server): State<Server>, Path((_, digest)): Path<(String, String)>, headers: HeaderMap) -> Response {
    server.refuses(&headers).unwrap_or_else(|| server.send(&digest, &headers))
}

async fn object(State(server): State<Server>, Path(key): Path<String>, headers: HeaderMap) -> Response {
    server.refuses(&headers).unwrap_or_else(|| server.send(&key, &headers))
}

async fn list(State(server): State<Server>, uri: Uri, headers: HeaderMap) -> Response {
    if let Some(refused) = server.refuses(&headers) {
        return refused;
    }
    let mut pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let prefix =
        pairs.find(|(name, _)| *name == "prefix").map_or(String::new(), |(_, value)| value.replace("%2F", "/"));
    let mut xml = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
    for (key, bytes) in server.inner.lock().unwrap().blobs.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let [(_, tag), _] = etag(bytes);
        let tag = tag.replace('"', "&quot;");
        let size = bytes.len();
        write!(
            xml,
            "<Contents><Key>{key}</Key><LastModified>2026-11-23T12:00:00.000Z</LastModified><ETag>{tag}</ETag><Size>{size}</Size></Contents>"
        )
        .unwrap();
    }
    (xml + "</ListBucketResult>").into_response()
}
