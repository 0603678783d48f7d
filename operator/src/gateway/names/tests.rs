use super::*;
use easel_api::ImageSize;
use easel_api::engine::{ModelDefaults, ModelLimits};
use easel_api::images::SamplerKind;
use easel_planner::RouteId;
use proptest::prelude::*;

fn served(namespace: &str, name: &str) -> (ModelId, ServedModel) {
    let size = ImageSize::new(64, 64).unwrap();
    let model = ServedModel {
        namespace: namespace.into(),
        name: name.into(),
        created: 1,
        digest: "sha256:0".into(),
        defaults: ModelDefaults { steps: 4, guidance_scale: 1.0, size, sampler: SamplerKind::Ddim },
        limits: ModelLimits { max_steps: 8, max_pixels: 4096, max_images: 1 },
        adapters: Vec::new(),
        tasks: Vec::new(),
        parked: false,
        terms: Terms::default(),
    };
    (ModelId::new(format!("{namespace}/{name}")), model)
}

fn table(models: &[(&str, &str)]) -> RoutingTable {
    let models = models.iter().map(|(namespace, name)| served(namespace, name)).collect();
    RoutingTable { complete: true, models, ..RoutingTable::default() }
}

fn found(table: &RoutingTable, wanted: Option<&str>) -> Result<String, String> {
    let code = |error: ApiError| error.code.unwrap_or_default();
    resolve(table, wanted, 0).map(|target| target.id.to_string()).map_err(code)
}

#[test]
fn a_name_without_namespace_is_enough_only_where_one_namespace_has_it() {
    let table = table(&[("a", "sdxl"), ("b", "sdxl"), ("b", "flux")]);
    assert_eq!(found(&table, Some("flux")), Ok("b/flux".into()));
    assert_eq!(found(&table, Some("a/sdxl")), Ok("a/sdxl".into()));
    assert_eq!(found(&table, Some("sdxl")), Err("ambiguous_model".into()));
    assert_eq!(found(&table, Some("a/flux")), Err("model_not_found".into()));
    let message = resolve(&table, Some("sdxl"), 0).unwrap_err().message;
    assert!(message.contains("a/sdxl, b/sdxl"), "{message}");
}

#[test]
fn a_request_without_model_gets_the_only_one() {
    assert_eq!(found(&table(&[("a", "m")]), None), Ok("a/m".into()));
    assert_eq!(found(&table(&[]), None), Err("missing_model".into()));
    let message = resolve(&table(&[("a", "m"), ("b", "m"), ("b", "n")]), None, 0).unwrap_err().message;
    assert!(message.contains("a/m, b/m, n"), "{message}");
}

/// The table with a route of namespace `a` and this name.
fn routed(mut table: RoutingTable, name: &str, backends: &[&str]) -> RoutingTable {
    let route = ServedRoute {
        namespace: "a".into(),
        name: name.into(),
        created: 2,
        backends: backends.iter().map(|id| Backend { model: ModelId::new(*id), tier: 1, weight: 1 }).collect(),
        terms: Terms { default_class: Some("live".into()), ..Terms::default() },
    };
    table.routes.insert(RouteId::new("a/r"), route);
    table
}

#[test]
fn a_route_leads_to_a_backend_that_is_not_parked_on_the_routes_terms() {
    let mut table = routed(table(&[("a", "best"), ("a", "low")]), "paint.v1", &["a/best", "a/low"]);
    assert_eq!(found(&table, Some("paint.v1")), Ok("a/best".into()));
    assert_eq!(resolve(&table, Some("a/paint.v1"), 0).unwrap().terms.default_class.as_deref(), Some("live"));
    assert_eq!(resolve(&table, Some("best"), 0).unwrap().terms.default_class, None);
    table.models.get_mut(&ModelId::new("a/best")).unwrap().parked = true;
    assert_eq!(found(&table, Some("paint.v1")), Ok("a/low".into()));
    table.models.get_mut(&ModelId::new("a/low")).unwrap().parked = true;
    assert_eq!(found(&table, Some("paint.v1")), Ok("a/best".into()), "and is answered as a parked model is");
}

#[test]
fn requests_are_shared_by_weight_in_the_highest_tier_that_is_awake() {
    let mut table = routed(table(&[("a", "x"), ("a", "y"), ("a", "low")]), "paint", &["a/x", "a/y", "a/low"]);
    let route = table.routes.values_mut().next().unwrap();
    for (backend, (tier, weight)) in route.backends.iter_mut().zip([(2, 3), (2, 1), (1, 100)]) {
        (backend.tier, backend.weight) = (tier, weight);
    }
    let shares = |table: &RoutingTable| {
        let hits = (0..400_u32).map(|n| resolve(table, Some("paint"), n * (u32::MAX / 400)).unwrap().id.to_string());
        hits.fold(BTreeMap::new(), |mut shares: BTreeMap<String, u32>, id| {
            *shares.entry(id).or_default() += 1;
            shares
        })
    };
    let found = shares(&table);
    assert!((299..=301).contains(&found["a/x"]) && found["a/x"] + found["a/y"] == 400, "{found:?}");
    for id in ["a/x", "a/y"] {
        table.models.get_mut(&ModelId::new(id)).unwrap().parked = true;
    }
    assert_eq!(shares(&table), BTreeMap::from([("a/low".to_owned(), 400)]));
}

#[test]
fn a_route_stands_before_the_model_of_its_name_and_is_listed_once() {
    let table = routed(table(&[("a", "sdxl"), ("a", "turbo"), ("b", "sdxl")]), "sdxl", &["a/turbo"]);
    assert_eq!(found(&table, Some("a/sdxl")), Ok("a/turbo".into()));
    assert_eq!(found(&table, Some("b/sdxl")), Ok("b/sdxl".into()));
    assert_eq!(found(&table, Some("sdxl")), Err("ambiguous_model".into()));
    let listed: Vec<String> = all(&table).data.into_iter().map(|model| model.id).collect();
    assert_eq!(listed, ["a/sdxl", "turbo", "b/sdxl"]);
    assert_eq!(one(&table, "a/sdxl").unwrap().created, 2);
}

#[test]
fn a_route_without_backends_says_so() {
    assert_eq!(found(&routed(table(&[]), "paint", &[]), Some("paint")), Err("no_backend".into()));
}

#[test]
fn nothing_is_called_unknown_before_the_table_is_complete() {
    let table = RoutingTable { complete: false, ..table(&[]) };
    assert_eq!(found(&table, Some("m")), Err("starting".into()));
}

proptest! {
    /// Few letters, so that names collide across namespaces.
    #[test]
    fn every_model_is_reached_by_its_listed_and_its_full_name_and_by_no_others(
        pairs in proptest::collection::btree_set(("[ab]{1,2}", "[mn]{1,2}"), 0..12),
        stranger in "[abmn/]{0,6}",
    ) {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(namespace, name)| (&**namespace, &**name)).collect();
        let table = table(&pairs);
        let listed = all(&table).data;
        prop_assert_eq!(listed.len(), pairs.len());
        for ((id, model), listed) in table.models.iter().zip(&listed) {
            prop_assert_eq!(found(&table, Some(&listed.id)), Ok(id.to_string()));
            prop_assert_eq!(found(&table, Some(&full_name(model))), Ok(id.to_string()));
            prop_assert_eq!(&one(&table, id.as_str()).unwrap(), listed);
        }
        let expected: Vec<_> = pairs.iter().filter(|(namespace, name)| {
            stranger == *name || stranger == format!("{namespace}/{name}")
        }).collect();
        prop_assert_eq!(found(&table, Some(&stranger)).is_ok(), expected.len() == 1);
    }

    #[test]
    fn no_name_makes_the_lookup_panic(wanted in ".{0,200}") {
        prop_assert!(resolve(&table(&[("a", "m")]), Some(&wanted), 0).is_err() || wanted == "m" || wanted == "a/m");
    }
}
