//! What clients ask gateways for, told at the control port, and added up by who listens.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use easel_api::demand::{DEMAND_PATH, DemandReport, ModelDemand};
use easel_api::engine;
use easel_api::identity::Identity;
use easel_operator::control;
use easel_operator::identity::Authorities;
use easel_operator::index::{DemandMetrics, Demands, GatewayPod, add_up};
use easel_operator::names::OPERATOR;
use easel_operator::pod_client::{Credentials, PodClient};
use easel_operator::routing_table::Pod;
use easel_planner::route::Endpoint;
use easel_planner::snapshot::Asked;
use easel_planner::units::MicroUsdPerHour;
use easel_planner::{ModelId, ReplicaId};
use k8s_openapi::jiff::Timestamp;
use reqwest::{Method, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fake_pod::Act;
use crate::stage::{NAMESPACE, Stage, error_of, soon};

fn credentials(authorities: &Authorities, identity: &Identity) -> Credentials {
    let pair = authorities.signer().unwrap().sign(identity, NAMESPACE, Timestamp::now()).unwrap();
    Credentials { ca_pem: authorities.bundle(), cert_pem: pair.cert_pem, key_pem: pair.key_pem }
}

/// The control port of a stage's gateway.
struct Control {
    port: u16,
    credentials: watch::Sender<Credentials>,
    serving: JoinHandle<()>,
}

impl Control {
    async fn of(stage: &Stage, authorities: &Authorities) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (credentials, served) = watch::channel(credentials(authorities, &Identity::Gateway));
        let serving = tokio::spawn(control::serve(listener, served, stage.gateway.demand().clone()));
        Self { port, credentials, serving }
    }

    /// As the leader addresses it.
    fn pod(&self, deployment: &str) -> Pod {
        let endpoint = Endpoint {
            id: ReplicaId::new("a"),
            price: MicroUsdPerHour::default(),
            ready: BTreeMap::new(),
            coming: [].into(),
            queued: 0,
            queue_limit: 0,
            draining: false,
        };
        Pod {
            endpoint,
            address: Ipv4Addr::LOCALHOST.into(),
            port: self.port,
            deployment: deployment.into(),
            namespace: NAMESPACE.into(),
            pool: String::new(),
        }
    }

    async fn get(&self, caller: &Credentials, path: &str) -> reqwest::Result<Response> {
        let client = PodClient::new(caller).unwrap();
        soon(client.request(Method::GET, &self.pod(OPERATOR), path).send()).await
    }
}

/// What a reader hears.
struct Lines {
    response: Response,
    buffer: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> DemandReport {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            let chunk = soon(self.response.chunk()).await.unwrap().expect("the stream goes on");
            self.buffer.extend_from_slice(&chunk);
        }
    }

    async fn until(&mut self, wanted: &[ModelDemand]) {
        soon(async { while self.next().await.models != wanted {} }).await;
    }
}

fn asked(waiting: u32, arrived: u32) -> ModelDemand {
    let calls = |requests: u32| u64::from(requests) * 8; // of 2 pictures with the model's 4 steps
    ModelDemand {
        id: engine::ModelId::new("demo", "tiny"),
        waiting,
        waiting_calls: calls(waiting),
        arrived,
        arrived_calls: calls(arrived),
    }
}

fn two_pictures() -> serde_json::Value {
    json!({"model": "tiny", "prompt": "a lighthouse", "n": 2})
}

#[tokio::test]
async fn the_operator_hears_what_is_asked_as_it_comes_waits_and_is_drawn() {
    let (stage, authorities) = (Stage::new(&[]).await, Authorities::make(Timestamp::now()).unwrap());
    let control = Control::of(&stage, &authorities).await;
    let response = control.get(&credentials(&authorities, &Identity::Operator), DEMAND_PATH).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut lines = Lines { response, buffer: Vec::new() };
    assert_eq!(lines.next().await, DemandReport::default(), "at once, although nobody asks");
    assert_eq!(lines.next().await, DemandReport::default(), "and again, although nothing happened");
    let waiting = stage.begin(&two_pictures());
    lines.until(&[asked(1, 1)]).await;
    let pod = stage.add_pod("a", [Act::Hold]).await;
    lines.until(&[asked(0, 1)]).await;
    pod.called(1).await;
    pod.release();
    assert_eq!(soon(waiting).await.unwrap().status(), 200);
    let refused = soon(stage.draw(&json!({"model": "tiny", "prompt": "a", "n": 99})).send()).await.unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(lines.next().await.models, [asked(0, 1)], "what was refused was not admitted");
}

#[tokio::test]
async fn nobody_but_the_operator_hears_anything() {
    let (stage, authorities) = (Stage::new(&[]).await, Authorities::make(Timestamp::now()).unwrap());
    let control = Control::of(&stage, &authorities).await;
    let gateway = credentials(&authorities, &Identity::Gateway);
    let (status, error) = error_of(control.get(&gateway, DEMAND_PATH).await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (403, Some("forbidden")));
    let stranger = Authorities::make(Timestamp::now()).unwrap();
    let stranger = Credentials { ca_pem: authorities.bundle(), ..credentials(&stranger, &Identity::Operator) };
    assert!(control.get(&stranger, DEMAND_PATH).await.is_err());
    assert!(without_certificate(&control, &authorities).await.is_err());
    let operator = credentials(&authorities, &Identity::Operator);
    let (status, error) = error_of(control.get(&operator, "/operator/v1/plans").await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("unknown_url")));
}

async fn without_certificate(control: &Control, authorities: &Authorities) -> reqwest::Result<Response> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authorities.bundle().as_bytes()).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let tls = tls.with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let (pod, url) = (control.pod(OPERATOR), PodClient::url(&control.pod(OPERATOR), DEMAND_PATH));
    let host = easel_api::identity::pod_host(pod.address, &pod.deployment, &pod.namespace);
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
    let client = client.resolve(&host, (pod.address, pod.port).into()).build().unwrap();
    soon(client.get(url).send()).await
}

#[tokio::test]
async fn a_fifth_reader_is_refused_until_one_hangs_up() {
    let (stage, authorities) = (Stage::new(&[]).await, Authorities::make(Timestamp::now()).unwrap());
    let control = Control::of(&stage, &authorities).await;
    let operator = credentials(&authorities, &Identity::Operator);
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(control.get(&operator, DEMAND_PATH).await.unwrap());
    }
    let (status, error) = error_of(control.get(&operator, DEMAND_PATH).await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (503, Some("too_many_readers")));
    readers.pop();
    // The end of a connection is seen with the next line.
    soon(async { while control.get(&operator, DEMAND_PATH).await.unwrap().status() != 200 {} }).await;
}

#[tokio::test]
async fn a_renewed_certificate_is_served_to_the_next_caller() {
    let (stage, former) = (Stage::new(&[]).await, Authorities::make(Timestamp::now()).unwrap());
    let control = Control::of(&stage, &former).await;
    let next = Authorities::make(Timestamp::now()).unwrap();
    let operator = credentials(&next, &Identity::Operator);
    assert!(control.get(&operator, DEMAND_PATH).await.is_err());
    control.credentials.send_replace(credentials(&next, &Identity::Gateway));
    soon(async { while control.get(&operator, DEMAND_PATH).await.is_err() {} }).await;
    assert!(control.get(&credentials(&former, &Identity::Operator), DEMAND_PATH).await.is_err());
}

/// The sum that a leader has of these.
struct Leader {
    pods: watch::Sender<Vec<GatewayPod>>,
    demand: watch::Receiver<Arc<Demands>>,
    adding: JoinHandle<()>,
}

impl Leader {
    fn of(authorities: &Authorities, gateways: &[&Control]) -> Self {
        let pod = |(number, control): (usize, &&Control)| GatewayPod {
            name: format!("gateway-{number}"),
            uid: number.to_string(),
            address: Ipv4Addr::LOCALHOST.into(),
            port: control.port,
        };
        let client = PodClient::new(&credentials(authorities, &Identity::Operator)).unwrap();
        let (pods, followed) = watch::channel(gateways.iter().enumerate().map(pod).collect());
        let (sender, demand) = watch::channel(Arc::default());
        let adding = async move { add_up(client, NAMESPACE, followed, sender, DemandMetrics::default()).await };
        Self { pods, demand, adding: tokio::spawn(adding) }
    }

    /// Until so many wait and came, at all gateways together.
    async fn hears(&mut self, waiting: u32, arrived: u32) {
        let ModelDemand { id, waiting, waiting_calls, arrived, arrived_calls } = asked(waiting, arrived);
        let asked = Asked { waiting, waiting_calls, arrived, arrived_calls };
        let id = ModelId::new(id.as_str());
        soon(async { drop(self.demand.wait_for(|sum| sum.get(&id) == Some(&asked)).await.unwrap()) }).await;
    }

    async fn hears_nothing(&mut self) {
        soon(async { drop(self.demand.wait_for(|sum| sum.is_empty()).await.unwrap()) }).await;
    }
}

#[tokio::test]
async fn two_gateways_add_up_and_one_that_is_gone_loses_its_share() {
    let authorities = Authorities::make(Timestamp::now()).unwrap();
    let (first, second) = (Stage::new(&[]).await, Stage::new(&[]).await);
    let controls = [Control::of(&first, &authorities).await, Control::of(&second, &authorities).await];
    let mut leader = Leader::of(&authorities, &[&controls[0], &controls[1]]);
    let _waiting = [first.begin(&two_pictures()), second.begin(&two_pictures()), second.begin(&two_pictures())];
    leader.hears(3, 3).await;
    controls[1].serving.abort();
    leader.hears(1, 1).await;
    leader.pods.send_replace(Vec::new());
    leader.hears_nothing().await;
}

#[tokio::test]
async fn what_a_leader_heard_is_forgotten_with_its_term() {
    let authorities = Authorities::make(Timestamp::now()).unwrap();
    let stage = Stage::new(&[]).await;
    let control = Control::of(&stage, &authorities).await;
    let mut leader = Leader::of(&authorities, &[&control]);
    let _waiting = stage.begin(&two_pictures());
    leader.hears(1, 1).await;
    leader.adding.abort();
    leader.hears_nothing().await;
}

#[tokio::test]
async fn a_server_of_another_name_is_not_believed() {
    let (stage, authorities) = (Stage::new(&[]).await, Authorities::make(Timestamp::now()).unwrap());
    let control = Control::of(&stage, &authorities).await;
    let client = PodClient::new(&credentials(&authorities, &Identity::Operator)).unwrap();
    let get = |deployment| client.request(Method::GET, &control.pod(deployment), DEMAND_PATH).send();
    assert!(soon(get("easel-pool-cpu")).await.is_err());
    assert_eq!(soon(get(OPERATOR)).await.unwrap().status(), 200);
}
