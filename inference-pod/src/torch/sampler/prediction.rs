//! What a model's output means, and the picture without noise that it implies.
//! Formulas of diffusers 0.42.1, `schedulers/scheduling_ddim.py` and `schedulers/scheduling_euler_discrete.py`.

use serde::Deserialize;
use tch::Tensor;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    Epsilon,
    VPrediction,
    /// The picture without noise.
    Sample,
}

impl Prediction {
    /// Where the latents are `alpha` × picture + `sigma` × noise, and the squares of both add up to 1.
    pub(super) fn picture(self, output: &Tensor, latents: &Tensor, alpha: f32, sigma: f32) -> Tensor {
        let (alpha, sigma) = (f64::from(alpha), f64::from(sigma));
        match self {
            Self::Epsilon => (latents - output * sigma) / alpha,
            Self::VPrediction => latents * alpha - output * sigma,
            Self::Sample => output.shallow_clone(),
        }
    }

    /// Where the latents are picture + `sigma` × noise.
    pub(super) fn picture_beside(self, output: &Tensor, latents: &Tensor, sigma: f32) -> Tensor {
        let variance = sigma * sigma + 1.0;
        match self {
            Self::Epsilon => latents - output * f64::from(sigma),
            Self::VPrediction => output * f64::from(-sigma / variance.sqrt()) + latents / f64::from(variance),
            Self::Sample => output.shallow_clone(),
        }
    }
}

/// `clip_sample`: keeps the picture within its bound, if there is one.
pub(super) fn clipped(picture: Tensor, bound: Option<f32>) -> Tensor {
    match bound.map(f64::from) {
        Some(bound) => picture.clamp(-bound, bound),
        None => picture,
    }
}
