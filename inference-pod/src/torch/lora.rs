//! Adapters (LoRA): low-rank changes of a model's layers, for some rows of a batch and without touching its weights.
//! Knows layers by their paths and numbers; does not know which request wears what, or where a file came from.
//!
//! A layer that computes `W x` computes `W x + Σ w·s·B(A x)` for the rows that wear adapters, each with its weight `w` and
//! its scale `s` (alpha by rank). Rows without adapters are left as they are, bit for bit.

mod file;
mod keys;
mod kohya;
mod layers;
mod metadata;
mod rows;

use std::collections::BTreeMap;

use tch::Tensor;

pub use self::layers::{Layers, Shape};
pub(super) use self::layers::{Registry, Site};
pub(super) use self::rows::{Worn, wearing};

/// An adapter in the memory of one device, fitted to the layers of one loaded checkpoint.
#[derive(Debug)]
pub struct Adapter {
    changes: BTreeMap<Site, LowRank>,
    bytes: u64,
}

/// The change of one layer.
#[derive(Debug)]
pub(super) struct LowRank {
    /// A: `[rank, input]`, or `[rank, input, kernel, kernel]` of a convolution.
    pub(super) down: Tensor,
    /// B: `[output, rank]`, or `[output, rank, 1, 1]`.
    pub(super) up: Tensor,
    /// Alpha by rank.
    scale: f64,
}

impl Adapter {
    /// Of its tensors, in the device's dtype.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Layers that it changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Never: a file without a change is refused.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl LowRank {
    fn shallow_clone(&self) -> Self {
        Self { down: self.down.shallow_clone(), up: self.up.shallow_clone(), scale: self.scale }
    }
}
