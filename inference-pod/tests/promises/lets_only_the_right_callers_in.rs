//! Every identity at every door: what is not its own part is refused, and what is no identity is not heard.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use easel_api::engine::{HANDOVER_PATH, REPORT_PATH, RESIDENCY_PATH};
use easel_api::identity::{Deployment, Identity};
use easel_api::images::{GENERATIONS_PATH, MODELS_PATH};
use hyper::{Method, Request, StatusCode};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Client, PATIENCE, World, generation, here, uri};

const CANCEL_PATH: &str = "/engine/v1/requests/nobodys";

/// Every door of the engine port, with what its own callers are answered here: a pod without models.
const DOORS: [(&str, &str, StatusCode); 6] = [
    ("PUT", RESIDENCY_PATH, StatusCode::OK),
    ("GET", REPORT_PATH, StatusCode::OK),
    ("GET", MODELS_PATH, StatusCode::OK),
    ("POST", GENERATIONS_PATH, StatusCode::NOT_FOUND),
    ("DELETE", CANCEL_PATH, StatusCode::NOT_FOUND),
    ("POST", HANDOVER_PATH, StatusCode::UNSUPPORTED_MEDIA_TYPE),
];

fn request(method: &str, path: &str) -> Request<Body> {
    if path == GENERATIONS_PATH {
        return generation(&json!({}));
    }
    let body = match path {
        RESIDENCY_PATH => json!({"generation": {"term": 1, "sequence": 1}, "models": []}).to_string().into(),
        _ => Body::empty(),
    };
    Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path).body(body).unwrap()
}

fn pods(namespace: &str, name: &str) -> String {
    Identity::Pods(Deployment { namespace: namespace.into(), name: name.into() }).uri().into_owned()
}

fn params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(["client.example".to_owned()]).unwrap();
    params.subject_alt_names.extend(uris.iter().map(|text| uri(text)));
    params
}

fn client(world: &World, params: &CertificateParams) -> Client {
    Client::new(&[&world.authority], world.authority.sign(params), world.pod.addresses().engine)
}

/// Which doors open for a certificate with these URIs.
async fn opens(world: &World, uris: &[&str]) -> Vec<&'static str> {
    let client = client(world, &params(uris));
    let mut open = Vec::new();
    for (method, path, answer) in DOORS {
        let asked = tokio::time::timeout(PATIENCE, client.try_send(request(method, path))).await;
        match asked.unwrap().unwrap().status() {
            StatusCode::FORBIDDEN => {}
            status => {
                assert_eq!(status, answer, "{uris:?} {path}");
                open.push(path);
            }
        }
    }
    open
}

#[tokio::test]
async fn each_identity_passes_its_own_doors_and_no_other() {
    let world = World::start(&[]).await;
    let (operator, gateway) = (Identity::Operator.uri(), Identity::Gateway.uri());
    let peer = Identity::Pods(here()).uri();
    let table: [(&[&str], &[&str]); 10] = [
        (&[&operator], &[RESIDENCY_PATH, REPORT_PATH, MODELS_PATH]),
        (&[&gateway], &[REPORT_PATH, MODELS_PATH, GENERATIONS_PATH, CANCEL_PATH, HANDOVER_PATH]),
        (&[&peer], &[]),
        (&[&pods("test", "another-pool")], &[]),
        (&[&pods("another-namespace", "fake")], &[]),
        (&[&operator, &gateway], &[]),
        (&[&peer, &operator], &[]),
        (&["spiffe://easel.internal/admin"], &[]),
        (&["spiffe://easel.example/operator"], &[]),
        (&[], &[]),
    ];
    for (uris, expected) in table {
        assert_eq!(opens(&world, uris).await, expected, "{uris:?}");
    }
}

#[tokio::test]
async fn a_pod_hands_nothing_to_a_pod() {
    let world = World::start(&[]).await;
    let peer = client(&world, &params(&[&Identity::Pods(here()).uri()]));
    let refused = peer.send(request("POST", HANDOVER_PATH)).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "forbidden"));
    let message = refused.body["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("may not hand over; only gateways may"), "{message}");
}

#[tokio::test]
async fn what_proves_no_caller_is_not_heard_at_all() {
    let world = World::start(&[]).await;
    let address = world.pod.addresses().engine;
    let operator = params(&[&Identity::Operator.uri()]);
    let heard = async |client: &Client| client.try_send(request("GET", MODELS_PATH)).await.is_ok();
    assert!(heard(&client(&world, &operator)).await);

    let mut expired = operator.clone();
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = operator.clone();
    early.not_before = rcgen::date_time_ymd(2100, 1, 1);
    let mut server_only = operator.clone();
    server_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut authority = operator.clone();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (what, params) in
        [("expired", expired), ("not yet valid", early), ("server only", server_only), ("an authority", authority)]
    {
        assert!(!heard(&client(&world, &params)).await, "{what}");
    }
    let key = KeyPair::generate().unwrap();
    let itself = (operator.self_signed(&key).unwrap(), key);
    assert!(!heard(&Client::new(&[&world.authority], itself, address)).await, "self-signed");
    assert!(!heard(&world.authority.client_without_certificate(address)).await, "no certificate");
}

#[tokio::test]
async fn nothing_older_than_tls_1_2_is_spoken() {
    let world = World::start(&[]).await;
    for (version, alerts) in [([3, 1], true), ([3, 2], true), ([3, 3], false)] {
        let answer = first_record(world.pod.addresses().engine, version).await;
        // Content type 21 is an alert, 22 a handshake; alert 70 is protocol_version.
        let expected: &[u8] = if alerts { &[21, 2, 70] } else { &[22] };
        let said = [&answer[..1], &answer[5..]].concat();
        assert!(said.starts_with(expected), "{version:?}: {answer:?}");
    }
}

/// What the server answers to a hello of this version, without the extension by which newer ones are offered.
async fn first_record(address: SocketAddr, version: [u8; 2]) -> Vec<u8> {
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, // supported_groups: secp256r1
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ecdsa_secp256r1_sha256
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 23, 0, 0, // extended_master_secret
    ];
    let mut body = version.to_vec();
    body.extend([7; 32]); // random
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, ECDHE-ECDSA with AES-128-GCM, no compression
    body.extend([0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&record).await.unwrap();
    let mut answer = vec![0; 7];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    answer
}
