//! The manifests of the documentation are what they say: every field is known, no rule refuses them, the planner reads them.
#![allow(clippy::unwrap_used)] // the lint spares only functions that are tests themselves

use easel_crds::{GpuPool, ImageModel, ImageRoute};
use kube::CustomResourceExt;
use kube::core::cel::Validator;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/api.md");

/// Every manifest on the page.
fn manifests() -> Vec<Value> {
    let blocks = PAGE.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| serde_yaml::from_str(block).unwrap()).collect()
}

fn of_kind(kind: &str) -> Value {
    let found: Vec<Value> = manifests().into_iter().filter(|manifest| manifest["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "one manifest of {kind}");
    found[0].clone()
}

/// The object, once all of its fields were found in it again and no rule has refused it.
fn read<K: CustomResourceExt + DeserializeOwned + Serialize>(kind: &str) -> K {
    let manifest = of_kind(kind);
    let object: K = serde_json::from_value(manifest.clone()).unwrap();
    keeps(&manifest, &serde_json::to_value(&object).unwrap(), kind);
    let schema = K::crd().spec.versions.remove(0).schema.and_then(|schema| schema.open_api_v3_schema).unwrap();
    let refused = Validator::new().validate(&serde_json::to_value(schema).unwrap(), &manifest, None);
    assert!(refused.is_ok(), "{kind}: {refused:?}");
    object
}

/// Fields that a type does not know are dropped when it is read.
fn keeps(written: &Value, kept: &Value, path: &str) {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => {
            for (key, value) in written {
                let found = kept.get(key).unwrap_or_else(|| panic!("{path}.{key} is no field"));
                keeps(value, found, &format!("{path}.{key}"));
            }
        }
        (Value::Array(written), Value::Array(kept)) => {
            assert_eq!(written.len(), kept.len(), "{path}");
            written.iter().zip(kept).for_each(|(written, kept)| keeps(written, kept, path));
        }
        _ => {}
    }
}

/// Names of all fields of a spec, as its definition has them.
fn fields<K: CustomResourceExt>() -> Vec<String> {
    let schema = K::crd().spec.versions.remove(0).schema.and_then(|schema| schema.open_api_v3_schema).unwrap();
    schema.properties.unwrap()["spec"].properties.clone().unwrap().into_keys().collect()
}

#[test]
fn every_manifest_is_valid_and_has_only_fields_that_exist() {
    read::<GpuPool>("GpuPool");
    read::<ImageModel>("ImageModel");
    read::<ImageRoute>("ImageRoute");
    assert_eq!(manifests().len(), 3);
}

#[test]
fn every_manifest_shows_every_field_of_its_spec() {
    let missing = |kind: &str, fields: Vec<String>| -> Vec<String> {
        let spec = of_kind(kind)["spec"].clone();
        fields.into_iter().filter(|field| spec.get(field).is_none()).collect()
    };
    assert_eq!(missing("GpuPool", fields::<GpuPool>()), ["devices"], "it has a device class instead");
    assert!(missing("ImageModel", fields::<ImageModel>()).is_empty());
    assert!(missing("ImageRoute", fields::<ImageRoute>()).is_empty());
}

#[cfg(feature = "planner")]
#[test]
fn the_planner_reads_every_manifest() {
    use easel_planner::snapshot::{Model, Pool};
    use easel_planner::traffic::Route;

    let pool = Pool::try_from(&read::<GpuPool>("GpuPool")).unwrap();
    assert_eq!((pool.warm_spares, pool.host_cache.0), (1, 64 << 30));
    let model = Model::try_from(&read::<ImageModel>("ImageModel")).unwrap();
    assert!(model.max_per_image.is_some() && model.max_per_hour.is_some());
    let route = Route::try_from(&read::<ImageRoute>("ImageRoute")).unwrap();
    assert_eq!((route.model.as_str(), route.classes.len(), route.tenants.len()), ("paint-1", 3, 2));
}
