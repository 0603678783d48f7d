//! A checkpoint's way from a store to a folder whose bytes are proved: push, pull, cache, digest, signature.
//! Knows stores and files; does not know tensors, Kubernetes or the engine.

pub mod artifact;
mod cache;
pub mod digest;
mod fetch;
mod files;
mod layout;
pub mod push;
mod refusal;
pub mod signature;
mod store;
pub mod verify;

pub use cache::Cache;
pub use fetch::{Effort, Fetcher, Held, Progress, Receipt, Settings, Stage};
pub use files::{Files, OpenFile, Watch};
pub use refusal::{Refusal, Stopped};
pub use store::Timeouts;
