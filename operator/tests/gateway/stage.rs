//! A gateway with its table, for one test.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use easel_api::ImageSize;
use easel_api::engine::{ModelDefaults, ModelLimits};
use easel_api::identity::Identity;
use easel_api::images::SamplerKind;
use easel_operator::gateway::{Gateway, GatewayArgs, GatewayMetrics, serve};
use easel_operator::pod_client::PodClient;
use easel_operator::routing_table::{Pod, RoutingTable, ServedModel, ServedRoute, Terms};
use easel_planner::route::Endpoint;
use easel_planner::traffic::{Backend, Overflow, Priority, RouteClass};
use easel_planner::units::MicroUsdPerHour;
use easel_planner::{ModelId, ReplicaId, RouteId};
use prometheus_client::registry::Registry;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::fake_pod::{Act, FakePod};

pub(crate) const DEPLOYMENT: &str = "cpu";
pub(crate) const NAMESPACE: &str = "easel-system";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    gateway: GatewayArgs,
}

pub(crate) struct Stage {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    pub(crate) shutdown: CancellationToken,
    pub(crate) gateway: Gateway,
    pub(crate) serving: JoinHandle<std::io::Result<()>>,
    tables: watch::Sender<Arc<RoutingTable>>,
    http: reqwest::Client,
    registry: Registry,
}

impl Stage {
    /// With one model, `demo/tiny`, and no pod.
    pub(crate) async fn new(flags: &[&str]) -> Self {
        let authority = Authority::new();
        let client = PodClient::new(&authority.credentials(&Identity::Gateway)).unwrap();
        Self::with_client(flags, authority, client).await
    }

    pub(crate) async fn with_client(flags: &[&str], authority: Authority, client: PodClient) -> Self {
        let args = Cli::parse_from([&["test"], flags].concat()).gateway;
        let (metrics, mut registry) = (GatewayMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let tables = watch::Sender::new(Arc::new(RoutingTable { complete: true, ..RoutingTable::default() }));
        let gateway = Gateway::new(args, client, tables.subscribe(), metrics);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, gateway.clone(), shutdown.clone()));
        let stage = Self { address, authority, shutdown, gateway, serving, tables, http: http(), registry };
        stage.add_model("demo", "tiny");
        stage
    }

    pub(crate) fn edit(&self, change: impl FnOnce(&mut RoutingTable)) {
        self.tables.send_modify(|table| change(Arc::make_mut(table)));
    }

    pub(crate) fn add_model(&self, namespace: &str, name: &str) {
        let size = ImageSize::new(64, 64).unwrap();
        let model = ServedModel {
            namespace: namespace.into(),
            name: name.into(),
            created: 1_700_000_000,
            digest: "sha256:beef".into(),
            defaults: ModelDefaults { steps: 4, guidance_scale: 1.0, size, sampler: SamplerKind::Ddim },
            limits: ModelLimits { max_steps: 8, max_pixels: 64 * 64, max_images: 4 },
            adapters: vec!["ink".into()],
            tasks: Vec::new(),
            parked: false,
            terms: Terms::default(),
        };
        self.edit(|table| drop(table.models.insert(ModelId::new(format!("{namespace}/{name}")), model)));
    }

    /// A route of namespace `demo` with one class, of high priority.
    pub(crate) fn add_route(&self, name: &str, backend: &str, class: &str, latency: Duration) {
        let class = RouteClass {
            name: class.into(),
            latency,
            percentile: 95,
            priority: Priority::High,
            max_per_image: None,
            overflow: Overflow::Queue,
        };
        let route = ServedRoute {
            namespace: "demo".into(),
            name: name.into(),
            created: 1_700_000_000,
            backends: vec![Backend { model: ModelId::new(backend), tier: 1, weight: 1 }],
            terms: Terms { classes: vec![class], ..Terms::default() },
        };
        self.edit(|table| drop(table.routes.insert(RouteId::new(format!("demo/{name}")), route)));
    }

    /// A pod of this deployment that holds `demo/tiny`.
    pub(crate) async fn add_pod(&self, id: &str, script: impl IntoIterator<Item = Act>) -> FakePod {
        let pod = FakePod::start(self.authority.server(DEPLOYMENT, NAMESPACE), script).await;
        self.list(id, &pod);
        pod
    }

    pub(crate) fn list(&self, id: &str, pod: &FakePod) {
        let id = ReplicaId::new(id);
        let endpoint = Endpoint {
            id: id.clone(),
            price: MicroUsdPerHour::from_dollars("3600").unwrap(),
            ready: BTreeMap::from([(ModelId::new("demo/tiny"), Some(Duration::from_millis(10)))]),
            coming: BTreeSet::new(),
            queued: 0,
            queue_limit: 8,
            draining: false,
        };
        let pod = Pod {
            endpoint,
            address: Ipv4Addr::LOCALHOST.into(),
            port: pod.port,
            deployment: DEPLOYMENT.into(),
            namespace: NAMESPACE.into(),
            pool: "cpu".into(),
        };
        self.edit(|table| drop(table.pods.insert(id, pod)));
    }

    pub(crate) fn remove(&self, id: &str) {
        self.edit(|table| drop(table.pods.remove(&ReplicaId::new(id))));
    }

    pub(crate) fn edit_endpoint(&self, id: &str, change: impl FnOnce(&mut Endpoint)) {
        self.edit(|table| change(&mut table.pods.get_mut(&ReplicaId::new(id)).unwrap().endpoint));
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("http://{}{path}", self.address))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("http://{}{path}", self.address))
    }

    pub(crate) fn draw(&self, body: &Value) -> RequestBuilder {
        self.post("/v1/images/generations").json(body)
    }

    /// Sent at once, on a task of its own.
    pub(crate) fn begin(&self, body: &Value) -> JoinHandle<Response> {
        let request = self.draw(body);
        tokio::spawn(async move { soon(request.send()).await.unwrap() })
    }

    /// Until the metric has this value.
    pub(crate) async fn metric(&self, series: &str, value: u64) {
        self.until(series, |found| found == value).await;
    }

    /// Until the metric's value is as wanted. Nothing tells of a change of a metric, so it is looked at again and again.
    pub(crate) async fn until(&self, series: &str, mut wanted: impl FnMut(u64) -> bool) -> u64 {
        soon(async {
            loop {
                // A series that nothing has counted yet is not written.
                if let Some(value) = self.value(series)
                    && wanted(value)
                {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
    }

    fn value(&self, series: &str) -> Option<u64> {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().expect("a count is a whole number"))
    }

    /// Until a request has been turned away twice more before any pod heard of it. It is given up then, by its caller
    /// and not by a deadline: one that comes during a handshake would be told as being late.
    pub(crate) async fn turned_away(&self) {
        let before = self.value(UNREACHABLE).unwrap_or_default();
        let asking = self.begin(&prompt());
        self.until(UNREACHABLE, |found| {
            assert!(!asking.is_finished(), "answered instead of being turned away");
            found >= before + 2
        })
        .await;
        asking.abort();
        self.metric("easel_gateway_in_flight", 0).await;
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// How often a pod could not be reached, or would not shake hands.
pub(crate) const UNREACHABLE: &str = "easel_gateway_retries_total{reason=\"unreachable\"}";

/// A condition that does not come within this time is a failure of the test.
pub(crate) async fn soon<T>(condition: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), condition).await.expect("nothing came within 30 s")
}

pub(crate) fn prompt() -> Value {
    json!({"model": "tiny", "prompt": "a lighthouse"})
}

pub(crate) async fn error_of(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.expect("every error is the envelope");
    let error = body["error"].clone();
    assert!(error["message"].is_string() && error["type"].is_string(), "{body}");
    (status, error)
}

/// Plain HTTP: no authority is trusted and none is needed.
fn http() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}
