use super::*;

const FLEET: &str = "pools: [{replicas: 2}]\n";

fn refused(text: &str) -> String {
    format!("{:#}", parse(text).unwrap_err())
}

#[test]
fn what_is_absent_has_its_default() {
    let scenario = parse(FLEET).unwrap();
    let pool = &scenario.pools[0];
    assert_eq!((pool.name.as_str(), pool.min, pool.max, pool.capacity), ("pool-1", 2, 2, Capacity::OnDemand));
    assert_eq!((pool.speed, pool.resident_slots, pool.host_slots, pool.start), (1.0, 1, 0, Span::from_secs(60.0)));
    assert_eq!(pool.price, MicroUsdPerHour::new(0));
    assert_eq!(scenario.execution, Execution { seconds_at_30_steps: 9.0, first_image_share: 0.25 });
    assert_eq!(scenario.load_from_store, Span::from_secs(22.0));
    assert_eq!(scenario.load_from_host, Span::from_secs(3.0));
    assert_eq!(scenario.load_adapter, Span::from_secs(4.4));
    assert_eq!(scenario.slo, Slo { factor: 3.0, slack: Span::from_secs(5.0) });
    assert_eq!((scenario.arrivals.process, scenario.requests), (Process::Trace, usize::MAX));
}

#[test]
fn replicas_are_a_number_or_bounds_in_either_form() {
    let bounds = |pool: &str| {
        let scenario = parse(&format!("pools: [{pool}]")).unwrap();
        (scenario.pools[0].min, scenario.pools[0].max)
    };
    assert_eq!(bounds("{replicas: 3}"), (3, 3));
    assert_eq!(bounds("{replicas: {min: 1, max: 4}}"), (1, 4));
    assert_eq!(bounds("{replicas: {max: 4}}"), (0, 4));
    assert_eq!(bounds("{min: 1, max: 4}"), (1, 4));
    assert_eq!(bounds("{max: 4}"), (0, 4));
    assert!(refused("pools: [{replicas: 3, max: 4}]").contains("both given"));
    assert!(refused("pools: [{speed: 1}]").contains("pools[0].replicas is absent"));
    assert!(refused("pools: [{min: 1}]").contains("pools[0].max is absent"));
    assert!(refused("pools: [{replicas: many}]").starts_with("pools[0].replicas: \"many\" is neither"));
}

#[test]
fn a_price_is_read_to_the_millionth() {
    let price =
        |text: &str| parse(&format!("pools: [{{replicas: 1, usd_per_hour: {text}}}]")).map(|s| s.pools[0].price);
    assert_eq!(price("2.49").unwrap(), MicroUsdPerHour::new(2_490_000));
    assert_eq!(price("2").unwrap(), MicroUsdPerHour::new(2_000_000));
    assert_eq!(price("2.0").unwrap(), MicroUsdPerHour::new(2_000_000));
    assert_eq!(price("'0.000001'").unwrap(), MicroUsdPerHour::new(1));
    assert!(format!("{:#}", price("-1").unwrap_err()).starts_with("pools[0].usd_per_hour: '-1' is not a price"));
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_one_that_was_meant() {
    let text = refused("pools: [{replicas: 1, sped: 2}]");
    assert!(text.starts_with("pools[0].sped is not a key of a scenario; did you mean speed?"), "{text}");
    let text = refused(&format!("{FLEET}exection: {{}}"));
    assert!(text.starts_with("exection is not a key of a scenario; did you mean execution?"), "{text}");
    let text = refused(&format!("{FLEET}load: {{base_model: 22}}"));
    assert!(text.starts_with("load.base_model is not a key"), "{text}");
    assert!(text.contains("did you mean base_model_s?"), "{text}");
}

#[test]
fn what_is_not_simulated_and_what_makes_no_sense_is_refused_by_its_field() {
    assert!(refused(&format!("{FLEET}batch: 4")).starts_with("batch is 4; batches are not simulated"));
    assert!(refused("pools: [{replicas: 1, batch: 2}]").starts_with("pools[0].batch is 2;"));
    assert!(parse(&format!("{FLEET}batch: 1")).is_ok());
    assert!(refused(&format!("{FLEET}arrivals: {{process: burst}}")).starts_with("arrivals.process: unknown variant"));
    assert!(refused(&format!("{FLEET}load: {{lora_s: -1}}")).starts_with("load.lora_s is -1;"));
    assert!(refused("pools: [{replicas: 1, speed: fast}]").starts_with("pools[0].speed: invalid type"));
    assert!(refused("requests: 5").contains("missing field `pools`"));
    assert!(refused("pools: [").starts_with("it is not YAML:"));
    assert!(refused("").starts_with("it must hold keys"));
    assert!(refused("- a").starts_with("it must hold keys"));
}

#[test]
fn arrivals_with_a_share_and_no_process_are_poisson() {
    let arrivals = |text: &str| parse(&format!("{FLEET}arrivals: {text}")).unwrap().arrivals.process;
    assert_eq!(arrivals("{rho: 0.5}"), Process::Poisson);
    assert_eq!(arrivals("{process: trace, rho: 0.5}"), Process::Trace);
}

#[test]
fn the_docs_state_the_defaults_and_every_policy() {
    let docs = include_str!("../../../../../docs/simulate.md");
    let scenario = parse(FLEET).unwrap();
    let pool = &scenario.pools[0];
    for (key, default) in [
        ("pools[].speed", pool.speed),
        ("pools[].resident_slots", pool.resident_slots as f64),
        ("pools[].host_slots", pool.host_slots as f64),
        ("pools[].start_s", pool.start.secs()),
        ("execution.seconds_at_30_steps_1_image", scenario.execution.seconds_at_30_steps),
        ("execution.first_image_share", scenario.execution.first_image_share),
        ("load.base_model_s", scenario.load_from_store.secs()),
        ("load.lora_s", scenario.load_adapter.secs()),
        ("load.host_to_gpu_s", scenario.load_from_host.secs()),
        ("arrivals.rho", keys::RHO),
    ] {
        assert!(docs.contains(&format!("| `{key}` | {default} |")), "docs/simulate.md has not: {key} is {default}");
    }
    for (policy, _) in super::super::flags::known() {
        assert!(docs.contains(&format!("`{policy}`")), "docs/simulate.md has not: {policy}");
    }
}

#[test]
fn a_day_with_a_curve_and_faults_is_read_and_what_they_can_not_be_is_refused() {
    let day = "
pools: [{name: a, min: 0, max: 4, capacity: spot}]
arrivals: {process: curve, mean_rps: 0.2, points: [[0, 1], [3600, 5], [7200, 1]]}
faults: {reclaim_per_hour: 0.1, notice_s: 30}
";
    let scenario = parse(day).unwrap();
    scenario.check().unwrap();
    assert_eq!((scenario.arrivals.process, scenario.curve.points.len()), (Process::Curve, 3));
    assert_eq!((scenario.faults.rates.reclaim, scenario.faults.rates.notice), (0.1, Span::from_secs(30.0)));
    let refused = |from: &str, to: &str| {
        let read = parse(&day.replace(from, to));
        format!("{:#}", read.and_then(|scenario| Ok(scenario.check()?)).unwrap_err())
    };
    assert!(refused("0.1", "-1").starts_with("faults.reclaim_per_hour is -1"));
    assert!(refused("notice_s", "notice").contains("did you mean notice_s?"));
    assert!(refused("mean_rps: 0.2, ", "").contains("arrivals.mean_rps"));
    assert!(refused("[3600, 5]", "[0, 5]").contains("arrivals.points"));
}
