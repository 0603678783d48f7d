//! One vector for each row of a batch: its time, what its prompt says as a whole, and its guidance.
//! Transcribed from diffusers 0.42.1, `models/embeddings.py`; fields are named as checkpoint keys.

use tch::Tensor;

use crate::torch::embeddings::{TimestepEmbedding, Timesteps};
use crate::torch::weights::{Section, WeightsError};

/// Of the sinusoid of a number; diffusers fixes it.
const TIME_CHANNELS: i64 = 256;

/// `CombinedTimestepTextProjEmbeddings` and, with guidance, `CombinedTimestepGuidanceTextProjEmbeddings`.
#[derive(Debug)]
#[allow(clippy::struct_field_names, reason = "as the checkpoint has them")]
pub struct TimeTextEmbed {
    timestep_embedder: TimestepEmbedding,
    guidance_embedder: Option<TimestepEmbedding>,
    text_embedder: TimestepEmbedding,
}

impl TimeTextEmbed {
    pub fn load(section: &Section, pooled: i64, dim: i64, guidance: bool) -> Result<Self, WeightsError> {
        let number = |name: &str| TimestepEmbedding::load(&section.at(name), TIME_CHANNELS, dim);
        Ok(Self {
            timestep_embedder: number("timestep_embedder")?,
            guidance_embedder: guidance.then(|| number("guidance_embedder")).transpose()?,
            text_embedder: TimestepEmbedding::load(&section.at("text_embedder"), pooled, dim)?,
        })
    }

    /// `times` `[batch]` of 0..1000, `guidance` `[batch]` a thousandfold, read where the model has an input for it, and
    /// `pooled` `[batch, pooled]` → `[batch, dim]`
    pub fn forward(&self, times: &Tensor, guidance: Option<&Tensor>, pooled: &Tensor) -> Tensor {
        let proj = Timesteps { channels: TIME_CHANNELS, flip_sin_to_cos: true, freq_shift: 0.0 };
        let embed =
            |embedder: &TimestepEmbedding, of: &Tensor| embedder.forward(&proj.forward(of).to_kind(pooled.kind()));
        let mut emb = embed(&self.timestep_embedder, times);
        if let (Some(embedder), Some(guidance)) = (&self.guidance_embedder, guidance) {
            emb += embed(embedder, guidance);
        }
        emb + self.text_embedder.forward(pooled)
    }
}
