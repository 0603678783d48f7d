//! A registry in memory, made for tests: it keeps what it is given, checks digests, and fails when it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use futures::StreamExt;

use crate::digest::Digest;

#[derive(Clone, Default)]
pub(crate) struct FakeRegistry(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    blobs: BTreeMap<String, Bytes>,
    manifests: BTreeMap<String, Bytes>,
    /// `METHOD path`, without what differs between runs.
    log: Vec<String>,
    /// Uploads that break off after their first bytes.
    breaks: u32,
    /// What every PUT of a blob is answered, if anything.
    refusal: Option<StatusCode>,
    /// `username:password` that the token server wants.
    credential: Option<String>,
    host: String,
}

const TOKEN: &str = "a-token-of-the-fake-registry";

impl FakeRegistry {
    /// Serves on a port of its own until the test ends; the host is `127.0.0.1:PORT`.
    pub(crate) async fn start() -> (Self, String) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        registry.0.lock().unwrap().host.clone_from(&host);
        let app = Router::new().fallback(answer).with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (registry, host)
    }

    pub(crate) fn wants(self, credential: &str) -> Self {
        self.0.lock().unwrap().credential = Some(credential.into());
        self
    }

    pub(crate) fn break_off(&self, uploads: u32) {
        self.0.lock().unwrap().breaks = uploads;
    }

    pub(crate) fn refuse(&self, status: StatusCode) {
        self.0.lock().unwrap().refusal = Some(status);
    }

    pub(crate) fn blob(&self, digest: &Digest) -> Option<Bytes> {
        self.0.lock().unwrap().blobs.get(&digest.to_string()).cloned()
    }

    pub(crate) fn manifest(&self, name: &str) -> Option<Bytes> {
        self.0.lock().unwrap().manifests.get(name).cloned()
    }

    pub(crate) fn put_manifest(&self, name: &str, bytes: &[u8]) {
        self.0.lock().unwrap().manifests.insert(name.into(), Bytes::copy_from_slice(bytes));
    }

    /// How many requests began with this.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.0.lock().unwrap().log.iter().filter(|line| line.starts_with(prefix)).count()
    }

    fn challenge(&self, headers: &HeaderMap, method: &Method) -> Option<Response> {
        let inner = self.0.lock().unwrap();
        inner.credential.as_ref()?;
        let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
        if authorization == Some(&format!("Bearer {TOKEN}")) {
            return None;
        }
        let value = format!(r#"Bearer realm="http://{}/token",service="fake""#, inner.host);
        let body = if method == Method::HEAD { "" } else { r#"{"errors":[{"code":"UNAUTHORIZED"}]}"# };
        Some((StatusCode::UNAUTHORIZED, [("www-authenticate", value)], body).into_response())
    }

    fn token(&self, headers: &HeaderMap) -> Response {
        let credential = self.0.lock().unwrap().credential.clone().unwrap_or_default();
        let expected = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credential));
        if headers.get("authorization").is_some_and(|value| value.as_bytes() == expected.as_bytes()) {
            return format!(r#"{{"token":"{TOKEN}"}}"#).into_response();
        }
        (StatusCode::UNAUTHORIZED, "wrong password").into_response()
    }

    async fn put_blob(&self, uri: &Uri, body: Body) -> Response {
        let digest = uri.query().and_then(|query| query.split("digest=").nth(1)).unwrap().replace("%3A", ":");
        let mut body = body.into_data_stream();
        let mut bytes = Vec::new();
        if let Some(first) = body.next().await {
            bytes.extend_from_slice(&first.unwrap());
        }
        {
            let mut inner = self.0.lock().unwrap();
            if inner.breaks > 0 {
                inner.breaks -= 1;
                return StatusCode::SERVICE_UNAVAILABLE.into_response(); // the rest is never read
            }
        }
        while let Some(piece) = body.next().await {
            let Ok(piece) = piece else { return StatusCode::BAD_REQUEST.into_response() };
            bytes.extend_from_slice(&piece);
        }
        let mut inner = self.0.lock().unwrap();
        if let Some(status) = inner.refusal {
            return (status, "no room").into_response();
        }
        if Digest::of(&bytes).to_string() != digest {
            return (StatusCode::BAD_REQUEST, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#).into_response();
        }
        inner.blobs.insert(digest, bytes.into());
        (StatusCode::CREATED, [("location", "/v2/x")]).into_response()
    }

    fn put_named(&self, name: &str, bytes: Bytes) -> Response {
        let mut inner = self.0.lock().unwrap();
        inner.manifests.insert(Digest::of(&bytes).to_string(), bytes.clone());
        inner.manifests.insert(name.to_owned(), bytes);
        (StatusCode::CREATED, [("location", "/v2/x")]).into_response()
    }

    fn get(found: Option<Bytes>) -> Response {
        match found {
            Some(bytes) => bytes.into_response(),
            None => (StatusCode::NOT_FOUND, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#).into_response(),
        }
    }
}

async fn answer(State(registry): State<FakeRegistry>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    registry.0.lock().unwrap().log.push(format!("{} {path}", parts.method));
    if path == "/token" {
        return registry.token(&parts.headers);
    }
    if let Some(challenge) = registry.challenge(&parts.headers, &parts.method) {
        return challenge;
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    match (parts.method, path.contains("/blobs/"), path.contains("/manifests/")) {
        (Method::GET | Method::HEAD, true, _) => {
            FakeRegistry::get(name.parse().ok().and_then(|digest| registry.blob(&digest)))
        }
        (Method::GET | Method::HEAD, _, true) => FakeRegistry::get(registry.manifest(name)),
        (Method::POST, true, _) => (StatusCode::ACCEPTED, [("location", format!("{path}7"))]).into_response(),
        (Method::PUT, true, _) => registry.put_blob(&parts.uri, body).await,
        (Method::PUT, _, true) => registry.put_named(name, axum::body::to_bytes(body, 1 << 20).await.unwrap()),
        (Method::GET, false, false) => StatusCode::OK.into_response(),
        (method, ..) => panic!("the fake registry does not know {method} {path}"),
    }
}
