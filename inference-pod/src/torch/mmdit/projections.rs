//! Queries, keys and values of pixels or of text.
//! Transcribed from diffusers 0.42.1, `models/attention_processor.py` and `models/transformers/transformer_flux.py`.

use tch::Tensor;

use crate::torch::layers::Linear;
use crate::torch::rms_norm::RmsNorm;
use crate::torch::weights::{Section, WeightsError};

const EPS: f64 = 1e-6;

#[derive(Debug)]
pub struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
    heads: i64,
}

impl Projections {
    /// `norms` names those of queries and keys, where there are any.
    pub fn load(
        section: &Section,
        [query, key, value]: [&str; 3],
        norms: Option<[&str; 2]>,
        heads: i64,
        dim: i64,
    ) -> Result<Self, WeightsError> {
        let linear = |name: &str| Linear::load(&section.at(name), dim, dim);
        let norm = |name: &str| RmsNorm::load(&section.at(name), dim / heads, EPS);
        Ok(Self {
            query: linear(query)?,
            key: linear(key)?,
            value: linear(value)?,
            norms: norms.map(|[query, key]| Ok((norm(query)?, norm(key)?))).transpose()?,
            heads,
        })
    }

    /// `[batch, length, dim]` → query, key and value of the same shape
    pub fn forward(&self, x: &Tensor) -> [Tensor; 3] {
        let (mut query, mut key) = (self.query.forward(x), self.key.forward(x));
        if let Some((norm_query, norm_key)) = &self.norms {
            let by_head = |norm: &RmsNorm, x: &Tensor| {
                let heads = x.unflatten(-1, [self.heads, -1]); // [batch, length, heads, dim / heads]
                norm.forward(&heads).flatten(2, 3) // [batch, length, dim]
            };
            (query, key) = (by_head(norm_query, &query), by_head(norm_key, &key));
        }
        [query, key, self.value.forward(x)]
    }
}
