use std::time::Duration;

use easel_api::engine;
use serde_json::json;

use super::*;

fn said(name: &str, uid: &str, waiting: Option<u32>) -> Heard<String, DemandReport> {
    let demand = |waiting: u32| ModelDemand {
        id: engine::ModelId::new("art", "m"),
        waiting,
        waiting_calls: u64::from(waiting) * 30,
        arrived: waiting + 1,
        arrived_calls: u64::from(waiting + 1) * 30,
    };
    let said = waiting.map(|waiting| DemandReport { models: vec![demand(waiting)] });
    Heard { id: name.into(), uid: uid.into(), said }
}

fn asked(shares: &Shares) -> Option<Asked> {
    let sum = shares.sum();
    assert!(sum.len() <= 1);
    sum.get(&ModelId::new("art/m")).copied()
}

fn pod(name: &str, uid: &str) -> GatewayPod {
    GatewayPod { name: name.into(), uid: uid.into(), address: "10.0.0.1".parse().unwrap(), port: 7443 }
}

#[tokio::test]
async fn gateways_add_up_and_what_one_says_anew_replaces_what_it_said() {
    let (mut shares, now) = (Shares::default(), Instant::now());
    shares.hear(said("a", "1", Some(2)), now);
    shares.hear(said("b", "2", Some(3)), now);
    let both = Asked { waiting: 5, waiting_calls: 150, arrived: 7, arrived_calls: 210 };
    assert_eq!(asked(&shares), Some(both));
    shares.hear(said("a", "1", Some(0)), now);
    assert_eq!(asked(&shares), Some(Asked { waiting: 3, waiting_calls: 90, arrived: 5, arrived_calls: 150 }));
}

#[tokio::test]
async fn a_gateway_that_is_silent_for_four_seconds_loses_its_share_alone() {
    let (mut shares, now) = (Shares::default(), Instant::now());
    let at = |millis: u64| now + Duration::from_millis(millis);
    shares.hear(said("a", "1", Some(2)), now);
    shares.hear(said("b", "2", Some(3)), at(1000));
    assert_eq!(shares.next_silence(), Some(at(4000)));
    shares.forget_silent(at(3999));
    assert_eq!(asked(&shares).unwrap().waiting, 5);
    shares.forget_silent(at(4000));
    assert_eq!(asked(&shares).unwrap().waiting, 3);
    shares.forget_silent(at(5000));
    assert_eq!((asked(&shares), shares.next_silence()), (None, None));
}

#[tokio::test]
async fn one_that_does_not_answer_or_is_another_pod_by_now_has_no_share() {
    let (mut shares, now) = (Shares::default(), Instant::now());
    shares.hear(said("a", "1", Some(2)), now);
    shares.hear(said("b", "2", Some(3)), now);
    shares.hear(said("b", "2", None), now);
    assert_eq!(asked(&shares).unwrap().waiting, 2);
    shares.keep(&[pod("a", "1")]);
    assert_eq!(asked(&shares).unwrap().waiting, 2);
    shares.keep(&[pod("a", "9")]);
    assert_eq!(asked(&shares), None);
}

#[test]
fn a_pod_is_listened_to_from_its_address_to_its_end() {
    let with = |status: serde_json::Value| -> Pod {
        crate::testing::read(json!({"metadata": {"name": "a", "uid": "1"}, "status": status}))
    };
    assert_eq!(gateway(&with(json!({"phase": "Pending"})), 7443), None);
    let running = json!({"phase": "Running", "podIP": "10.0.0.1"});
    assert_eq!(gateway(&with(running), 7443), Some(pod("a", "1")));
    assert_eq!(gateway(&with(json!({"phase": "Failed", "podIP": "10.0.0.1"})), 7443), None);
}
