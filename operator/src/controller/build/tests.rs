use serde_json::json;

use super::*;
use crate::names::LABEL_TEMPLATE;
use crate::testing::{pool, with};

fn settings() -> Settings {
    Settings { namespace: "easel-system".into(), image: "easel-inference:1".into(), pull_policy: "IfNotPresent".into() }
}

fn shared(spec: serde_json::Value) -> Wanted {
    let shape = Shape::try_from(&with(pool("cpu"), spec)).unwrap();
    let workload = Workload::Shared { pool: "cpu".into(), namespace: "easel-system".into() };
    let owner = OwnerReference { kind: "GpuPool".into(), name: "cpu".into(), ..OwnerReference::default() };
    Wanted { workload, owner, shape, replicas: 2, volume: None }
}

fn dedicated(claim: &str) -> Wanted {
    let workload = Workload::Dedicated { model: "m".into(), namespace: "art".into() };
    let gpu = json!({"devices": "nvidia.com/gpu", "memory": "80Gi", "cpu": "7500m", "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}], "image": "easel-inference:cuda"});
    Wanted { workload, volume: Some(Volume::Claim(claim.into())), ..shared(gpu) }
}

fn template(wanted: &Wanted) -> String {
    let spec = build(wanted, &settings()).deployment.spec;
    spec.template.metadata.unwrap().labels.unwrap()[LABEL_TEMPLATE].clone()
}

fn yaml(value: &impl serde::Serialize) -> String {
    serde_yaml::to_string(value).unwrap()
}

#[test]
fn a_shared_deployment_is_as_written_down() {
    insta::assert_snapshot!("shared_deployment", yaml(&build(&shared(json!({})), &settings()).deployment));
}

#[test]
fn a_dedicated_deployment_on_gpus_with_a_claim_is_as_written_down() {
    insta::assert_snapshot!("dedicated_deployment", yaml(&build(&dedicated("weights"), &settings()).deployment));
}

#[test]
fn budget_and_policy_are_as_written_down() {
    let Children { deployment: _, disruption, network } = build(&dedicated("weights"), &settings());
    insta::assert_snapshot!("disruption_and_network", format!("{}---\n{}", yaml(&disruption), yaml(&network)));
}

#[test]
fn the_templates_digest_changes_with_the_template_and_with_nothing_else() {
    let same = template(&shared(json!({})));
    assert_eq!(template(&Wanted { replicas: 7, ..shared(json!({})) }), same);
    assert_eq!(template(&shared(json!({"price": {"usdPerHour": "9"}, "limits": {"replicas": 1}}))), same);
    for spec in [json!({"memory": "3Gi"}), json!({"cpu": "2"}), json!({"image": "other"}), json!({"precision": "bf16"})]
    {
        assert_ne!(template(&shared(spec.clone())), same, "{spec}");
    }
}

#[test]
fn every_label_of_the_selector_is_on_the_pods() {
    for wanted in [shared(json!({})), dedicated("c")] {
        let spec = build(&wanted, &settings()).deployment.spec;
        let labels = spec.template.metadata.unwrap().labels.unwrap();
        assert!(spec.selector.match_labels.unwrap().iter().all(|(key, value)| labels.get(key) == Some(value)));
    }
}
