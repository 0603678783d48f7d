//! Who may draw for whom: certificates are what decides, not addresses.

use easel_api::identity::Identity;
use easel_operator::pod_client::PodClient;

use crate::authority::Authority;
use crate::fake_pod::FakePod;
use crate::stage::{DEPLOYMENT, NAMESPACE, Stage, error_of, prompt, soon};

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
        let request = stage.draw(&prompt()).header("x-easel-deadline-ms", "400");
        let (status, error) = error_of(soon(request.send()).await.unwrap()).await;
        assert_eq!((status, error["code"].as_str()), (503, Some("pods_failed")), "{deployment} {namespace}");
        assert!(pod.calls().is_empty());
    }
}

#[tokio::test]
async fn replaced_credentials_are_used_for_the_next_request() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut wrong = stranger.credentials(Identity::Gateway);
    wrong.ca_pem = authority.credentials(Identity::Gateway).ca_pem;
    let client = PodClient::new(&wrong).unwrap();
    let right = authority.credentials(Identity::Gateway);
    let stage = Stage::with_client(&[], authority, client.clone()).await;
    let pod = stage.add_pod("a", []).await;
    // The pod refuses the certificate, which is no death of the pod: the request waits instead of being quarantined.
    let waiting = stage.begin(&prompt());
    stage.metric("easel_gateway_retries_total{reason=\"unreachable\"}", 3).await;
    assert!(pod.calls().is_empty());
    client.replace(&right).unwrap();
    assert_eq!(waiting.await.unwrap().status(), 200);
}
