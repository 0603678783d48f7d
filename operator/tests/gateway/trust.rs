//! Who may draw for whom: certificates are what decides, not addresses.

use std::sync::Arc;
use std::time::Duration;

use easel_api::identity::{Deployment, Identity};
use easel_operator::identity::Authorities;
use easel_operator::pod_client::{Credentials, PodClient};
use k8s_openapi::jiff::Timestamp;
use rustls::ServerConfig;
use tokio::task::JoinHandle;

use crate::authority::{Authority, serving};
use crate::fake_pod::{Act, FakePod};
use crate::stage::{DEPLOYMENT, NAMESPACE, Stage, UNREACHABLE, prompt, soon};

#[tokio::test]
async fn a_pod_of_another_deployment_namespace_or_authority_gets_no_request() {
    let stage = Stage::new(&[]).await;
    let stranger = Authority::new();
    for (authority, deployment, namespace) in [
        (&stage.authority, "gpu", NAMESPACE),
        (&stage.authority, DEPLOYMENT, "team"),
        (&stranger, DEPLOYMENT, NAMESPACE),
    ] {
        let pod = FakePod::start(authority.server(deployment, namespace), []).await;
        stage.list("a", &pod);
        stage.turned_away().await;
        assert!(pod.calls().is_empty(), "{deployment} {namespace}");
    }
}

#[tokio::test]
async fn replaced_credentials_are_used_for_the_next_request() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut wrong = stranger.credentials(&Identity::Gateway);
    wrong.ca_pem = authority.credentials(&Identity::Gateway).ca_pem;
    let client = PodClient::new(&wrong).unwrap();
    let right = authority.credentials(&Identity::Gateway);
    let stage = Stage::with_client(&[], authority, client.clone()).await;
    let pod = stage.add_pod("a", []).await;
    // The pod refuses the certificate, which is no death of the pod: the request waits instead of being quarantined.
    let waiting = stage.begin(&prompt());
    stage.until(UNREACHABLE, |found| found >= 3).await;
    assert!(pod.calls().is_empty());
    client.replace(&right).unwrap();
    assert_eq!(waiting.await.unwrap().status(), 200);
}

/// What the Secrets of a gateway and of pods hold: a certificate by whoever signs now, and all that are trusted.
fn gateways(authorities: &Authorities) -> Credentials {
    let pair = authorities.signer().unwrap().sign(&Identity::Gateway, NAMESPACE, Timestamp::now()).unwrap();
    Credentials { ca_pem: authorities.bundle(), cert_pem: pair.cert_pem, key_pem: pair.key_pem }
}

fn pods(authorities: &Authorities) -> Arc<ServerConfig> {
    let identity = Identity::Pods(Deployment { namespace: NAMESPACE.into(), name: DEPLOYMENT.into() });
    let pair = authorities.signer().unwrap().sign(&identity, NAMESPACE, Timestamp::now()).unwrap();
    serving(&authorities.bundle(), &pair.cert_pem, &pair.key_pem)
}

/// Draws over and over, until it is aborted or one is not drawn at the first try.
fn drawing(stage: &Stage) -> JoinHandle<String> {
    let request = stage.draw(&prompt());
    tokio::spawn(async move {
        loop {
            let answer = request.try_clone().unwrap().send().await.unwrap();
            let attempts = answer.headers().get("x-easel-attempts").cloned();
            if answer.status() != 200 || attempts.as_ref().is_none_or(|attempts| attempts != "1") {
                return format!("{} after {attempts:?}: {}", answer.status(), answer.text().await.unwrap());
            }
        }
    })
}

#[tokio::test]
async fn a_rotation_of_the_authority_costs_no_request_whoever_reads_its_secret_first() {
    let now = Timestamp::now();
    let mut authorities = Authorities::make(now).unwrap();
    let former = gateways(&authorities);
    let client = PodClient::new(&former).unwrap();
    let stage = Stage::with_client(&[], Authority::new(), client.clone()).await;
    let (first, second) = (FakePod::start(pods(&authorities), []).await, FakePod::start(pods(&authorities), []).await);
    let held = FakePod::start(pods(&authorities), [Act::Hold]).await;
    stage.list("held", &held);
    let under_way = stage.begin(&prompt());
    held.called(1).await;
    stage.list("first", &first);
    stage.list("second", &second);
    stage.remove("held");
    let clients = [drawing(&stage), drawing(&stage)];
    // A changed client is a new pool of connections, so each of these steps shakes hands anew.
    let goes_on = async |step: &str, current: &Credentials| {
        client.replace(current).unwrap();
        let so_far = first.calls().len() + second.calls().len();
        soon(async {
            while first.calls().len() + second.calls().len() < so_far + 20 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        assert!(clients.iter().all(|client| !client.is_finished()), "a request was lost: {step}");
    };
    let mut current = former.clone();
    for step in ["introduced", "switched", "the former forgotten"] {
        authorities = authorities.step(now).unwrap();
        first.serves_with(pods(&authorities));
        goes_on(step, &current).await;
        current = gateways(&authorities);
        goes_on(step, &current).await;
        second.serves_with(pods(&authorities));
        goes_on(step, &current).await;
    }
    held.release();
    assert_eq!(under_way.await.unwrap().status(), 200, "what began under the former authority ends under the next");
    clients.iter().for_each(JoinHandle::abort);
    stage.metric("easel_gateway_in_flight", 0).await;

    client.replace(&Credentials { ca_pem: authorities.bundle(), ..former }).unwrap();
    let heard = || first.calls().len() + second.calls().len();
    let before = heard();
    stage.turned_away().await;
    assert_eq!(heard(), before, "the former's certificates open no door");
}
