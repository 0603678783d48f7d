//! A checkpoint in a registry is fetched, drawn with, and fetched again by itself when what was wrong has passed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use easel_api::engine::{
    Access, AdapterState, Checkpoint, DesiredAdapter, DesiredModel, ModelState, RefusalReason, Report, Secret, Source,
};
use easel_checkpoints::digest::Digest;
use hyper::StatusCode as Status;
use serde_json::json;

use crate::support::{MODEL, World, desired, is_ready};

#[derive(Debug, Default)]
struct Inner {
    by_digest: BTreeMap<String, Vec<u8>>,
    password: Option<String>,
    away: bool,
    blobs_sent: u32,
}

#[derive(Clone, Debug)]
struct Registry {
    inner: Arc<Mutex<Inner>>,
    address: SocketAddr,
    /// Of the pod that fetches from it.
    cache: Arc<tempfile::TempDir>,
}

impl Registry {
    async fn start() -> Self {
        rustls::crypto::ring::default_provider().install_default().ok(); // another test has
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cache = Arc::new(tempfile::tempdir().unwrap());
        let registry = Self { inner: Arc::default(), address: listener.local_addr().unwrap(), cache };
        let routes = Router::new()
            .route("/v2/", get(version))
            .route("/v2/{name}/{kind}/{digest}", get(content))
            .with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        registry
    }

    fn push(&self, class: &str) -> Checkpoint {
        let index = json!({"_class_name": class}).to_string().into_bytes();
        self.push_files(&[("model_index.json", index), ("unet/diffusion_pytorch_model.safetensors", vec![7; 1000])])
    }

    fn push_files(&self, files: &[(&str, Vec<u8>)]) -> Checkpoint {
        let layers: Vec<_> = files
            .iter()
            .map(|(path, bytes)| {
                json!({
                    "mediaType": "application/octet-stream", "digest": self.put(bytes), "size": bytes.len(),
                    "annotations": {"org.opencontainers.image.title": path},
                })
            })
            .collect();
        let config = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": self.put(b"{}"), "size": 2});
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
        let source = Source::Oci { registry: self.address.to_string(), repository: "model".into(), plain_http: true };
        Checkpoint { source, digest: self.put(manifest.as_bytes()), signature: None }
    }

    fn put(&self, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes).to_string();
        self.inner.lock().unwrap().by_digest.insert(digest.clone(), bytes.to_vec());
        digest
    }

    fn set(&self, set: impl FnOnce(&mut Inner)) {
        set(&mut self.inner.lock().unwrap());
    }

    fn refuses(&self, headers: &HeaderMap) -> Option<Response> {
        let inner = self.inner.lock().unwrap();
        if inner.away {
            return Some(StatusCode::SERVICE_UNAVAILABLE.into_response());
        }
        let password = inner.password.as_ref()?;
        let wanted = base64::engine::general_purpose::STANDARD.encode(format!("u:{password}"));
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if given == Some(&format!("Basic {wanted}")) {
            return None;
        }
        Some((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"fake\"")]).into_response())
    }
}

async fn version(State(registry): State<Registry>, headers: HeaderMap) -> Response {
    registry.refuses(&headers).unwrap_or_else(|| StatusCode::OK.into_response())
}

async fn content(
    State(registry): State<Registry>,
    Path((_, kind, digest)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = registry.refuses(&headers) {
        return refused;
    }
    let mut inner = registry.inner.lock().unwrap();
    inner.blobs_sent += u32::from(kind == "blobs");
    match inner.by_digest.get(&digest) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn world() -> (World, Registry) {
    let registry = Registry::start().await;
    let cache = format!("--cache-dir={}", registry.cache.path().display());
    (World::start(&["--fake-step-ms=1", &cache]).await, registry)
}

fn access(password: &str) -> Access {
    Access::Registry { username: "u".into(), password: Secret(password.into()), ca: None }
}

fn refused_for(report: &Report, wanted: RefusalReason) -> bool {
    report.models.iter().any(|m| matches!(m.state, ModelState::Refused { reason, .. } if reason == wanted))
}

#[tokio::test]
async fn a_model_in_a_registry_is_fetched_and_draws() {
    let (world, registry) = world().await;
    let model = desired(MODEL, registry.push("a"));
    world.operator.hold(1, vec![model.clone()]).await;
    world.operator.report_until(|report| is_ready(report, MODEL)).await;
    let answer = world.gateway.generate(json!({})).await;
    assert_eq!((answer.status, answer.header("x-easel-model-digest")), (Status::OK, &*model.checkpoint.digest));
    let metrics = world.metrics().await;
    assert!(metrics.contains("easel_inference_cache_misses_total 1"), "{metrics}");
}

#[tokio::test]
async fn an_adapter_in_a_registry_is_fetched_beside_the_model_and_drawn_with() {
    let (world, registry) = world().await;
    registry.set(|registry| registry.password = Some("right".into()));
    let checkpoint = registry.push_files(&[("pytorch_lora_weights.safetensors", vec![1; 10])]);
    let named = |password| DesiredAdapter {
        name: "ink".into(),
        checkpoint: checkpoint.clone(),
        access: Some(access(password)),
    };
    let model = DesiredModel { access: Some(access("right")), ..desired(MODEL, registry.push("a")) };
    let state = |report: &Report| report.models[0].adapters[0].state.clone();
    world.operator.hold(1, vec![DesiredModel { adapters: vec![named("wrong")], ..model.clone() }]).await;
    let refused = |report: &Report| {
        matches!(state(report), AdapterState::Refused { reason: RefusalReason::Unauthorized, message: _ })
    };
    world.operator.report_until(|report| is_ready(report, MODEL) && refused(report)).await;
    world.operator.hold(2, vec![DesiredModel { adapters: vec![named("right")], ..model }]).await;
    world.operator.report_until(|report| state(report) == AdapterState::OnDisk).await;
    let answer = world.gateway.generate(json!({"adapters": [{"name": "ink"}]})).await;
    assert_eq!(answer.status, Status::OK, "{}", answer.body);
    world.operator.report_until(|report| state(report) == AdapterState::InMemory { bytes: 10 }).await;
}

#[tokio::test]
async fn a_store_that_comes_back_is_asked_again_without_a_word_from_the_operator() {
    let (world, registry) = world().await;
    registry.set(|registry| registry.away = true);
    world.operator.hold(1, vec![desired(MODEL, registry.push("a"))]).await;
    world.operator.report_until(|report| refused_for(report, RefusalReason::Unreachable)).await;
    registry.set(|registry| registry.away = false);
    world.operator.report_until(|report| is_ready(report, MODEL)).await;
}

#[tokio::test]
async fn a_renewed_credential_is_used_at_once_and_reloads_nothing() {
    let (world, registry) = world().await;
    registry.set(|registry| registry.password = Some("new".into()));
    let model = DesiredModel { access: Some(access("expired")), ..desired(MODEL, registry.push("a")) };
    world.operator.hold(1, vec![model.clone()]).await;
    world.operator.report_until(|report| refused_for(report, RefusalReason::Unauthorized)).await;
    world.operator.hold(2, vec![DesiredModel { access: Some(access("new")), ..model.clone() }]).await;
    world.operator.report_until(|report| is_ready(report, MODEL)).await;
    let sent = registry.inner.lock().unwrap().blobs_sent;
    let again = world.operator.hold(3, vec![DesiredModel { access: Some(access("newer")), ..model }]).await;
    assert_eq!(again.body["models"][0]["state"]["state"], json!("ready"));
    assert_eq!(registry.inner.lock().unwrap().blobs_sent, sent);
}

#[tokio::test]
async fn a_copy_in_the_cache_is_drawn_with_and_a_spoilt_one_is_fetched_again_first() {
    let (world, registry) = world().await;
    let model = desired(MODEL, registry.push("a"));
    let folder =
        registry.cache.path().join("snapshots").join(&model.checkpoint.digest["sha256:".len()..]).join("files");
    let weights = folder.join("unet/diffusion_pytorch_model.safetensors");
    for (generation, (flips, sent)) in [(false, 2), (false, 2), (true, 4)].into_iter().enumerate() {
        if flips {
            std::fs::write(&weights, [8; 1000]).unwrap();
        }
        let generation = 2 * generation as u64 + 1;
        world.operator.hold(generation, vec![model.clone()]).await;
        world.operator.report_until(|report| is_ready(report, MODEL)).await;
        assert_eq!(registry.inner.lock().unwrap().blobs_sent, sent);
        assert_eq!(std::fs::read(&weights).unwrap(), [7; 1000]);
        world.operator.hold(generation + 1, vec![]).await;
        world.operator.report_until(|report| report.memory.used_bytes == 0).await;
    }
}

#[tokio::test]
async fn the_former_checkpoint_draws_while_the_next_one_can_not_be_fetched() {
    let (world, registry) = world().await;
    let former = desired(MODEL, registry.push("a"));
    world.operator.hold(1, vec![former.clone()]).await;
    world.operator.report_until(|report| is_ready(report, MODEL)).await;
    let next = desired(MODEL, registry.push("b"));
    registry.set(|registry| registry.away = true);
    world.operator.hold(2, vec![next.clone()]).await;
    world.operator.report_until(|report| refused_for(report, RefusalReason::Unreachable)).await;
    let answer = world.gateway.generate(json!({})).await;
    assert_eq!(answer.header("x-easel-model-digest"), former.checkpoint.digest);
    registry.set(|registry| registry.away = false);
    world.operator.report_until(|report| report.models.len() == 1 && is_ready(report, MODEL)).await;
    let answer = world.gateway.generate(json!({})).await;
    assert_eq!(answer.header("x-easel-model-digest"), next.checkpoint.digest);
}
