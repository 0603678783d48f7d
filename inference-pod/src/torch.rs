//! Pipelines that compute with libtorch: devices, weights, layers, samplers, Stable Diffusion, and two
//! networks that work on its pictures.
//! Knows checkpoints and tensors; does not know HTTP, queues or who asks.

pub mod clip;
pub mod config;
pub mod device;
pub mod layers;
pub mod resnet;
pub mod sampler;
pub mod stable_diffusion;
pub mod tokenizer;
pub mod u2net;
pub mod unet;
pub mod upscale;
pub mod vae;
pub mod weights;

pub use device::{DeviceChoice, DeviceError, Dtype, Placement, init, set_threads};
pub use stable_diffusion::{StableDiffusion, TorchLoader};
