//! Reads an adapter's file: every key understood, every shape that of the layer, every number finite.
//! Knows safetensors and layers; computes nothing.

use std::collections::BTreeMap;

use easel_checkpoints::Files;
use tch::{Kind, Tensor};

use super::keys::{Reader, Role};
use super::layers::{Layers, Shape, Site};
use super::metadata::Alphas;
use super::{Adapter, LowRank};
use crate::pipeline::LoadError;
use crate::torch::device::Placement;
use crate::torch::weights::{Weights, WeightsError};

const PART: &str = "the adapter";
/// Of an error that lists keys.
const LISTED: usize = 3;

/// What the file has for one layer: the keys of A, B and alpha.
#[derive(Default)]
struct Found {
    down: Option<String>,
    up: Option<String>,
    alpha: Option<String>,
}

/// One layer's tensors, whose values are read later.
struct Planned {
    path: String,
    site: Site,
    down: Tensor,
    up: Tensor,
    rank: i64,
    alpha: Option<Tensor>,
}

impl Adapter {
    /// Reads the only safetensors file of a folder, for a model of these layers.
    pub fn load(files: &Files, layers: &Layers, placement: Placement) -> Result<Self, LoadError> {
        let name = only_file(files)?;
        let weights = Weights::of_file(files, &name, placement).map_err(|error| error.of(PART))?;
        let refused = |why: String| LoadError::Unsupported(format!("{name}: {why}"));
        let alphas = Alphas::read(weights.metadata()).map_err(refused)?;
        let found = sort(&weights, &Reader::new(layers)).map_err(refused)?;
        let mut planned = Vec::new();
        for (path, keys) in found {
            let Some((site, shape)) = layers.get(&path) else { continue };
            planned.push(plan(&weights, path, site, shape, keys).map_err(|error| match error {
                Unfit::Said(why) => refused(why),
                Unfit::Weights(error) => error.of(PART),
            })?);
        }
        weights.finish(&[]).map_err(|error| error.of(PART))?;
        let mut changes = BTreeMap::new();
        for layer in planned {
            let (site, low_rank) = settle(layer, &alphas).map_err(refused)?;
            changes.insert(site, low_rank);
        }
        Ok(Self { changes, bytes: weights.bytes() })
    }
}

fn only_file(files: &Files) -> Result<String, LoadError> {
    let names: Vec<&str> = files.names("").filter(|name| name.ends_with(".safetensors")).collect();
    if let [only] = names[..] {
        return Ok(only.to_owned());
    }
    let (folder, count) = (files.path(""), names.len());
    let text = format!("{} has {count} safetensors files; an adapter is a folder with one", folder.display());
    Err(LoadError::Unsupported(text))
}

/// All keys by the layer that they are about.
fn sort(weights: &Weights, reader: &Reader) -> Result<BTreeMap<String, Found>, String> {
    let (mut found, mut unknown) = (BTreeMap::<String, Found>::new(), Vec::new());
    for key in weights.keys() {
        match reader.read(key) {
            Err(why) => unknown.push(why),
            Ok((path, role)) => {
                let layer = found.entry(path).or_default();
                let place = match role {
                    Role::Down => &mut layer.down,
                    Role::Up => &mut layer.up,
                    Role::Alpha => &mut layer.alpha,
                };
                if let Some(other) = place.replace(key.to_owned()) {
                    return Err(format!("'{other}' and '{key}' are for the same layer"));
                }
            }
        }
    }
    if !unknown.is_empty() {
        let more = unknown.len().saturating_sub(LISTED);
        let listed = unknown.iter().take(LISTED).cloned().collect::<Vec<_>>().join("; ");
        return Err(if more > 0 { format!("{listed}; and {more} keys more") } else { listed });
    }
    if found.is_empty() { Err("it changes no layer".into()) } else { Ok(found) }
}

enum Unfit {
    Said(String),
    Weights(WeightsError),
}

fn plan(weights: &Weights, path: String, site: Site, shape: Shape, keys: Found) -> Result<Planned, Unfit> {
    let Found { down, up, alpha } = keys;
    let half = |key: Option<String>, what: &str| {
        key.ok_or_else(|| Unfit::Said(format!("the layer '{path}' has no {what}; half of a change is none")))
    };
    let (down, up) = (half(down, "lora_A (lora_down)")?, half(up, "lora_B (lora_up)")?);
    let rank = weights.shape(&down).and_then(|shape| i64::try_from(*shape.first()?).ok()).unwrap_or_default();
    if rank == 0 {
        return Err(Unfit::Said(format!("'{down}' has the rank 0")));
    }
    let root = weights.root();
    let (down_shape, up_shape) = shape.low_rank(rank);
    let take = |key: &str, shape: &[i64]| root.tensor(key, shape).map_err(Unfit::Weights);
    let alpha = match &alpha {
        Some(key) => {
            let shape: &[i64] = if weights.shape(key).is_some_and(<[usize]>::is_empty) { &[] } else { &[1] };
            Some(take(key, shape)?)
        }
        None => None,
    };
    Ok(Planned { down: take(&down, &down_shape)?, up: take(&up, &up_shape)?, path, site, rank, alpha })
}

/// Once the values are there. An alpha in the file goes before the metadata's, and the rank stands for none.
fn settle(layer: Planned, alphas: &Alphas) -> Result<(Site, LowRank), String> {
    let Planned { path, site, down, up, rank, alpha } = layer;
    let is_finite = |tensor: &Tensor| tensor.isfinite().all().int64_value(&[]) == 1;
    let (part, name) = path.split_once('.').unwrap_or_default();
    let alpha = alpha.map(|alpha| alpha.to_kind(Kind::Double).double_value(&[0; 1][..alpha.dim()]));
    let alpha = alpha.or_else(|| alphas.of(part, name)).unwrap_or(rank as f64);
    if !is_finite(&down) || !is_finite(&up) || !alpha.is_finite() {
        return Err(format!("the layer '{path}' has values that are not numbers"));
    }
    Ok((site, LowRank { down, up, scale: alpha / rank as f64 }))
}
