//! What the transformers of Stable Diffusion 3 and FLUX share, in which pixels and text attend to each other.
//! Knows single layers; does not know how a model puts them together.

mod feed_forward;
mod norm;
mod projections;
mod time_text;

pub use self::feed_forward::{FeedForward, fed_forward};
pub use self::norm::{AdaLayerNormContinuous, AdaLayerNormZero, AdaLayerNormZeroSingle, Modulation, modulated};
pub use self::projections::Projections;
pub use self::time_text::TimeTextEmbed;
