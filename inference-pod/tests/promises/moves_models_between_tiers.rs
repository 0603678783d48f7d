//! A model that is kept on disk or in the host's memory answers too: a request brings it to the device, and what was used
//! least recently makes room.

use easel_api::engine::{DesiredModel, ModelReport, ModelState, Report, Tier};
use hyper::{Request, StatusCode};
use serde_json::json;

use crate::support::{World, generation, is_ready};

/// Room for one of the models on the device and one in the host's memory; pictures take nothing.
const ROOM_FOR_ONE: [&str; 4] = ["--fake-step-ms=1", "--activation-kib=0", "--memory-bytes=1500", "--host-bytes=1500"];

async fn holding(flags: &[&str], models: &[(&str, Tier)]) -> World {
    let world = World::start(flags).await;
    let models: Vec<_> = models.iter().map(|(id, tier)| DesiredModel { tier: *tier, ..world.model(id) }).collect();
    assert_eq!(world.operator.hold(1, models.clone()).await.status, StatusCode::OK);
    world.operator.report_until(|report| models.iter().all(|model| is_ready(report, model.id.as_str()))).await;
    world
}

async fn draw(world: &World, model: &str) -> StatusCode {
    world.gateway.generate(json!({"model": model, "steps": 2})).await.status
}

fn of<'a>(report: &'a Report, id: &str) -> &'a ModelReport {
    report.models.iter().find(|model| model.id.as_str() == id).unwrap()
}

fn at(report: &Report, places: &[(&str, Tier)]) -> bool {
    places.iter().all(|(id, tier)| of(report, id).tier == Some(*tier) && of(report, id).moving_to.is_none())
}

#[tokio::test]
async fn a_request_brings_a_model_up_and_the_least_recently_used_goes_down_step_by_step() {
    let models = ["art/a", "art/b", "art/c"];
    let world = holding(&ROOM_FOR_ONE, &models.map(|id| (id, Tier::Disk))).await;
    let resting = world.operator.report_until(|report| at(report, &models.map(|id| (id, Tier::Disk)))).await;
    assert_eq!((resting.memory.used_bytes, world.probe("/readyz").await.0), (0, StatusCode::OK));
    for model in models {
        assert_eq!(draw(&world, model).await, StatusCode::OK);
    }
    let places = [("art/a", Tier::Disk), ("art/b", Tier::Host), ("art/c", Tier::Device)];
    let report = world.operator.report_until(|report| at(report, &places)).await;
    assert_eq!((report.memory.used_bytes, report.memory.host.used_bytes), (1000, 1000));
    assert_eq!((report.memory.free_bytes, report.memory.host.free_bytes), (500, 500));
    assert_eq!((of(&report, "art/b").bytes.host, of(&report, "art/c").bytes.device), (1000, 1000));
    assert!(of(&report, "art/a").load_times.disk_to_device.is_some());
    assert_eq!(draw(&world, "art/b").await, StatusCode::OK);
    let report = world.operator.report_until(|report| at(report, &[("art/b", Tier::Device)])).await;
    assert!(of(&report, "art/b").load_times.host_to_device.is_some());
    let metrics = world.metrics().await;
    for line in [
        "easel_inference_load_seconds_count{from=\"disk\",to=\"device\"} 3",
        "easel_inference_load_seconds_count{from=\"host\",to=\"device\"} 1",
        "easel_inference_demotions_total{from=\"device\",to=\"host\"} 2",
        "easel_inference_demotions_total{from=\"host\",to=\"disk\"} 1",
        "easel_inference_resident_bytes{tier=\"device\"} 1000",
    ] {
        assert!(metrics.lines().any(|said| said == line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn a_model_that_is_kept_in_the_hosts_memory_is_there_before_it_is_asked_for() {
    let world = holding(&ROOM_FOR_ONE, &[("art/a", Tier::Host), ("art/b", Tier::Disk)]).await;
    let report = world.operator.report_until(|report| at(report, &[("art/a", Tier::Host)])).await;
    assert_eq!((report.memory.used_bytes, of(&report, "art/a").bytes.host), (0, 1000));
    for model in ["art/a", "art/b"] {
        assert_eq!(draw(&world, model).await, StatusCode::OK);
    }
    world.operator.report_until(|report| at(report, &[("art/a", Tier::Host), ("art/b", Tier::Device)])).await;
}

#[tokio::test]
async fn models_that_are_asked_for_at_the_same_time_take_turns_and_all_requests_are_drawn() {
    let models = ["art/a", "art/b", "art/c"];
    let world =
        holding(&[&ROOM_FOR_ONE[..], &["--fake-upload-ms=2"]].concat(), &models.map(|id| (id, Tier::Disk))).await;
    let requests = (0..45).map(|number| {
        let (gateway, model) = (world.gateway.clone(), models[number % 3]);
        tokio::spawn(async move { gateway.generate(json!({"model": model, "steps": 3})).await.status })
    });
    for request in requests.collect::<Vec<_>>() {
        assert_eq!(request.await.unwrap(), StatusCode::OK);
    }
    let report = world.operator.report_until(|report| report.waiting + report.running == 0).await;
    assert!(report.memory.used_bytes <= 1500 && report.memory.host.used_bytes <= 1500, "{:?}", report.memory);
}

#[tokio::test]
async fn what_is_kept_on_the_device_stays_and_a_model_that_does_not_fit_beside_it_is_refused_with_the_bytes() {
    let world = holding(&ROOM_FOR_ONE, &[("art/a", Tier::Device), ("art/b", Tier::Disk)]).await;
    assert_eq!(draw(&world, "art/b").await, StatusCode::NOT_FOUND);
    let refused = |report: &Report| matches!(of(report, "art/b").state, ModelState::Refused { .. });
    let report = world.operator.report_until(refused).await;
    let ModelState::Refused { message, .. } = &of(&report, "art/b").state else { unreachable!() };
    assert!(message.contains("needs 1000 bytes and 500 of 1500 are free"), "{message}");
    assert_eq!(draw(&world, "art/a").await, StatusCode::OK);
}

#[tokio::test]
async fn a_request_that_waits_for_its_model_is_counted_predicted_and_ends_with_its_deadline() {
    let flags = ["--fake-load-ms=700", "--fake-step-ms=1", "--activation-kib=0", "--memory-bytes=1500"];
    let world = holding(&flags, &[("art/a", Tier::Disk), ("art/b", Tier::Disk)]).await;
    for model in ["art/a", "art/b"] {
        assert_eq!(draw(&world, model).await, StatusCode::OK);
    }
    let mut request = generation(&json!({"model": "art/a", "steps": 2}));
    request.headers_mut().insert("x-easel-deadline-ms", "400".parse().unwrap());
    let gateway = world.gateway.clone();
    let request: tokio::task::JoinHandle<_> = tokio::spawn(async move { gateway.send(request).await });
    let awaited = |report: &Report| of(report, "art/a").awaited == 1;
    let report = world.operator.report_until(awaited).await;
    assert_eq!((report.waiting, report.running), (1, 0));
    assert!(report.left_ms >= 700, "{report:?}");
    let late = request.await.unwrap();
    assert_eq!((late.status, late.code()), (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"));
    let queued = world.operator.report_until(|report| report.waiting == 0).await;
    assert_eq!(of(&queued, "art/a").awaited, 0);
}

#[tokio::test]
async fn a_tier_that_does_not_exist_is_refused_by_name() {
    let world = World::start(&[]).await;
    let mut residency = json!({"generation": {"term": 1, "sequence": 1}, "models": [world.model("art/a")]});
    residency["models"][0]["tier"] = json!("gpu");
    let put = Request::put(easel_api::engine::RESIDENCY_PATH).body(residency.to_string().into()).unwrap();
    let refused = world.operator.send(put).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("unknown variant `gpu`"), "{}", refused.body);
}
