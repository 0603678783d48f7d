//! New certificates in the mounted folder are used without a restart.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use easel_api::identity::Identity;
use easel_api::images::MODELS_PATH;
use hyper::{Request, StatusCode};

use crate::support::{Authority, Client, World, eventually};

/// In one phase of a rotation; each is a connection of its own.
const REQUESTS: usize = 10;

async fn heard(client: &Client) -> bool {
    client.try_send(Request::get(MODELS_PATH).body(Body::empty()).unwrap()).await.is_ok()
}

#[tokio::test]
async fn a_new_authority_is_trusted_and_the_old_one_no_more() {
    let world = World::start(&["--tls-poll-ms=20"]).await;
    let next = Authority::new();
    let client = next.client(&next, Some(&Identity::Gateway.uri()), world.pod.addresses().engine);
    assert!(heard(&world.gateway).await);
    assert!(!heard(&client).await);
    next.write_server(world.folder.path());
    eventually("the new authority is trusted", || heard(&client)).await;
    assert!(!heard(&world.gateway).await);
    assert_eq!(client.get(MODELS_PATH).await.status, StatusCode::OK);
}

#[tokio::test]
async fn files_that_can_not_be_used_leave_the_old_ones_in_force() {
    let world = World::start(&["--tls-poll-ms=20"]).await;
    std::fs::write(world.folder.path().join("tls.key"), "torn").unwrap();
    // A look that follows the torn write must have come by the time when a later, whole one has.
    let next = Authority::new();
    assert!(heard(&world.gateway).await);
    next.write_server(world.folder.path());
    let client = next.client(&next, Some(&Identity::Gateway.uri()), world.pod.addresses().engine);
    eventually("the whole files are used", || heard(&client)).await;
}

/// A gateway that asks on and on, each time on a new connection, and changes its certificate while it does.
struct Asking {
    client: Arc<Mutex<Client>>,
    outcomes: Arc<Mutex<Vec<Result<StatusCode, String>>>>,
}

impl Asking {
    fn begin(client: Client) -> Self {
        let (client, outcomes) = (Arc::new(Mutex::new(client)), Arc::<Mutex<Vec<_>>>::default());
        let asking = Self { client: client.clone(), outcomes: outcomes.clone() };
        tokio::spawn(async move {
            loop {
                let with = client.lock().unwrap().clone();
                let answer = with.try_send(Request::get(MODELS_PATH).body(Body::empty()).unwrap()).await;
                let outcome = answer.map(|answer| answer.status()).map_err(|error| format!("{error:#}"));
                outcomes.lock().unwrap().push(outcome);
            }
        });
        asking
    }

    /// Some more are answered, and all were.
    async fn goes_on(&self, phase: &str) {
        let count = || self.outcomes.lock().unwrap().len();
        let enough = count() + REQUESTS;
        eventually(phase, async || count() >= enough).await;
        let outcomes = self.outcomes.lock().unwrap();
        let lost = outcomes.iter().filter(|outcome| **outcome != Ok(StatusCode::OK)).collect::<Vec<_>>();
        assert!(lost.is_empty(), "{phase}: {lost:?}");
    }

    fn changes_to(&self, client: Client) {
        *self.client.lock().unwrap() = client;
    }
}

#[tokio::test]
async fn an_authority_is_replaced_without_a_lost_request_or_stream() {
    let world = World::start(&["--tls-poll-ms=20"]).await;
    let (former, next, folder) = (&world.authority, Authority::new(), world.folder.path());
    let (both, address) = ([former, &next], world.pod.addresses().engine);
    let gateway = Identity::Gateway.uri();
    let by = |signer: &Authority, trusted: &[&Authority]| signer.client_that_trusts(trusted, Some(&gateway), address);

    let mut reports = world.gateway.reports().await;
    let asking = Asking::begin(world.gateway.clone());
    asking.goes_on("before").await;
    former.write_server_that_trusts(&both, folder);
    eventually("the pod trusts both", || async { heard(&by(&next, &[former])).await }).await;
    asking.changes_to(by(former, &both));
    asking.goes_on("everybody trusts both").await;
    asking.changes_to(by(&next, &both));
    asking.goes_on("the gateway's certificate is of the next").await;
    next.write_server_that_trusts(&both, folder);
    eventually("the pod's is too", || async { heard(&by(&next, &[&next])).await }).await;
    asking.goes_on("the pod's is too").await;
    asking.changes_to(by(&next, &[&next]));
    next.write_server(folder);
    eventually("the former is forgotten", || async { !heard(&by(former, &both)).await }).await;
    asking.goes_on("the former is forgotten").await;
    assert!(reports.next().await.is_some() && reports.next().await.is_some(), "a stream lives on");
}
