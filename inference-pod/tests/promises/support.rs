//! A pod on loopback with a certificate authority of its own, and clients for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use clap::Parser;
use easel_api::engine::{
    Checkpoint, DesiredModel, Generation, ModelDefaults, ModelId, ModelLimits, REPORT_PATH, RESIDENCY_PATH, Report,
    Residency, Source, Tier,
};
use easel_api::identity::{Deployment, Identity, pod_domain, pod_host};
use easel_api::images::{GENERATIONS_PATH, SamplerKind};
use easel_checkpoints::digest::Listing;
use easel_inference::fake::{FakeFlags, FakeLoader};
use easel_inference::finishing::Finishing;
use easel_inference::pod::{Pod, PodFlags};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Nothing here takes that long; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const MODEL: &str = "art/model";

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate: certificate.der().clone(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// As the operator's Secret is mounted: of pods that are called, and call, by this authority's certificate.
    pub(crate) fn write_server(&self, folder: &Path) {
        self.write_server_that_trusts(&[self], folder);
    }

    pub(crate) fn write_server_that_trusts(&self, trusted: &[&Self], folder: &Path) {
        let mut params = CertificateParams::new([format!("*.{}", pod_domain("fake", "test"))]).unwrap();
        params.subject_alt_names.push(uri(&Identity::Pods(here()).uri()));
        let (certificate, key) = self.sign(&params);
        let bundle: String = trusted.iter().map(|authority| authority.pem.as_str()).collect();
        std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("ca.crt"), bundle).unwrap();
    }

    fn trusting(trusted: &[&Self]) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        for authority in trusted {
            roots.add(authority.certificate.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        builder.with_root_certificates(roots)
    }

    /// A client of ours that trusts `server`'s certificates.
    pub(crate) fn client(&self, server: &Self, name: Option<&str>, address: SocketAddr) -> Client {
        self.client_that_trusts(&[server], name, address)
    }

    pub(crate) fn client_that_trusts(&self, trusted: &[&Self], name: Option<&str>, address: SocketAddr) -> Client {
        let mut params = CertificateParams::new(["client.example".to_owned()]).unwrap();
        params.subject_alt_names.extend(name.map(uri));
        Client::new(trusted, self.sign(&params), address)
    }

    pub(crate) fn client_without_certificate(&self, address: SocketAddr) -> Client {
        Client { config: Arc::new(Self::trusting(&[self]).with_no_client_auth()), address }
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// Whose pod every pod of these tests is.
pub(crate) fn here() -> Deployment {
    Deployment { namespace: "test".into(), name: "fake".into() }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_else(|| panic!("no error code in {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    address: SocketAddr,
}

impl Client {
    pub(crate) fn new(
        trusted: &[&Authority],
        (certificate, key): (rcgen::Certificate, KeyPair),
        address: SocketAddr,
    ) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = Authority::trusting(trusted).with_client_auth_cert(vec![certificate.der().clone()], key).unwrap();
        Self { config: Arc::new(config), address }
    }

    /// TLS 1.3 tells a client that its certificate was refused with the first read, so this sends a request too.
    pub(crate) async fn try_send(&self, request: Request<Body>) -> anyhow::Result<Response<Incoming>> {
        let mut sender = self.connect().await?;
        Ok(sender.send_request(request).await?)
    }

    async fn connect(&self) -> anyhow::Result<http1::SendRequest<Body>> {
        let stream = self.shake_hands(b"http/1.1").await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// One connection for many requests; dropping the future of one resets its stream.
    pub(crate) async fn connect_h2(&self) -> anyhow::Result<http2::SendRequest<Body>> {
        let stream = self.shake_hands(b"h2").await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn shake_hands(&self, protocol: &[u8]) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(pod_host(self.address.ip(), "fake", "test"))?;
        let mut config = (*self.config).clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = tokio::time::timeout(PATIENCE, self.try_send(request)).await.unwrap().unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn generate(&self, body: Value) -> Answer {
        self.send(generation(&body)).await
    }

    pub(crate) async fn hold(&self, sequence: u64, models: Vec<DesiredModel>) -> Answer {
        let residency = Residency { generation: Generation { term: 1, sequence }, models };
        let body = serde_json::to_vec(&residency).unwrap();
        self.send(Request::put(RESIDENCY_PATH).body(body.into()).unwrap()).await
    }

    /// Reads the report stream until a line is as wanted, and gives that.
    pub(crate) async fn report_until(&self, wanted: impl Fn(&Report) -> bool) -> Report {
        let mut last = None;
        let search = async {
            let mut lines = self.reports().await;
            loop {
                let report = lines.next().await.expect("the report stream has ended");
                if wanted(&report) {
                    return report;
                }
                last = Some(report);
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("never came; the last was {last:?}"))
    }

    pub(crate) async fn reports(&self) -> Reports {
        let response = self.try_send(Request::get(REPORT_PATH).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Reports { body: response.into_body(), read: Vec::new() }
    }
}

pub(crate) fn generation(body: &Value) -> Request<Body> {
    let mut merged = json!({"model": MODEL, "prompt": "a cat"});
    for (key, value) in body.as_object().unwrap() {
        merged[key] = value.clone();
    }
    let request = Request::post(GENERATIONS_PATH).header("content-type", "application/json");
    request.body(merged.to_string().into()).unwrap()
}

pub(crate) struct Reports {
    body: Incoming,
    read: Vec<u8>,
}

impl Reports {
    pub(crate) async fn next(&mut self) -> Option<Report> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.ok()?;
            self.read.extend_from_slice(frame.data_ref()?);
        }
    }
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    pod: PodFlags,
    #[command(flatten)]
    fake: FakeFlags,
}

/// A pod, its authority and a folder for certificates and checkpoints.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) folder: TempDir,
    pub(crate) pod: Pod,
    pub(crate) gateway: Client,
    pub(crate) operator: Client,
}

impl World {
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::start_with(Finishing::default(), flags).await
    }

    pub(crate) async fn start_with(finishing: Finishing, flags: &[&str]) -> Self {
        let (authority, folder) = prepare();
        let mut line = vec!["pod".to_owned(), "--fake-encode-ms=0".into(), "--fake-decode-ms=0".into()];
        line.extend(
            ["--listen=127.0.0.1:0", "--probes-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"].map(Into::into),
        );
        line.push(format!("--tls-dir={}", folder.path().display()));
        line.extend(flags.iter().map(ToString::to_string));
        let flags = Flags::parse_from(line);
        let pod = Pod::start_with(FakeLoader::new(flags.fake), finishing, &flags.pod).await.unwrap();
        let address = pod.addresses().engine;
        let client = |identity: Identity| authority.client(&authority, Some(&identity.uri()), address);
        let (gateway, operator) = (client(Identity::Gateway), client(Identity::Operator));
        Self { authority, folder, pod, gateway, operator }
    }

    /// With one model that is ready.
    pub(crate) async fn ready(flags: &[&str]) -> Self {
        Self::start(flags).await.with_model().await
    }

    pub(crate) async fn with_model(self) -> Self {
        let model = self.model(MODEL);
        assert_eq!(self.operator.hold(1, vec![model]).await.status, StatusCode::OK);
        self.operator.report_until(|report| is_ready(report, MODEL)).await;
        self
    }

    /// A model with a checkpoint of its own.
    pub(crate) fn model(&self, id: &str) -> DesiredModel {
        desired(id, checkpoint(&self.folder.path().join(id.replace('/', "-")), id))
    }

    pub(crate) async fn probe(&self, path: &str) -> (StatusCode, String) {
        plain(self.pod.addresses().probes, path).await
    }

    pub(crate) async fn metrics(&self) -> String {
        plain(self.pod.addresses().metrics, "/metrics").await.1
    }
}

pub(crate) fn prepare() -> (Authority, TempDir) {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write_server(folder.path());
    (authority, folder)
}

/// A folder that the fake can load, with 1,000 bytes of weights.
pub(crate) fn checkpoint(folder: &Path, content: &str) -> Checkpoint {
    std::fs::create_dir_all(folder.join("unet")).unwrap();
    std::fs::write(folder.join("model_index.json"), json!({"_class_name": content}).to_string()).unwrap();
    std::fs::write(weights(folder), vec![7; 1000]).unwrap();
    let digest = Listing::read(folder).unwrap().digest(|_, _| true).unwrap().unwrap().to_string();
    Checkpoint { source: Source::Folder { path: folder.to_str().unwrap().to_owned() }, digest, signature: None }
}

/// Of a model whose checkpoint is a folder.
pub(crate) fn path(model: &mut DesiredModel) -> &mut String {
    match &mut model.checkpoint.source {
        Source::Folder { path } => path,
        Source::Oci { .. } | Source::S3 { .. } => panic!("not a folder"),
    }
}

pub(crate) fn weights(folder: &Path) -> PathBuf {
    folder.join("unet/diffusion_pytorch_model.safetensors")
}

pub(crate) fn desired(id: &str, checkpoint: Checkpoint) -> DesiredModel {
    let defaults =
        ModelDefaults { steps: 4, guidance_scale: 5.0, size: "64x64".parse().unwrap(), sampler: SamplerKind::Ddim };
    let limits = ModelLimits { max_steps: 1000, max_pixels: 512 * 512, max_images: 8 };
    let (access, tier, adapters) = (None, Tier::Device, Vec::new());
    DesiredModel { id: ModelId(id.into()), checkpoint, access, defaults, limits, tier, adapters }
}

pub(crate) fn is_ready(report: &Report, id: &str) -> bool {
    report.models.iter().any(|model| model.id.as_str() == id && model.state.is_ready())
}

/// One request without TLS.
pub(crate) async fn plain(address: SocketAddr, path: &str) -> (StatusCode, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Asks again until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !ask().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} never came true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
