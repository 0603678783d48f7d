//! The layers of a loaded model that an adapter can change, by the paths that diffusers gives their modules.
//! Knows paths and shapes; holds no tensor.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// A layer's number. No two layers of this process have the same, whatever model they are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::torch) struct Site(u64);

static NEXT: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Linear { input: i64, output: i64 },
    Convolution { input: i64, output: i64, kernel: i64 },
}

impl Shape {
    /// Of A and B.
    pub(super) fn low_rank(self, rank: i64) -> (Vec<i64>, Vec<i64>) {
        match self {
            Self::Linear { input, output } => (vec![rank, input], vec![output, rank]),
            Self::Convolution { input, output, kernel } => {
                (vec![rank, input, kernel, kernel], vec![output, rank, 1, 1])
            }
        }
    }
}

/// The layers of one part of a checkpoint, or of several together.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// `unet.down_blocks.0.resnets.0.conv1`
    by_path: BTreeMap<String, (Site, Shape)>,
}

impl Layers {
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.by_path.extend(other.by_path.iter().map(|(path, layer)| (path.clone(), *layer)));
        self
    }

    pub(super) fn get(&self, path: &str) -> Option<(Site, Shape)> {
        self.by_path.get(path).copied()
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.by_path.keys().map(String::as_str)
    }

    /// `unet`, `text_encoder`
    pub(super) fn has_part(&self, part: &str) -> bool {
        self.paths().any(|path| path.split_once('.').is_some_and(|(first, _)| first == part))
    }
}

/// Fills as a model is built.
#[derive(Debug, Default)]
pub(in crate::torch) struct Registry(RefCell<Layers>);

impl Registry {
    /// `path` without the part. transformers 5 has no `text_model.` where earlier releases have it, so it is left out.
    pub(in crate::torch) fn add(&self, part: &str, path: &str, shape: Shape) -> Site {
        let site = Site(NEXT.fetch_add(1, Ordering::Relaxed));
        let path = path.strip_prefix(TEXT_MODEL).unwrap_or(path);
        self.0.borrow_mut().by_path.insert(format!("{part}.{path}"), (site, shape));
        site
    }

    pub(in crate::torch) fn layers(&self) -> Layers {
        self.0.borrow().clone()
    }
}

pub(super) const TEXT_MODEL: &str = "text_model.";
