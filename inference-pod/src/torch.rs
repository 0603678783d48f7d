//! Pipelines that compute with libtorch: devices, weights, layers, samplers, the families of checkpoints, and two
//! networks that work on their pictures.
//! Knows checkpoints and tensors; does not know HTTP, queues or who asks.

pub mod clip;
pub mod config;
pub mod controlnet;
pub mod cuda;
pub mod device;
pub mod diffusion;
pub mod embeddings;
mod families;
pub mod layers;
pub mod lora;
pub mod mmdit;
pub mod resnet;
pub mod rms_norm;
pub mod sampler;
pub mod t5;
pub mod tokenizer;
pub mod transformer_flux;
pub mod transformer_sd3;
pub mod u2net;
pub mod unet;
pub mod upscale;
pub mod vae;
pub mod weights;

pub use device::{DeviceChoice, DeviceError, Dtype, Placement, init, set_threads};
pub use diffusion::{Diffusion, TorchLoader};
