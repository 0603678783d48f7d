//! Wire types that the pod, the gateway, the plugin and the tests share.
//! Knows JSON and the rules that a request alone can break; knows no server, no tensor and no Kubernetes.

pub mod demand;
pub mod engine;
pub mod error;
pub mod frames;
pub mod identity;
pub mod images;
pub mod precedence;
mod size;

pub use precedence::{Priority, Tenant};
pub use size::{ImageSize, SizeError};
